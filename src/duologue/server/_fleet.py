"""What a supervisor knows of its workers: where the next connection goes, and who may admit a call.

The supervisor accepts every connection and hands it to one worker, before a byte of it is read. It
cannot know which connection will become a call, so it balances all of them: a worker's load is the
number of its open connections, or of its calls if that is more, and every connection that was
handed over and that the worker has not counted yet. So forty callers at once are spread evenly,
though no worker has reported anything in between. Connections of the page's files weigh as much as
a call, but they are spread in the same way and end within seconds.

A worker whose ticks are late gets a connection only if all others are late, too; and so does one
that has reported nothing for a second, because its event loop is stuck. A late worker refuses calls
by itself. If another one is on time, the page calls again at once, and so reaches that one;
a server whose workers are all late is not ready.

Limits are shared: a worker asks for a place before it admits a call, and the places of a worker
that has died are free again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from duologue.json_types import Json, JsonObject

FIRST_DELAY_S = 0.5
"""Seconds before a dead worker is replaced; twice as long each time it dies young."""

MAX_DELAY_S = 30.0
"""Most seconds before a dead worker is replaced."""

HEALTHY_S = 60.0
"""Seconds after which a worker counts as having started well."""

SILENT_S = 1.0
"""Seconds without a report after which a worker counts as late; it reports twice in that time."""


@dataclass(slots=True)
class WorkerState:
    """One worker process.

    ``slot`` counts the workers that run at once, from 1: a worker that replaces another has the
    same. ``handed_over`` counts the connections given to it, and ``received`` those of them that
    it had counted when it last reported.
    """

    number: int
    pid: int
    slot: int
    ready: bool = False
    places: set[int] = field(default_factory=set)
    handed_over: int = 0
    received: int = 0
    connections: int = 0
    tick_delay_ms: float = 0.0
    refused: int = 0
    reported_at: float | None = None

    @property
    def calls(self) -> int:
        """Calls that it has, or has been allowed to have."""
        return len(self.places)

    @property
    def load(self) -> int:
        """Connections that it has or is about to have."""
        return max(self.calls, self.connections) + self.handed_over - self.received


class Fleet:
    """The workers of one server.

    Args:
        limit: Most calls of all workers together.
        max_tick_delay_ms: Lateness from which a worker is chosen last; None if it does not matter.
        now: The time in seconds.
    """

    def __init__(
        self, limit: int, max_tick_delay_ms: float | None, now: Callable[[], float]
    ) -> None:
        self.limit = limit
        self.workers: dict[int, WorkerState] = {}
        self.draining = False
        self._max_tick_delay_ms = max_tick_delay_ms
        self._now = now
        self._refused_earlier = 0
        self._lost = 0

    @property
    def calls(self) -> int:
        """Calls of all workers."""
        return sum(worker.calls for worker in self.workers.values())

    def add(self, number: int, pid: int, slot: int) -> None:
        """Add a process that has been started."""
        self.workers[number] = WorkerState(number, pid, slot)

    def remove(self, number: int) -> int:
        """Remove a process that has ended; return how many calls it had."""
        worker = self.workers.pop(number)
        self._refused_earlier += worker.refused
        self._lost += not self.draining
        return worker.calls

    def choose(self, excluded: frozenset[int] = frozenset()) -> int | None:
        """Return the worker that gets the next connection; None if none is ready.

        Args:
            excluded: Workers that can't take one now.
        """
        ready = [w for w in self.workers.values() if w.ready and w.number not in excluded]
        if not ready:
            return None
        return min(ready, key=lambda w: (self._is_late(w), w.load, w.handed_over)).number

    def admit(self, number: int, place: int) -> bool:
        """Take a place for a call of this worker; return False if there is none.

        Args:
            number: The worker.
            place: Names the place; `free` takes the same number.
        """
        worker = self.workers.get(number)
        if worker is None or self.draining or self.calls >= self.limit:
            return False
        worker.places.add(place)
        return True

    def is_elsewhere(self, number: int) -> bool:
        """Return whether another worker than this one would admit a call."""
        others = (w for w in self.workers.values() if w.ready and w.number != number)
        full = self.draining or self.calls >= self.limit
        return not full and any(not self._is_late(worker) for worker in others)

    def free(self, number: int, place: int) -> None:
        """Give a place back, if the worker has it."""
        worker = self.workers.get(number)
        if worker is not None:
            worker.places.discard(place)

    def report(self, number: int, report: JsonObject) -> None:
        """Record what a worker has reported; ignore one that is malformed."""
        worker = self.workers.get(number)
        match report:
            case {
                "received": int(received),
                "connections": int(connections),
                "tick_delay_ms": int() | float() as delay,
                "refused": int(refused),
            } if worker is not None:
                worker.received = received
                worker.connections = connections
                worker.tick_delay_ms = float(delay)
                worker.refused = refused
                worker.reported_at = self._now()
            case _:
                pass

    def health(self) -> JsonObject:
        """Return what ``/health`` answers: the sums, and a line for each worker."""
        workers: list[Json] = [
            {
                "pid": worker.pid,
                "sessions": worker.calls,
                "tick_delay_ms": worker.tick_delay_ms,
            }
            for worker in self.workers.values()
            if worker.ready
        ]
        delays = [worker.tick_delay_ms for worker in self.workers.values()]
        ready = [worker for worker in self.workers.values() if worker.ready]
        return {
            "status": "draining" if self.draining else "ok",
            "sessions": self.calls,
            "limit": self.limit,
            "tick_delay_ms": max(delays, default=0.0),
            "refused": self._refused_earlier + sum(w.refused for w in self.workers.values()),
            "late": bool(ready) and all(map(self._is_late, ready)),
            "workers": workers,
        }

    def metrics(self) -> str:
        """Return what the supervisor knows, in Prometheus' text format."""
        workers = sorted(
            (worker for worker in self.workers.values() if worker.ready), key=lambda w: w.slot
        )
        lines = [
            "# HELP duologue_workers Worker processes that take calls.",
            "# TYPE duologue_workers gauge",
            f"duologue_workers {len(workers)}",
            "# HELP duologue_workers_ended_total Worker processes that ended before the server.",
            "# TYPE duologue_workers_ended_total counter",
            f"duologue_workers_ended_total {self._lost}",
            "# HELP duologue_worker_calls Calls of a worker.",
            "# TYPE duologue_worker_calls gauge",
            *(f'duologue_worker_calls{{worker="{w.slot}"}} {w.calls}' for w in workers),
            "# HELP duologue_worker_tick_delay_seconds Lateness of a tenth of a worker's ticks.",
            "# TYPE duologue_worker_tick_delay_seconds gauge",
            *(
                f'duologue_worker_tick_delay_seconds{{worker="{w.slot}"}} '
                f"{w.tick_delay_ms / 1000:g}"
                for w in workers
            ),
        ]
        return "".join(f"{line}\n" for line in lines)

    def _is_late(self, worker: WorkerState) -> bool:
        bound = self._max_tick_delay_ms
        if bound is None:
            return False
        at = worker.reported_at
        silent = at is not None and self._now() - at > SILENT_S
        return silent or worker.tick_delay_ms > bound


class RestartDelay:
    """How long to wait before one worker is replaced."""

    def __init__(self) -> None:
        self._next = FIRST_DELAY_S

    def after(self, lived_s: float) -> float:
        """Return the seconds to wait after a process that lived for ``lived_s``."""
        if lived_s >= HEALTHY_S:
            self._next = FIRST_DELAY_S
        delay, self._next = self._next, min(self._next * 2, MAX_DELAY_S)
        return delay
