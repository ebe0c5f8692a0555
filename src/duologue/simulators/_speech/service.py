"""A simulated service of voices and recognisers: WebSockets at several paths."""

from __future__ import annotations

import hmac
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import ClassVar, Protocol, TypedDict

import orjson
from aiohttp import web

from duologue.clock import Clock
from duologue.json_types import JsonObject
from duologue.simulators._backends import Backend
from duologue.simulators._channel import EventChannel
from duologue.simulators._fault_plan import FaultPlan
from duologue.simulators._http_service import HttpService
from duologue.simulators._speech.recognizers import (
    LocalRecognizer,
    Recognizer,
    ScriptedRecognizer,
)
from duologue.simulators._speech.sessions import SpeechSession
from duologue.simulators._websocket_channel import MAX_MESSAGE_BYTES
from duologue.simulators.faults import PRESETS, Fault
from duologue.testing.scripted import ScriptedRealtime


class RefusedError(Exception):
    """The service refuses a connection with an HTTP ``status``."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class SessionFactory(Protocol):
    """Makes the session of a connection."""

    def __call__(self, request: web.Request, channel: EventChannel) -> SpeechSession:
        """Return the session. Raise `RefusedError` for a request that the service refuses."""
        ...


class SpeechSimulatorOptions(TypedDict, total=False):
    """The options of every simulated vendor."""

    transcripts: Sequence[str]
    host: str
    port: int
    key: str | None
    faults: Sequence[Fault | str]
    clock_scale: float
    seed: int
    clock: Clock | None


class SpeechSimulator(HttpService[SpeechSession]):
    """A simulated vendor; a subclass says which paths there are, and how it looks at keys.

    Args:
        backend: ``script``: tones and the ``transcripts``; ``local``: the built-in voice and
            recogniser.
        transcripts: What is recognised, turn by turn.
        host: The address to listen on.
        port: The port to listen on; 0 takes a free one.
        key: The API key that is valid; by default `default_key`.
        faults: What goes wrong: faults, or names of presets.
        clock_scale: Divides the service's limits of time.
        seed: Makes delays the same in every run.
        clock: The clock of all times.
    """

    default_key: ClassVar[str] = "simulator"
    presets: ClassVar[Mapping[str, Fault]] = PRESETS

    def __init__(
        self,
        backend: str = "script",
        *,
        transcripts: Sequence[str] = (),
        host: str = "127.0.0.1",
        port: int = 0,
        key: str | None = None,
        faults: Sequence[Fault | str] = (),
        clock_scale: float = 1.0,
        seed: int = 1,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(
            Backend(ScriptedRealtime),
            FaultPlan(faults, self.presets),
            host=host,
            port=port,
            key=self.default_key if key is None else key,
            unknown_models=(),
            clock_scale=clock_scale,
            seed=seed,
            clock=clock,
        )
        self.backend = backend
        self.clock_scale = clock_scale
        self._transcripts = tuple(transcripts)

    @property
    def url(self) -> str:
        """The address without a path, for WebSockets."""
        return f"ws://{self._url_host}:{self._port}"

    @property
    def http_url(self) -> str:
        """The same address for HTTP."""
        return f"http://{self._url_host}:{self._port}"

    @abstractmethod
    def routes(self) -> Mapping[str, SessionFactory]:
        """Return the session factories by path."""

    @abstractmethod
    def key_of(self, request: web.Request) -> str:
        """Return the key that a request has, or ""."""

    def error_body(self, status: int, message: str) -> JsonObject:
        """Return the body of a refusal."""
        return {"error": message, "status": status}

    def recognizer(self) -> Recognizer:
        """Return the recogniser of a session."""
        if self.backend == "local":
            return LocalRecognizer()
        return ScriptedRecognizer(self._transcripts)

    def application(self) -> web.Application:
        """Return the application with all routes of the service."""
        app = web.Application()
        for path, factory in self.routes().items():
            app.router.add_get(path, self._handler(factory))
        return app

    def _handler(
        self, factory: SessionFactory
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def connect(request: web.Request) -> web.StreamResponse:
            try:
                self._admit(request)
                websocket = web.WebSocketResponse(
                    max_msg_size=MAX_MESSAGE_BYTES, compress=True, timeout=2.0
                )
                channel = self.open_channel(websocket, request)
                session = factory(request, channel)
            except RefusedError as refused:
                body = orjson.dumps(self.error_body(refused.status, str(refused)))
                return web.Response(
                    status=refused.status, body=body, content_type="application/json"
                )
            await websocket.prepare(request)
            await self.run_on_channel(channel, session)
            return websocket

        return connect

    def _admit(self, request: web.Request) -> None:
        refusal = self.refusal()
        if refusal is not None:
            raise RefusedError(refusal[0], refusal[1] or f"the simulator answers {refusal[0]}")
        if not hmac.compare_digest(self.key_of(request).encode(), self.key.encode()):
            raise RefusedError(401, "Invalid API key")
