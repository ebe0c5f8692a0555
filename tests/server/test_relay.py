"""What a worker does that passes the messages of a page on to another worker."""

import asyncio
import socket

from duologue.server._relay import relay
from duologue.server.call_socket import TOO_FAST, Hello


class FloodingPage:
    """A page that sends more than the other worker reads."""

    async def read(self, deliver, *, offer_due=False):
        while True:
            deliver({"type": "text", "text": "x" * 60_000})
            await asyncio.sleep(0)


async def test_page_of_a_worker_that_reads_nothing_is_refused():
    ours, theirs = socket.socketpair()
    with theirs:
        ours.setblocking(False)
        async with asyncio.timeout(5):
            refusal = await relay(FloodingPage(), Hello("", "ticket", 0), ours)
    assert refusal is TOO_FAST
