"""What a script expects of the client, and what of it did not happen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from duologue.clock import Clock, Timer
from duologue.items import Json


@dataclass(frozen=True, slots=True)
class Expectation:
    """An event of the client: of this type, with these fields, ``within`` s.

    It is waited for once ``turns`` of the person were heard and ``replies`` were begun. ``place``
    says where the script has it.
    """

    event: str
    within: float = 5.0
    where: Mapping[str, Json] = field(default_factory=dict)
    turns: int = 0
    replies: int = 0
    place: str = ""


class Expectations:
    """Checks the expectations of one session, one by one; calls ``failed`` with each failure."""

    def __init__(
        self, wanted: Sequence[Expectation], failed: Callable[[str], None], clock: Clock
    ) -> None:
        self._wanted = list(wanted)
        self._failed = failed
        self._clock = clock
        self._turns = 0
        self._replies = 0
        self._timer: Timer | None = None
        self._armed = False
        self._advance()

    def turn(self) -> None:
        """The person's next turn was heard."""
        self._turns += 1
        self._advance()

    def reply(self) -> None:
        """The next reply has begun."""
        self._replies += 1
        self._advance()

    def saw(self, event: Mapping[str, Json]) -> None:
        """The client sent this."""
        if self._armed and _matches(event, {"type": self._wanted[0].event}):
            if not _matches(event, self._wanted[0].where):
                return
            self._pass()

    def close(self) -> None:
        """The session is over: what has not come is not coming."""
        self._stop()
        for one in self._wanted:
            self._failed(f"{one.place}: {one.event} had not come when the session ended")
        self._wanted.clear()

    def _advance(self) -> None:
        if self._armed or not self._wanted:
            return
        first = self._wanted[0]
        if self._turns < first.turns or self._replies < first.replies:
            return
        self._armed = True
        self._timer = self._clock.call_at(self._clock.now() + first.within, self._late)

    def _late(self) -> None:
        first = self._wanted[0]
        self._failed(f"{first.place}: {first.event} did not come in {first.within:g} s")
        self._pass()

    def _pass(self) -> None:
        self._stop()
        self._wanted.pop(0)
        self._advance()

    def _stop(self) -> None:
        self._armed = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _matches(value: Json | Mapping[str, Json], wanted: Json | Mapping[str, Json]) -> bool:
    """Whether ``value`` has all that ``wanted`` has, at any depth."""
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
