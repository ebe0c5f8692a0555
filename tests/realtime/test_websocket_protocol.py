"""The WebSocket wire against a server that does exactly what a test says, on both event loops."""

import asyncio
import importlib
import inspect
import threading
import time
from contextlib import asynccontextmanager, suppress

import pytest
from test_websocket_frames import frame
from websockets.http11 import Request
from websockets.server import ServerProtocol

from duologue.errors import ErrorKind, SessionError
from duologue.realtime import BinaryMessage, WebSocketWire
from duologue.realtime import websocket as wires
from duologue.realtime._websocket_frames import BINARY, CLOSE, PING, PONG, TEXT, encode_close
from duologue.simulators._tcp_reset import reset
from event_loops import EVENT_LOOPS

CONTINUATION = 0


def runner_of(loop):
    factory = importlib.import_module("uvloop").new_event_loop if loop == "uvloop" else None
    return asyncio.Runner(loop_factory=factory)


def on_both_loops(test):
    """Run a coroutine function on asyncio's own loop, and on uvloop's where it is installed."""

    async def bounded(**kwargs):
        async with asyncio.timeout(20):
            await test(**kwargs)
        await asyncio.sleep(0.01)
        assert len(asyncio.all_tasks()) == 1

    @pytest.mark.parametrize("loop", EVENT_LOOPS)
    def run(loop, **kwargs):
        with runner_of(loop) as runner:
            runner.run(bounded(**kwargs))

    for mark in getattr(test, "pytestmark", []):
        run = pytest.mark.parametrize(*mark.args)(run)
    run.__name__ = test.__name__
    (loop, _) = inspect.signature(run).parameters.values()
    run.__signature__ = inspect.Signature([loop, *inspect.signature(test).parameters.values()])
    return run


class Peer(asyncio.Protocol):
    """One connection of the server: reads with websockets, writes what the test says.

    ``behind`` goes out with the response. With ``answers``, pings and close frames are answered.
    """

    def __init__(self):
        self.behind = b""
        self.answers = True
        self.read_delay = 0.0
        self.frames = []
        self.lost = asyncio.Event()
        self._web = ServerProtocol(max_size=None)
        self._news = asyncio.Event()

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self._web.receive_data(data)
        for event in self._web.events_received():
            if isinstance(event, Request):
                self._web.send_response(self._web.accept(event))
                self.write(b"".join(self._web.data_to_send()) + self.behind)
            else:
                self.frames.append((int(event.opcode), bytes(event.data)))
        self._news.set()
        if self.answers:
            for answer in self._web.data_to_send():
                self.write(answer) if answer else self.transport.close()
        if self.read_delay:
            self.transport.pause_reading()
            later = asyncio.get_running_loop().call_later
            later(self.read_delay, self.transport.resume_reading)

    def connection_lost(self, exc):
        self.lost.set()

    def write(self, *parts):
        self.transport.write(b"".join(parts))

    async def received(self, opcode, count=1):
        """Return the payloads of that opcode once there are so many."""
        while len(found := [data for one, data in self.frames if one == opcode]) < count:
            self._news.clear()
            await self._news.wait()
        return found


class Talk:
    """A wire, the server's end of it, and what the wire has passed on."""

    def __init__(self, wire, peer):
        self.wire = wire
        self.peer = peer
        self.got = []
        self.news = asyncio.Event()

    def take(self, message):
        self.got.append(message)
        self.news.set()

    async def messages(self, count):
        while len(self.got) < count:
            self.news.clear()
            await self.news.wait()
        return self.got

    async def end(self):
        """Return the error that ends the wire."""
        with pytest.raises(SessionError) as caught:
            await self.running
        return caught.value


@asynccontextmanager
async def talk(*, run=True, server_tls=None, client_tls=None, **options):
    """Connect a wire to a peer, and run it."""
    changes = {name: options.pop(name) for name in ("behind", "answers") if name in options}
    peers = []

    def accept():
        peers.append(Peer())
        vars(peers[-1]).update(changes)
        return peers[-1]

    loop = asyncio.get_running_loop()
    server = await loop.create_server(accept, "127.0.0.1", 0, ssl=server_tls)
    scheme = "ws" if server_tls is None else "wss"
    port = server.sockets[0].getsockname()[1]
    wire = WebSocketWire(f"{scheme}://127.0.0.1:{port}/", ssl_context=client_tls, **options)
    await wire.open()
    both = Talk(wire, peers[0])
    if run:
        both.running = asyncio.create_task(wire.run(both.take))
    try:
        yield both
    finally:
        if run:
            both.running.cancel()
            await asyncio.wait([both.running])
        await wire.close()
        for peer in peers:
            peer.transport.abort()
        server.close()


# Messages


@on_both_loops
async def test_text_and_binary_messages_go_both_ways():
    async with talk() as both:
        await both.wire.send("ä".encode())
        assert both.wire.try_send(BinaryMessage(b"\xff\x00"))
        assert await both.peer.received(TEXT) == ["ä".encode()]
        assert await both.peer.received(BINARY) == [b"\xff\x00"]
        both.peer.write(frame(TEXT, b"{}"), frame(BINARY, b"\xff"), frame(TEXT, b""))
        one, two, three = await both.messages(3)
    assert (one, two, three) == (b"{}", b"\xff", b"")
    assert type(one) is type(three) is bytes
    assert isinstance(two, BinaryMessage)


@on_both_loops
async def test_messages_of_all_lengths_arrive_whole():
    sizes = [0, 125, 126, 1400, 65535, 65536, 1_000_000, 3]
    async with talk() as both:
        for size in sizes:
            await both.wire.send(b"*" * size)
            both.peer.write(frame(TEXT, b"*" * size))
        assert [len(one) for one in await both.messages(len(sizes))] == sizes
        assert [len(one) for one in await both.peer.received(TEXT, len(sizes))] == sizes


@on_both_loops
async def test_what_comes_behind_the_handshake_is_not_lost():
    last = frame(TEXT, b"third")
    behind = frame(TEXT, b"first") + frame(TEXT, b"second" * 100) + last[:3]
    async with talk(behind=behind, run=False) as both:
        both.peer.write(last[3:], frame(PING, b"?"), frame(TEXT, b"fourth"))
        await asyncio.sleep(0.05)
        both.running = asyncio.create_task(both.wire.run(both.take))
        expected = [b"first", b"second" * 100, b"third", b"fourth"]
        assert await both.messages(4) == expected
        assert await both.peer.received(PONG) == [b"?"]
        both.running.cancel()
        await asyncio.wait([both.running])


async def test_a_response_that_comes_byte_by_byte_is_read_as_well():
    async def answer(reader, writer):
        web = ServerProtocol()
        web.receive_data(await reader.readuntil(b"\r\n\r\n"))
        (request,) = web.events_received()
        web.send_response(web.accept(request))
        for one in b"".join(web.data_to_send()) + frame(TEXT, b"hello") + frame(CLOSE):
            writer.write(bytes([one]))
            await asyncio.sleep(0)
        await reader.read()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    wire = WebSocketWire(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    await wire.open()
    got = []
    with pytest.raises(SessionError) as caught:
        await wire.run(got.append)
    await wire.close()
    server.close()
    assert got == [b"hello"]
    assert caught.value.code == "1005"


@pytest.mark.parametrize("length", [b"Content-Length: 15\r\n", b""])
async def test_the_body_of_a_refusal_may_come_later(length):
    async def answer(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 402 Payment\r\n" + length + b"\r\n")
        await asyncio.sleep(0.1)
        writer.write(b"no money is left")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    wire = WebSocketWire(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    with pytest.raises(SessionError, match="no money is lef") as caught:
        await wire.open()
    server.close()
    assert caught.value.code == "402"


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 101", b"SSH-2.0\r\n\r\n", b"x" * 300_000])
async def test_what_is_no_response_is_an_error_in_one_line(answer):
    async def say(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(say, "127.0.0.1", 0)
    wire = WebSocketWire(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    with pytest.raises(SessionError, match=r"127\.0\.0\.1 can't be reached") as caught:
        await wire.open()
    server.close()
    assert "\n" not in str(caught.value)


@on_both_loops
async def test_control_frames_between_fragments_are_answered():
    async with talk() as both:
        both.peer.write(frame(TEXT, b"frag", final=False), frame(PING, b"1"))
        assert await both.peer.received(PONG) == [b"1"]
        both.peer.write(frame(PONG, b"unasked"), frame(CONTINUATION, b"ment"))
        assert await both.messages(1) == [b"fragment"]


# Errors of the protocol


BROKEN = {
    "reserved bits": (frame(TEXT, b"x", reserved=4), 1002),
    "opcode": (frame(3), 1002),
    "masked": (frame(TEXT, b"x", masked=True), 1002),
    "long ping": (frame(PING, b"*" * 126), 1002),
    "fragmented ping": (frame(PING, final=False), 1002),
    "continuation": (frame(CONTINUATION), 1002),
    "close code": (frame(CLOSE, encode_close(1005)), 1002),
    "text": (frame(TEXT, b"\xff"), 1007),
    "fragments": (frame(TEXT, b"*" * 600, final=False) + frame(CONTINUATION, b"*" * 401), 1009),
}


@on_both_loops
@pytest.mark.parametrize("name", BROKEN)
async def test_a_broken_protocol_ends_the_connection_with_its_code(name, monkeypatch):
    monkeypatch.setattr(wires, "MAX_MESSAGE_BYTES", 1000)
    data, code = BROKEN[name]
    async with talk() as both:
        both.peer.write(frame(TEXT, b"before"), data, frame(TEXT, b"after"))
        error = await both.end()
        assert (error.code, error.kind) == ("1006", ErrorKind.RECYCLE)
        assert "the connection broke: " in str(error)
        assert both.got == [b"before"]
        (close,) = await both.peer.received(CLOSE)
        assert int.from_bytes(close[:2]) == code
        assert not both.wire.try_send(b"{}")
        with pytest.raises(SessionError, match="the connection broke: "):
            await both.wire.send(b"{}")


# The end


@on_both_loops
async def test_a_close_frame_is_sent_back_and_nothing_after_it_is_passed_on():
    async with talk(answers=False) as both:
        both.peer.write(frame(CLOSE, encode_close(4001, "enough")), frame(TEXT, b"after"))
        error = await both.end()
        assert error.code == "4001"
        assert "enough" in str(error)
        assert await both.peer.received(CLOSE) == [encode_close(4001, "enough")]
        assert both.got == []


@on_both_loops
@pytest.mark.parametrize(("answers", "least", "most"), [(True, 0.0, 0.3), (False, 0.35, 0.6)])
async def test_closing_waits_for_the_server_and_not_for_long(answers, least, most):
    async with talk(answers=answers) as both:
        began = time.perf_counter()
        await both.wire.close()
        assert least <= time.perf_counter() - began < most
        assert await both.peer.received(CLOSE) == [encode_close(1000)]
        await both.peer.lost.wait()


@on_both_loops
async def test_a_connection_that_is_never_run_is_closed_in_order():
    async with talk(run=False) as both:
        began = time.perf_counter()
        await both.wire.close()
        assert time.perf_counter() - began < 0.3
        assert await both.peer.received(CLOSE) == [encode_close(1000)]


@on_both_loops
async def test_a_connection_that_ends_without_a_close_frame_is_an_error():
    async with talk() as both:
        both.peer.transport.abort()
        error = await both.end()
        assert (error.code, error.kind) == ("1006", ErrorKind.RECYCLE)
        assert not both.wire.try_send(b"{}")


@on_both_loops
async def test_nothing_is_written_once_a_write_has_failed(caplog):
    async with talk(run=False) as both:  # Its reading is paused, so only a write can notice.
        reset(both.peer.transport)
        await asyncio.sleep(0.01)

        async def send_on() -> None:
            for _ in range(20):
                await both.wire.send(b"{}")

        with pytest.raises(SessionError) as caught:
            await send_on()
        assert (caught.value.code, caught.value.kind) == ("1006", ErrorKind.RECYCLE)
        assert not both.wire.try_send(b"{}")
        with pytest.raises(SessionError, match="1006"):
            await both.wire.run(both.take)
    assert not [one for one in caplog.messages if "socket.send()" in one]


@on_both_loops
@pytest.mark.parametrize("error", [ValueError("a bug"), SessionError("fatal"), StopIteration()])
async def test_an_error_of_the_receiver_ends_it(error):
    def fail(message):
        both.take(message)
        raise error

    async with talk(run=False) as both:
        both.running = asyncio.create_task(both.wire.run(fail))
        both.peer.write(frame(TEXT, b"1"), frame(TEXT, b"2"), frame(PING, b"?"))
        expected = RuntimeError if isinstance(error, StopIteration) else type(error)
        with pytest.raises(expected) as caught:
            await both.running
        assert error in (caught.value, caught.value.__cause__)
        assert await both.peer.received(PONG) == [b"?"]
        assert both.got == [b"1"]


@on_both_loops
async def test_nothing_is_passed_on_after_a_cancellation():
    async with talk() as both:
        await asyncio.sleep(0)
        both.running.cancel()
        await asyncio.wait([both.running])
        both.peer.write(frame(TEXT, b"late"), frame(PING, b"?"))
        assert await both.peer.received(PONG) == [b"?"]
        assert both.got == []
        await both.wire.send(b"goodbye")
        assert await both.peer.received(TEXT) == [b"goodbye"]


# Sending to a server that is slow


@on_both_loops
async def test_messages_wait_for_a_server_that_does_not_read_and_none_is_lost():
    async with talk() as both:
        both.peer.transport.pause_reading()
        sent = [b"%d" % number + b"*" * 100_000 for number in range(400)]
        accepted = 0
        while both.wire.try_send(sent[accepted]):
            accepted += 1
        assert 0 < accepted < len(sent)
        assert not both.wire.try_send(b"{}")

        async def send_the_rest():
            for message in sent[accepted:]:
                await both.wire.send(message)

        sending = asyncio.create_task(send_the_rest())
        await asyncio.sleep(0.05)
        assert not sending.done()
        both.peer.transport.resume_reading()
        await sending
        assert await both.peer.received(TEXT, len(sent)) == sent
        assert both.wire.try_send(b"{}")


@on_both_loops
async def test_sending_to_a_server_that_closes_meanwhile_raises_its_reason():
    async with talk() as both:
        both.peer.transport.pause_reading()
        while both.wire.try_send(b"*" * 100_000):
            pass
        sending = asyncio.create_task(both.wire.send(b"{}"))
        await asyncio.sleep(0.01)
        both.peer.write(frame(CLOSE, encode_close(1001, "bye")))
        with pytest.raises(SessionError, match="bye"):
            await sending
        assert (await both.end()).code == "1001"


# Pings


@on_both_loops
async def test_a_server_that_answers_pings_stays_connected():
    async with talk(ping_interval=0.05, pong_timeout=0.1) as both:
        pings = await both.peer.received(PING, 6)
        assert len(set(pings)) == len(pings)
        assert not both.running.done()


@on_both_loops
async def test_a_server_that_does_not_answer_pings_is_left():
    async with talk(ping_interval=0.1, pong_timeout=0.2, answers=False) as both:
        began = time.perf_counter()
        await both.peer.received(PING)
        while not both.running.done():
            both.peer.write(frame(PONG, b"of another ping"), frame(TEXT, b"still here"))
            await asyncio.sleep(0.05)
        error = await both.end()
        assert 0.25 < time.perf_counter() - began < 0.8
        assert "does not answer any more" in str(error)
        assert error.kind is ErrorKind.RECYCLE
        (close,) = await both.peer.received(CLOSE)
        assert int.from_bytes(close[:2]) == 1011


@on_both_loops
async def test_a_ping_that_waits_behind_a_large_message_is_not_missed():
    async with talk(ping_interval=0.05, pong_timeout=0.5) as both:
        both.peer.read_delay = 0.02
        began = time.perf_counter()
        assert both.wire.try_send(b"*" * 20_000_000)
        await both.wire.send(b"{}")
        assert time.perf_counter() - began > 0.6
        assert (await both.peer.received(TEXT, 2))[1] == b"{}"
        assert not both.running.done()


@on_both_loops
async def test_a_server_that_stops_reading_a_large_message_is_left():
    async with talk(ping_interval=0.05, pong_timeout=0.1) as both:
        both.peer.transport.pause_reading()
        while both.wire.try_send(b"*" * 1_000_000):
            pass
        assert "does not answer any more" in str(await both.end())


# TLS, proxies, threads


@pytest.fixture(scope="module")
def authority():
    pytest.importorskip("cryptography", reason="needs duologue[simulate]")
    from duologue.simulators._test_ca import TemporaryCA

    return TemporaryCA()


@on_both_loops
async def test_all_of_it_works_over_tls(authority):
    server, client = authority.server_context(), authority.client_context()
    async with talk(server_tls=server, client_tls=client, behind=frame(TEXT, b"first")) as both:
        sizes = [0, 1400, 16384, 65536, 1_000_000, 3]
        for size in sizes:
            await both.wire.send(b"*" * size)
            both.peer.write(frame(TEXT, b"*" * size))
        both.peer.write(*(frame(TEXT, b"%d" % number * 300) for number in range(100)))
        got = await both.messages(1 + len(sizes) + 100)
        assert got[0] == b"first"
        assert [len(one) for one in got[1:7]] == sizes
        assert got[7:] == [b"%d" % number * 300 for number in range(100)]
        assert [len(one) for one in await both.peer.received(TEXT, len(sizes))] == sizes
        both.peer.transport.pause_reading()
        accepted = 0
        while both.wire.try_send(b"*" * 100_000):
            accepted += 1
        both.peer.transport.resume_reading()
        await both.wire.send(b"last")
        assert (await both.peer.received(TEXT, len(sizes) + accepted + 1))[-1] == b"last"
        began = time.perf_counter()
        await both.wire.close()
        assert time.perf_counter() - began < 0.6
        assert await both.peer.received(CLOSE) == [encode_close(1000)]


@asynccontextmanager
async def http_proxy():
    """Run a proxy that opens tunnels, and yield its address and what it was asked for."""
    asked = []

    async def pump(reader, writer):
        with suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve_one(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        asked.append(head.split(b"\r\n")[0].decode())
        host, _, port = asked[-1].split()[1].rpartition(":")
        there, out = await asyncio.open_connection(host, int(port))
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await asyncio.gather(pump(reader, out), pump(there, writer))

    server = await asyncio.start_server(serve_one, "127.0.0.1", 0)
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", asked
    server.close()
    for _ in range(100):
        await asyncio.sleep(0.01)
        if len(asyncio.all_tasks()) == 1:
            break


@on_both_loops
@pytest.mark.parametrize("secure", [False, True])
async def test_proxies_are_passed(secure, authority):
    tls = {}
    if secure:
        tls = {"server_tls": authority.server_context(), "client_tls": authority.client_context()}
    async with (
        http_proxy() as (proxy, asked),
        talk(proxy=proxy, behind=frame(TEXT, b"first"), **tls) as both,
    ):
        await both.wire.send(b"*" * 100_000)
        both.peer.write(frame(TEXT, b"*" * 100_000))
        first, second = await both.messages(2)
        assert (first, len(second)) == (b"first", 100_000)
        assert [len(one) for one in await both.peer.received(TEXT)] == [100_000]
    assert [line.split()[0] for line in asked] == ["CONNECT"]


def test_connections_of_several_threads_do_not_share_a_buffer():
    """Reading releases the interpreter, so a buffer of two threads would be overwritten."""
    found = {}

    async def echo(name):
        text = name.encode() * 15_000
        async with talk() as both:
            for number in range(1, 100):
                both.peer.write(frame(TEXT, text), frame(TEXT, text[:1400]))
                await both.messages(2 * number)
            found[name] = {*both.got} == {text, text[:1400]}

    threads = [
        threading.Thread(target=asyncio.run, args=(echo(name),)) for name in ("abcd", "efgh")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert found == {"abcd": True, "efgh": True}
