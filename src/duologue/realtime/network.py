"""The common machinery of models on a network: key, address, wire, errors, images and backlog."""

from __future__ import annotations

import asyncio
import inspect
import ssl
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from types import MappingProxyType

from duologue._net import check_headers, check_route, check_secret, split_address
from duologue._optional import import_optional
from duologue._user_code import call_plain, describe, is_async, name_of, run_bounded
from duologue.clock import Clock
from duologue.errors import ConfigError, ErrorKind, SessionError
from duologue.realtime.capabilities import Capabilities
from duologue.realtime.codec import Codec, Connection, SessionSetup, Wire
from duologue.realtime.outputs import ProviderError
from duologue.realtime.realtime import Realtime
from duologue.realtime.reconnect import ReconnectPolicy
from duologue.realtime.websocket import WebSocketWire, close_error, http_error
from duologue.realtime.wire_connection import WireConnection
from duologue.vad.vad import VAD
from duologue.video import VideoFrame, encode_jpeg

type ApiKey = str | Callable[[], str | Awaitable[str]]
"""A key, or a plain or coroutine function that returns one for each connection."""


class NetworkRealtime[M](Realtime):
    """A model that is reached over a network by messages of type M.

    A subclass says how a connection is made, by `make_codec` and `make_wire`. The session does the
    rest: it reconnects, rolls over, replays audio, and keeps the order of requests.

    Args:
        capabilities: what the model can do.
        base_url: the address of the service.
        errors: the kinds of the service's errors, by its own code, by HTTP status ("429") and by
            close code ("4001"). Statuses and close codes have defaults; any other code is
            ``UNKNOWN``: reported, and the session continues.
        api_key: the key, or a function that returns it for each connection, because keys may
            rotate. A plain function runs in a thread.
        headers: more headers for each connection.
        proxy: the address of a proxy; None uses the environment's.
        ssl_context: whom to trust, and with which certificate of our own; the system's defaults if
            None.
        encode_image: makes the JPEG of an image, in a thread; for a model that accepts images it is
            `encode_jpeg` by default.
        transport: the module that connections need, which `prepare` imports.
        extra: the extra of this package that installs it.
        fps: images a second that the model is sent.
        clock: tells the time; the event loop's by default.
        reconnect: how the session outlives its connections; `ReconnectPolicy` with its defaults if
            None.
        vad: measures the person's voice for barge-in, and detects user turns for a model that does
            not signal speech.

    Raises:
        ConfigError: a value can't work.
    """

    def __init__(
        self,
        capabilities: Capabilities,
        *,
        base_url: str,
        errors: Mapping[str, ErrorKind] = MappingProxyType({}),
        api_key: ApiKey = "",
        headers: Mapping[str, str] | None = None,
        proxy: str | None = None,
        ssl_context: ssl.SSLContext | None = None,
        encode_image: Callable[[VideoFrame], bytes] | None = None,
        transport: str = "websockets.asyncio.client",
        extra: str = "websocket",
        fps: float = 1.0,
        clock: Clock | None = None,
        reconnect: ReconnectPolicy | None = None,
        vad: VAD | None = None,
    ) -> None:
        super().__init__(capabilities, fps=fps, clock=clock, reconnect=reconnect, vad=vad)
        schemes = ("ws", "wss", "http", "https")
        split_address("base_url", base_url, schemes, "wss://service.example/v1")
        check_route(proxy, ssl_context)
        self.base_url = base_url
        self.errors = errors
        self.headers = check_headers("headers", headers)
        self.proxy = proxy
        self.ssl_context = ssl_context
        self.encode_image = encode_image or (encode_jpeg if capabilities.video else None)
        self._api_key = api_key if callable(api_key) else check_secret("api_key", api_key)
        self._transport_module = transport
        self._extra_name = extra

    @abstractmethod
    def make_codec(self, setup: SessionSetup) -> Codec[M]:
        """Make the codec of the next connection; it must not share state with others."""

    @abstractmethod
    def make_wire(self, codec: Codec[M], setup: SessionSetup) -> Wire[M]:
        """Make the wire of the next connection; it connects when it is opened."""

    def open(self, setup: SessionSetup) -> Connection:
        """Make the next connection, of a codec and a wire."""
        codec = self.make_codec(setup)
        return WireConnection[M](
            partial(self.make_wire, codec, setup),
            codec,
            setup,
            encode_image=self.encode_image,
            audio_limit_s=self.input_backlog_s,
        )

    async def prepare(self, setup: SessionSetup) -> None:
        """Import what a connection needs, in a thread.

        Raises:
            MissingExtraError: it is not installed.
        """
        del setup
        await asyncio.to_thread(import_optional, self._transport_module, self._extra_name)

    async def find_key(self) -> str:
        """Return the key for the next connection; "" without one.

        Raises:
            SessionError: the function that was given as ``api_key`` failed.
        """
        return await resolve_key(self._api_key)

    async def make_headers(self) -> Mapping[str, str]:
        """Return the headers of the next connection: the key as a bearer token, and ``headers``."""
        key = await self.find_key()
        bearer = {"Authorization": f"Bearer {key}"} if key else {}
        return {**bearer, **self.headers}

    def websocket(self, url: str | None = None) -> WebSocketWire:
        """Return a WebSocket to ``url``, by default ``base_url``, with all that is set here."""
        return WebSocketWire(
            url or self.base_url,
            headers=self.make_headers,
            http_error=self.http_error,
            close_error=self.close_error,
            proxy=self.proxy,
            ssl_context=self.ssl_context,
            extra=self._extra_name,
        )

    def http_error(self, status: int, body: bytes) -> SessionError:
        """Return the error of an HTTP response that came instead of a connection."""
        error = http_error(status, body)
        error.kind = self.errors.get(str(status), error.kind)
        return error

    def close_error(self, code: int, reason: str) -> SessionError | None:
        """Return the error of a closed connection; None for a clean end of the session."""
        error = close_error(code, reason)
        error.kind = self.errors.get(str(code), error.kind)
        return error

    def error(self, code: str, message: str) -> ProviderError:
        """Return the output for an error message of the service."""
        return ProviderError(self.errors.get(code, ErrorKind.UNKNOWN), code, message)


async def resolve_key(source: ApiKey) -> str:
    """Return a key, or the one that a function returns.

    Raises:
        SessionError: the function failed, or returned something that can't be a key.
    """
    if isinstance(source, str):
        return source
    name = name_of(source)
    try:
        key = source() if is_async(source) else await call_plain(source)
        if inspect.isawaitable(key):
            key = await run_bounded(key, name)
    except Exception as error:
        message = f"api_key, the function {name}: {describe(error)}"
        raise SessionError(message, code="api_key") from error
    if not isinstance(key, str):
        message = f"api_key, the function {name}, must return a string, not {key!r:.20}"
        raise SessionError(message, code="api_key", kind=ErrorKind.FATAL)
    try:
        return check_secret("api_key", key)
    except ConfigError as error:
        raise SessionError(str(error), code="api_key", kind=ErrorKind.FATAL) from None
