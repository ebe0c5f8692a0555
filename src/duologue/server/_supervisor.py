"""Run a server in several processes: one accepts, the others take the calls.

                        listener
                            |  accept
    supervisor -------------+-- control channel ---- who may admit, health, REST API, drain
        |  SCM_RIGHTS       |
        +----------> worker 1: connections, calls, their media
        +----------> worker 2          (one end of a pair, if worker 2 got a page of worker 1)

The supervisor hands every accepted connection to the emptiest worker (see `_fleet`), before a byte
of it is read, so TLS is the worker's. Signalling of a call travels over its own WebSocket and its
media over sockets of the process that has it: a call never leaves its worker. The alternatives are
worse: workers that share a listener are picked by the system, which knows nothing of calls (six of
six connections went to one of two), and SO_REUSEPORT hashes addresses and does not balance on
macOS.

A worker is the program of the server, started again; `_worker` says how it knows. The first worker
starts alone, so that weights are fetched once and a configuration that can't work is one error. A
dead worker loses its own calls and is replaced, after a delay that grows while it dies young.
Should the supervisor die, its workers drain.

SIGTERM closes the listener and drains all workers. A second signal, SIGINT, and cancellation stop
them at once; what does not end in time is killed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress

from duologue.clock import Clock, LoopClock
from duologue.errors import ConfigError
from duologue.json_types import Json, JsonObject
from duologue.server._acceptor import Acceptor
from duologue.server._fleet import Fleet, RestartDelay
from duologue.server._merged_metrics import merge_metrics
from duologue.server._worker import CONNECTION, ENVIRONMENT, RELAY, receive_connections
from duologue.server._worker_link import ASK_S, LinkClosedError, WorkerLink
from duologue.server.calls import AFTER_CALL_S
from duologue.server.config import ServerConfig

log = logging.getLogger(__name__)

STOP_S = 6.0
"""Seconds in which workers must end after a stop; then they are killed."""

MAX_UNPLACED = 256
"""Most accepted connections that wait for a worker; the others wait in the system's queue."""

RETRY_S = 0.05
"""Seconds after which a connection that no worker could take is offered again."""


class _Worker:
    """A running worker process, and the channels to it."""

    def __init__(
        self, number: int, process: asyncio.subprocess.Process, channel: socket.socket
    ) -> None:
        self.number = number
        self.process = process
        self.channel = channel
        self.link: WorkerLink | None = None
        self._handed_back: deque[socket.socket] = deque()
        self.started = False
        """Whether it has been ready; it may have calls since then."""

    def hand_over(self, connection: socket.socket) -> bool:
        """Send the process a connection; return False if it takes none now."""
        try:
            socket.send_fds(self.channel, [CONNECTION], [connection.fileno()])
        except OSError:
            return False
        return True

    def relay_to(self, other: _Worker | None) -> bool:
        """Hand another worker the socket that this one has sent before it asked for that."""
        self._handed_back.extend(one for _, one in receive_connections(self.channel) or [])
        if not self._handed_back:
            return False
        with self._handed_back.popleft() as end:
            if other is None or other is self:
                return False
            try:
                socket.send_fds(other.channel, [RELAY], [end.fileno()])
            except OSError:
                return False
            return True

    def kill(self) -> None:
        """End the process at once."""
        with suppress(ProcessLookupError):
            self.process.kill()


class Supervisor:
    """Starts the workers, and hands connections to them.

    Args:
        config: The configuration of the server.
        workers: How many.
        listener: The listening socket, which is closed at the end.
        on_ready: Called when the first worker is ready.
        command: Command line of a worker; by default that of this process.
        clock: Clock of the delays.
    """

    def __init__(
        self,
        config: ServerConfig,
        workers: int,
        listener: socket.socket,
        *,
        on_ready: Callable[[], None],
        command: list[str] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._config = config
        self._slots = workers
        self._listener = listener
        self._port = int(listener.getsockname()[1])
        self._on_ready = on_ready
        self._command = command or [sys.executable, *sys.orig_argv[1:]]
        self._clock = clock or LoopClock()
        self._fleet = Fleet(config.max_sessions, config.max_tick_delay_ms, self._clock.now)
        self._workers: dict[int, _Worker] = {}
        self._last_number = 0
        self._unplaced: deque[socket.socket] = deque()
        self._retry: asyncio.TimerHandle | None = None
        self._draining = asyncio.Event()
        self._stopping = asyncio.Event()
        self._first_ready = asyncio.Event()
        self._signal: int | None = None

    async def run(self, *, signals: bool) -> None:
        """Run until a signal or cancellation, and until all workers have ended.

        Raises:
            ConfigError: The first worker could not start.
        """
        acceptor = Acceptor(self._listener, self._place)
        self._acceptor = acceptor
        try:
            async with asyncio.TaskGroup() as tasks:
                with self._handle_signals(signals):
                    slots = tasks.create_task(self._run_slots(), name="workers")
                    ending = tasks.create_task(self._end_in_time(), name="end")
                    try:
                        await asyncio.wait({slots})
                    except asyncio.CancelledError:
                        self._stop()
                        await asyncio.wait({slots}, timeout=STOP_S + 1)
                        raise
                    finally:
                        ending.cancel()
        except* ConfigError as errors:
            raise errors.exceptions[0] from None
        finally:
            acceptor.close()
            for connection in self._unplaced:
                connection.close()
            for worker in self._workers.values():
                worker.kill()
        if self._signal is not None:
            signal.raise_signal(self._signal)

    @contextmanager
    def _handle_signals(self, wanted: bool) -> Generator[None]:
        loop = asyncio.get_running_loop()
        handled = (signal.SIGTERM, signal.SIGINT) if wanted else ()
        before = {number: signal.getsignal(number) for number in handled}
        for number in handled:
            loop.add_signal_handler(number, self._signalled, number)
        try:
            yield
        finally:
            for number, handler in before.items():
                loop.remove_signal_handler(number)
                signal.signal(number, handler)

    def _signalled(self, number: int) -> None:
        drains = number == signal.SIGTERM and self._config.drain_s > 0
        if drains and not self._draining.is_set():
            self._drain()
        else:
            self._signal = number
            self._stop()

    def _drain(self) -> None:
        """Take no further connection, and let all workers end their calls."""
        self._fleet.draining = True
        self._draining.set()
        self._acceptor.close()
        self._tell_all({"drain": True})

    def _stop(self) -> None:
        """Let all workers end at once."""
        self._drain()
        self._stopping.set()
        self._tell_all({"stop": True})

    def _tell_all(self, message: JsonObject) -> None:
        for worker in self._workers.values():
            if worker.link is not None and worker.started:
                worker.link.tell(message)
            else:
                worker.kill()  # It has no call yet.

    async def _end_in_time(self) -> None:
        """Kill the workers that do not end."""
        await self._draining.wait()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._config.drain_s + AFTER_CALL_S + STOP_S):
                await self._stopping.wait()
        await self._clock.sleep(STOP_S)
        for worker in list(self._workers.values()):
            log.warning("worker %d did not end in time and was killed", worker.number)
            worker.kill()

    async def _run_slots(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep_worker(1, first=True), name="worker")
            await self._wait_for(self._first_ready)
            for slot in range(2, self._slots + 1):
                if not self._draining.is_set():
                    tasks.create_task(self._keep_worker(slot), name="worker")

    async def _wait_for(self, event: asyncio.Event) -> None:
        """Wait for an event, or for the drain."""
        async with asyncio.TaskGroup() as tasks:
            waits = {tasks.create_task(one.wait()) for one in (event, self._draining)}
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()

    async def _keep_worker(self, slot: int, *, first: bool = False) -> None:
        """Run a worker, and another one whenever it has ended."""
        delay = RestartDelay()
        while not self._draining.is_set():
            began = self._clock.now()
            self._last_number += 1
            number = self._last_number
            code = await self._run_worker(number, slot)
            lost = self._fleet.remove(number)
            if self._draining.is_set():
                return
            if first and not self._first_ready.is_set():
                raise ConfigError(f"no worker could start (exit code {code}): see above")
            wait = delay.after(self._clock.now() - began)
            log.error(
                "worker %d ended (%s) and lost %d calls: another one starts in %g s",
                number,
                f"signal {-code}" if code < 0 else f"exit code {code}",
                lost,
                wait,
            )
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._draining.wait()

    async def _run_worker(self, number: int, slot: int) -> int:
        """Run one worker process to its end; return its exit code."""
        control, its_control = socket.socketpair()
        channel, its_channel = socket.socketpair()
        channel.setblocking(False)
        control.setblocking(False)
        with channel:
            with its_control, its_channel:
                numbers = (number, its_control.fileno(), its_channel.fileno(), self._port)
                process = await asyncio.create_subprocess_exec(
                    *self._command,
                    env=os.environ | {ENVIRONMENT: ":".join(map(str, numbers))},
                    pass_fds=(its_control.fileno(), its_channel.fileno()),
                    # A terminal's Ctrl-C is the supervisor's alone.
                    start_new_session=True,
                )
            self._fleet.add(number, process.pid, slot)
            worker = _Worker(number, process, channel)
            worker.link = WorkerLink(
                lambda message: self._handle_message(worker, message),
                lambda question: self._answer(worker, question),
            )
            await worker.link.open(control)
            self._workers[number] = worker
            try:
                async with asyncio.TaskGroup() as tasks:
                    reading = tasks.create_task(worker.link.run(), name="control")
                    code = await process.wait()
                    self._fleet.workers[number].ready = False
                    reading.cancel()
            finally:
                del self._workers[number]
                worker.kill()
        return code

    def _handle_message(self, worker: _Worker, message: JsonObject) -> None:
        match message:
            case {"ready": True}:
                self._ready(worker)
            case {"report": dict(report)}:
                self._fleet.report(worker.number, report)
            case {"free": int(place)}:
                self._fleet.free(worker.number, place)
            case {"draining": True}:
                self._fleet.workers[worker.number].ready = False
            case _:
                pass

    def _ready(self, worker: _Worker) -> None:
        if self._draining.is_set():
            worker.kill()
            return
        worker.started = True
        self._fleet.workers[worker.number].ready = True
        if not self._first_ready.is_set():
            self._first_ready.set()
            self._on_ready()
        self._place_waiting()
        self._acceptor.start()

    async def _answer(self, worker: _Worker, question: JsonObject) -> JsonObject:
        match question:
            case {"do": "admit", "place": int(place)}:
                return {"admitted": self._fleet.admit(worker.number, place)}
            case {"do": "elsewhere"}:
                return {"elsewhere": self._fleet.is_elsewhere(worker.number)}
            case {"do": "metrics"}:
                return {"text": await self._collect_metrics()}
            case {"do": "relay", "id": str(call_id)}:
                return {"relayed": worker.relay_to(self._owner(call_id))}
            case {"do": "health"}:
                return self._fleet.health()
            case {"do": "list"}:
                return {"calls": await self._list_calls()}
            case {"do": "call", "id": str(call_id)}:
                other = self._owner(call_id)
                if other is not None and other is not worker and other.link is not None:
                    return await other.link.ask(question)
            case _:
                pass
        return {}

    def _owner(self, call_id: str) -> _Worker | None:
        number = call_id.partition("-")[0]
        return self._workers.get(int(number)) if number.isdecimal() else None

    async def _list_calls(self) -> list[Json]:
        answers = await self._ask_all({"do": "list"})
        lists = [answer.get("calls") for answer in answers.values()]
        return [call for calls in lists if isinstance(calls, list) for call in calls]

    async def _collect_metrics(self) -> str:
        """Return the metrics of all workers that answer, and those of the supervisor."""
        texts = {}
        for number, answer in (await self._ask_all({"do": "metrics"})).items():
            text, worker = answer.get("text"), self._fleet.workers.get(number)
            if isinstance(text, str) and worker is not None:
                texts[worker.slot] = text
        return merge_metrics(texts) + self._fleet.metrics()

    async def _ask_all(self, question: JsonObject) -> dict[int, JsonObject]:
        """Ask all workers; return the answers by the number of the worker."""

        async def ask(link: WorkerLink) -> JsonObject:
            try:
                return await link.ask(question, within_s=ASK_S / 2)
            except LinkClosedError:
                return {}

        workers = [worker for worker in self._workers.values() if worker.started]
        async with asyncio.TaskGroup() as tasks:
            asked = {
                worker.number: tasks.create_task(ask(worker.link))
                for worker in workers
                if worker.link is not None
            }
        return {number: one.result() for number, one in asked.items()}

    def _place(self, connection: socket.socket) -> None:
        """Hand a connection to the emptiest worker, or let it wait."""
        if self._unplaced or not self._hand_over(connection):
            self._unplaced.append(connection)
            if len(self._unplaced) >= MAX_UNPLACED:
                self._acceptor.pause()
            self._place_later()

    def _place_later(self) -> None:
        if self._retry is None:
            self._retry = asyncio.get_running_loop().call_later(RETRY_S, self._place_waiting)

    def _place_waiting(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        while self._unplaced and self._hand_over(self._unplaced[0]):
            self._unplaced.popleft()
        if self._unplaced:
            self._place_later()
        elif self._first_ready.is_set():
            self._acceptor.start()

    def _hand_over(self, connection: socket.socket) -> bool:
        excluded: frozenset[int] = frozenset()
        while (number := self._fleet.choose(excluded)) is not None:
            if self._workers[number].hand_over(connection):
                self._fleet.workers[number].handed_over += 1
                connection.close()
                return True
            excluded |= {number}
        return False
