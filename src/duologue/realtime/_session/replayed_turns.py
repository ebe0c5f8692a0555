"""Recognise turns that are replayed to a new connection for their text only (sans-IO).

A turn may get its reply before its transcript: OpenAI's comes up to seconds later. If the
connection is lost between the two, the transcript is lost as well, and the history lacks what the
person said. So its audio is replayed to the next connection. The service can't know that, and takes
it for a new turn:

    service on connection 2            passed on
    speech_started   item_9            nothing
    speech_stopped   item_9            nothing
    turn ended       item_9            nothing       (its reply is cancelled by the session)
    transcript       item_9  "Hello"   transcript  item_1  "Hello"

Nothing in the messages says which turns are replayed. Three things do:

    order      replayed turns come first, in the order in which they were spoken
    position   they begin within the replayed samples, if the service sends positions
    time       they begin within twice the length of the replayed audio and `MAX_REPLAY_DELAY_S`

A turn that is not a replayed one ends the search, because no more of them can follow.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

from duologue.realtime.outputs import SpeechStarted, SpeechStopped, UserTranscript, UserTurnEnded

type TurnSignal = SpeechStarted | SpeechStopped | UserTranscript | UserTurnEnded

MAX_REPLAY_DELAY_S = 5.0
"""Seconds beyond the length of the replayed audio after which no replayed turn can begin."""


@dataclass(slots=True)
class _ReplayedTurn:
    old_id: str
    over: bool = False
    transcribed: bool = False


class ReplayedTurns:
    """Tells replayed turns from new ones, by their order, their position, and the time."""

    __slots__ = ("_length", "_turns", "_until", "_waiting")

    def __init__(self) -> None:
        self._waiting: deque[str] = deque()
        self._turns: dict[str, _ReplayedTurn] = {}
        self._length = 0
        self._until = 0.0

    def begin(self, item_ids: Sequence[str], length: int, seconds: float, now: float) -> None:
        """Expect these turns in the next ``length`` samples (``seconds``) of a new connection."""
        self._waiting = deque(item_ids)
        self._turns.clear()
        self._length = length
        self._until = now + 2 * seconds + MAX_REPLAY_DELAY_S

    def connection_lost(self, unsettled: Sequence[str]) -> tuple[list[str], list[str]]:
        """Forget all turns; return the first ids of those without a transcript, and other turns."""
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
        """Return the signal to pass on for a signal of the service; None if there is none."""
        item_id = signal.item_id
        turn = self._turns.get(item_id)
        if turn is None:
            if not self._waiting or not self._begins_replayed_turn(signal, now):
                return signal
            turn = self._turns[item_id] = _ReplayedTurn(self._waiting.popleft())
        passed: TurnSignal | None = None
        match signal:
            case UserTurnEnded():
                turn.over = True
            case UserTranscript(final=True):
                turn.transcribed = True
                passed = replace(signal, item_id=turn.old_id)
            case _:
                pass
        if turn.over and turn.transcribed:
            del self._turns[item_id]
        return passed

    def _begins_replayed_turn(self, signal: TurnSignal, now: float) -> bool:
        """Return whether this signal begins a turn, and that is a replayed one."""
        match signal:
            case SpeechStarted(position=position):
                is_outside = position is not None and position >= self._length
            case UserTurnEnded():  # Turns that the program ends have no start.
                is_outside = False
            case _:
                return False
        if is_outside or now > self._until:
            self._waiting.clear()
            return False
        return True
