"""What a script expects of its client, and a check that it happens."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from duologue.clock import Clock, Timer
from duologue.json_types import Json


@dataclass(frozen=True, slots=True)
class Expectation:
    """An event that the client is expected to send.

    Attributes:
        event: Its type.
        within: Seconds in which it must come.
        where: Fields that it must have.
        turns: The check starts once this many turns of the user have ended.
        replies: The check starts once this many replies have started.
        place: The line of the script, for errors.
    """

    event: str
    within: float = 5.0
    where: Mapping[str, Json] = field(default_factory=dict)
    turns: int = 0
    replies: int = 0
    place: str = ""


class Expectations:
    """Checks the expectations of one session in order.

    Args:
        wanted: The expectations.
        failed: Called with the text of each failure.
        clock: The clock of the deadlines.
    """

    def __init__(
        self, wanted: Sequence[Expectation], failed: Callable[[str], None], clock: Clock
    ) -> None:
        self._pending = list(wanted)
        self._failed = failed
        self._clock = clock
        self._turns = 0
        self._replies = 0
        self._timer: Timer | None = None
        self._is_waiting = False
        self._advance()

    def turn_ended(self) -> None:
        """Count a turn of the user."""
        self._turns += 1
        self._advance()

    def reply_started(self) -> None:
        """Count a reply."""
        self._replies += 1
        self._advance()

    def client_event(self, event: Mapping[str, Json]) -> None:
        """Compare an event of the client with the current expectation."""
        if self._is_waiting and _matches(event, {"type": self._pending[0].event}):
            if not _matches(event, self._pending[0].where):
                return
            self._drop_first()

    def close(self) -> None:
        """Report everything that has not come, because the session is over."""
        self._stop()
        for one in self._pending:
            self._failed(f"{one.place}: {one.event} had not come when the session ended")
        self._pending.clear()

    def _advance(self) -> None:
        if self._is_waiting or not self._pending:
            return
        first = self._pending[0]
        if self._turns < first.turns or self._replies < first.replies:
            return
        self._is_waiting = True
        self._timer = self._clock.call_at(self._clock.now() + first.within, self._timed_out)

    def _timed_out(self) -> None:
        first = self._pending[0]
        self._failed(f"{first.place}: {first.event} did not come in {first.within:g} s")
        self._drop_first()

    def _drop_first(self) -> None:
        self._stop()
        self._pending.pop(0)
        self._advance()

    def _stop(self) -> None:
        self._is_waiting = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _matches(value: Json | Mapping[str, Json], wanted: Json | Mapping[str, Json]) -> bool:
    """Return whether ``value`` contains everything in ``wanted``, at any depth."""
    if isinstance(wanted, Mapping):
        return isinstance(value, Mapping) and all(
            key in value and _matches(value[key], one) for key, one in wanted.items()
        )
    if isinstance(wanted, list):
        return (
            isinstance(value, list)
            and len(value) == len(wanted)
            and all(_matches(a, b) for a, b in zip(value, wanted, strict=True))
        )
    return value == wanted
