"""The opening handshake of a WebSocket, by ``websockets``: proxies, TLS, headers and refusals."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from duologue._optional import optional

with optional("websocket"):
    from websockets.asyncio.client import ClientConnection, connect
    from websockets.client import ClientProtocol
    from websockets.http11 import Response

_HEAD_END = b"\r\n\r\n"
_MAX_HEAD_BYTES = 256 * 1024
"""Bytes of a response's head after which it is left to ``websockets`` to refuse it."""


@dataclass(frozen=True, slots=True)
class Handshake:
    """An open WebSocket: its transport, which does not read yet, and what the server sent."""

    transport: asyncio.Transport
    response: Response
    rest: bytes
    """What came behind the response."""


async def shake_hands(
    url: str,
    *,
    headers: Mapping[str, str],
    logger: logging.Logger,
    timeout_s: float,
    proxy: str | Literal[True] | None,
    ssl_context: ssl.SSLContext | bool | None,
) -> Handshake:
    """Connect and do the handshake; raise what ``websockets`` raises."""
    # Awaited, `connect` does not retry: that is the session's task.
    connection = await _StraightConnect(
        url,
        additional_headers=headers,
        logger=logger,
        compression=None,
        open_timeout=timeout_s,
        ping_interval=None,
        proxy=proxy,
        ssl=ssl_context,
        create_connection=_HandshakeConnection,
    )
    if not isinstance(connection, _HandshakeConnection) or connection.response is None:
        raise TypeError("websockets has not used the class for connections that it was given")
    return Handshake(connection.transport, connection.response, bytes(connection.rest))


class _StraightConnect(connect):
    """A `websockets.connect` that follows no redirect, because the key would be sent along."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


class _HandshakeConnection(ClientConnection):
    """Keeps what follows the handshake out of ``websockets``, and stops reading there."""

    def __init__(self, protocol: ClientProtocol, **options: object) -> None:
        super().__init__(protocol, **options)  # type: ignore[arg-type]
        self.rest = bytearray()
        self._head: bytearray | None = bytearray()
        """The response until its head is complete."""
        self._is_upgraded = False

    def data_received(self, data: bytes) -> None:
        if self._is_upgraded:
            self.rest += data
        elif self._head is None:
            super().data_received(data)
        else:
            self._head += data
            if _HEAD_END in self._head or len(self._head) > _MAX_HEAD_BYTES:
                self._pass_head()

    def eof_received(self) -> None:
        self._pass_head()
        super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._pass_head()
        super().connection_lost(exc)

    def _pass_head(self) -> None:
        """Let ``websockets`` read the response; of an accepted one only the head."""
        if self._head is None:
            return
        head, self._head = self._head, None
        body = head.find(_HEAD_END) + len(_HEAD_END)
        if head.split(b" ", 2)[1:2] == [b"101"] and body >= len(_HEAD_END):
            self._is_upgraded = True
            self.rest += head[body:]
            del head[body:]
            self.transport.pause_reading()
        if head:
            super().data_received(bytes(head))
