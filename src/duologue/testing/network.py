"""A network between two WebRTC peers on this machine that loses, delays and reorders packets."""

from __future__ import annotations

import asyncio
import random
import re
from types import TracebackType
from typing import Self, cast

_LOOPBACK = re.compile(r"^a=candidate:(\S+ \d+ udp \d+) 127\.0\.0\.1 (\d+) typ host", re.M)


class _Side(asyncio.DatagramProtocol):
    """One side of the network: packets that arrive here leave on the other side."""

    def __init__(self, network: BadNetwork) -> None:
        self.network = network
        self.transport: asyncio.DatagramTransport | None = None
        self.other: _Side | None = None
        self.target: tuple[str, int] | None = None
        self.port = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.DatagramTransport", transport)
        self.port = transport.get_extra_info("sockname")[1]

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.network._forward(data, self)


class BadNetwork:
    """Carries one call and damages its RTP stream; ICE, DTLS and RTCP pass undamaged.

    Pass the descriptions of both sides through `reroute`. Set ``cut`` to stop all packets. Apart
    from timing, ``seed`` decides everything.

    Args:
        loss: Share of RTP packets to lose, 0 to 1.
        delay: Seconds by which each RTP packet is delayed.
        jitter: Most seconds of additional, random delay; more than 20 ms reorders packets.
        seed: Seed of the random numbers.
    """

    def __init__(
        self, *, loss: float = 0.0, delay: float = 0.0, jitter: float = 0.0, seed: int = 1
    ) -> None:
        self.loss = loss
        self.delay = delay
        self.jitter = jitter
        self.cut = False
        self.lost = 0
        """RTP packets lost so far."""
        self.passed = 0
        """RTP packets passed on so far."""
        self._random = random.Random(seed)  # noqa: S311 - a network, not a secret
        self._sides: dict[str, _Side] = {}

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        for kind in ("offer", "answer"):
            _, side = await loop.create_datagram_endpoint(
                lambda: _Side(self), local_addr=("127.0.0.1", 0)
            )
            self._sides[kind] = side
        self._sides["offer"].other = self._sides["answer"]
        self._sides["answer"].other = self._sides["offer"]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for side in self._sides.values():
            if side.transport is not None:
                side.transport.close()

    def reroute(self, kind: str, sdp: str) -> str:
        """Return the description (``offer`` or ``answer``) with this network's address in it."""
        found = _LOOPBACK.search(sdp)
        if found is None:
            raise ValueError("the description has no candidate on 127.0.0.1")
        side = self._sides[kind]
        side.target = ("127.0.0.1", int(found.group(2)))
        line = f"a=candidate:{found.group(1)} 127.0.0.1 {side.port} typ host\r\n"
        return re.sub(r"(?:a=candidate:.*\r\n)+", line, sdp)

    def _forward(self, data: bytes, side: _Side) -> None:
        # Packets that one peer sends to this side leave on the other side, to the peer behind it.
        if self.cut or side.other is None or side.target is None:
            return
        other, target = side.other, side.target
        rtp = len(data) > 1 and 128 <= data[0] < 192 and not 192 <= data[1] <= 208
        if rtp and self._random.random() < self.loss:
            self.lost += 1
            return
        self.passed += rtp
        wait = self.delay + self._random.random() * self.jitter if rtp else 0.0

        def leave() -> None:
            if other.transport is not None and not other.transport.is_closing():
                other.transport.sendto(data, target)

        if wait:
            asyncio.get_running_loop().call_later(wait, leave)
        else:
            leave()
