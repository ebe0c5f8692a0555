"""Carries the SDK's one request over HTTP/2, because its own transports can't.

The default transport does not support streams in both directions. That of ``awscrt`` reports a
broken connection as one that ended properly, and then lets writers wait forever.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Literal

from duologue._optional import optional
from duologue.clock import Clock
from duologue.providers.aws._h2_stream import ConnectionLostError, H2Stream

with optional("aws"):
    import aws_sdk_bedrock_runtime  # noqa: F401 - checked early
    from smithy_http import Field, Fields
    from smithy_http.aio import HTTPResponse
    from smithy_http.aio.interfaces import HTTPRequest


MAX_REFUSAL_BYTES = 64 * 1024
"""Bytes read of an error body."""
REFUSAL_TIMEOUT_S = 2.0

_CONNECTION_FIELDS = frozenset(
    {"connection", "host", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"}
)
"""Header fields that HTTP/2 does not allow (RFC 9113, 8.2.2); the host goes as ``:authority``."""


class RefusedError(Exception):
    """The service answered with an HTTP status other than 2xx."""

    def __init__(self, status: int, error_type: str, body: bytes) -> None:
        super().__init__(f"HTTP {status} {error_type}".rstrip())
        self.status = status
        self.error_type = error_type
        self.body = body


class _ResponseBody:
    """Takes the place of the response's body, which the SDK does not read."""

    async def read(self, size: int = -1) -> bytes:
        """Return nothing."""
        del size
        return b""


class H2Transport:
    """The SDK's transport for one request.

    Call `connect` before the request. ``headers`` are sent in addition, unsigned. Neither body
    passes through the SDK: what follows the headers is written to and read from ``stream``.
    ``authorization`` is the header with the signature of the request, and ``refusal`` the error
    that the service answered with instead of a stream.
    """

    SUPPORTS_DUPLEX_STREAMING: Literal[True] = True
    TIMEOUT_EXCEPTIONS: tuple[type[Exception], ...] = (TimeoutError,)

    def __init__(self, clock: Clock, headers: Mapping[str, str] = MappingProxyType({})) -> None:
        self.stream = H2Stream(clock)
        self._headers = headers
        self.authorization = ""
        self.refusal: RefusedError | None = None

    async def connect(
        self,
        host: str,
        port: int,
        tls: ssl.SSLContext | None,
        *,
        proxy: str | None = None,
        proxy_given: bool = False,
    ) -> None:
        """Connect to the server.

        Args:
            host: The name of the server.
            port: Its port.
            tls: None speaks HTTP/2 in the clear.
            proxy: The address of an HTTP proxy to connect through.
            proxy_given: Whether the program named it, not the environment.

        Raises:
            OSError: The connection failed.
            SessionError: The proxy can't be used.
        """
        await self.stream.connect(host, port, tls, proxy=proxy, proxy_given=proxy_given)

    async def send(self, request: HTTPRequest, **_: object) -> HTTPResponse:
        """Send the headers and wait for those of the response.

        Raises:
            RefusedError: The service answered with an HTTP error.
            ConnectionLostError: The connection was lost.
        """
        target = request.destination
        path = target.path or "/"
        headers = [
            (":method", request.method),
            (":scheme", target.scheme),
            (":authority", target.netloc),
            # A missing query is signed as an empty one.
            (":path", path if target.query is None else f"{path}?{target.query}"),
        ]
        for field in request.fields:
            name = field.name.lower()
            if name == "authorization":
                self.authorization = field.as_string()
            if name not in _CONNECTION_FIELDS:
                headers += [(name, value) for value in field.values]
        headers += [(name.lower(), value) for name, value in self._headers.items()]
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
        return HTTPResponse(status=status, fields=fields, body=_ResponseBody())

    async def _read_refusal(self) -> bytes:
        body = b""
        with suppress(ConnectionLostError, TimeoutError):
            async with asyncio.timeout(REFUSAL_TIMEOUT_S):
                while len(body) < MAX_REFUSAL_BYTES and (more := await self.stream.read()):
                    body += more
        return body[:MAX_REFUSAL_BYTES]
