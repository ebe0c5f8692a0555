"""End calls by our own clock, because Serve gives no notice before it kills a replica.

A replica that Serve stops gets no further call, and lives until its requests have ended, or
``graceful_shutdown_timeout_s`` is over. So no call may be longer than that.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Warn:
    """Tell the two sides of a call that it ends in ``seconds``."""

    call_id: str
    seconds: float


@dataclass(frozen=True, slots=True)
class End:
    """End a call."""

    call_id: str


type Action = Warn | End


class CallClock:
    """Says when to warn of the end of a call, and when to end it; knows no clock.

    Args:
        max_call_s: Longest call, in seconds.
        warn_s: Seconds before its end at which to warn; at most half of ``max_call_s``.
    """

    def __init__(self, max_call_s: float, warn_s: float) -> None:
        self._max_call_s = max_call_s
        self._warn_s = min(warn_s, max_call_s / 2)
        self._since: dict[str, float] = {}
        self._warned: set[str] = set()

    def check(self, now: float, running: Mapping[str, object]) -> list[Action]:
        """Return what is due.

        Args:
            now: Seconds of a monotonic clock.
            running: The running calls, by their ids.
        """
        self._since = {call: self._since.get(call, now) for call in running}
        self._warned &= self._since.keys()
        actions: list[Action] = []
        for call, since in self._since.items():
            left = since + self._max_call_s - now
            if left <= 0:
                actions.append(End(call))
            elif left <= self._warn_s and call not in self._warned:
                self._warned.add(call)
                actions.append(Warn(call, left))
        return actions
