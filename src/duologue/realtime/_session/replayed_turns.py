"""Turns that were answered before their words were known: heard again, for the words only.

Sans-IO. A provider that hears them on a new connection takes them for new: it signals them under
other ids, and answers them again. Neither is told on; only the words are, under the old id.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

from duologue.realtime.outputs import SpeechStarted, SpeechStopped, UserTranscript, UserTurnEnded

type TurnSignal = SpeechStarted | SpeechStopped | UserTranscript | UserTurnEnded

MAX_REPLAY_DELAY_S = 5.0
"""Beyond the length of the sound, what has not been heard again by then will not be, in s."""


@dataclass(slots=True)
class _ReplayedTurn:
    old_id: str
    over: bool = False
    transcribed: bool = False


class ReplayedTurns:
    """Tells such turns from new ones, by their order, their place in the sound, and the time."""

    __slots__ = ("_length", "_turns", "_until", "_waiting")

    def __init__(self) -> None:
        self._waiting: deque[str] = deque()
        self._turns: dict[str, _ReplayedTurn] = {}
        self._length = 0
        self._until = 0.0

    def begin(self, item_ids: Sequence[str], length: int, seconds: float, now: float) -> None:
        """These turns lie in the next ``length`` samples of a connection, ``seconds`` long."""
        self._waiting = deque(item_ids)
        self._turns.clear()
        self._length = length
        self._until = now + 2 * seconds + MAX_REPLAY_DELAY_S

    def connection_lost(self, unsettled: Sequence[str]) -> tuple[list[str], list[str]]:
        """The connection is gone: the old ids of what was still to be heard, and other turns."""
        mine = [turn.old_id for turn in self._turns.values() if not turn.transcribed]
        others = [item_id for item_id in unsettled if item_id not in self._turns]
        mine += self._waiting
        self._waiting.clear()
        self._turns.clear()
        return mine, others

    def __contains__(self, item_id: str) -> bool:
        """Return whether this is the new id of a replayed turn."""
        return item_id in self._turns

    def translate(self, signal: TurnSignal, now: float) -> TurnSignal | None:
        """What is to be told of a signal; None when nothing is."""
        item_id = signal.item_id
        turn = self._turns.get(item_id)
        if turn is None:
            if not self._waiting or not self._begins_replayed_turn(signal, now):
                return signal
            turn = self._turns[item_id] = _ReplayedTurn(self._waiting.popleft())
        told: TurnSignal | None = None
        match signal:
            case UserTurnEnded():
                turn.over = True
            case UserTranscript(final=True):
                turn.transcribed = True
                told = replace(signal, item_id=turn.old_id)
            case _:
                pass
        if turn.over and turn.transcribed:
            del self._turns[item_id]
        return told

    def _begins_replayed_turn(self, signal: TurnSignal, now: float) -> bool:
        """A turn that is not known begins by this, and it is one of ours."""
        match signal:
            case SpeechStarted(position=position):
                late = position is not None and position >= self._length
            case UserTurnEnded():  # Turns that the program ends do not begin.
                late = False
            case _:
                return False
        if late or now > self._until:
            self._waiting.clear()
            return False
        return True
