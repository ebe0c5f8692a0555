"""Connect apps, games, devices and test tools over one WebSocket (extra ``server``).

The protocol is one page: docs/edges/websocket.md. `mount` adds the socket to a web app; each client
gets an agent whose edge is an `Edge` of this module.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from io import BytesIO
from ipaddress import ip_address
from typing import assert_never

from starlette.applications import Starlette
from starlette.routing import WebSocketRoute, websocket_session
from starlette.types import Scope
from starlette.websockets import WebSocket

from duologue._numpy import np
from duologue._optional import import_optional
from duologue.audio import FRAME_MS, AudioFrame, Samples
from duologue.clock import Clock, LoopClock
from duologue.edges._agent_calls import (
    POLICY_VIOLATION,
    AgentCalls,
    JoiningAgent,
    ServerSocket,
    limiter_of,
    serve_socket,
)
from duologue.edges._socket_stream import MAX_WAITING, Outbox, PacedInput, run_until
from duologue.edges._websocket_messages import (
    AUDIO_MESSAGES_PER_S,
    MAX_AUDIO_MS,
    PROTOCOL,
    Bye,
    Digit,
    Hello,
    Image,
    MessageBudget,
    Played,
    PlayedReports,
    ProtocolError,
    Text,
    read_message,
)
from duologue.edges.protocol import AgentInput, EdgeStats
from duologue.errors import ConfigError, DuologueError, MissingExtraError
from duologue.json_types import Json, JsonObject
from duologue.quality import Quality
from duologue.rtc.opus import Decoder, Encoder, OpusError
from duologue.server.app import CallApp
from duologue.server.call_control import CallRecord
from duologue.server.config import ServerConfig
from duologue.server.middleware import OriginMiddleware, origin_of, refuse_websocket
from duologue.video import VideoFrame

logger = logging.getLogger(__name__)

HELLO_S = 5.0
"""Seconds from the opening of a socket to the hello."""

MAX_IMAGE_SIDE = 4096
"""Longest side of an image, in pixels."""

type MakeSocketAgent = Callable[[Edge], JoiningAgent | Awaitable[JoiningAgent | None]]
"""Makes the agent for one client; a plain or an ``async`` function. See `Edge.parameters`."""


class SocketClosedError(DuologueError):
    """A client does not read, or broke the protocol."""


class Edge:
    """One client of a WebSocket.

    Made for each client by `mount`, and passed to ``make_agent``.

    Args:
        socket: The socket, after the hello.
        hello: The client's first message.
        clock: Clock of the conversation; by default that of the event loop.
    """

    def __init__(self, socket: ServerSocket, hello: Hello, *, clock: Clock | None = None) -> None:
        self.parameters: Mapping[str, str] = hello.parameters
        """What the client said of itself; claims, unless the token proves more."""
        self._socket = socket
        self._hello = hello
        self._clock: Clock = clock or LoopClock()
        opus = hello.codec == "opus"
        self._encoder = Encoder(hello.rate) if opus else None
        self._decoder = Decoder(hello.rate) if opus else None
        self._max_samples = hello.rate * MAX_AUDIO_MS // 1000
        self._reports = PlayedReports()
        self._input = PacedInput(self._clock)
        self._agent: AgentInput | None = None
        self._outbox = Outbox(socket, self._stop_slow_client)
        self._over = asyncio.Event()
        self._failure: ProtocolError | None = None
        self._budget = MessageBudget(self._clock.now())
        self._audio_budget = MessageBudget(
            self._clock.now(), rate=AUDIO_MESSAGES_PER_S, burst=10 * AUDIO_MESSAGES_PER_S
        )
        self._started = False
        self._dropped_events = 0

    def __repr__(self) -> str:
        state = "over" if self._over.is_set() else "running" if self._started else "new"
        return f"<websocket.Edge {state} {self._hello.codec} {self._hello.rate} Hz>"

    @property
    def output_rate(self) -> int:
        """Rate in Hz of the frames that `play` accepts: the client's."""
        return self._hello.rate

    @property
    def quality(self) -> Quality:
        """``confirmed`` if the client reports what it has played, else ``estimated``."""
        return "confirmed" if self._hello.reports_played else "estimated"

    @property
    def lead_ms(self) -> int:
        """20: the client buffers."""
        return FRAME_MS

    @property
    def latency_ms(self) -> float:
        """Milliseconds from `play` to the ear, about: a network and a client's buffer."""
        return 60.0

    def stats(self) -> EdgeStats:
        """Return the counters that `Agent.stats` includes."""
        return EdgeStats(dropped_input_s=self._input.dropped_s, dropped_events=self._dropped_events)

    def ready_message(self) -> JsonObject:
        """Return the message that answers the hello."""
        hello = self._hello
        rate, codec = hello.rate, hello.codec
        return {"type": "ready", "rate": rate, "codec": codec, "frame_ms": FRAME_MS}

    async def run(self, agent: AgentInput, ready: Callable[[], None]) -> None:
        """Carry the conversation until the client leaves.

        Raises:
            SocketClosedError: The client broke the protocol, or does not read.
        """
        if self._started:
            raise ConfigError("an edge runs once: each client has an Edge of its own")
        self._started = True
        self._agent = agent
        ready()
        self._input.start(agent)
        try:
            await run_until(
                self._over,
                self._read,
                self._outbox.write,
                lambda: _close(self._socket, self._failure),
            )
        finally:
            self._input.stop()
        if self._failure is not None:
            raise SocketClosedError(str(self._failure))

    def play(self, frame: AudioFrame | None) -> None:
        """Send the next 20 ms."""
        if frame is None or self._over.is_set():
            return
        if self._encoder is not None:
            data = self._encoder.encode(frame.samples)
        else:
            data = frame.to_bytes()
        self._reports.given += len(frame)
        self._outbox.send(data, audio=True)

    def clear(self) -> None:
        """Drop what was not played: here at once, at the client by the next message."""
        self._outbox.drop_audio()
        if self._encoder is not None:
            self._encoder.reset()
        self._send_json({"type": "clear", "epoch": self._reports.clear()})

    def send_event(self, event: Mapping[str, Json]) -> None:
        """Send the client a public event; drop and count it if half of the queue is full."""
        if len(self._outbox) >= MAX_WAITING // 2:
            self._dropped_events += 1
            return
        self._send_json({"type": "event", "event": dict(event)})

    def _send_json(self, message: Mapping[str, Json]) -> None:
        self._outbox.send(json.dumps(message, separators=(",", ":")))

    def _stop_slow_client(self) -> None:
        self._end(ProtocolError("slow", "the client does not read"))

    def _end(self, failure: ProtocolError | None = None) -> None:
        if not self._over.is_set():
            self._failure = failure
            self._over.set()

    async def _read(self) -> None:
        try:
            await self._socket.read(self._receive)
        except ProtocolError as error:
            self._end(error)
        self._end()

    def _receive(self, message: str | bytes) -> None:
        if isinstance(message, bytes):
            if not self._audio_budget.spend(self._clock.now()):
                raise ProtocolError("fast", "too many messages of audio")
            self._input.push(AudioFrame(self._samples(message), self._hello.rate))
        else:
            self._handle(message)

    def _samples(self, data: bytes) -> Samples:
        if self._decoder is not None:
            try:
                return self._decoder.decode(data)
            except OpusError as error:
                raise ProtocolError("audio", str(error)) from None
        if len(data) % 2 or not 0 < len(data) // 2 <= self._max_samples:
            raise ProtocolError(
                "audio", f"audio must be 16-bit PCM of up to {MAX_AUDIO_MS} ms a message"
            )
        return np.frombuffer(data, "<i2").astype(np.int16, copy=False)

    def _handle(self, text: str) -> None:
        agent, now = self._agent, self._clock.now()
        assert agent is not None  # noqa: S101 - `run` sets it before it reads
        if not self._budget.spend(now):
            raise ProtocolError("fast", "too many messages")
        message = read_message(text)
        match message:
            case Played() as report:
                played = self._reports.report(report)
                if played is not None:
                    agent.report_played(played)
            case Text(words):
                agent.push_text(words)
            case Digit(digit):
                agent.push_digit(digit)
            case Image(data):
                agent.push_video(lambda: _decode_image(data, now))
            case Bye():
                self._end()
            case Hello():
                raise ProtocolError("hello", "the hello comes once")
            case _:
                assert_never(message)


def _decode_image(data: bytes, at: float) -> VideoFrame:
    """Return an image as a frame; a grey one of 1 by 1 pixels if it can't be read.

    Raises:
        MissingExtraError: Pillow is not installed.
    """
    pillow = import_optional("PIL.Image", "video")
    try:
        image = pillow.open(BytesIO(data))
        if max(image.size) > MAX_IMAGE_SIDE:
            raise ValueError("the image is too large")
        return VideoFrame(np.asarray(image.convert("RGB"), np.uint8), at)
    except (OSError, ValueError, SyntaxError) as error:
        logger.info("an image of a client can't be read: %s", error)
        return VideoFrame(np.full((1, 1, 3), 128, np.uint8), at)


def mount(
    app: Starlette,
    make_agent: MakeSocketAgent,
    *,
    path: str = "/socket",
    token: str | None = None,
    allowed_origins: Sequence[str] = (),
    allowed_hosts: Sequence[str] = (),
    max_calls: int | None = None,
) -> None:
    """Add the socket to an app.

    Args:
        app: An app of `duologue.hosting.create_app`, with which clients share limit and token, or
            one of your own.
        make_agent: Gets the `Edge` of a client and returns the `Agent` that joins it.
        path: Where the socket is.
        token: Token that a client must send; by default that of the app's `ServerConfig`.
        allowed_origins: Origins of other sites whose pages may connect, such as
            ``https://www.example.org``. Programs other than browsers send none. The pages of an app
            of `duologue.hosting.create_app`, and those that its `ServerConfig` allows, always may.
        allowed_hosts: Names of the server, for an app of your own without a token behind a proxy.
            There, a server with an address of this machine or of a private network takes calls by
            addresses, as ``localhost``, and by these names only, because a foreign page could bind
            a name of its own to such an address.
        max_calls: Most clients at once, for an app of your own; 8 for each core by default.

    Raises:
        ConfigError: An argument can't work.
    """
    calls = AgentCalls(make_agent)
    limiter = limiter_of(app, max_calls)
    config = getattr(app, "config", None)
    expected = token if token is not None else getattr(config, "token", None)
    allowed = ServerConfig(
        allowed_origins=tuple(allowed_origins), allowed_hosts=tuple(allowed_hosts)
    )

    async def serve(websocket: WebSocket) -> None:
        offered = websocket.headers.get("sec-websocket-protocol", "")
        if PROTOCOL not in (name.strip() for name in offered.split(",")):
            await refuse_websocket(websocket, f"connect with the sub-protocol {PROTOCOL}\n", 400)
            return
        await serve_socket(
            websocket,
            limiter,
            lambda socket: _begin(socket, expected),
            lambda socket, edge, record: _run_client(socket, edge, calls, record),
            begin_s=HELLO_S,
            subprotocol=PROTOCOL,
        )

    endpoint: Callable[..., object] = serve
    if isinstance(app, CallApp):
        if allowed_hosts:
            raise ConfigError("this app knows its names: ServerConfig(allowed_hosts=...)")
        # The app checks Host and Origin of every request itself.
        known = (origin_of(origin) for origin in allowed.allowed_origins)
        app.socket_origins[path] = frozenset(origin for origin in known if origin is not None)
    else:
        endpoint = OriginMiddleware(
            websocket_session(serve),
            allowed,
            is_local=lambda scope: expected is None and _is_private(scope),
            options="websocket.mount",
        )
    app.router.routes.append(WebSocketRoute(path, endpoint))


async def _begin(socket: ServerSocket, token: str | None) -> Edge | None:
    """Return the edge of a client whose hello is right; refuse it otherwise."""
    try:
        return Edge(socket, await _receive_hello(socket, token))
    except MissingExtraError:
        await _close(socket, ProtocolError("codec", "this server has no Opus: use pcm"))
    except ProtocolError as error:
        await _close(socket, error)
    return None


async def _run_client(
    socket: ServerSocket, edge: Edge, calls: AgentCalls[Edge], record: CallRecord | None
) -> None:
    await socket.send(json.dumps(edge.ready_message()))
    try:
        failure = await calls.run(edge, record)
        if failure is not None:
            await socket.refuse(failure)
    finally:
        await socket.close()


async def _receive_hello(socket: ServerSocket, token: str | None) -> Hello:
    message = await socket.receive()
    if not isinstance(message, str):
        raise ProtocolError("hello", "the first message must be a hello")
    hello = read_message(message)
    if not isinstance(hello, Hello):
        raise ProtocolError("hello", "the first message must be a hello")
    sent = hello.token.encode("utf-8", "surrogatepass")
    if token is not None and not hmac.compare_digest(sent, token.encode()):
        raise ProtocolError("token", "the token is wrong")
    return hello


async def _close(socket: ServerSocket, error: ProtocolError | None) -> None:
    """Close a client's socket, with the reason if there is one."""
    if error is None:
        await socket.close()
        return
    await socket.send(json.dumps({"type": "error", "code": error.code, "message": str(error)}))
    await socket.close(POLICY_VIOLATION, str(error)[:100])


def _is_private(scope: Scope) -> bool:
    """Return whether a request came in by an address of this machine or of a private network."""
    server = scope.get("server")
    try:
        return server is not None and ip_address(server[0]).is_private
    except ValueError:
        return server is not None and server[0] == "localhost"
