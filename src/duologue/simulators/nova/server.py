"""`NovaSimulator`: a local server that speaks Amazon Nova Sonic's protocol."""

from __future__ import annotations

import asyncio
import logging
import re
import ssl
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote
from uuid import uuid4

from duologue._net import LOOPBACK_NAMES
from duologue._optional import optional
from duologue.clock import Clock
from duologue.simulators._backends import BackendFactory, resolve_backend
from duologue.simulators._fault_plan import FaultPlan
from duologue.simulators.faults import Fault
from duologue.simulators.nova.faults import PRESETS, TOO_MANY, UNAVAILABLE
from duologue.simulators.script import Script
from duologue.testing.scripted import Reply

with optional("simulate"):
    import orjson

    from duologue.simulators._service import Service
    from duologue.simulators._test_ca import TemporaryCA
    from duologue.simulators.nova._h2_channel import H2Channel
    from duologue.simulators.nova._http2 import ServerConnection, Stream, StreamClosedError
    from duologue.simulators.nova._input_events import Sensitivity
    from duologue.simulators.nova._session import NovaSession, SessionOptions
    from duologue.simulators.nova._sigv4 import (
        ChunkChain,
        Credentials,
        SignatureError,
        check_request,
    )
    from duologue.simulators.nova._turns import ENDPOINTING_MS


logger = logging.getLogger(__name__)

ACCESS_KEY = "AKIDSIMULATOR"
"""The valid access key unless another is given."""
SECRET_KEY = "simulator-secret"  # noqa: S105 - to be thrown away
"""The valid secret key unless another is given."""

MAX_SESSIONS = 20
"""Concurrent streams; the next is refused with 429. AWS' default quota of an account."""

MAX_CONNECTIONS = 64
"""Concurrent connections; the next is reset."""

_PATH = re.compile(r"/model/([^/]+)/invoke-with-bidirectional-stream")
_MODEL = re.compile(r"(?:.*[:/.])?amazon\.nova(?:(?:-2)?-sonic-v1:0|-2-5-sonic(?:-v1:0)?)")

_STATUSES: Mapping[int, tuple[str, str]] = {
    400: ("ValidationException", "Invalid input request."),
    403: ("UnrecognizedClientException", "The security token included in the request is invalid."),
    404: ("ResourceNotFoundException", "The model was not found."),
    408: ("ModelTimeoutException", "The request took too long to process."),
    424: ("ModelErrorException", "The model has met an error while processing the request."),
    429: ("ThrottlingException", TOO_MANY),
    500: ("InternalServerException", "The server has met an error while processing the request."),
    503: ("ServiceUnavailableException", UNAVAILABLE),
}


class _HttpError(Exception):
    """The request is refused with an HTTP error."""

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.message = message


class NovaSimulator(Service[NovaSession]):
    """A local Amazon Nova Sonic, served as Bedrock serves it. Use as ``async with``.

    It speaks HTTP/2, in the clear or over TLS.

    Args:
        backend: What replies: ``echo`` (each turn's audio), ``local`` (the built-in engine),
            ``loopback`` (the client's audio straight back, for measurements), a script or its file,
            or a function that makes a `Realtime` for each session.
        replies: The replies of a script, instead of ``backend``.
        transcripts: The user's transcripts of that script.
        host: Address to listen on.
        port: Port to listen on; 0 for a free one.
        tls: Serve TLS with a certificate of a temporary authority, see `ca_pem`.
        access_key: The valid access key.
        secret_key: The valid secret key.
        region: The region of the requests' signatures.
        check_signatures: Whether to check keys and signatures.
        faults: The faults to inject, also by name.
        profile: Size of the built-in engine.
        clock_scale: Divisor of ``max_stream_s``.
        max_stream_s: Maximum age of a stream in seconds.
        idle_s: Maximum seconds between two events of a client.
        endpointing_ms: Silence in ms that ends a turn, by sensitivity.
        paraphrase: Whether the model says instructed text in its own words.
        double_encoded_tools: Whether the arguments of tool calls are JSON inside a JSON string.
        keep_audio: Whether the sessions' ``user_turns`` include their audio.
        unknown_models: Models that are refused.
        seed: Seed of random delays.
        clock: The clock; the event loop's by default.

    Raises:
        ConfigError: An argument is invalid.
        MissingExtraError: The extra ``simulate`` is not installed.
    """

    def __init__(
        self,
        backend: str | Path | Script | BackendFactory = "echo",
        *,
        replies: Sequence[Reply | str] | None = None,
        transcripts: Sequence[str] = (),
        host: str = "127.0.0.1",
        port: int = 0,
        tls: bool = False,
        access_key: str = ACCESS_KEY,
        secret_key: str = SECRET_KEY,
        region: str = "us-east-1",
        check_signatures: bool = True,
        faults: Sequence[Fault | str] = (),
        profile: str = "tiny",
        clock_scale: float = 1.0,
        max_stream_s: float = 480.0,
        idle_s: float = 55.0,
        endpointing_ms: Mapping[Sensitivity, int] = ENDPOINTING_MS,
        paraphrase: bool = False,
        double_encoded_tools: bool = False,
        keep_audio: bool = False,
        unknown_models: Sequence[str] = (),
        seed: int = 1,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(
            resolve_backend(
                backend, replies=replies, transcripts=transcripts, profile=profile, clock=clock
            ),
            FaultPlan(faults, PRESETS),
            host=host,
            port=port,
            unknown_models=unknown_models,
            clock_scale=clock_scale,
            seed=seed,
            clock=clock,
        )
        self.credentials = Credentials(access_key, secret_key, region)
        """The valid keys; may be replaced at any time, which affects the next streams."""
        self._options = SessionOptions(
            endpointing_ms={**ENDPOINTING_MS, **endpointing_ms},
            paraphrase=paraphrase or self._backend.script.paraphrase,
            double_encoded_tools=double_encoded_tools,
            max_stream_s=max_stream_s / clock_scale,
            idle_s=idle_s,
            keep_audio=keep_audio,
            loopback=self._backend.loopback,
        )
        self._check_signatures = check_signatures
        self._ca = TemporaryCA([*LOOPBACK_NAMES, host]) if tls else None
        self._connections: set[ServerConnection] = set()
        self._stream_tasks: set[asyncio.Task[None]] = set()

    async def _listen(self, stack: AsyncExitStack) -> int:
        """Start listening and return the port."""
        server = await asyncio.get_running_loop().create_server(
            lambda: ServerConnection(
                self._clock,
                self._request_received,
                self._connection_opened,
                self._connections.discard,
            ),
            self._host,
            self._port,
            ssl=self._ca.server_context(["h2"]) if self._ca is not None else None,
            ssl_shutdown_timeout=0.2 if self._ca is not None else None,
        )
        stack.push_async_callback(self._stop, server)
        return int(server.sockets[0].getsockname()[1])

    @property
    def url(self) -> str:
        """The ``base_url`` for a client."""
        return f"{'http' if self._ca is None else 'https'}://{self._url_host}:{self._port}"

    @property
    def ca_pem(self) -> bytes | None:
        """The certificate authority for a client; None without TLS."""
        return self._ca.pem if self._ca is not None else None

    @property
    def ssl_context(self) -> ssl.SSLContext | None:
        """An ``ssl`` context for a client, with ALPN; None without TLS."""
        return self._ca.client_context(["h2"]) if self._ca is not None else None

    async def drop_all(self) -> None:
        """Reset every connection, also those without a stream, as a power failure would."""
        for connection in [*self._connections]:
            connection.abort()
        await asyncio.sleep(0)

    def _connection_opened(self, connection: ServerConnection) -> None:
        """Register a connection, or reset it if there are too many."""
        self._connections.add(connection)
        if len(self._connections) > MAX_CONNECTIONS:
            connection.abort()

    def _request_received(self, stream: Stream) -> None:
        """Start a task that serves the request."""
        if self._tasks is not None:
            task = self._tasks.create_task(self._serve(stream), name="simulator stream")
            self._stream_tasks.add(task)
            task.add_done_callback(self._stream_tasks.discard)

    async def _serve(self, stream: Stream) -> None:
        try:
            try:
                model, chain = self._accept(stream)
            except _HttpError as error:
                await self._refuse(stream, error)
                return
            await self._run_session(stream, model, chain)
        except StreamClosedError:
            return
        except Exception:
            logger.exception("a simulated stream failed; the others continue")
            stream.abort()

    def _accept(self, stream: Stream) -> tuple[str, ChunkChain | None]:
        """Return the requested model and the chunks' signature check. Raises `_HttpError`."""
        fault = self._plan.take_handshake()
        if fault is not None:
            kind, message = _STATUSES.get(fault.status, _STATUSES[500])
            raise _HttpError(fault.status, fault.code or kind, message)
        path = stream.fields[":path"]
        match = _PATH.fullmatch(path.partition("?")[0])
        if match is None or stream.fields[":method"] != "POST":
            raise _HttpError(404, "UnknownOperationException", "There is no such operation.")
        chain = None
        if self._check_signatures:
            now = datetime.now(UTC)
            try:
                chain = check_request("POST", path, stream.fields, self.credentials, now)
            except SignatureError as error:
                raise _HttpError(403, error.kind, error.message) from None
        model = unquote(match[1])
        if not _MODEL.fullmatch(model) or model in self.unknown_models:
            raise _HttpError(
                400, "ValidationException", "The provided model identifier is invalid."
            )
        if len(self._open) >= MAX_SESSIONS:
            raise _HttpError(429, "ThrottlingException", TOO_MANY)
        return model, chain

    async def _refuse(self, stream: Stream, error: _HttpError) -> None:
        fields = {
            "content-type": "application/json",
            "x-amzn-errortype": error.kind,
            "x-amzn-requestid": str(uuid4()),
        }
        stream.respond(error.status, fields)
        await stream.write(orjson.dumps({"message": error.message}))
        stream.end()

    async def _run_session(self, stream: Stream, model: str, chain: ChunkChain | None) -> None:
        channel = H2Channel(stream, chain, self._plan, self._clock, self._seed)
        session = NovaSession(
            self._backend.make(),
            model,
            self._options,
            channel,
            self._clock,
            expectations=self.expectations(),
        )
        self.attach(channel, session)
        try:
            await channel.serve(session)
        finally:
            self.release(channel, session)

    async def _stop(self, server: asyncio.Server) -> None:
        server.close()
        for connection in [*self._connections]:
            connection.close()
        for task in self._stream_tasks:
            task.cancel()
        await server.wait_closed()
