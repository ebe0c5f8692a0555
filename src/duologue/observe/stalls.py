"""Find what blocks the event loop.

Everything of all calls runs on one event loop. A function that waits there in place of ``await``
(a ``time.sleep``, a query of a blocking database driver) holds up the audio of everybody, and no
profile of the program shows whose it was. `StallWatchdog` is a thread that looks fourteen times
a second whether the 20 ms tick has run. If it is late, the thread takes the stack of the loop's
thread while it is still stuck, and reports the function once the loop goes on.

The loop itself only notes the time of each tick, which it has anyway. A function that holds the
interpreter's lock (a long C function) stops the watchdog too; it is then reported without a place.
"""

from __future__ import annotations

import asyncio
import logging
import site
import sys
import sysconfig
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from weakref import WeakSet

from duologue.agent.agent import Agent
from duologue.clock import LoopClock
from duologue.events.events import ErrorEvent
from duologue.ticker import Subscription, ticker_for

log = logging.getLogger(__name__)

_LOOK_S = 0.07
"""Seconds between two looks: what is blocked for `bound_s` is seen by most of them, and each costs
about 30 us."""

_MAX_STALLS = 100
"""Stalls that `StallWatchdog.stalls` keeps."""


@dataclass(frozen=True, slots=True)
class Stall:
    """One time in which the event loop was blocked.

    Args:
        seconds: How long, from the tick that did not run.
        function: What was running: the innermost function that is not of the standard library or
            of an installed package, if there is one; empty if it held the interpreter's lock.
        file: Its file.
        line: The line that was running.
    """

    seconds: float
    function: str
    file: str
    line: int

    def __str__(self) -> str:
        where = f"{self.function} ({self.file}:{self.line})" if self.function else "a C function"
        return f"the event loop was blocked for {self.seconds * 1000:.0f} ms by {where}"


class StallWatchdog:
    """Reports what blocks the event loop; use as ``with``, on the event loop.

    Each stall is logged, kept in `stalls`, and sent to the agents that are `watch`ed as an
    `ErrorEvent` of the source ``event loop``.

    Args:
        bound_s: Seconds that a tick may be late.
        on_stall: Called with each stall, on the event loop.
    """

    def __init__(
        self, bound_s: float = 0.05, *, on_stall: Callable[[Stall], object] | None = None
    ) -> None:
        self._bound_s = bound_s
        self._on_stall = on_stall
        self._agents: WeakSet[Agent] = WeakSet()
        self._ticks: Subscription | None = None
        self._ticked_at = 0.0
        self._stopped = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_thread = 0
        self.stalls: deque[Stall] = deque(maxlen=_MAX_STALLS)
        """The newest stalls, oldest first."""

    def watch(self, agent: Agent) -> None:
        """Tell an agent of the stalls while its conversation lasts."""
        self._agents.add(agent)

    def __enter__(self) -> StallWatchdog:
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._ticked_at = time.monotonic()
        self._ticks = ticker_for(LoopClock()).subscribe(self._tick)
        threading.Thread(target=self._run, name="stall watchdog", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped = True
        if self._ticks is not None:
            self._ticks.cancel()

    def _tick(self, when: float) -> None:
        self._ticked_at = time.monotonic()

    def _run(self) -> None:
        seen = self._ticked_at
        place: tuple[str, str, int] | None = None
        while not self._stopped:
            # Sleeping costs half as much as waiting for an event.
            time.sleep(_LOOK_S)
            ticked_at = self._ticked_at
            if ticked_at != seen:
                # 20 ms are the tick's own period.
                blocked = ticked_at - seen - 0.02
                if blocked > self._bound_s and (place is not None or blocked > 2 * _LOOK_S):
                    self._announce(Stall(blocked, *(place or ("", "", 0))))
                seen, place = ticked_at, None
            if place is None and time.monotonic() - ticked_at > self._bound_s + 0.02:
                place = self._where()

    def _where(self) -> tuple[str, str, int] | None:
        frame = sys._current_frames().get(self._loop_thread)
        if frame is None:
            return None
        innermost: FrameType | None = frame
        while frame is not None and _is_installed(frame.f_code.co_filename):
            frame = frame.f_back
        shown = frame or innermost
        if shown is None or shown.f_code.co_name == "select":
            return None  # It waits for events: it is not blocked, but was late to wake up.
        return shown.f_code.co_qualname, _short(shown.f_code.co_filename), shown.f_lineno

    def _announce(self, stall: Stall) -> None:
        log.warning("%s", stall)
        loop = self._loop
        if loop is not None and not loop.is_closed():
            try:
                loop.call_soon_threadsafe(self._report, stall)
            except RuntimeError:
                return  # The loop was closed just now.

    def _report(self, stall: Stall) -> None:
        self.stalls.append(stall)
        for agent in list(self._agents):
            agent.events.emit(ErrorEvent("event loop", str(stall), "stall"))
        if self._on_stall is not None:
            self._on_stall(stall)


def _folders() -> tuple[str, ...]:
    """Return the folders of code that is not the program's own."""
    paths = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    paths |= {*site.getsitepackages(), site.getusersitepackages()}
    paths.add(str(Path(__file__).parents[1]))  # this library
    return tuple(str(Path(path)) for path in paths if path)


_INSTALLED = _folders()


def _is_installed(file: str) -> bool:
    return file.startswith((*_INSTALLED, "<frozen"))


def _short(file: str) -> str:
    """Return the last two parts of a path, which name a file well enough."""
    return "/".join(Path(file).parts[-2:])
