"""Detect a machine that was too busy for the latencies of a conversation to mean anything."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

_TICK_S = 0.05
_LATE_S = 0.02
_MAX_LATE_SHARE = 0.03
"""Share of timers that may be over 20 ms late; more causes gaps in the audio and slower replies."""

_MAX_OTHERS_SHARE = 0.25
"""Share of all cores that other programs may use, because the engine computes on all of them."""


class LoadMonitor:
    """Measures how busy other programs are, and how late timers are."""

    def __init__(self, stat: Path = Path("/proc/stat")) -> None:
        self._stat = stat
        self._start_ticks: tuple[float, float, float] | None = None
        self._ticks = self._late = 0

    def start(self) -> None:
        """Start measuring."""
        self._start_ticks = self._cpu_ticks()
        self._ticks = self._late = 0

    async def watch_timers(self) -> None:
        """Measure how late timers are, until cancelled."""
        now = asyncio.get_running_loop().time
        while True:
            due = now() + _TICK_S
            await asyncio.sleep(_TICK_S)
            self._ticks += 1
            self._late += now() - due > _LATE_S

    def warning(self) -> str | None:
        """Return a warning about the latencies; None if the machine was quiet."""
        others, late = self._other_programs_share(), self._late / max(self._ticks, 1)
        if others > _MAX_OTHERS_SHARE:
            why = f"other programs used {others:.0%} of it"
        elif late > _MAX_LATE_SHARE:
            why = f"{late:.0%} of its timers were late"
        else:
            return None
        return f"This machine was too busy for these figures: {why}. A quiet one answers sooner."

    def _other_programs_share(self) -> float:
        """Return the share of all cores that other programs have used since `start`."""
        began, now = self._start_ticks, self._cpu_ticks()
        if began is None or now is None or now[0] <= began[0]:
            return 0.0
        total, busy, own = (end - begin for begin, end in zip(began, now, strict=True))
        return max(0.0, busy - own) / total

    def _cpu_ticks(self) -> tuple[float, float, float] | None:
        """Return the time of all cores, the used part of it, and the part used by this process.

        The unit is 10 ms. Return None if the system does not say; only Linux has this file.
        """
        try:
            first = self._stat.read_text("ascii").partition("\n")[0].split()
            ticks = [int(word) for word in first[1:9]]
        except (OSError, ValueError):
            return None
        if len(ticks) < 5:
            return None
        idle = ticks[3] + ticks[4]
        return float(sum(ticks)), float(sum(ticks) - idle), time.process_time() * 100
