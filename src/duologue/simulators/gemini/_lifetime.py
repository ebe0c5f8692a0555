"""The maximum duration of a session and of its connections, each announced before it ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from duologue.clock import Clock, Timer
from duologue.simulators.gemini._json_shapes import INTERNAL, POLICY, RefusedError
from duologue.simulators.gemini._reply import Emit

CONNECTION_EXPIRED = (
    "Connection aborted because the client failed to close the connection after receiving a GoAway "
    "signal once the session duration expired"
)
DEADLINE_EXCEEDED = "Deadline expired before operation could complete."


@dataclass(frozen=True, slots=True)
class Limits:
    """Maximum durations in seconds of the clock.

    ``audio_s`` and ``video_s`` hold for sessions without compression.

    Source: https://ai.google.dev/gemini-api/docs/live-session; ``deadline_s`` was observed.
    """

    connection_s: float = 600.0
    go_away_s: float = 10.0
    deadline_s: float = 3480.0
    audio_s: float = 900.0
    video_s: float = 120.0


class Lifetime:
    """Ends one connection when its time is up, by calling ``end`` with the reason."""

    def __init__(
        self, limits: Limits, clock: Clock, emit: Emit, end: Callable[[RefusedError], None]
    ) -> None:
        self._limits = limits
        self._clock = clock
        self._emit = emit
        self._end = end
        self._compressed = False
        self._connected_at = 0.0
        self._going_away = False
        self._timers: list[Timer] = []
        self.session_began_at = clock.now()
        """When the session began, perhaps on an earlier connection."""
        self.first_image_at: float | None = None
        """When the session's first image came."""

    def begin(self, *, compressed: bool) -> None:
        """Start counting, because the connection is open."""
        self._connected_at = self._clock.now()
        self._compressed = compressed
        self._arm()

    def image_received(self) -> None:
        """Shorten the session's time, because a session with images may last less long."""
        if self.first_image_at is None:
            self.first_image_at = self._clock.now()
            self._arm()

    def go_away(self, time_left: float | None = None) -> None:
        """Announce the end of the connection in ``time_left`` seconds, and end it then."""
        seconds = self._limits.go_away_s if time_left is None else time_left
        self.stop()
        self._send_go_away(seconds)
        self._schedule(
            self._clock.now() + seconds, lambda: self._end(RefusedError(CONNECTION_EXPIRED, POLICY))
        )

    def stop(self) -> None:
        """Cancel all timers."""
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()

    def _arm(self) -> None:
        if self._going_away:
            return
        self.stop()
        limits, now = self._limits, self._clock.now()
        ends_at = self._connected_at + limits.connection_s
        if not self._compressed:
            ends_at = min(ends_at, self.session_began_at + limits.audio_s)
            if self.first_image_at is not None:
                ends_at = min(ends_at, self.first_image_at + limits.video_s)
        seconds = min(limits.go_away_s, max(0.0, ends_at - now))
        self._schedule(ends_at - seconds, lambda: self._send_go_away(seconds))
        self._schedule(ends_at, lambda: self._end(RefusedError(CONNECTION_EXPIRED, POLICY)))
        deadline = self._connected_at + limits.deadline_s
        self._schedule(deadline, lambda: self._end(RefusedError(DEADLINE_EXCEEDED, INTERNAL)))

    def _send_go_away(self, seconds: float) -> None:
        self._going_away = True
        # A protobuf duration in its JSON form: https://protobuf.dev/programming-guides/json/
        self._emit("goAway", {"goAway": {"timeLeft": f"{seconds:.9g}s"}})

    def _schedule(self, when: float, then: Callable[[], None]) -> None:
        self._timers.append(self._clock.call_at(max(when, self._clock.now()), then))
