"""Notices a service that has fallen silent: the line is well, and nothing comes of it (sans-IO).

A WebSocket's pings are answered by a server's front; whether anything stands behind it shows only
when something is due. There are three cases:

    due      the service owes a reply: one was asked for, or announced. Nothing comes: it is lost
    stuck    a reply runs, and nothing more of it has come, nor is left of its sound: lost
    doubt    the person was loud, and the service has not shown that it has heard them. It may take
             that for noise, rightly. So it is asked for a sign of life (`Ping`), where it can be;
             without an answer it is lost. Where it can't be asked, speech has to have been found
             here, and the connection is changed without being dropped before

Whatever comes is a sign of life, and ends a doubt. A change out of mere doubt that did not help is
not made again at once: the bound of doubts doubles each time, until a reply or words have come.
"""

from __future__ import annotations

from enum import Enum

ASK_AT = 2 / 3
"""The part of the bound after which a sign of life is asked for."""
LOUD_S = 0.3
"""Sound of the person that may be speech, in seconds: less is a cough or a click."""
SPEECH_S = 0.5
"""The same where it was found to be speech here, and the service can't be asked."""
PAUSE_S = 3.0
"""After a longer pause every service has taken the person's turn for ended, in seconds."""
CHANGE_S = 5.0
"""What a change out of doubt may take to come in a moment in which nobody speaks."""
MAX_PATIENCE = 32
"""By so much the bound of doubts grows at most."""


class Verdict(Enum):
    """What is to be done."""

    ASK = "ask"
    """Ask for a sign of life."""
    CHANGE = "change"
    """Make the next connection, then change to it."""
    LOST = "lost"
    """The connection is of no more use."""


class Silence:
    """Watches one session; ``bound_s`` None: nothing is ever due. Times in clock seconds.

    ``asks``: the service answers when it is asked for a sign of life.
    """

    __slots__ = ("_asked_at", "_doubt_at", "_patience", "_sign_at", "asks", "bound_s")

    def __init__(self, bound_s: float | None, *, asks: bool) -> None:
        self.asks = asks
        self.bound_s = bound_s
        self._patience = 1
        self._sign_at = 0.0
        self._doubt_at: float | None = None
        self._asked_at: float | None = None

    @property
    def on(self) -> bool:
        """Something may be due."""
        return self.bound_s is not None

    @property
    def sign_at(self) -> float:
        """When something came last."""
        return self._sign_at

    def sign(self, now: float) -> None:
        """Take note that something has come."""
        self._sign_at = now
        self._doubt_at = self._asked_at = None

    def content(self) -> None:
        """Take note that it was a reply, or words: the service does what it is for."""
        self._patience = 1

    def doubt(self, since: float) -> None:
        """Take note that the person was heard here, and no sign has come from there."""
        if self._doubt_at is None:
            self._doubt_at = since

    def forget(self) -> None:
        """Take note that they go on after a pause: there is no doubt before they have ended."""
        self._doubt_at = self._asked_at = None

    def deadline(self, due: float | None, stuck: float | None) -> float | None:
        """Return when to look again; ``due`` and ``stuck`` are since when something is."""
        if self.bound_s is None:
            return None
        times = []
        if due is not None:
            times.append(max(due, self._sign_at) + self.bound_s)
        if stuck is not None:
            times.append(stuck + self.bound_s)
        if self._doubt_at is not None:
            times.append(self._doubt_until(self._doubt_at, self.bound_s))
        return min(times, default=None)

    def poll(self, due: float | None, stuck: float | None, now: float) -> Verdict | None:
        """Return what is to be done now, if anything is."""
        if self.bound_s is None:
            return None
        owed = due is not None and max(due, self._sign_at) + self.bound_s <= now
        if owed or (stuck is not None and stuck + self.bound_s <= now):
            return self._over(Verdict.LOST)
        if self._doubt_at is None or self._doubt_until(self._doubt_at, self.bound_s) > now:
            return None
        if not self.asks:
            self._patience = min(2 * self._patience, MAX_PATIENCE)
            return self._over(Verdict.CHANGE)
        if self._asked_at is not None:
            return self._over(Verdict.LOST)
        self._asked_at = now
        return Verdict.ASK

    def _doubt_until(self, since: float, bound: float) -> float:
        """When something is to be done about a doubt."""
        if not self.asks:
            return since + bound * self._patience
        if self._asked_at is None:
            return since + bound * ASK_AT
        return max(since + bound, self._asked_at + bound * (1 - ASK_AT))

    def _over(self, verdict: Verdict) -> Verdict:
        self._doubt_at = self._asked_at = None
        return verdict
