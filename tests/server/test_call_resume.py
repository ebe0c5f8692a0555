"""Calls that outlive their socket: a native client, real sockets."""

import asyncio
import json
import logging
import time
from contextlib import asynccontextmanager

from server_fixture import answer, receive_close, served, until

from duologue.server import page_call
from duologue.server.page_call import PageCall


class Scene:
    """A handler that repeats texts, and keeps what it was told."""

    def __init__(self) -> None:
        self.signalling: list[PageCall] = []
        self.heard: list[str] = []

    async def __call__(self, signalling) -> None:
        self.signalling.append(signalling)
        await signalling.send({"type": "agent", "name": "Ada"})
        while (message := await signalling.receive()) is not None:
            self.heard.append(message.get("text", message["type"]))

    async def say(self, *words: str) -> None:
        for word in words:
            await self.signalling[-1].send({"type": "event", "event": {"word": word}})


@asynccontextmanager
async def page(server, ticket: str = "", received: int = 0, token: str = ""):
    """Open a socket of a page that understands tickets; yield it and its first message."""
    async with server.socket(None) as socket:
        hello = {"type": "hello", "token": token, "ticket": ticket, "received": received}
        await socket.send(json.dumps(hello))
        yield socket, await answer(socket)


async def answer_of(socket, kind: str) -> dict:
    while (message := await answer(socket))["type"] != kind:
        pass
    return message


async def words(socket, count: int) -> list[tuple[int, str]]:
    found: list[tuple[int, str]] = []
    while len(found) < count:
        message = await answer(socket)
        if message["type"] == "event":
            found.append((message["n"], message["event"]["word"]))
    return found


async def lose(socket) -> None:
    """Break a socket as a network does."""
    socket.transport.abort()
    await socket.wait_closed()


async def test_a_call_goes_on_over_another_socket_and_missed_events_come_again():
    scene = Scene()
    async with served(scene, offer_timeout_s=60) as server:
        async with page(server) as (first, config):
            assert config["resumed"] is False
            assert config["keep_s"] == 30
            await first.send('{"type": "text", "text": "one"}')
            await until(lambda: scene.heard == ["one"])
            written = await answer_of(first, "wrote")
            assert (written["n"], written["text"]) == (1, "one")
            await scene.say("a", "b")
            assert await words(first, 2) == [(2, "a"), (3, "b")]
            await lose(first)
        await until(lambda: not scene.signalling[0].connected)
        await scene.say("c", "d")
        assert server.calls.sessions == 1
        async with page(server, config["ticket"], received=2) as (second, again):
            assert again["resumed"] is True
            assert again["ticket"] != config["ticket"]
            assert (await answer(second))["name"] == "Ada"
            assert await words(second, 3) == [(3, "b"), (4, "c"), (5, "d")]
            await second.send('{"type": "text", "text": "two"}')
            await until(lambda: scene.heard == ["one", "two"])
            await second.send('{"type": "bye"}')
            assert (await receive_close(second))[1] == 1000
        assert len(scene.signalling) == 1
        await until(lambda: server.calls.sessions == 0)


async def test_a_ticket_is_used_once_when_the_next_one_is_confirmed():
    scene = Scene()
    async with served(scene, offer_timeout_s=60) as server, page(server) as (first, config):
        await lose(first)
        async with page(server, config["ticket"]) as (second, again):
            await second.send('{"type": "ticket"}')
            await second.send('{"type": "text", "text": "hi"}')
            await until(lambda: scene.heard == ["hi"])
            async with page(server, config["ticket"]) as (third, refusal):
                assert refusal["code"] == "gone"
                assert (await receive_close(third))[1] == 4410
            # The newest one replaces a socket that is still open.
            async with page(server, again["ticket"]) as (fourth, config):
                assert config["resumed"] is True
                assert (await receive_close(second))[1] == 4409
                await fourth.send('{"type": "text", "text": "me"}')
                await until(lambda: scene.heard == ["hi", "me"])
        assert scene.signalling[0].sockets == 3


async def test_a_call_ends_when_nobody_comes_back_in_time(monkeypatch):
    scene = Scene()
    async with served(scene, keep_call_s=0.3, offer_timeout_s=60) as server:
        async with page(server) as (first, config):
            await lose(first)
        await until(lambda: not scene.signalling[0].connected)
        assert server.calls.sessions == 1
        await until(lambda: server.calls.sessions == 0, 1.5)
        async with page(server, config["ticket"]) as (_, refusal):
            assert refusal["code"] == "gone"
    monkeypatch.setattr(page_call, "LEAVING_S", 0.1)
    async with served(scene, keep_call_s=20, offer_timeout_s=60) as server:
        async with page(server) as (first, _):
            await first.close(1001)
        await until(lambda: server.calls.sessions == 0, 1.5)


async def test_a_call_ends_at_once_after_a_hang_up_or_when_it_is_not_to_be_kept():
    scene = Scene()
    async with served(scene, offer_timeout_s=60) as server:
        async with page(server) as (first, config):
            await first.close(1000)
            await until(lambda: server.calls.sessions == 0, 1)
        async with server.socket() as old:
            assert "ticket" not in await answer(old)
            await lose(old)
        await until(lambda: server.calls.sessions == 0, 1)
    async with served(scene, keep_call_s=0, offer_timeout_s=60) as server:
        async with page(server) as (first, config):
            assert "ticket" not in config
            await lose(first)
        await until(lambda: server.calls.sessions == 0, 1)


async def test_a_kept_call_has_its_place_and_a_drain_waits_for_it():
    scene = Scene()
    async with served(scene, max_sessions=1, offer_timeout_s=60) as server:
        async with page(server) as (first, config):
            await lose(first)
        async with page(server) as (_, refusal):
            assert refusal["code"] == "full"
        draining = asyncio.ensure_future(server.calls.drain(20))
        await asyncio.sleep(0.05)
        assert not draining.done()
        async with page(server, config["ticket"]) as (second, again):
            assert again["resumed"] is True
            await second.send('{"type": "bye"}')
            await draining


async def test_a_server_that_ends_does_not_wait_for_a_page(caplog):
    scene = Scene()
    began = 0.0
    async with served(scene, offer_timeout_s=60) as server:
        async with page(server) as (first, _):
            await lose(first)
        await until(lambda: not scene.signalling[0].connected)
        began = time.monotonic()
    assert time.monotonic() - began < 1
    assert not [r for r in caplog.records if r.levelname == "ERROR"]


async def test_wrong_tickets_are_refused_and_soon_not_even_compared(monkeypatch):
    monkeypatch.setattr("duologue.server.tickets.MAX_FAILURES", 20)
    monkeypatch.setattr("duologue.server.tickets.FAILURES_PER_S", 0.5)
    scene = Scene()
    token = "t" * 16
    async with (
        served(scene, token=token, offer_timeout_s=60) as server,
        page(server, token=token) as (_, config),
    ):
        call, session, secret = config["ticket"].split(".")
        wrong = f"{call}.{session}.{secret[::-1]}"
        async with page(server, config["ticket"], token="x" * 16) as (_, refusal):
            assert refusal["code"] == "token"
        codes = []
        for ticket in ["nonsense", wrong] * 11:
            async with page(server, ticket, token=token) as (_, refusal):
                codes.append(refusal["code"])
        assert codes == ["gone"] * 20 + ["too_fast"] * 2


async def test_a_call_is_not_taken_up_all_the_time():
    scene = Scene()
    async with served(scene, offer_timeout_s=60) as server, page(server) as (_, config):
        codes = []
        for _ in range(12):
            async with page(server, config["ticket"]) as (socket, message):
                codes.append(message.get("code", "resumed"))
                config |= message
                await lose(socket)
        assert codes == ["resumed"] * 10 + ["too_fast"] * 2


async def test_no_ticket_is_ever_logged(caplog):
    caplog.set_level(logging.DEBUG)
    scene = Scene()
    async with served(scene, offer_timeout_s=60) as server:
        async with page(server) as (first, config):
            await lose(first)
        async with page(server, config["ticket"]) as (second, again):
            await second.send('{"type": "bye"}')
            await receive_close(second)
    own = [r.getMessage() for r in caplog.records if not r.name.startswith("websockets.client")]
    assert any("taken up again" in line for line in own)
    for ticket in (config["ticket"], again["ticket"]):
        assert not any(ticket.split(".")[2] in line for line in own)


class Ledger:
    """Tickets shared between processes."""

    def __init__(self) -> None:
        self.digests: dict[str, str] = {}

    async def issued(self, session_id: str, digest: str, keep_s: float) -> None:
        self.digests[session_id] = digest

    async def claim(self, session_id: str, digest: str) -> bool:
        return self.digests.pop(session_id, None) == digest

    async def ended(self, session_id: str) -> None:
        self.digests.pop(session_id, None)


async def test_a_conversation_goes_on_in_another_process_that_shares_the_tickets():
    scene, other, ledger = Scene(), Scene(), Ledger()
    async with served(scene, offer_timeout_s=60) as one, served(other) as two:
        one.calls.shared_tickets = two.calls.shared_tickets = ledger
        async with page(one) as (first, config):
            assert not scene.signalling[0].resumed
            await lose(first)
        two.calls.loading = True
        async with page(two, config["ticket"]) as (_, refusal):
            assert refusal["code"] == "loading"
        two.calls.loading = False
        one.calls.release(scene.signalling[0].session_id)
        await until(lambda: one.calls.sessions == 0)
        async with page(two, config["ticket"]) as (second, again):
            assert again["resumed"] is True
            await until(lambda: other.signalling)
            assert other.signalling[0].resumed
            assert other.signalling[0].session_id == scene.signalling[0].session_id
            assert other.signalling[0].call_id != scene.signalling[0].call_id
            async with page(two, config["ticket"]) as (_, refusal):
                assert refusal["code"] == "gone"
            await second.send('{"type": "bye"}')
            await until(lambda: two.calls.sessions == 0)
        assert ledger.digests == {}


async def test_a_ledger_that_fails_costs_no_call(caplog):
    class Broken:
        async def issued(self, *_):
            raise OSError("no node")

        claim = ended = issued

    scene = Scene()
    async with served(scene, offer_timeout_s=60) as server:
        server.calls.shared_tickets = Broken()
        async with page(server) as (first, config):
            await lose(first)
        async with page(server, config["ticket"]) as (second, again):
            assert again["resumed"] is True
            async with page(server, "0" * 12 + "." + again["ticket"].split(".", 1)[1]) as (_, no):
                assert no["code"] == "gone"
            await second.send('{"type": "bye"}')
            await until(lambda: server.calls.sessions == 0)
    assert sum("shared tickets" in r.getMessage() for r in caplog.records) == 1
