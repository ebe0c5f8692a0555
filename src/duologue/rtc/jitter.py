"""Puts received packets in order, without sockets or clock; holds nothing while they are.

A speech model is no loudspeaker: it needs order and no holes, but no playout delay (contract
C11). So there is no buffer to fill, only a deadline for what is missing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from duologue.rtc.opus import RTP_RATE, packet_samples

GAP_DEADLINE = 0.040
"""How long packets wait for a missing one before them, in s."""

MAX_HELD = 50
"""Packets that wait at most; a full buffer gives up the gap at once, so none is dropped."""

MAX_DROPOUT = 3000
MAX_MISORDER = 100
"""Steps in sequence numbers that still are the same stream (RFC 3550, appendix A.1)."""

MAX_CONCEALED = 5
"""Packets in a row that are concealed; a longer hole goes on as silence."""

MAX_SILENCE = RTP_RATE
"""Longest silence put in for one hole, in 48 kHz samples: 1 s."""

MAX_PAUSE = 60 * RTP_RATE
"""A longer step in timestamps is a new time base, not a pause, in 48 kHz samples."""

_HISTORY = (1 << 128) - 1


@dataclass(frozen=True, slots=True)
class Packet:
    """Decode ``payload``; ``timestamp`` is its own, in 48 kHz samples."""

    sequence: int
    timestamp: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Fec:
    """Recover the ``samples`` (48 kHz) lost just before ``payload`` from what it says of them."""

    payload: bytes
    samples: int


@dataclass(frozen=True, slots=True)
class Conceal:
    """Make up ``samples`` (48 kHz) that are lost."""

    samples: int


@dataclass(frozen=True, slots=True)
class Silence:
    """Put in ``samples`` (48 kHz) of silence: nothing was sent (DTX), or too much was lost."""

    samples: int


type Step = Packet | Fec | Conceal | Silence


@dataclass(frozen=True, slots=True)
class _HeldPacket:
    packet: Packet
    arrived_at: float


class JitterBuffer:
    """An ordering buffer for one RTP stream of Opus.

    Every packet given to `push` comes out as a `Packet` in order exactly once, or is counted in
    ``late``, ``duplicates`` or ``strays``, or is held for at most 40 ms if `poll` is called at
    `deadline`. Every sequence number that is passed over is counted in ``lost`` and filled: the
    one before a packet by `Fec`, those before it by `Conceal`, what is left by `Silence`.

    ``length`` gives a payload's length in 48 kHz samples.
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
        """Given out in order."""
        self.late = 0
        """Came after their place had been filled; dropped."""
        self.duplicates = 0
        """Came again; dropped."""
        self.strays = 0
        """Far from the stream and alone there; dropped."""
        self.lost = 0
        """Places that were filled."""
        self.fec = 0
        """Of these, by the packet after."""
        self.resyncs = 0
        """Times that the stream began anew."""
        self.skipped = 0
        """48 kHz samples of holes that were longer than what is filled."""

    def __len__(self) -> int:
        """Packets that wait."""
        return len(self._held)

    @property
    def deadline(self) -> float | None:
        """When to `poll`, on the time scale of ``now``; None while nothing waits."""
        if not self._held:
            return None
        return min(held.arrived_at for held in self._held.values()) + GAP_DEADLINE

    def push(self, sequence: int, timestamp: int, payload: bytes, now: float) -> list[Step]:
        """Take a packet that arrived at ``now`` (s); return what is in order because of it."""
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
        """Give up on what has been missing for 40 ms; return what follows."""
        steps: list[Step] = []
        while (deadline := self.deadline) is not None and now >= deadline:
            self._skip_gap(steps)
        return steps

    def resync(self) -> list[Step]:
        """End the stream (its source has changed): what waits comes out, the next one starts."""
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
        # Two in a row far away are a stream that went on elsewhere; one alone is noise.
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
