"""Opens a tunnel through an HTTP proxy by CONNECT (RFC 9110, 9.3.6)."""

from __future__ import annotations

import asyncio
import ssl
from base64 import b64encode
from urllib.parse import SplitResult, unquote

from duologue._net import proxy_error, split_address, without_password
from duologue.errors import ConfigError

_PORTS = {"http": 80, "https": 443}
MAX_HEAD_BYTES = 16 * 1024
"""Most bytes of the head of a proxy's response."""


async def open_tunnel(
    proxy: str, host: str, port: int, *, given: bool = False
) -> asyncio.Transport:
    """Connect to ``host`` through ``proxy``; reading is paused until the next protocol is set.

    ``given``: the program named the proxy, not the environment.

    Raises:
        OSError: The connection failed.
        SessionError: ``proxy`` is not the address of an HTTP proxy.
    """
    try:
        address = split_address("proxy", proxy, tuple(_PORTS), "http://host:port")
    except ConfigError:
        reason = f"{without_password(proxy)} is no address of an HTTP proxy"
        raise proxy_error(reason, given=given) from None
    name, at = address.hostname or "", address.port or _PORTS[address.scheme]
    secure = ssl.create_default_context() if address.scheme == "https" else None
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_connection(_ConnectResponse, name, at, ssl=secure)
    try:
        transport.write(_request(address, host, port))
        status = await protocol.status
    except BaseException:
        transport.abort()
        raise
    if not 200 <= status < 300:
        transport.abort()
        raise ConnectionError(f"the proxy {name}:{at} answered with HTTP {status}")
    transport.pause_reading()
    return transport


def _request(proxy: SplitResult, host: str, port: int) -> bytes:
    authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    lines = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}"]
    if proxy.username is not None:
        pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}".encode()
        lines.append(f"Proxy-Authorization: Basic {b64encode(pair).decode()}")
    return "\r\n".join((*lines, "", "")).encode()


class _ConnectResponse(asyncio.Protocol):
    """Reads the head of the proxy's response; the host sends nothing before the client does."""

    def __init__(self) -> None:
        self.status: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._head = bytearray()

    def data_received(self, data: bytes) -> None:
        """Read more of the response."""
        if self.status.done():
            return
        self._head += data
        if b"\r\n\r\n" in self._head:
            line = self._head.partition(b"\r\n")[0].split(b" ")
            good = len(line) > 1 and line[0].startswith(b"HTTP/1.") and line[1].isdigit()
            if good:
                self.status.set_result(int(line[1]))
            else:
                self._fail("the proxy does not speak HTTP")
        elif len(self._head) > MAX_HEAD_BYTES:
            self._fail("the proxy's answer is too long")

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail if the response is not complete."""
        self._fail(f"the proxy closed the connection{f': {exc}' if exc else ''}")

    def _fail(self, reason: str) -> None:
        if not self.status.done():
            self.status.set_exception(ConnectionError(reason))
