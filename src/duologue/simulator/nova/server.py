"""`NovaSimulator`: a server on this machine that speaks Amazon Nova Sonic's protocol."""

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

from duologue.clock import Clock
from duologue.extras import require
from duologue.simulator.brains import BrainFactory, brain_of
from duologue.simulator.faults import Fault, FaultPlan
from duologue.simulator.nova.faults import PRESETS, TOO_MANY, UNAVAILABLE
from duologue.simulator.script import Script
from duologue.testing.scripted import Reply

require("h2", "simulate")
require("orjson", "simulate")
require("pybase64", "simulate")
require("cryptography", "simulate")

import orjson  # noqa: E402

from duologue.simulator.nova.http2 import ServerConnection, Stream, StreamClosedError  # noqa: E402
from duologue.simulator.nova.input_events import Sensitivity  # noqa: E402
from duologue.simulator.nova.session import Session, SessionOptions  # noqa: E402
from duologue.simulator.nova.sigv4 import (  # noqa: E402
    ChunkChain,
    Credentials,
    SignatureError,
    check_request,
)
from duologue.simulator.nova.stream_line import StreamLine  # noqa: E402
from duologue.simulator.nova.turns import ENDPOINTING_MS  # noqa: E402
from duologue.simulator.service import Service  # noqa: E402
from duologue.simulator.tls import LOOPBACK, ThrowAwayCA  # noqa: E402

logger = logging.getLogger(__name__)

ACCESS_KEY = "AKIDSIMULATOR"
SECRET_KEY = "simulator-secret"  # noqa: S105 - to be thrown away
"""The keys that are good unless you say others."""

MOST_CALLS = 20
"""Streams at once; the next is refused with 429. An account has so many unless it asks for more."""

MOST_CONNECTIONS = 64
"""Connections at once; the next is cut."""

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
    """The request is refused by HTTP."""

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.message = message


class NovaSimulator(Service[Session]):
    """Amazon Nova Sonic on this machine, as Bedrock serves it; use as ``async with``.

    HTTP/2 without TLS, or with it (``tls``), then under a certificate authority to throw away.
    ``brain`` answers: ``echo`` (each turn's sound back), ``local`` (the engine inside, in the size
    ``profile``), ``loopback`` (the client's sound straight back, for measurements), a script or
    its file, or a function that makes a `Realtime` for each session. ``replies`` and
    ``transcripts`` are a script in short. ``faults`` are what goes wrong. ``seed`` makes delays
    come out the same.

    ``endpointing_ms`` is the silence in ms that ends a turn, by sensitivity. ``max_stream_s`` in s
    is divided by ``clock_scale``; ``idle_s`` is for how long a client may send nothing. With
    ``keep_audio`` the sessions' ``heard`` have their sound. ``paraphrase``: the model does not say
    word for word what it is told to. ``double_encoded_tools``: the arguments of tools are JSON in
    JSON. Without ``check_signatures`` every key and signature is good. Raises `ConfigError`, and
    `MissingExtraError` without the extra ``simulate``.
    """

    def __init__(
        self,
        brain: str | Path | Script | BrainFactory = "echo",
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
            brain_of(brain, replies=replies, transcripts=transcripts, profile=profile, clock=clock),
            FaultPlan(faults, PRESETS),
            host=host,
            port=port,
            unknown_models=unknown_models,
            clock_scale=clock_scale,
            seed=seed,
            clock=clock,
        )
        self.credentials = Credentials(access_key, secret_key, region)
        """The keys that are good; another one may be set at any time, for the next streams."""
        self._options = SessionOptions(
            endpointing_ms={**ENDPOINTING_MS, **endpointing_ms},
            paraphrase=paraphrase or self._brain.script.paraphrase,
            double_encoded_tools=double_encoded_tools,
            max_stream_s=max_stream_s / clock_scale,
            idle_s=idle_s,
            keep_audio=keep_audio,
            loopback=self._brain.loopback,
        )
        self._checks = check_signatures
        self._ca = ThrowAwayCA([*LOOPBACK, host]) if tls else None
        self._connections: set[ServerConnection] = set()
        self._serving: set[asyncio.Task[None]] = set()

    async def _listen(self, stack: AsyncExitStack) -> int:
        """Begin to listen; the port."""
        server = await asyncio.get_running_loop().create_server(
            lambda: ServerConnection(
                self._clock, self._requested, self._opened, self._connections.discard
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
        """The ``endpoint_uri`` for a client."""
        return f"{'http' if self._ca is None else 'https'}://{self._named}:{self._port}"

    @property
    def ca_pem(self) -> bytes | None:
        """The certificate that a client is to trust; None without TLS."""
        return self._ca.pem if self._ca is not None else None

    @property
    def ssl_context(self) -> ssl.SSLContext | None:
        """For a client on ``ssl``, with ALPN; None without TLS."""
        return self._ca.client_context(["h2"]) if self._ca is not None else None

    async def drop_all(self) -> None:
        """Cut every connection, also those without a stream, as a power failure would."""
        for connection in [*self._connections]:
            connection.cut()
        await asyncio.sleep(0)

    def _opened(self, connection: ServerConnection) -> None:
        """A client has connected."""
        self._connections.add(connection)
        if len(self._connections) > MOST_CONNECTIONS:
            connection.cut()

    def _requested(self, stream: Stream) -> None:
        """A client has sent a request."""
        if self._tasks is not None:
            task = self._tasks.create_task(self._serve(stream), name="simulator stream")
            self._serving.add(task)
            task.add_done_callback(self._serving.discard)

    async def _serve(self, stream: Stream) -> None:
        try:
            try:
                model, chain = self._accept(stream)
            except _HttpError as error:
                await self._refuse(stream, error)
                return
            await self._hold(stream, model, chain)
        except StreamClosedError:
            return
        except Exception:
            logger.exception("a simulated stream failed; the others go on")
            stream.cut()

    def _accept(self, stream: Stream) -> tuple[str, ChunkChain | None]:
        """The model that is asked for, and what checks the chunks. Raises `_HttpError`."""
        fault = self._plan.handshake()
        if fault is not None:
            kind, message = _STATUSES.get(fault.status, _STATUSES[500])
            raise _HttpError(fault.status, fault.code or kind, message)
        path = stream.fields[":path"]
        found = _PATH.fullmatch(path.partition("?")[0])
        if found is None or stream.fields[":method"] != "POST":
            raise _HttpError(404, "UnknownOperationException", "There is no such operation.")
        chain = None
        if self._checks:
            now = datetime.now(UTC)
            try:
                chain = check_request("POST", path, stream.fields, self.credentials, now)
            except SignatureError as error:
                raise _HttpError(403, error.kind, error.message) from None
        model = unquote(found[1])
        if not _MODEL.fullmatch(model) or model in self.unknown_models:
            raise _HttpError(
                400, "ValidationException", "The provided model identifier is invalid."
            )
        if len(self._open) >= MOST_CALLS:
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

    async def _hold(self, stream: Stream, model: str, chain: ChunkChain | None) -> None:
        line = StreamLine(stream, chain, self._plan, self._clock, self._seed)
        session = Session(
            self._brain.make(),
            model,
            self._options,
            line,
            self._clock,
            expectations=self.expectations(),
        )
        self.keep(line, session)
        try:
            await line.serve(session)
        finally:
            self.let_go(line, session)

    async def _stop(self, server: asyncio.Server) -> None:
        server.close()
        for connection in [*self._connections]:
            connection.close()
        for task in self._serving:
            task.cancel()
        await server.wait_closed()
