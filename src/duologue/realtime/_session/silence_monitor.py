"""Detect a service that has stopped responding although its connection is up (sans-IO).

A WebSocket's pings are answered by the front of a server. Whether the model behind it still works
shows only when something is due. There are three cases:

    due      a reply was requested or announced, and nothing comes: the connection is lost
    stuck    a reply has begun, nothing more of it comes, and all its audio has been played: the
             connection is lost
    doubt    the person was loud, and the service has shown no sign of it. That may be right,
             because it may have been noise. A service that answers a `Ping` gets one, and the
             connection is lost if no answer comes. For other services, only speech that was
             detected here counts, and the next connection is made before this one is dropped

Anything that arrives is a sign of life and ends a doubt. When a change of connections because of a
doubt did not help, the bound for doubts doubles each time, until a reply or a transcript arrives.
"""

from __future__ import annotations

from enum import Enum

PING_AT = 2 / 3
"""Fraction of the bound after which a `Ping` is sent."""
MIN_LOUD_S = 0.3
"""Seconds of loud audio that may be speech; less is a cough or a click."""
MIN_SPEECH_S = 0.5
"""Seconds of detected speech that raise a doubt when the service answers no `Ping`."""
TURN_PAUSE_S = 3.0
"""Seconds of silence after which every service has ended the user turn."""
MAX_ROLL_OVER_WAIT_S = 5.0
"""Seconds that a change because of a doubt may wait until neither side speaks."""
MAX_PATIENCE = 32
"""Factor by which the bound for doubts grows at most."""


class Verdict(Enum):
    """What the session has to do."""

    PING = "ask"
    """Send a `Ping`."""
    ROLL_OVER = "change"
    """Make the next connection, then change to it."""
    LOST = "lost"
    """Replace the connection at once."""


class SilenceMonitor:
    """Watches one session. Times are clock seconds.

    Args:
        bound_s: seconds until something that is due counts as missing; None turns the watch off.
        pings: whether the service answers a `Ping`.
    """

    __slots__ = ("_doubt_at", "_last_sign_at", "_patience", "_pinged_at", "bound_s", "pings")

    def __init__(self, bound_s: float | None, *, pings: bool) -> None:
        self.pings = pings
        self.bound_s = bound_s
        self._patience = 1
        self._last_sign_at = 0.0
        self._doubt_at: float | None = None
        self._pinged_at: float | None = None

    @property
    def enabled(self) -> bool:
        """Whether the watch is on."""
        return self.bound_s is not None

    @property
    def last_sign_at(self) -> float:
        """When something arrived last."""
        return self._last_sign_at

    def record_sign(self, now: float) -> None:
        """Record that something has arrived."""
        self._last_sign_at = now
        self._doubt_at = self._pinged_at = None

    def record_content(self) -> None:
        """Record a reply or a transcript, which show that the service works; reset the bound."""
        self._patience = 1

    def raise_doubt(self, since: float) -> bool:
        """Record that the person was loud or spoke at ``since``, without a sign of life.

        Return whether that is news, so that there may be a new deadline.
        """
        if self._doubt_at is not None:
            return False
        self._doubt_at = since
        return True

    def drop_doubt(self) -> None:
        """Drop a doubt, because the person continues after a pause and has not ended yet."""
        self._doubt_at = self._pinged_at = None

    def deadline(self, due: float | None, stuck: float | None) -> float | None:
        """Return when to poll next; ``due`` and ``stuck``: since when a reply is so, or None."""
        if self.bound_s is None:
            return None
        times = []
        if due is not None:
            times.append(max(due, self._last_sign_at) + self.bound_s)
        if stuck is not None:
            times.append(stuck + self.bound_s)
        if self._doubt_at is not None:
            times.append(self._doubt_deadline(self._doubt_at, self.bound_s))
        return min(times, default=None)

    def poll(self, due: float | None, stuck: float | None, now: float) -> Verdict | None:
        """Return what to do now, or None; the arguments are those of `deadline`."""
        if self.bound_s is None:
            return None
        owed = due is not None and max(due, self._last_sign_at) + self.bound_s <= now
        if owed or (stuck is not None and stuck + self.bound_s <= now):
            return self._conclude(Verdict.LOST)
        if self._doubt_at is None or self._doubt_deadline(self._doubt_at, self.bound_s) > now:
            return None
        if not self.pings:
            self._patience = min(2 * self._patience, MAX_PATIENCE)
            return self._conclude(Verdict.ROLL_OVER)
        if self._pinged_at is not None:
            return self._conclude(Verdict.LOST)
        self._pinged_at = now
        return Verdict.PING

    def _doubt_deadline(self, since: float, bound: float) -> float:
        """Return when to act on a doubt."""
        if not self.pings:
            return since + bound * self._patience
        if self._pinged_at is None:
            return since + bound * PING_AT
        return max(since + bound, self._pinged_at + bound * (1 - PING_AT))

    def _conclude(self, verdict: Verdict) -> Verdict:
        self._doubt_at = self._pinged_at = None
        return verdict
