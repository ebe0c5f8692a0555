import asyncio
import gc
import json
import ssl
from base64 import b64encode
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

import pytest

pytest.importorskip("aws_sdk_bedrock_runtime", reason="the aws extra is not installed")
pytest.importorskip("h2", reason="the aws extra is not installed")

from bedrock_service import event, frame, serving

from duologue.clock import LoopClock
from duologue.errors import ErrorKind, SessionError
from duologue.providers.aws._credentials import Credentials
from duologue.providers.aws._h2_stream import MAX_READ_BYTES, PING_EVERY_S, PONG_TIMEOUT_S
from duologue.providers.aws._signals import IDLE_S, Flush, StreamAccepted, StreamIdle, StreamQuiet
from duologue.providers.aws._wire import BedrockWire
from duologue.testing import run_virtual

KEYS = Credentials("AKIDTEST", "secret")


def wire_to(url, tls=None, credentials=KEYS, **options):
    async def keys():
        return credentials

    return BedrockWire(
        model="amazon.nova-2-sonic-v1:0",
        region="us-east-1",
        endpoint=url,
        credentials=keys,
        tls=tls,
        clock=LoopClock(),
        **options,
    )


def nova(function):
    """A test of a wire to a service, in virtual time; it leaves no task behind, nor any error."""

    def run():
        unheard = []

        async def main():
            handler = lambda _, context: unheard.append(context)  # noqa: E731
            asyncio.get_running_loop().set_exception_handler(handler)
            async with serving() as service:
                wire = wire_to(service.url)
                try:
                    await function(wire, service)
                finally:
                    await wire.close()
                assert not service.broken
            assert not tasks_left()

        run_virtual(main(), grace=0.0)
        gc.collect()
        assert not unheard, unheard

    run.__name__ = function.__name__
    return run


def tasks_left():
    """All tasks but our own, and those of the test's server."""
    mine = asyncio.current_task()
    return [t for t in asyncio.all_tasks() if t is not mine and "_accept" not in repr(t)]


def sent(name, **fields):
    return json.dumps({"event": {name: fields}}).encode()


async def opened(wire, service):
    async with asyncio.TaskGroup() as tasks:
        coming = tasks.create_task(service.next())
        await wire.open()
    await wire.send(sent("sessionStart"))
    request = coming.result()
    await request.until(lambda r: r.events)
    return request


async def live(wire, service):
    request = await opened(wire, service)
    request.accept()
    assert isinstance(await wire.receive(), StreamAccepted)
    return request


@nova
async def test_the_request_is_signed_and_the_first_event_goes_before_any_answer(wire, service):
    request = await opened(wire, service)
    assert request.headers[":method"] == "POST"
    assert request.headers[":path"].startswith(
        "/model/amazon.nova-2-sonic-v1%3A0/invoke-with-bidirectional-stream"
    )
    assert request.headers[":authority"] == service.url.removeprefix("http://")
    assert request.headers["content-type"] == "application/vnd.amazon.eventstream"
    assert request.headers["x-amz-content-sha256"] == "STREAMING-AWS4-HMAC-SHA256-EVENTS"
    assert "/us-east-1/bedrock/aws4_request" in request.headers["authorization"]
    assert request.names() == ["sessionStart"]
    request.accept()
    assert await wire.receive() == StreamAccepted(480.0)
    request.tell("completionStart", completionId="c")
    assert json.loads(await wire.receive()) == {"event": {"completionStart": {"completionId": "c"}}}


@nova
async def test_a_service_that_does_not_answer_is_reported_as_idle(wire, service):
    request = await opened(wire, service)
    began = asyncio.get_running_loop().time()
    assert await wire.receive() == StreamIdle()
    assert asyncio.get_running_loop().time() - began == pytest.approx(2.0, abs=0.01)
    request.accept()
    assert isinstance(await wire.receive(), StreamAccepted)


@nova
async def test_silence_both_ways_is_reported_as_idle_and_sending_puts_it_off(wire, service):
    await live(wire, service)
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert await wire.receive() == StreamIdle()
    assert loop.time() - began == pytest.approx(IDLE_S, abs=0.01)
    async with asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(wire.receive())
        began = loop.time()
        for _ in range(30):
            await asyncio.sleep(1.0)
            await wire.send(sent("audioInput"))
        assert not reading.done()
        await reading
    assert loop.time() - began > 30 + IDLE_S / 2


@nova
async def test_what_the_codec_tells_by_itself_comes_back_at_once(wire, service):
    request = await live(wire, service)
    loop = asyncio.get_running_loop()
    for _ in range(2):
        reading = asyncio.create_task(wire.receive())
        await asyncio.sleep(1.0)
        began = loop.time()
        await wire.send(Flush())
        assert await reading == Flush()
        assert loop.time() == began
    await wire.send(Flush())
    request.tell("usageEvent")
    await asyncio.sleep(0.1)
    assert await wire.receive() == Flush()
    assert b"usageEvent" in await wire.receive()
    reading = asyncio.create_task(wire.receive())
    await asyncio.sleep(0.1)
    await wire.send(Flush())
    assert await reading == Flush()
    assert await wire.receive() == StreamQuiet()
    assert request.names() == ["sessionStart"]


@nova
async def test_many_events_come_in_order_however_they_are_cut(wire, service):
    request = await live(wire, service)
    data = b"".join(event("audioOutput", content=f"{index:0400}") for index in range(200))
    for begin in range(0, len(data), 777):
        request.send(data[begin : begin + 777])
        await asyncio.sleep(0)
    for index in range(200):
        found = json.loads(await wire.receive())
        assert found["event"]["audioOutput"]["content"] == f"{index:0400}"


@nova
async def test_more_than_a_window_of_answers_goes_through_while_it_is_read(wire, service):
    request = await live(wire, service)
    big = event("audioOutput", content="x" * 60_000)

    async def tell():
        for _ in range(60):
            await request.until(lambda r: r.h2.local_flow_control_window(r.id) >= len(big))
            request.send(big)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(tell())
        for _ in range(60):
            assert len(await wire.receive()) > 60_000


@nova
async def test_answers_that_nobody_reads_are_bounded(wire, service):
    request = await live(wire, service)
    big = event("audioOutput", content="x" * 60_000)
    count = 0
    while request.h2.local_flow_control_window(request.id) >= len(big):
        request.send(big)
        await asyncio.sleep(0)
        count += 1
    assert count * len(big) < 1 << 20


@nova
async def test_a_service_that_does_not_read_holds_up_the_sender_and_then_lets_it_go_on(
    wire, service
):
    request = await live(wire, service)
    request.reads = False

    async def send():
        for _ in range(30):
            await wire.send(sent("audioInput", content="x" * 10_000))

    task = asyncio.create_task(send())
    await asyncio.sleep(1.0)
    assert not task.done()
    request.read_on()
    await task
    await request.until(lambda r: len(r.events) == 31)


@nova
async def test_a_socket_that_is_full_holds_up_the_sender_whatever_the_window(wire, service):
    service.window = 1 << 28
    request = await live(wire, service)
    request.transport.pause_reading()

    async def send():
        for _ in range(1000):
            await wire.send(sent("audioInput", content="x" * 100_000))

    task = asyncio.create_task(send())
    await asyncio.sleep(1.0)
    assert not task.done()
    assert wire._transport.stream._transport.get_write_buffer_size() < 1 << 20
    request.cut()
    await asyncio.wait([task])
    assert isinstance(task.exception(), SessionError)


@nova
async def test_an_abort_ends_receiving_and_sending_at_once(wire, service):
    request = await live(wire, service)
    request.reads = False
    loop = asyncio.get_running_loop()

    async def send():
        while True:
            await wire.send(sent("audioInput", content="x" * 10_000))

    receiving = asyncio.create_task(wire.receive())
    sending = asyncio.create_task(send())
    await asyncio.sleep(0.5)
    began = loop.time()
    request.cut()
    await asyncio.wait([receiving, sending])
    assert loop.time() - began < 0.05
    for task in (receiving, sending):
        error = task.exception()
        assert isinstance(error, SessionError)
        assert error.kind is ErrorKind.RECYCLE
        assert error.code == "connection"
        assert "closed the connection" in str(error)
    with pytest.raises(SessionError):
        await wire.send(sent("audioInput"))


@nova
async def test_an_abort_is_not_a_clean_end_and_neither_is_an_end_that_nobody_asked_for(
    wire, service
):
    request = await live(wire, service)
    request.end()
    with pytest.raises(SessionError, match="ended the stream") as caught:
        await wire.receive()
    assert caught.value.kind is ErrorKind.RECYCLE


@nova
async def test_a_stream_that_is_reset_says_how(wire, service):
    request = await live(wire, service)
    request.h2.reset_stream(request.id, 2)
    request.flush()
    with pytest.raises(SessionError, match=r"reset the stream \(INTERNAL_ERROR\)"):
        await wire.receive()


@nova
async def test_a_connection_that_the_service_gives_up_says_so(wire, service):
    request = await live(wire, service)
    request.h2.close_connection(11)
    request.flush()
    with pytest.raises(SessionError, match=r"ended the connection \(ENHANCE_YOUR_CALM\)"):
        await wire.receive()


@nova
async def test_half_a_message_is_no_end(wire, service):
    request = await live(wire, service)
    request.send(event("audioOutput", content="x")[:-3])
    request.end()
    with pytest.raises(SessionError, match="can't be read") as caught:
        await wire.receive()
    assert caught.value.kind is ErrorKind.RECYCLE


@nova
async def test_a_message_that_is_damaged_or_far_too_long_ends_the_stream(wire, service):
    request = await live(wire, service)
    damaged = bytearray(event("audioOutput", content="xxxx"))
    damaged[-8] ^= 1
    request.send(bytes(damaged))
    with pytest.raises(SessionError, match="can't be read"):
        await wire.receive()


@nova
async def test_a_message_that_says_it_is_huge_does_not_hang(wire, service):
    request = await live(wire, service)
    message = frame({}, b"x" * (MAX_READ_BYTES + 100))
    request.send(message[: 1 << 15])
    with pytest.raises(SessionError, match="too long"):
        await wire.receive()


@nova
async def test_exceptions_of_the_stream_come_with_the_services_words(wire, service):
    request = await live(wire, service)
    request.tell("usageEvent")
    request.fail("validationException", "The system prompt\nis missing.")
    request.end()
    assert b"usageEvent" in await wire.receive()
    with pytest.raises(SessionError, match=r"The system prompt is missing\.") as caught:
        await wire.receive()
    assert (caught.value.code, caught.value.kind) == ("ValidationException", ErrorKind.FATAL)


@nova
async def test_the_sender_is_told_what_the_service_said_and_not_that_the_stream_is_over(
    wire, service
):
    request = await live(wire, service)

    async def receive():
        while True:
            await wire.receive()

    async def send():
        while True:
            await wire.send(sent("audioInput", content="x" * 100))
            await asyncio.sleep(0.01)

    tasks = [asyncio.create_task(receive()), asyncio.create_task(send())]
    await asyncio.sleep(0.1)
    request.fail("throttlingException", "Too many tokens.")
    request.end()
    await asyncio.wait(tasks)
    for task in tasks:
        assert str(task.exception()) == "Too many tokens."
        assert task.exception().kind is ErrorKind.RETRY


@nova
async def test_a_beginning_that_is_refused_is_reported_to_who_sends_it(wire, service):
    request = await opened(wire, service)
    request.accept()
    request.fail("validationException", "No prompt.")
    request.end()
    await asyncio.sleep(0.01)
    with pytest.raises(SessionError, match=r"No prompt\."):
        await wire.send(sent("promptStart"))


@nova
async def test_exceptions_that_nobody_knows_are_not_lost(wire, service):
    request = await live(wire, service)
    request.fail("marsException", "It is too far.")
    with pytest.raises(SessionError, match=r"It is too far\.") as caught:
        await wire.receive()
    assert (caught.value.code, caught.value.kind) == ("MarsException", ErrorKind.UNKNOWN)


@nova
async def test_errors_outside_of_the_model_are_told(wire, service):
    request = await live(wire, service)
    request.send(
        frame({":message-type": "error", ":error-code": "500", ":error-message": "Broken."})
    )
    with pytest.raises(SessionError, match=r"Broken\."):
        await wire.receive()


@pytest.mark.parametrize(
    ("status", "fields", "body", "code", "kind", "words"),
    [
        (
            403,
            {"x_amzn_errortype": "UnrecognizedClientException"},
            b'{"message":"The security token included in the request is invalid."}',
            "UnrecognizedClientException",
            ErrorKind.FATAL,
            "The security token included in the request is invalid.",
        ),
        (
            400,
            {"x_amzn_errortype": "ValidationException:http://internal/"},
            b'{"message":"The provided model identifier is invalid."}',
            "ValidationException",
            ErrorKind.FATAL,
            "The provided model identifier is invalid.",
        ),
        (429, {}, b'{"message":"Too many requests"}', "429", ErrorKind.RETRY, "Too many requests"),
        (
            403,
            {"x_amzn_errortype": "ExpiredTokenException"},
            b'{"message":"The security token has expired"}',
            "ExpiredTokenException",
            ErrorKind.RECYCLE,
            "The security token has expired",
        ),
        (503, {}, b"<html>", "503", ErrorKind.RETRY, "the service answered with HTTP 503"),
    ],
)
def test_an_answer_other_than_a_stream_is_told_in_the_services_words(
    status, fields, body, code, kind, words
):
    @nova
    async def refused(wire, service):
        request = await opened(wire, service)
        request.refuse(status, body, **fields)
        with pytest.raises(SessionError) as caught:
            await wire.receive()
        assert (str(caught.value), caught.value.code, caught.value.kind) == (words, code, kind)

    refused()


@nova
async def test_a_refusal_reaches_who_is_still_sending_the_beginning(wire, service):
    request = await opened(wire, service)
    request.refuse(403, b'{"message":"No."}', x_amzn_errortype="AccessDeniedException")
    await asyncio.sleep(0.01)
    with pytest.raises(SessionError, match=r"No\.") as caught:
        await wire.send(sent("promptStart"))
    assert caught.value.kind is ErrorKind.FATAL


@nova
async def test_a_line_that_is_dead_is_noticed(wire, service):
    request = await live(wire, service)
    await asyncio.sleep(PING_EVERY_S + 0.5)
    assert request.pings == 1
    request.tell("usageEvent")
    await asyncio.sleep(0)
    request.answers_pings = False
    began = asyncio.get_running_loop().time()
    assert b"usageEvent" in await wire.receive()
    assert await wire.receive() == StreamQuiet()
    with pytest.raises(SessionError, match="does not answer any more"):
        await wire.receive()
    took = asyncio.get_running_loop().time() - began
    assert PING_EVERY_S + PONG_TIMEOUT_S <= took <= 8.0


@nova
async def test_a_service_that_is_silent_but_there_is_left_in_peace(wire, service):
    request = await live(wire, service)
    for _ in range(5):
        assert await wire.receive() == StreamIdle()
        await wire.send(sent("audioInput"))
    assert request.pings >= 5
    request.tell("completionStart")
    assert b"completionStart" in await wire.receive()


@nova
async def test_closing_completes_the_request_and_takes_what_still_comes(wire, service):
    request = await live(wire, service)
    loop = asyncio.get_running_loop()

    async def end():
        await request.ended.wait()
        request.tell("completionEnd")
        request.end()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(end())
        await wire.send(sent("sessionEnd"))
        began = loop.time()
        await wire.close()
    assert loop.time() - began < 0.05
    assert request.names()[-1] == "sessionEnd"
    assert not request.reset.is_set()
    await request.closed.wait()


@nova
async def test_closing_is_bounded_when_the_service_does_not_do_its_part(wire, service):
    request = await live(wire, service)
    began = asyncio.get_running_loop().time()
    await wire.close()
    assert asyncio.get_running_loop().time() - began <= 0.4
    await request.closed.wait()
    await wire.close()


@nova
async def test_closing_is_bounded_when_the_service_does_not_read(wire, service):
    request = await live(wire, service)
    request.reads = False
    task = asyncio.create_task(wire.send(sent("audioInput", content="x" * 200_000)))
    await asyncio.sleep(0.1)
    task.cancel()
    await asyncio.wait([task])
    began = asyncio.get_running_loop().time()
    await wire.close()
    # A frame is missing, so that no other could follow it: it is not even tried.
    assert asyncio.get_running_loop().time() - began < 0.05
    await request.closed.wait()


@nova
async def test_closing_before_there_is_an_answer_leaves_nothing(wire, service):
    await opened(wire, service)
    began = asyncio.get_running_loop().time()
    await wire.close()
    assert asyncio.get_running_loop().time() - began <= 0.4


@nova
async def test_cancelling_at_any_step_of_opening_leaves_nothing(wire, service):
    # Threads (credentials, a name's address) take any number of loop iterations.
    for steps in [*range(1, 40), *(40 * 2**n for n in range(14))]:
        one = wire_to(service.url)
        task = asyncio.create_task(one.open())
        for _ in range(steps):
            await asyncio.sleep(0)
        done = task.done()
        task.cancel()
        await asyncio.wait([task])
        await one.close()
        assert not tasks_left(), steps
        if done:
            break
    else:
        pytest.fail("it never opened")


def test_nobody_there():
    async def main():
        wire = wire_to("http://127.0.0.1:9")
        with pytest.raises(SessionError, match="can't be reached") as caught:
            await wire.open()
        assert caught.value.kind is ErrorKind.RECYCLE
        await wire.close()

    run_virtual(main(), grace=0.0)


@nova
async def test_a_service_that_never_answers_pings_is_not_taken_for_dead(wire, service):
    request = await opened(wire, service)
    request.answers_pings = False
    request.accept()
    assert isinstance(await wire.receive(), StreamAccepted)
    for _ in range(4):
        assert await wire.receive() == StreamIdle()
        await wire.send(sent("audioInput"))
    assert request.pings >= 4


def test_tls_with_alpn_and_a_certificate_that_is_checked():
    tls = pytest.importorskip(
        "duologue.simulators._test_ca", reason="the simulate extra is missing"
    )
    authority = tls.TemporaryCA()

    async def main():
        async with serving(authority.server_context(["h2"])) as service:
            wire = wire_to(service.url, authority.client_context(["h2"]))
            request = await live(wire, service)
            assert request.alpn == "h2"
            request.fail("modelTimeoutException", "Model has timed out.")
            with pytest.raises(SessionError, match="timed out") as caught:
                await wire.receive()
            assert caught.value.kind is ErrorKind.RECYCLE
            await wire.close()
            await request.closed.wait()

            stranger = ssl.create_default_context()
            stranger.set_alpn_protocols(["h2"])
            wire = wire_to(service.url, stranger)
            with pytest.raises(SessionError, match="certificate"):
                await wire.open()
            await wire.close()

        async with serving(authority.server_context(["http/1.1"])) as service:
            wire = wire_to(service.url, authority.client_context(["h2"]))
            with pytest.raises(SessionError, match="does not speak HTTP/2"):
                await wire.open()
            await wire.close()

    asyncio.run(main())


@asynccontextmanager
async def proxying(answer=b"HTTP/1.1 200 Connection established\r\n\r\n", to=None, tls=None):
    """An HTTP proxy that leads to the port ``to`` of this machine; yields its port, and heads."""
    heads = []

    async def pump(reader, writer):
        with suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                writer.write(data)
            writer.close()

    async def take(reader, writer):
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
            # In two pieces, as networks may do.
            writer.write(answer[:7])
            await asyncio.sleep(0.02)
            writer.write(answer[7:])
            if to is not None:
                there, back = await asyncio.open_connection("127.0.0.1", to)
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(pump(reader, back))
                    tasks.create_task(pump(there, writer))
        writer.close()

    server = await asyncio.start_server(take, "127.0.0.1", 0, ssl=tls)
    async with server:
        yield server.sockets[0].getsockname()[1], heads


def test_a_stream_goes_through_an_http_proxy():
    tls = pytest.importorskip(
        "duologue.simulators._test_ca", reason="the simulate extra is missing"
    )
    authority = tls.TemporaryCA()

    async def main():
        async with (
            serving(authority.server_context(["h2"])) as service,
            proxying(to=urlsplit(service.url).port) as (port, heads),
        ):
            proxy = f"http://me:s%40crat@127.0.0.1:{port}"
            wire = wire_to(service.url, authority.client_context(["h2"]), proxy=proxy)
            request = await live(wire, service)
            await wire.send(sent("audioInput"))
            await request.until(lambda r: len(r.events) > 1)
            request.tell("completionStart")
            assert b"completionStart" in await wire.receive()
            await wire.close()
            await request.closed.wait()
        host = urlsplit(service.url).netloc
        basic = f"Proxy-Authorization: Basic {b64encode(b'me:s@crat').decode()}"
        assert heads == [f"CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n{basic}\r\n\r\n"]

    asyncio.run(main())
    gc.collect()


def test_the_proxy_of_the_environment_is_used(monkeypatch):
    for name in ("HTTPS_PROXY", "NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)

    async def main():
        refusal = b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"
        async with proxying(refusal) as (port, heads):
            monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{port}")
            wire = wire_to("https://bedrock.invalid", ssl.create_default_context())
            with pytest.raises(
                SessionError, match=r"the proxy 127\.0\.0\.1:\d+ .* HTTP 407"
            ) as told:
                await wire.open()
            await wire.close()
        assert told.value.kind is ErrorKind.RECYCLE
        assert heads[0].startswith("CONNECT bedrock.invalid:443 HTTP/1.1\r\n")
        assert not tasks_left()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", "does not speak HTTP"),
        (b"HTTP/1.1\r\n\r\n", "does not speak HTTP"),
        (b"", "the proxy closed the connection"),
        (b"HTTP/1.1 200 " + b"x" * 20000, "the proxy's answer is too long"),
    ],
)
def test_a_proxy_that_is_none_is_told(answer, words):
    async def main():
        async with proxying(answer) as (port, _):
            wire = wire_to("http://127.0.0.1:9", proxy=f"http://127.0.0.1:{port}")
            with pytest.raises(SessionError, match=words) as caught:
                await wire.open()
            await wire.close()
        assert "\n" not in str(caught.value)

    asyncio.run(main())
