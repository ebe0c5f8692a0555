"""A network between a page and its server that can be cut: TCP, and the UDP of each connection."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress

from duologue.json_types import Json
from duologue.rtc.sdp import replace_mdns_names
from duologue.rtc.signalling import ANSWER, OFFER
from duologue.testing.network import BadNetwork


class TcpProxy:
    """Passes TCP on to a port, until it is cut.

    Attributes:
        port: Where it listens.
        refuse: Whether new connections are closed at once.
        accepted: Connections so far.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self.refuse = False
        self.accepted = 0
        self._swallowed: set[asyncio.StreamWriter] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    def cut(self) -> None:
        """Break all connections at once."""
        for writer in list(self._writers):
            writer.transport.abort()

    def swallow(self) -> None:
        """Let the connections of now carry nothing any more, without an end."""
        self._swallowed |= self._writers

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        if self.refuse:
            writer.transport.abort()
            return
        inner, outer = await asyncio.open_connection("127.0.0.1", self.target)
        self._writers |= {writer, outer}
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._pass_on(reader, outer))
                tasks.create_task(self._pass_on(inner, writer))
        finally:
            self._writers -= {writer, outer}
            self._swallowed -= {writer, outer}

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                if writer not in self._swallowed:
                    writer.write(data)
        writer.transport.abort() if reader.exception() else writer.close()


@asynccontextmanager
async def tcp_proxy(target: int) -> AsyncIterator[TcpProxy]:
    """Run a proxy in front of a port of this machine."""
    proxy = TcpProxy(target)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        proxy.cut()


class RoutedSignalling:
    """Signalling whose calls send their media over a new `BadNetwork` for each offer."""

    def __init__(self, signalling, networks: list[BadNetwork], stack: AsyncExitStack) -> None:
        self._signalling = signalling
        self._networks = networks
        self._stack = stack

    def __getattr__(self, name: str):
        return getattr(self._signalling, name)

    async def receive(self) -> Mapping[str, Json] | None:
        message = await self._signalling.receive()
        if message is None or message["type"] != OFFER:
            return message
        network = await self._stack.enter_async_context(BadNetwork())
        self._networks.append(network)
        sdp = replace_mdns_names(str(message["sdp"]))
        return {**message, "sdp": network.reroute(OFFER, sdp)}

    async def send(self, message: Mapping[str, Json]) -> None:
        if message["type"] == ANSWER:
            message = {**message, "sdp": self._networks[-1].reroute(ANSWER, str(message["sdp"]))}
        await self._signalling.send(message)
