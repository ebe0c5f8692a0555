"""How late the output clock's ticks have been lately, to admit calls by it.

All audio for all callers leaves on one 20 ms clock (`duologue.ticker`). Once the event loop has too
much to do, each tick runs later than it should, and a few calls more spoil all of them: on one core
35 calls had 0.5 % of their ticks late, 40 had 20 %. So the number of calls alone says little about
whether another fits; how late the ticks are says it, whatever the machine, the model or the rest of
the program do.

The measure is the 90th percentile of the lateness over the last seconds. A single stall, such as a
garbage collection or a file that was slow to read, is late once and does not move it; a loop that
cannot keep up is late all the time. A tick counts when it runs, a skipped one by the time at which
its successor ran, and one that has not run yet by how overdue it is: a loop that is stuck refuses
calls before its next tick.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from duologue.ticker import PERIOD_S

WINDOW_S = 3.0
"""Seconds that the measure looks back."""

MIN_TICKS = 50
"""Ticks without which nothing is known: those of one second."""

PERCENTILE = 0.9

_MAX_TICKS = round(WINDOW_S / PERIOD_S)


class LatenessMonitor:
    """Keeps the lateness of the last ticks. It has no clock: its caller passes the time."""

    __slots__ = ("_last", "_ticks")

    def __init__(self) -> None:
        self._ticks: deque[tuple[float, float]] = deque(maxlen=_MAX_TICKS)
        self._last: float | None = None

    def record(self, when: float, now: float) -> None:
        """Record that the tick which was due at ``when`` runs at ``now``, both in seconds."""
        self._ticks.extend((at, now - at) for at in self._missing(when))
        self._ticks.append((when, now - when))
        self._last = when

    def pause(self) -> None:
        """Record that the ticks stop, so that none of the following is missing."""
        self._last = None

    def delay_ms(self, now: float) -> float:
        """Return the lateness in ms that a tenth of the last ticks exceeded; 0 if they are few."""
        late = [late for at, late in self._ticks if at > now - WINDOW_S]
        late += (now - at for at in self._missing(now))
        if len(late) < MIN_TICKS:
            return 0.0
        late.sort()
        return max(0.0, late[int(len(late) * PERCENTILE)] * 1000)

    def _missing(self, until: float) -> Iterator[float]:
        """Yield the times before ``until`` at which ticks were due that have not run."""
        if self._last is None:
            return
        missing = round((until - self._last) / PERIOD_S) - 1
        for back in range(min(missing, _MAX_TICKS), 0, -1):
            yield self._last + (missing + 1 - back) * PERIOD_S
