"""Keep the person's audio of the last seconds, and decide which of it to replay (sans-IO).

Positions are samples since the session began, at the model's input rate; they continue over all
connections of the session.

Kept audio is almost never needed, and there may be hundreds of sessions, so it has to take little
memory, and little time for each frame. It is kept as it comes for a quarter of a second. Then that
is packed in one pass: silence to its length, all else to a byte a sample (`companding`). That adds
noise 35 to 38 dB below speech, which a model does not mind, and no sample is lost or moved::

    packed                          as it came
    | 8 bit | silence | 8 bit | ... | frame | frame |
    start                                         end

Packed audio lies in memory of its own, a second at a time, which goes back to the system when the
last of it is dropped. Taken from the heap, the memory of the longest sentence would stay with each
session.

What comes while there is no connection is certain to be sent, and stays as it is until it was.
"""

from __future__ import annotations

import mmap
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from duologue._companding import Companded, compress, expand
from duologue._numpy import np
from duologue.audio import Samples
from duologue.realtime.commands import ClearInput, EndTurn

_SILENCE_PEAK = 64
"""Peak (-54 dB) of samples that are kept as silence: only their length is stored."""

_PACKED_S = 0.25
"""Seconds of audio that are packed together."""

_UNKNOWN_END_MARGIN_S = 0.3
"""Seconds that the end of a turn is assumed earlier if the provider does not report its position,
because the audio behind it may not have arrived.
"""

_MAX_PIECE_S = 0.1
"""Seconds of one piece of replayed audio at most, so that nothing waits long behind it."""

_MAX_SETTLED = 64
"""Settled turns that are remembered, because more transcripts of them may arrive."""


_SEGMENT_S = 1.1
"""Seconds of packed audio that share a piece of memory: four times `_PACKED_S` and some frames."""
_NO_SEGMENT: Companded = np.zeros(0, np.uint8)


@dataclass(slots=True, eq=False)
class _Piece:
    start: int
    length: int
    packed: Companded | None
    """None for silence."""

    def unpack(self) -> Samples:
        """Return its samples."""
        if self.packed is None:
            return np.zeros(self.length, np.int16)
        return expand(self.packed)


class ReplayBuffer:
    """The newest ``seconds`` of one stream at ``rate`` Hz; older audio is dropped.

    `EndTurn` and `ClearInput` keep their places in the audio.
    """

    __slots__ = (
        "_block",
        "_dropped",
        "_limit",
        "_marks",
        "_pieces",
        "_recent",
        "_recent_length",
        "_recent_start",
        "_segment",
        "_segment_free",
        "_settle_after",
        "rate",
        "seconds",
    )

    def __init__(self, rate: int, seconds: float) -> None:
        self.rate = rate
        self.seconds = seconds
        self._limit = int(rate * seconds)
        self._block = int(rate * _PACKED_S)
        self._settle_after = min(self._block, self._limit)
        """Samples as they came after which they are packed, and old ones dropped."""
        self._pieces: deque[_Piece] = deque()
        self._segment = _NO_SEGMENT
        self._segment_free = 0
        """Bytes at the end of the segment that are not used yet."""
        self._recent: deque[Samples] = deque()
        """What came after the last piece."""
        self._recent_length = 0
        self._recent_start = 0
        """Position of the first sample that is not packed."""
        self._marks: deque[tuple[int, EndTurn | ClearInput]] = deque()
        self._dropped = 0
        """Position before which the audio is not needed any more."""

    @property
    def start(self) -> int:
        """Position of the oldest sample that is kept."""
        return max(self._dropped, self.end - self._limit)

    @property
    def end(self) -> int:
        """Position behind the newest sample."""
        return self._recent_start + self._recent_length

    def push(self, samples: Samples, *, pack: bool = True) -> None:
        """Keep the next samples, whose array is not copied; pack what has come, if that is due.

        The memory of what is older than ``seconds`` goes back when the next audio is packed.
        """
        self._recent.append(samples)
        self._recent_length += len(samples)
        if self._recent_length >= self._settle_after:
            if pack:
                self._pack()
            self._drop_before(self.end - self._limit)

    def mark(self, command: EndTurn | ClearInput) -> None:
        """Keep a command in its place behind the audio so far."""
        self._marks.append((self.end, command))

    def discard_before(self, position: int) -> None:
        """Drop the audio before ``position``."""
        self._drop_before(min(position, self.end))
        while self._marks and self._marks[0][0] <= position:
            self._marks.popleft()

    def read_from(self, position: int) -> list[Samples | EndTurn | ClearInput]:
        """Return what is kept from ``position`` on, in order, in pieces of up to 0.1 s."""
        out: list[Samples | EndTurn | ClearInput] = []
        marks = deque(mark for mark in self._marks if mark[0] > position)
        parts: list[Samples] = []

        def flush() -> None:
            audio = np.concatenate(parts) if parts else np.zeros(0, np.int16)
            step = int(self.rate * _MAX_PIECE_S)
            out.extend(audio[i : i + step] for i in range(0, len(audio), step))
            parts.clear()

        first = max(position, self.start)
        for start, samples in self._stretches(first):
            end = start + len(samples)
            begin = max(start, first)
            while begin < end:
                until = min(end, marks[0][0]) if marks else end
                parts.append(samples[begin - start : until - start])
                begin = until
                while marks and marks[0][0] <= begin:
                    flush()
                    out.append(marks.popleft()[1])
        flush()
        out.extend(command for _, command in marks)
        return out

    def _stretches(self, position: int) -> Iterator[tuple[int, Samples]]:
        """Yield all audio that does not end before ``position``, each with where it starts."""
        for piece in self._pieces:
            if piece.start + piece.length > position:
                yield piece.start, piece.unpack()
        start = self._recent_start
        for samples in self._recent:
            yield start, samples
            start += len(samples)

    def _pack(self) -> None:
        recent = np.concatenate(self._recent)
        start = self._recent_start
        self._recent.clear()
        self._recent_start += self._recent_length
        self._recent_length = 0
        # One, but for what came without a connection.
        count = max(1, len(recent) // self._block)
        step = -(-len(recent) // count)
        for begin in range(0, len(recent), step):
            self._add_piece(start + begin, recent[begin : begin + step])

    def _add_piece(self, start: int, samples: Samples) -> None:
        length = len(samples)
        if samples.max() > _SILENCE_PEAK or samples.min() < -_SILENCE_PEAK:
            self._pieces.append(_Piece(start, length, self._store(compress(samples))))
            return
        last = self._pieces[-1] if self._pieces else None
        if last is not None and last.packed is None and last.length < 2 * self._block:
            last.length += length
        else:
            self._pieces.append(_Piece(start, length, None))

    def _store(self, packed: Companded) -> Companded:
        """Return a copy that does not lie in the heap."""
        length = len(packed)
        if length > self._segment_free:
            size = max(length, int(self.rate * _SEGMENT_S))
            self._segment = np.frombuffer(mmap.mmap(-1, size), np.uint8)
            self._segment_free = size
        begin = len(self._segment) - self._segment_free
        self._segment_free -= length
        stored = self._segment[begin : begin + length]
        stored[:] = packed
        return stored

    def _drop_before(self, position: int) -> None:
        if position <= self._dropped:
            return
        self._dropped = position
        while self._pieces and self._pieces[0].start + self._pieces[0].length <= position:
            self._pieces.popleft()
        if not self._pieces:
            self._segment, self._segment_free = _NO_SEGMENT, 0
        while self._recent and self._recent_start + len(self._recent[0]) <= position:
            length = len(self._recent.popleft())
            self._recent_start += length
            self._recent_length -= length


@dataclass(slots=True)
class _TrackedTurn:
    item_id: str
    end: int | None = None
    over: bool = False
    answered: bool = False
    transcribed: bool = False
    """Whether its transcript is in the history, or will never come."""


@dataclass(frozen=True, slots=True)
class UnsettledTurns:
    """What a lost connection leaves behind.

    Attributes:
        position: audio from here on has to be replayed.
        replayed: turns in it that had already ended, and come again as new ones.
        answered: those of them that have a reply.
        speech_start: where speech certainly began; None if none was detected.
        open_turns: turns that had begun and not ended.
    """

    position: int
    replayed: list[str]
    answered: list[str]
    speech_start: int | None
    open_turns: list[str]


class InputTurnTracker:
    """Follows the user turns, to know up to which position all of them are in the history as text.

    Without a model that ``transcribes``, a turn is settled when it has ended.
    """

    __slots__ = (
        "_boundaries",
        "_settled_ids",
        "_starts",
        "_transcribes",
        "_turns",
        "rate",
        "settled",
    )

    def __init__(self, rate: int, *, transcribes: bool) -> None:
        self.rate = rate
        self._transcribes = transcribes
        self._turns: dict[str, _TrackedTurn] = {}
        self._starts: dict[str, int] = {}
        self._boundaries: deque[int] = deque()
        self._settled_ids: deque[str] = deque(maxlen=_MAX_SETTLED)
        self.settled = 0
        """Position before which nothing has to be replayed."""

    @property
    def is_open(self) -> bool:
        """Whether a turn is open, or its transcript is still missing."""
        return bool(self._turns)

    def speech_started(self, item_id: str, position: int) -> None:
        """Record that the person began to speak at ``position``."""
        self._turns.setdefault(item_id, _TrackedTurn(item_id))
        self._starts.setdefault(item_id, position)

    def speech_stopped(self, item_id: str, position: int) -> None:
        """Record that the person stopped speaking there, at least for now."""
        turn = self._turns.get(item_id)
        if turn is not None:
            turn.end = position

    def mark_boundary(self, position: int) -> None:
        """Record that the program ended the turn behind ``position``."""
        self._boundaries.append(position)

    def turn_ended(self, item_id: str, position: int | None, now: int, *, empty: bool) -> None:
        """Record the end of a turn, at ``position`` if known; ``now`` is the newest position."""
        turn = self._turns.setdefault(item_id, _TrackedTurn(item_id))
        mark = self._boundaries.popleft() if self._boundaries else None
        if position is None:
            position = turn.end if mark is None else mark
        if position is None:
            position = now - int(self.rate * _UNKNOWN_END_MARGIN_S)
        turn.end = position
        turn.over = True
        turn.transcribed = turn.transcribed or empty or not self._transcribes
        self._settle()

    def transcript_final(self, item_id: str) -> None:
        """Record that the final transcript of a turn has arrived."""
        if item_id not in self._turns and item_id in self._settled_ids:
            return  # A second transcript of a settled turn begins no new turn.
        turn = self._turns.setdefault(item_id, _TrackedTurn(item_id))
        turn.transcribed = True
        self._settle()

    def mark_ended_answered(self) -> None:
        """Record that the turns that have ended are getting their reply."""
        for turn in self._turns.values():
            turn.answered = turn.answered or turn.over

    def mark_answered(self, item_id: str) -> None:
        """Record that an earlier connection has replied to a turn."""
        if item_id in self._turns:
            self._turns[item_id].answered = True

    def connection_lost(self) -> UnsettledTurns:
        """Forget the turns that are not settled, and return them."""
        turns = list(self._turns.values())
        starts = [self._starts[turn.item_id] for turn in turns if turn.item_id in self._starts]
        self._turns.clear()
        self._starts.clear()
        self._boundaries.clear()
        replayed = [turn.item_id for turn in turns if turn.over or turn.transcribed]
        answered = [turn.item_id for turn in turns if turn.answered]
        under_way = [turn.item_id for turn in turns if not (turn.over or turn.transcribed)]
        return UnsettledTurns(
            self.settled, replayed, answered, min(starts, default=None), under_way
        )

    def _settle(self) -> None:
        for turn in [*self._turns.values()]:
            if not (turn.over and turn.transcribed):
                break
            del self._turns[turn.item_id]
            self._settled_ids.append(turn.item_id)
            self._starts.pop(turn.item_id, None)
            self.settled = max(self.settled, turn.end or 0)
