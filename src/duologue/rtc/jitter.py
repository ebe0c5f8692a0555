"""Put received packets in order, without sockets, tasks or a clock (sans-IO).

A jitter buffer for a loudspeaker delays every packet by as much as the latest one may be late,
because a loudspeaker must have the next sample at a fixed time. A speech model has no such time: it
needs audio in order and without gaps, as early as possible (contract C11). So this buffer delays
nothing while packets are in order. It holds packets only while one before them is missing, and
gives up the missing one at a deadline, 40 ms after the first packet behind the gap has arrived::

    time in ms    0    20    40    60    80    100              120
    arrives       7     8          10    11     12               13
    released      7     8           -     -     9* 10 11 12      13
                                    |<- 40 ms ->|
                           9 is missing        deadline: 9* is recovered from 10

Three things end a gap:

- The missing packet arrives: it and all consecutive packets behind it are released.
- The deadline passes (`poll`): the gap is filled, and the held packets are released. The packet
  right before the next one is recovered from that one's forward error correction (`Fec`), up to 5
  earlier ones are concealed (`Conceal`), and the rest becomes silence, at most 1 s.
- 51 packets wait: the gap is filled at once, so no packet is ever dropped for lack of room.

Everything is decided by sequence numbers, which wrap at 16 bits; timestamps only say how long a gap
or a pause is. A pause without missing numbers (DTX) becomes silence of its length. A packet up to
100 numbers back is late or a duplicate. One far outside is a stray, unless the next packet follows
it: then the sender has jumped, and the stream restarts there (RFC 3550, appendix A.1).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from duologue.rtc.opus import RTP_RATE, packet_samples

GAP_DEADLINE = 0.040
"""Seconds that packets wait for a missing packet before them."""

MAX_HELD = 50
"""Most packets that wait; when the buffer is full, the gap is given up, so none is dropped."""

MAX_DROPOUT = 3000
MAX_MISORDER = 100
"""Steps in sequence numbers that belong to the same stream (RFC 3550, appendix A.1)."""

MAX_CONCEALED = 5
"""Most packets in a row that are concealed; the rest of a longer gap becomes silence."""

MAX_SILENCE = RTP_RATE
"""Longest silence inserted for one gap, in 48 kHz samples: 1 s."""

MAX_PAUSE = 60 * RTP_RATE
"""Longest step in timestamps that counts as a pause, in 48 kHz samples; more is a new time base."""

_HISTORY = (1 << 128) - 1


@dataclass(frozen=True, slots=True)
class Packet:
    """Decode ``payload``; ``timestamp`` is in 48 kHz samples."""

    sequence: int
    timestamp: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Fec:
    """Recover ``samples`` (48 kHz) lost just before ``payload`` from its error correction."""

    payload: bytes
    samples: int


@dataclass(frozen=True, slots=True)
class Conceal:
    """Conceal ``samples`` (48 kHz) that are lost."""

    samples: int


@dataclass(frozen=True, slots=True)
class Silence:
    """Insert ``samples`` (48 kHz) of silence: nothing was sent (DTX), or too much was lost."""

    samples: int


type Step = Packet | Fec | Conceal | Silence


@dataclass(frozen=True, slots=True)
class _HeldPacket:
    packet: Packet
    arrived_at: float


class JitterBuffer:
    """Orders the packets of one RTP stream of Opus.

    Each packet given to `push` is returned as a `Packet` in order exactly once, or counted in
    ``late``, ``duplicates`` or ``strays``, or held for at most 40 ms if `poll` is called at
    `deadline`. Each skipped sequence number is counted in ``lost`` and filled: the one before a
    packet by `Fec`, earlier ones by `Conceal`, and the rest by `Silence`.

    Args:
        length: Returns the length of a payload in 48 kHz samples.
    """

    __slots__ = (
        "_expected_timestamp",
        "_held",
        "_history",
        "_length",
        "_next_sequence",
        "_stray",
        "duplicates",
        "fec",
        "late",
        "lost",
        "packets",
        "resyncs",
        "skipped",
        "strays",
    )

    def __init__(self, length: Callable[[bytes], int] = packet_samples) -> None:
        self._length = length
        self._next_sequence: int | None = None
        self._expected_timestamp = 0
        self._history = 0
        self._held: dict[int, _HeldPacket] = {}
        self._stray: Packet | None = None
        self.packets = 0
        """Packets returned in order."""
        self.late = 0
        """Packets dropped because their place had already been filled."""
        self.duplicates = 0
        """Packets dropped because they had already arrived."""
        self.strays = 0
        """Packets dropped because they were far from the stream and no packet followed them."""
        self.lost = 0
        """Sequence numbers whose place was filled."""
        self.fec = 0
        """Lost packets that were recovered from the packet after them."""
        self.resyncs = 0
        """Times that the stream restarted."""
        self.skipped = 0
        """48 kHz samples left out of gaps that were too long to fill."""

    def __len__(self) -> int:
        """Return how many packets wait."""
        return len(self._held)

    @property
    def deadline(self) -> float | None:
        """When to call `poll`, on the time scale of ``now``; None while no packet waits."""
        if not self._held:
            return None
        return min(held.arrived_at for held in self._held.values()) + GAP_DEADLINE

    def push(self, sequence: int, timestamp: int, payload: bytes, now: float) -> list[Step]:
        """Add a packet that arrived at ``now`` (seconds); return the steps that it releases."""
        packet = Packet(sequence, timestamp, payload)
        if self._next_sequence is None:
            self._start(packet)
        ahead = (sequence - self._gap_start) & 0xFFFF
        if ahead == 0:
            steps: list[Step] = []
            self._release(packet, steps)
            if self._held:
                self._release_consecutive(steps)
                steps += self.poll(now)
            return steps
        if ahead < MAX_DROPOUT:
            if sequence in self._held:
                self.duplicates += 1
                return []
            self._held[sequence] = _HeldPacket(packet, now)
            if len(self._held) > MAX_HELD:
                steps = []
                self._skip_gap(steps)
                return steps + self.poll(now)
            return self.poll(now)
        behind = 0x10000 - ahead
        if behind <= MAX_MISORDER:
            if self._history >> (behind - 1) & 1:
                self.duplicates += 1
            else:
                self.late += 1
            return []
        return self._handle_stray(packet, now)

    def poll(self, now: float) -> list[Step]:
        """Give up packets that have been missing for 40 ms; return the steps that follow."""
        steps: list[Step] = []
        while (deadline := self.deadline) is not None and now >= deadline:
            self._skip_gap(steps)
        return steps

    def resync(self) -> list[Step]:
        """End the stream because its source has changed, and return the steps that were held.

        The next packet starts a new stream.
        """
        steps: list[Step] = []
        while self._held:
            self._skip_gap(steps)
        if self._next_sequence is not None:
            self.resyncs += 1
        if self._stray is not None:
            self.strays += 1
            self._stray = None
        self._next_sequence = None
        return steps

    @property
    def _gap_start(self) -> int:
        return self._next_sequence if self._next_sequence is not None else 0

    def _start(self, packet: Packet) -> None:
        self._next_sequence = packet.sequence
        self._expected_timestamp = packet.timestamp
        self._history = 0

    def _handle_stray(self, packet: Packet, now: float) -> list[Step]:
        # Two consecutive packets far away are a stream that has jumped; a single one is noise.
        stray, self._stray = self._stray, packet
        if stray is None:
            return []
        if packet.sequence == stray.sequence:
            self.duplicates += 1
            return []
        if packet.sequence != (stray.sequence + 1) & 0xFFFF:
            self.strays += 1
            return []
        self._stray = None
        steps = self.resync()
        self._start(stray)
        self._release(stray, steps)
        return steps + self.push(packet.sequence, packet.timestamp, packet.payload, now)

    def _release(self, packet: Packet, steps: list[Step]) -> None:
        pause = (packet.timestamp - self._expected_timestamp) & 0xFFFFFFFF
        if 0 < pause <= MAX_PAUSE:
            self._add_silence(pause, steps)
        self._emit(packet, steps)

    def _emit(self, packet: Packet, steps: list[Step]) -> None:
        steps.append(packet)
        self.packets += 1
        self._history = (self._history << 1 | 1) & _HISTORY
        self._next_sequence = (packet.sequence + 1) & 0xFFFF
        self._expected_timestamp = (packet.timestamp + self._length(packet.payload)) & 0xFFFFFFFF

    def _add_silence(self, samples: int, steps: list[Step]) -> None:
        put = min(samples, MAX_SILENCE)
        self.skipped += samples - put
        steps.append(Silence(put))

    def _release_consecutive(self, steps: list[Step]) -> None:
        while (held := self._held.pop(self._gap_start, None)) is not None:
            self._release(held.packet, steps)

    def _skip_gap(self, steps: list[Step]) -> None:
        start = self._gap_start
        first = min(self._held, key=lambda sequence: (sequence - start) & 0xFFFF)
        packet = self._held.pop(first).packet
        missing = (first - start) & 0xFFFF
        self._fill_gap(missing, packet, steps)
        self._history = self._history << missing & _HISTORY
        self._emit(packet, steps)
        self._release_consecutive(steps)

    def _fill_gap(self, missing: int, packet: Packet, steps: list[Step]) -> None:
        self.lost += missing
        hole = (packet.timestamp - self._expected_timestamp) & 0xFFFFFFFF
        each = self._length(packet.payload)
        if not 0 < hole <= MAX_PAUSE or not each:
            return
        by_fec = min(each, hole)
        made_up = 0
        for _ in range(min(missing - 1, MAX_CONCEALED)):
            part = min(each, hole - by_fec - made_up)
            if part <= 0:
                break
            steps.append(Conceal(part))
            made_up += part
        rest = hole - by_fec - made_up
        if rest > 0:
            self._add_silence(rest, steps)
        steps.append(Fec(packet.payload, by_fec))
        self.fec += 1
