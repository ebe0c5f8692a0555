"""Keep the person's audio of the last seconds, and decide which of it to replay (sans-IO).

Positions are samples since the session began, at the model's input rate; they continue over all
connections of the session.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from duologue.audio import Samples
from duologue.realtime.commands import ClearInput, EndTurn

_SILENCE_PEAK = 64
"""Peak (-54 dB) of samples that are kept as silence: only their length is stored."""

LOUD_PEAK = 600
"""Peak (-35 dB) above which samples may be speech."""

_UNKNOWN_END_MARGIN_S = 0.3
"""Seconds that the end of a turn is assumed earlier if the provider does not report its position,
because the audio behind it may not have arrived.
"""

_MAX_PIECE_S = 0.1
"""Seconds of one piece of replayed audio at most, so that nothing waits long behind it."""

_MAX_SETTLED = 64
"""Settled turns that are remembered, because more transcripts of them may arrive."""


@dataclass(slots=True, eq=False)
class _Piece:
    start: int
    length: int
    samples: Samples | None


class ReplayBuffer:
    """The newest ``seconds`` of one stream at ``rate`` Hz; older audio is dropped.

    Silence takes no memory. `EndTurn` and `ClearInput` keep their places in the audio.
    """

    __slots__ = (
        "_limit",
        "_marks",
        "_pieces",
        "end",
        "loud_samples",
        "rate",
        "seconds",
        "start",
    )

    def __init__(self, rate: int, seconds: float) -> None:
        self.rate = rate
        self.seconds = seconds
        self._limit = int(rate * seconds)
        self._pieces: deque[_Piece] = deque()
        self._marks: deque[tuple[int, EndTurn | ClearInput]] = deque()
        self.start = 0
        """Position of the oldest sample that is kept."""
        self.end = 0
        """Position behind the newest sample."""
        self.loud_samples = 0
        """Samples so far in pieces whose peak is above `LOUD_PEAK`."""

    def push(self, samples: Samples) -> None:
        """Keep the next samples; the array is not copied."""
        length = len(samples)
        if not length:
            return
        peak = int(samples.max())
        quiet = peak <= _SILENCE_PEAK and int(samples.min()) >= -_SILENCE_PEAK
        if peak > LOUD_PEAK:
            self.loud_samples += length
        last = self._pieces[-1] if self._pieces else None
        max_length = self._limit // 20
        if (
            quiet
            and last is not None
            and last.samples is None
            and last.length + length <= max_length
        ):
            last.length += length
        else:
            self._pieces.append(_Piece(self.end, length, None if quiet else samples))
        self.end += length
        while self.end - self.start > self._limit:
            self._drop_first()

    def mark(self, command: EndTurn | ClearInput) -> None:
        """Keep a command in its place behind the audio so far."""
        self._marks.append((self.end, command))

    def discard_before(self, position: int) -> None:
        """Drop the audio before ``position``."""
        while self._pieces and self._pieces[0].start + self._pieces[0].length <= position:
            self._drop_first()
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

        for piece in self._pieces:
            end = piece.start + piece.length
            begin = max(piece.start, position)
            while begin < end:
                until = min(end, marks[0][0]) if marks else end
                if piece.samples is None:
                    parts.append(np.zeros(until - begin, np.int16))
                else:
                    parts.append(piece.samples[begin - piece.start : until - piece.start])
                begin = until
                while marks and marks[0][0] <= begin:
                    flush()
                    out.append(marks.popleft()[1])
        flush()
        out.extend(command for _, command in marks)
        return out

    def _drop_first(self) -> None:
        piece = self._pieces.popleft()
        self.start = piece.start + piece.length


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
