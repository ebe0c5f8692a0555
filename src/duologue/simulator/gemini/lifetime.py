"""How long a session may be, and a connection of it: told before, then ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from duologue.clock import Clock, Timer
from duologue.simulator.gemini.answer import Emit
from duologue.simulator.gemini.shapes import INTERNAL, POLICY, RefusedError

GONE = (
    "Connection aborted because the client failed to close the connection after receiving a GoAway "
    "signal once the session duration expired"
)
DEADLINE = "Deadline expired before operation could complete."


@dataclass(frozen=True, slots=True)
class Limits:
    """In s of the clock; ``audio_s`` and ``video_s`` are of sessions without compression.

    Source: https://ai.google.dev/gemini-api/docs/live-session; the deadline has been seen.
    """

    connection_s: float = 600.0
    go_away_s: float = 10.0
    deadline_s: float = 3480.0
    audio_s: float = 900.0
    video_s: float = 120.0


class Lifetime:
    """Ends one connection when it is to end; ``end`` is told by what."""

    def __init__(
        self, limits: Limits, clock: Clock, emit: Emit, end: Callable[[RefusedError], None]
    ) -> None:
        self._limits = limits
        self._clock = clock
        self._emit = emit
        self._end = end
        self._compressed = False
        self._connected = 0.0
        self._leaving = False
        self._timers: list[Timer] = []
        self.began = clock.now()
        """When the session began, perhaps on an older connection."""
        self.video_since: float | None = None
        """When its first picture came."""

    def begin(self, *, compressed: bool) -> None:
        """The connection is there."""
        self._connected = self._clock.now()
        self._compressed = compressed
        self._arm()

    def picture(self) -> None:
        """A picture has come: a session with pictures is shorter."""
        if self.video_since is None:
            self.video_since = self._clock.now()
            self._arm()

    def go_away(self, time_left: float | None = None) -> None:
        """Tell the client that the connection ends in so many seconds, and end it then."""
        left = self._limits.go_away_s if time_left is None else time_left
        self.stop()
        self._say(left)
        self._at(self._clock.now() + left, lambda: self._end(RefusedError(GONE, POLICY)))

    def stop(self) -> None:
        """It has ended."""
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()

    def _arm(self) -> None:
        if self._leaving:
            return
        self.stop()
        limits, now = self._limits, self._clock.now()
        ends = self._connected + limits.connection_s
        if not self._compressed:
            ends = min(ends, self.began + limits.audio_s)
            if self.video_since is not None:
                ends = min(ends, self.video_since + limits.video_s)
        left = min(limits.go_away_s, max(0.0, ends - now))
        self._at(ends - left, lambda: self._say(left))
        self._at(ends, lambda: self._end(RefusedError(GONE, POLICY)))
        deadline = self._connected + limits.deadline_s
        self._at(deadline, lambda: self._end(RefusedError(DEADLINE, INTERNAL)))

    def _say(self, seconds: float) -> None:
        self._leaving = True
        # A duration of protobuf, as JSON has it: https://protobuf.dev/programming-guides/json/
        self._emit("goAway", {"goAway": {"timeLeft": f"{seconds:.9g}s"}})

    def _at(self, when: float, then: Callable[[], None]) -> None:
        self._timers.append(self._clock.call_at(max(when, self._clock.now()), then))
