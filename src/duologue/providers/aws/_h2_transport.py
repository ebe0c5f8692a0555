"""What carries the SDK's one request over HTTP/2: its own transports can't do it properly.

The default one takes no stream both ways. The one of ``awscrt`` tells of a connection that was cut
as if it had ended in order, and then lets writers wait for ever.
"""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress
from typing import Any, Literal

from duologue._optional import optional
from duologue.clock import Clock
from duologue.providers.aws._h2_stream import ConnectionLostError, H2Stream

with optional("aws"):
    import aws_sdk_bedrock_runtime  # noqa: F401 - checked early
    from smithy_core.interceptors import Interceptor, RequestContext
    from smithy_http import Field, Fields
    from smithy_http.aio import HTTPResponse
    from smithy_http.aio.interfaces import HTTPRequest


MAX_REFUSAL_BYTES = 64 * 1024
"""Bytes of an error's body that are read."""
REFUSAL_TIMEOUT_S = 2.0

_CONNECTION_FIELDS = frozenset(
    {"connection", "host", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"}
)
"""Fields that HTTP/2 has no place for (RFC 9113, 8.2.2); the host goes as ``:authority``."""


class RefusedError(Exception):
    """The service answered with an HTTP status other than success."""

    def __init__(self, status: int, error_type: str, body: bytes) -> None:
        super().__init__(f"HTTP {status} {error_type}".rstrip())
        self.status = status
        self.error_type = error_type
        self.body = body


class RequestBody:
    """Where the SDK writes its frames: straight into the stream, with nothing in between."""

    def __init__(self, transport: H2Transport) -> None:
        self._transport = transport

    async def write(self, data: bytes) -> None:
        """Send; waits while the service does not read. Raises `ConnectionLostError`."""
        await self._transport.stream.write(data)

    async def close(self) -> None:
        """The request is complete."""
        self._transport.stream.end_request()


class ResponseBody:
    """Where the SDK reads its frames."""

    def __init__(self, stream: H2Stream) -> None:
        self._stream = stream

    async def read(self, size: int = -1) -> bytes:
        """The next ``size`` bytes; fewer at the end. Raises `ConnectionLostError`."""
        return await self._stream.read(size)


class H2Transport:
    """The SDK's transport for one request; ``tls`` None speaks HTTP/2 in the clear.

    Its ``interceptor`` goes into the client's configuration with it. `connect` comes before the
    request. ``refusal`` is what the service answered instead of a stream.
    """

    SUPPORTS_DUPLEX_STREAMING: Literal[True] = True
    TIMEOUT_EXCEPTIONS: tuple[type[Exception], ...] = (TimeoutError,)

    def __init__(self, clock: Clock) -> None:
        self.stream = H2Stream(clock)
        self.interceptor = _BodyInterceptor(RequestBody(self))
        self.refusal: RefusedError | None = None

    async def connect(
        self, host: str, port: int, tls: ssl.SSLContext | None, *, proxy: str | None = None
    ) -> None:
        """Connect, through an HTTP ``proxy`` if there is one.

        Raises `OSError`, and `SessionError` for a proxy that can't be used.
        """
        await self.stream.connect(host, port, tls, proxy=proxy)

    async def send(self, request: HTTPRequest, **_: object) -> HTTPResponse:
        """Send the head, and wait for the one of the answer; the body goes its own way.

        Raises `RefusedError` and `ConnectionLostError`.
        """
        target = request.destination
        path = target.path or "/"
        headers = [
            (":method", request.method),
            (":scheme", target.scheme),
            (":authority", target.netloc),
            # Signed as an empty query where there is none.
            (":path", path if target.query is None else f"{path}?{target.query}"),
        ]
        for field in request.fields:
            name = field.name.lower()
            if name not in _CONNECTION_FIELDS:
                headers += [(name, value) for value in field.values]
        self.stream.request(headers)
        fields = Fields()
        status = 0
        for name, value in await self.stream.response():
            if name == ":status":
                status = int(value)
            elif name in fields:
                fields[name].add(value)
            else:
                fields.set_field(Field(name=name, values=[value]))
        if not 200 <= status < 300:
            kind = fields["x-amzn-errortype"].as_string() if "x-amzn-errortype" in fields else ""
            self.refusal = RefusedError(status, kind, await self._read_refusal())
            raise self.refusal
        return HTTPResponse(status=status, fields=fields, body=ResponseBody(self.stream))

    async def _read_refusal(self) -> bytes:
        with suppress(ConnectionLostError, TimeoutError):
            async with asyncio.timeout(REFUSAL_TIMEOUT_S):
                return await self.stream.read(MAX_REFUSAL_BYTES)
        return b""


class _BodyInterceptor(Interceptor[Any, Any, Any, Any]):
    """Puts our body into the request in the place of the SDK's, which is a queue."""

    def __init__(self, body: RequestBody) -> None:
        self._body = body

    def modify_before_transmit(self, context: RequestContext[Any, Any]) -> Any:
        request = context.transport_request
        request.body = self._body
        return request
