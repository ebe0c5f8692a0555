"""Edges on our own server, whose messages come in the read callback of the socket."""

import asyncio
import json
from contextlib import asynccontextmanager

import pytest
import websockets
from server_fixture import serving
from websockets.exceptions import ConnectionClosed

from duologue import Agent
from duologue.edges import websocket
from duologue.events import DigitEvent
from duologue.hosting import create_app
from duologue.server import ServerConfig
from duologue.server.direct_socket import DirectSocket
from duologue.testing import ScriptedRealtime


class Desk:
    def __init__(self, wait_s=0.0):
        self.agents, self.digits, self.wait_s = [], [], wait_s

    async def make_agent(self, edge):
        await asyncio.sleep(self.wait_s)
        agent = Agent(edge=edge, llm=ScriptedRealtime())
        agent.events.tap(
            lambda event: self.digits.append(event.digit) if isinstance(event, DigitEvent) else None
        )
        self.agents.append(agent)
        return agent

    @property
    def socket(self):
        return self.agents[0].edge._socket


@asynccontextmanager
async def client_of(desk, *first):
    """Connect a client that has sent its hello and the messages behind it in one go."""
    config = ServerConfig(port=0, max_tick_delay_ms=None)
    app = create_app(lambda edge: None, config)
    websocket.mount(app, desk.make_agent)
    async with serving(app, config) as server:
        address = f"ws://localhost:{server.port}/socket"
        async with websockets.connect(
            address, subprotocols=["duologue.v1"], compression=None, max_size=None
        ) as client:
            hello = {"type": "hello", "rate": 16000, "codec": "pcm"}
            for message in (hello, *first):
                await client.send(json.dumps(message))
            yield client


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def read_to_the_end(client):
    async with asyncio.timeout(5):
        while True:
            await client.recv()


def press(digit):
    return {"type": "digit", "digit": digit}


async def test_no_message_is_lost_or_overtaken_while_the_agent_is_made():
    desk = Desk(wait_s=0.1)
    async with client_of(desk, *map(press, "12345")) as client:
        await until(lambda: desk.agents)
        for digit in "67890":
            await client.send(json.dumps(press(digit)))
        await until(lambda: len(desk.digits) == 10)
        assert isinstance(desk.socket._direct, DirectSocket)
        await client.send(iter(['{"type": "dig', 'it", "digit": ', '"#"}']))  # fragments
        await until(lambda: len(desk.digits) == 11)
    assert "".join(desk.digits) == "1234567890#"


async def test_messages_of_any_size_arrive_whole():
    desk = Desk()
    async with client_of(desk) as client:
        await until(lambda: desk.agents and desk.agents[0]._live)
        sizes = (0, 125, 126, 65535, 65536, 200_000)
        for size in sizes:
            assert desk.socket.try_send("ä" * (size // 2))
            assert desk.socket.try_send(b"x" * size)
        found = []
        while len(found) < 2 * len(sizes):
            message = await client.recv()
            if not isinstance(message, str) or not message.startswith("{"):
                found.append(message)
    assert found == [m for size in sizes for m in ("ä" * (size // 2), b"x" * size)]


async def test_a_client_that_reads_late_gets_all_in_order():
    desk = Desk()
    async with client_of(desk) as client:
        await until(lambda: desk.agents and desk.agents[0]._live)
        client.transport.pause_reading()
        outbox = desk.agents[0].edge._outbox
        for number in range(900):
            outbox.send(f"{number:06} " + "x" * 20_000)
        assert len(outbox) > 0  # so the socket was full
        client.transport.resume_reading()
        found = []
        while len(found) < 1000:
            message = await client.recv()
            if "x" in message[-1:]:
                found.append(int(message[:6]))
                if number < 999:  # None of these may overtake those that wait.
                    number += 1
                    outbox.send(f"{number:06} x")
    assert found == list(range(1000))


@pytest.mark.parametrize("message", [b"odd", json.dumps({"type": "nothing"})])
async def test_a_wrong_message_ends_the_call_with_a_reason(message):
    desk = Desk()
    async with client_of(desk) as client:
        await until(lambda: desk.agents and desk.agents[0]._live)
        await client.send(message)
        with pytest.raises(ConnectionClosed):
            await read_to_the_end(client)
        assert client.close_code == 1008


async def test_text_that_is_not_utf_8_closes_the_socket():
    desk = Desk()
    async with client_of(desk) as client:
        await until(lambda: desk.agents and desk.agents[0]._live)
        client.transport.write(b"\x81\x82\0\0\0\0\xff\xfe")
        with pytest.raises(ConnectionClosed):
            await read_to_the_end(client)
        assert client.close_code == 1007
    await until(lambda: desk.agents[0]._live is None)
