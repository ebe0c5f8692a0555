"""A worker process of a server.

It gets its connections, and its share of the limits, from the supervisor, which starts the program
of the server again with `ENVIRONMENT` set. So a worker makes its agents by the same code, and
nothing must be pickled or survive a fork.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from duologue.json_types import Json, JsonObject
from duologue.server._fleet import SILENT_S
from duologue.server._worker_link import LinkClosedError, WorkerLink
from duologue.server.calls import ApiReply, CallLimiter

ENVIRONMENT = "DUOLOGUE_WORKER"
"""Variable of the environment: number, control channel, channel of connections, port."""

_MAX_FDS = 16
"""Most connections that are received at once."""


@dataclass(frozen=True, slots=True)
class WorkerPlace:
    """What the supervisor has given this process.

    Args:
        number: Number of the worker; a worker that replaces another has a new one.
        control: File descriptor of the control channel.
        connections: File descriptor of the channel of connections.
        port: The port that the supervisor listens on.
    """

    number: int
    control: int
    connections: int
    port: int


@cache
def worker_place() -> WorkerPlace | None:
    """Return what the supervisor has given this process; None if it is not a worker."""
    text = os.environ.pop(ENVIRONMENT, None)  # so that programs it starts are not workers
    if text is None:
        return None
    number, control, connections, port = map(int, text.split(":"))
    for descriptor in (control, connections):
        os.set_inheritable(descriptor, False)
    return WorkerPlace(number, control, connections, port)


def worker_number() -> int | None:
    """Return the number of this worker process, from 1.

    Returns:
        None in the supervisor, and in a server without workers.
    """
    place = worker_place()
    return None if place is None else place.number


CONNECTION, RELAY = b"c", b"r"
"""What comes with each socket in a channel: that it is a new connection, or one end of a pair by
which another worker passes on the messages of a page.
"""


def receive_connections(channel: socket.socket) -> list[tuple[bytes, socket.socket]] | None:
    """Return the sockets that wait in a channel, and what each is; None if the other side has
    ended.
    """
    try:
        data, descriptors, _, _ = socket.recv_fds(channel, _MAX_FDS, _MAX_FDS)
    except (BlockingIOError, InterruptedError):
        return []
    except OSError:
        return None
    if not data and not descriptors:
        return None
    connections = []
    # Without a descriptor, this process has no room for another file, and the socket is closed.
    for kind, descriptor in zip(data, descriptors, strict=False):
        os.set_inheritable(descriptor, False)
        connection = socket.socket(fileno=descriptor)
        connection.setblocking(False)
        connections.append((bytes([kind]), connection))
    return connections


class OtherWorkers:
    """The other workers, as `CallLimiter` needs them: over the supervisor.

    Args:
        place: This process.
        calls: The calls of this process.
        channel: The channel of connections; sockets for other workers go through it.
        on_drain: Called when the supervisor wants this process to drain.
        on_stop: Called when it must stop at once.
        metrics: Returns the metrics of this process.
    """

    def __init__(
        self,
        place: WorkerPlace,
        calls: CallLimiter,
        channel: socket.socket,
        *,
        on_drain: Callable[[], None],
        on_stop: Callable[[], None],
        metrics: Callable[[], str],
    ) -> None:
        self._calls = calls
        self._channel = channel
        self._on_drain = on_drain
        self._on_stop = on_stop
        self._metrics = metrics
        self.link = WorkerLink(self._receive, self._answer)
        self.prefix = f"{place.number}-"
        self.received = 0
        """Connections received from the supervisor."""
        self._reported: JsonObject = {}
        self._reported_at = float("-inf")
        self._places: list[int] = []
        self._next_place = 0

    def report(self, connections: int) -> None:
        """Tell the supervisor how much this process has to do, if that has changed.

        Tell it twice a second in any case, so that it notices a process that is stuck.

        Args:
            connections: Open connections.
        """
        report: JsonObject = {
            "received": self.received,
            "connections": connections,
            "tick_delay_ms": round(self._calls.tick_delay_ms, 1),
            "refused": self._calls.refused,
        }
        now = time.monotonic()
        if report != self._reported or now - self._reported_at >= SILENT_S / 2:
            self._reported, self._reported_at = report, now
            self.link.tell({"report": report})

    async def admit(self) -> bool:
        """Take one of the places that all workers share."""
        self._next_place += 1
        place = self._next_place
        try:
            answer = await self.link.ask({"do": "admit", "place": place})
        except BaseException as error:
            # The supervisor may still grant it.
            self.link.tell({"free": place})
            if isinstance(error, LinkClosedError):
                return False
            raise
        if answer.get("admitted") is not True:
            return False
        self._places.append(place)
        return True

    def free(self) -> None:
        """Give a place back."""
        self.link.tell({"free": self._places.pop()})

    async def health(self) -> JsonObject | None:
        """Return the numbers of all workers; None if the supervisor does not answer."""
        try:
            return await self.link.ask({"do": "health"})
        except LinkClosedError:
            return None

    async def is_elsewhere(self) -> bool:
        """Return whether another process would admit a call that this one must refuse."""
        try:
            answer = await self.link.ask({"do": "elsewhere"})
        except LinkClosedError:
            return False
        return answer.get("elsewhere") is True

    async def metrics(self) -> str:
        """Return the metrics of all workers; those of this one if the supervisor has ended."""
        try:
            text = (await self.link.ask({"do": "metrics"})).get("text")
        except LinkClosedError:
            text = None
        return text if isinstance(text, str) else self._metrics()

    async def list_calls(self) -> list[Json]:
        """Return the calls of all workers."""
        try:
            listed = (await self.link.ask({"do": "list"})).get("calls")
        except LinkClosedError:
            listed = None
        return listed if isinstance(listed, list) else self._calls.summaries()

    async def ask(self, call_id: str, request: JsonObject) -> ApiReply:
        """Ask something of a call of another worker."""
        try:
            answer = await self.link.ask({"do": "call", "id": call_id, "request": request})
        except LinkClosedError as error:
            return ApiReply(503, {"error": str(error)})
        return _reply_of(answer)

    async def connect(self, call_id: str) -> socket.socket | None:
        """Return a channel to the worker that has a call; None if there is none."""
        if not call_id.partition("-")[0].isdecimal() or call_id.startswith(self.prefix):
            return None
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                socket.send_fds(self._channel, [RELAY], [theirs.fileno()])
                answer = await self.link.ask({"do": "relay", "id": call_id})
                if answer.get("relayed") is True:
                    ours.setblocking(False)
                    return ours
            except (OSError, LinkClosedError):
                pass
            except BaseException:
                ours.close()
                raise
        ours.close()
        return None

    def _receive(self, message: JsonObject) -> None:
        match message:
            case {"drain": True}:
                self._on_drain()
            case {"stop": True}:
                self._on_stop()
            case _:
                pass

    async def _answer(self, question: JsonObject) -> JsonObject:
        match question:
            case {"do": "list"}:
                return {"calls": self._calls.summaries()}
            case {"do": "metrics"}:
                return {"text": self._metrics()}
            case {
                "do": "call",
                "id": str(call_id),
                "request": {"do": "signal", "message": dict(message)},
            }:
                reply = await self._calls.signal_own(call_id, message)
                return {"status": reply.status, "body": reply.body}
            case {"do": "call", "id": str(call_id), "request": dict(request)}:
                reply = self._calls.ask_own(call_id, request)
                return {"status": reply.status, "body": reply.body}
            case _:
                return {}


def _reply_of(answer: JsonObject) -> ApiReply:
    match answer:
        case {"status": int(status), "body": dict() | None as body}:
            return ApiReply(status, body)
        case _:
            return ApiReply(404, {"error": "there is no such call"})
