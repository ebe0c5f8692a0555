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

from bedrock_service import encode_event, encode_frame, run_service

from duologue.clock import LoopClock
from duologue.errors import ErrorKind, SessionError
from duologue.providers.aws._credentials import Credentials
from duologue.providers.aws._event_stream import MAX_MESSAGE_BYTES
from duologue.providers.aws._h2_stream import PING_EVERY_S, PONG_TIMEOUT_S
from duologue.providers.aws._signals import IDLE_S, Flush, StreamAccepted, StreamIdle, StreamQuiet
from duologue.providers.aws._wire import BedrockWire
from duologue.realtime.codec import NonBlockingWire
from duologue.testing import run_virtual

KEYS = Credentials("AKIDTEST", "secret")


class PulledWire(BedrockWire):
    """A wire with `receive`: it runs in a task, and what it passes on is returned one by one."""

    _running = None

    async def receive(self):
        if self._running is None:
            self._inbox = asyncio.Queue()
            self._running = asyncio.create_task(self._collect())
        found = await self._inbox.get()
        if isinstance(found, BaseException):
            self._inbox.put_nowait(found)
            raise found
        return found

    async def _collect(self):
        try:
            await self.run(self._inbox.put_nowait)
        except SessionError as error:
            self._inbox.put_nowait(error)

    async def close(self):
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait([self._running])
        await super().close()


def wire_to(url, tls=None, credentials=KEYS, **options):
    async def keys():
        return credentials

    return PulledWire(
        model="amazon.nova-2-sonic-v1:0",
        region="us-east-1",
        endpoint=url,
        credentials=keys,
        tls=tls,
        clock=LoopClock(),
        **options,
    )


def nova(function):
    """Run a test of a wire and a service in virtual time; it must leave no task and no error."""

    def run():
        errors = []

        async def main():
            handler = lambda _, context: errors.append(context)  # noqa: E731
            asyncio.get_running_loop().set_exception_handler(handler)
            async with run_service() as service:
                wire = wire_to(service.url)
                try:
                    await function(wire, service)
                finally:
                    await wire.close()
                assert not service.protocol_errors
            assert not tasks_left()

        run_virtual(main(), grace=0.0)
        gc.collect()
        assert not errors, errors

    run.__name__ = function.__name__
    return run


def tasks_left():
    """Return all tasks except this one and those of the test's server."""
    mine = asyncio.current_task()
    return [t for t in asyncio.all_tasks() if t is not mine and "_accept" not in repr(t)]


def client_event(name, **fields):
    return json.dumps({"event": {name: fields}}).encode()


async def open_stream(wire, service):
    async with asyncio.TaskGroup() as tasks:
        next_request = tasks.create_task(service.next())
        await wire.open()
    await wire.send(client_event("sessionStart"))
    request = next_request.result()
    await request.wait_until(lambda r: r.events)
    return request


async def open_live_stream(wire, service):
    request = await open_stream(wire, service)
    request.accept()
    assert isinstance(await wire.receive(), StreamAccepted)
    return request


@nova
async def test_request_is_signed_and_the_first_event_precedes_any_response(wire, service):
    request = await open_stream(wire, service)
    assert request.headers[":method"] == "POST"
    assert request.headers[":path"].startswith(
        "/model/amazon.nova-2-sonic-v1%3A0/invoke-with-bidirectional-stream"
    )
    assert request.headers[":authority"] == service.url.removeprefix("http://")
    assert request.headers["content-type"] == "application/vnd.amazon.eventstream"
    assert request.headers["x-amz-content-sha256"] == "STREAMING-AWS4-HMAC-SHA256-EVENTS"
    assert "/us-east-1/bedrock/aws4_request" in request.headers["authorization"]
    assert request.event_names() == ["sessionStart"]
    request.accept()
    assert await wire.receive() == StreamAccepted(480.0)
    request.send_event("completionStart", completionId="c")
    assert json.loads(await wire.receive()) == {"event": {"completionStart": {"completionId": "c"}}}


@nova
async def test_additional_headers_are_sent_unsigned(wire, service):
    wire._headers = {"X-Team": "hotel"}
    request = await open_stream(wire, service)
    assert request.headers["x-team"] == "hotel"
    assert "x-team" not in request.headers["authorization"]


@nova
async def test_service_that_does_not_answer_is_reported_as_idle(wire, service):
    request = await open_stream(wire, service)
    began = asyncio.get_running_loop().time()
    assert await wire.receive() == StreamIdle()
    assert asyncio.get_running_loop().time() - began == pytest.approx(2.0, abs=0.01)
    request.accept()
    assert isinstance(await wire.receive(), StreamAccepted)


@nova
async def test_silence_in_both_directions_is_reported_as_idle_and_sending_delays_it(wire, service):
    await open_live_stream(wire, service)
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert await wire.receive() == StreamIdle()
    assert loop.time() - began == pytest.approx(IDLE_S, abs=0.01)
    async with asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(wire.receive())
        began = loop.time()
        for _ in range(30):
            await asyncio.sleep(1.0)
            await wire.send(client_event("audioInput"))
        assert not reading.done()
        await reading
    assert loop.time() - began > 30 + IDLE_S / 2


@nova
async def test_signal_of_the_codec_comes_back_at_once(wire, service):
    request = await open_live_stream(wire, service)
    loop = asyncio.get_running_loop()
    for _ in range(2):
        reading = asyncio.create_task(wire.receive())
        await asyncio.sleep(1.0)
        began = loop.time()
        await wire.send(Flush())
        assert await reading == Flush()
        assert loop.time() == began
    await wire.send(Flush())
    request.send_event("usageEvent")
    await asyncio.sleep(0.1)
    assert await wire.receive() == Flush()
    assert b"usageEvent" in await wire.receive()
    reading = asyncio.create_task(wire.receive())
    await asyncio.sleep(0.1)
    await wire.send(Flush())
    assert await reading == Flush()
    assert await wire.receive() == StreamQuiet()
    assert request.event_names() == ["sessionStart"]


@nova
async def test_many_events_come_in_order_however_they_are_split(wire, service):
    request = await open_live_stream(wire, service)
    data = b"".join(encode_event("audioOutput", content=f"{index:0400}") for index in range(200))
    for begin in range(0, len(data), 777):
        request.send(data[begin : begin + 777])
        await asyncio.sleep(0)
    for index in range(200):
        found = json.loads(await wire.receive())
        assert found["event"]["audioOutput"]["content"] == f"{index:0400}"


@nova
async def test_more_than_a_window_comes_through_while_it_is_read(wire, service):
    request = await open_live_stream(wire, service)
    big = encode_event("audioOutput", content="x" * 60_000)

    async def tell():
        for _ in range(60):
            await request.wait_until(lambda r: r.h2.local_flow_control_window(r.id) >= len(big))
            request.send(big)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(tell())
        for _ in range(60):
            assert len(await wire.receive()) > 60_000


@nova
async def test_events_are_bounded_while_nobody_receives(wire, service):
    request = await open_stream(wire, service)
    request.accept()
    big = encode_event("audioOutput", content="x" * 60_000)
    count = 0
    while request.h2.local_flow_control_window(request.id) >= len(big):
        request.send(big)
        await asyncio.sleep(0)
        count += 1
    assert 10 < count < (1 << 20) / len(big)
    assert isinstance(await wire.receive(), StreamAccepted)
    for _ in range(count):
        assert len(await wire.receive()) > 60_000


@nova
async def test_events_are_passed_on_within_the_read_callback(wire, service):
    request = await open_stream(wire, service)
    request.accept()
    tasks = []
    running = asyncio.create_task(wire.run(lambda _: tasks.append(asyncio.current_task())))
    await asyncio.sleep(0.1)
    request.send_event("usageEvent")
    request.send_event("completionStart")
    await asyncio.sleep(0.1)
    # That the service has accepted the stream is not news of the stream itself.
    assert tasks == [running, None, None]
    running.cancel()
    await asyncio.wait([running])
    request.send_event("usageEvent")
    await asyncio.sleep(0.1)
    assert len(tasks) == 3


@pytest.mark.parametrize("kind", [ValueError, OSError, asyncio.CancelledError])
def test_what_the_receiver_raises_ends_the_run_as_it_is(kind):
    @nova
    async def raises(wire, service):
        request = await open_stream(wire, service)
        request.accept()
        received = []

        def receive(message):
            received.append(message)
            if isinstance(message, bytes):
                raise kind("of the receiver")

        running = asyncio.create_task(wire.run(receive))
        await asyncio.sleep(0.1)
        request.send_event("usageEvent")
        request.send_event("usageEvent")
        with pytest.raises(kind):
            await running
        request.send_event("usageEvent")
        await asyncio.sleep(0.1)
        assert len(received) == 2
        await wire.send(client_event("audioInput"))

    raises()


@nova
async def test_service_that_does_not_read_blocks_the_sender_until_it_reads(wire, service):
    request = await open_live_stream(wire, service)
    request.is_reading = False

    async def send():
        for _ in range(30):
            await wire.send(client_event("audioInput", content="x" * 10_000))

    task = asyncio.create_task(send())
    await asyncio.sleep(1.0)
    assert not task.done()
    request.resume_reading()
    await task
    await request.wait_until(lambda r: len(r.events) == 31)


@nova
async def test_event_is_sent_without_waiting_only_while_there_is_room(wire, service):
    assert isinstance(wire, NonBlockingWire)
    assert not wire.try_send(client_event("audioInput"))
    request = await open_live_stream(wire, service)
    request.is_reading = False
    sent = 0
    while wire.try_send(client_event("audioInput", number=sent, content="x" * 20_000)):
        sent += 1
    assert sent == 2  # Of 65,535 bytes, each takes 36,000.
    task = asyncio.create_task(
        wire.send(client_event("audioInput", number=sent, content="x" * 20_000))
    )
    await asyncio.sleep(0.1)
    assert not task.done()
    # It would overtake the one before, of which a part has gone.
    assert not wire.try_send(client_event("audioInput"))
    request.resume_reading()
    await task
    await request.wait_until(lambda r: r.h2.local_flow_control_window(r.id) > 0)
    await asyncio.sleep(0.1)
    assert wire.try_send(client_event("audioInput", number=sent + 1))
    await request.wait_until(lambda r: len(r.events) == 1 + sent + 2)
    assert [one["audioInput"]["number"] for one in request.events[1:]] == [*range(sent + 2)]
    request.abort()
    await asyncio.sleep(0.1)
    assert not wire.try_send(client_event("audioInput"))


@nova
async def test_signal_of_the_codec_needs_no_room(wire, service):
    request = await open_stream(wire, service)
    reading = asyncio.create_task(wire.receive())
    await asyncio.sleep(0.1)
    assert wire.try_send(Flush())
    assert await reading == Flush()
    request.accept()
    assert isinstance(await wire.receive(), StreamAccepted)
    assert request.event_names() == ["sessionStart"]


@nova
async def test_full_socket_blocks_the_sender_whatever_the_window(wire, service):
    service.window = 1 << 28
    request = await open_live_stream(wire, service)
    request.transport.pause_reading()

    async def send():
        for _ in range(1000):
            await wire.send(client_event("audioInput", content="x" * 100_000))

    task = asyncio.create_task(send())
    await asyncio.sleep(1.0)
    assert not task.done()
    assert wire._transport.stream._transport.get_write_buffer_size() < 1 << 20
    request.abort()
    await asyncio.wait([task])
    assert isinstance(task.exception(), SessionError)


@nova
async def test_abort_ends_receiving_and_sending_at_once(wire, service):
    request = await open_live_stream(wire, service)
    request.is_reading = False
    loop = asyncio.get_running_loop()

    async def send():
        while True:
            await wire.send(client_event("audioInput", content="x" * 10_000))

    receiving = asyncio.create_task(wire.receive())
    sending = asyncio.create_task(send())
    await asyncio.sleep(0.5)
    began = loop.time()
    request.abort()
    await asyncio.wait([receiving, sending])
    assert loop.time() - began < 0.05
    for task in (receiving, sending):
        error = task.exception()
        assert isinstance(error, SessionError)
        assert error.kind is ErrorKind.RECYCLE
        assert error.code == "connection"
        assert "closed the connection" in str(error)
    with pytest.raises(SessionError):
        await wire.send(client_event("audioInput"))


@nova
async def test_neither_an_abort_nor_an_unexpected_end_is_clean(wire, service):
    request = await open_live_stream(wire, service)
    request.end()
    with pytest.raises(SessionError, match="ended the stream") as caught:
        await wire.receive()
    assert caught.value.kind is ErrorKind.RECYCLE


@nova
async def test_reset_stream_says_why(wire, service):
    request = await open_live_stream(wire, service)
    request.h2.reset_stream(request.id, 2)
    request.flush()
    with pytest.raises(SessionError, match=r"reset the stream \(INTERNAL_ERROR\)"):
        await wire.receive()


@nova
async def test_connection_ended_by_the_service_says_why(wire, service):
    request = await open_live_stream(wire, service)
    request.h2.close_connection(11)
    request.flush()
    with pytest.raises(SessionError, match=r"ended the connection \(ENHANCE_YOUR_CALM\)"):
        await wire.receive()


@nova
async def test_half_a_message_is_an_error(wire, service):
    request = await open_live_stream(wire, service)
    request.send(encode_event("audioOutput", content="x")[:-3])
    request.end()
    with pytest.raises(SessionError, match="can't be read") as caught:
        await wire.receive()
    assert caught.value.kind is ErrorKind.RECYCLE


@nova
async def test_damaged_or_too_long_message_ends_the_stream(wire, service):
    request = await open_live_stream(wire, service)
    damaged = bytearray(encode_event("audioOutput", content="xxxx"))
    damaged[-8] ^= 1
    request.send(bytes(damaged))
    with pytest.raises(SessionError, match="can't be read"):
        await wire.receive()


@nova
async def test_message_that_claims_to_be_huge_does_not_hang(wire, service):
    request = await open_live_stream(wire, service)
    message = encode_frame({}, b"x" * (MAX_MESSAGE_BYTES + 100))
    request.send(message[: 1 << 15])
    with pytest.raises(SessionError, match="too long"):
        await wire.receive()


@nova
async def test_exceptions_of_the_stream_come_with_the_services_words(wire, service):
    request = await open_live_stream(wire, service)
    request.send_event("usageEvent")
    request.send_exception("validationException", "The system prompt\nis missing.")
    request.end()
    assert b"usageEvent" in await wire.receive()
    with pytest.raises(SessionError, match=r"The system prompt is missing\.") as caught:
        await wire.receive()
    assert (caught.value.code, caught.value.kind) == ("ValidationException", ErrorKind.FATAL)


@nova
async def test_sender_is_told_what_the_service_said(wire, service):
    request = await open_live_stream(wire, service)

    async def receive():
        while True:
            await wire.receive()

    async def send():
        while True:
            await wire.send(client_event("audioInput", content="x" * 100))
            await asyncio.sleep(0.01)

    tasks = [asyncio.create_task(receive()), asyncio.create_task(send())]
    await asyncio.sleep(0.1)
    request.send_exception("throttlingException", "Too many tokens.")
    request.end()
    await asyncio.wait(tasks)
    for task in tasks:
        assert str(task.exception()) == "Too many tokens."
        assert task.exception().kind is ErrorKind.RETRY


@nova
async def test_refused_first_events_are_reported_to_the_sender(wire, service):
    request = await open_stream(wire, service)
    request.accept()
    request.send_exception("validationException", "No prompt.")
    request.end()
    await asyncio.sleep(0.01)
    with pytest.raises(SessionError, match=r"No prompt\."):
        await wire.send(client_event("promptStart"))


@nova
async def test_unknown_exceptions_are_not_lost(wire, service):
    request = await open_live_stream(wire, service)
    request.send_exception("marsException", "It is too far.")
    with pytest.raises(SessionError, match=r"It is too far\.") as caught:
        await wire.receive()
    assert (caught.value.code, caught.value.kind) == ("MarsException", ErrorKind.UNKNOWN)


@nova
async def test_unlisted_errors_are_reported(wire, service):
    request = await open_live_stream(wire, service)
    request.send(
        encode_frame({":message-type": "error", ":error-code": "500", ":error-message": "Broken."})
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
        (503, {}, b"<html>", "503", ErrorKind.RETRY, "the server answered with HTTP 503"),
    ],
)
def test_http_error_is_reported_in_the_services_words(status, fields, body, code, kind, words):
    @nova
    async def refused(wire, service):
        request = await open_stream(wire, service)
        request.send_http_error(status, body, **fields)
        with pytest.raises(SessionError) as caught:
            await wire.receive()
        assert (str(caught.value), caught.value.code, caught.value.kind) == (words, code, kind)

    refused()


@nova
async def test_refusal_reaches_a_sender_of_the_first_events(wire, service):
    request = await open_stream(wire, service)
    request.send_http_error(403, b'{"message":"No."}', x_amzn_errortype="AccessDeniedException")
    await asyncio.sleep(0.01)
    with pytest.raises(SessionError, match=r"No\.") as caught:
        await wire.send(client_event("promptStart"))
    assert caught.value.kind is ErrorKind.FATAL


@nova
async def test_dead_connection_is_noticed(wire, service):
    request = await open_live_stream(wire, service)
    await asyncio.sleep(PING_EVERY_S + 0.5)
    assert request.pings == 1
    request.send_event("usageEvent")
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
async def test_silent_service_that_answers_pings_is_left_alone(wire, service):
    request = await open_live_stream(wire, service)
    for _ in range(5):
        assert await wire.receive() == StreamIdle()
        await wire.send(client_event("audioInput"))
    assert request.pings >= 5
    request.send_event("completionStart")
    assert b"completionStart" in await wire.receive()


@nova
async def test_close_completes_the_request_and_reads_what_still_comes(wire, service):
    request = await open_live_stream(wire, service)
    loop = asyncio.get_running_loop()

    async def end():
        await request.ended.wait()
        request.send_event("completionEnd")
        request.end()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(end())
        await wire.send(client_event("sessionEnd"))
        began = loop.time()
        await wire.close()
    assert loop.time() - began < 0.05
    assert request.event_names()[-1] == "sessionEnd"
    assert not request.reset.is_set()
    await request.closed.wait()


@nova
async def test_close_is_bounded_when_the_service_does_not_end_its_side(wire, service):
    request = await open_live_stream(wire, service)
    began = asyncio.get_running_loop().time()
    await wire.close()
    assert asyncio.get_running_loop().time() - began <= 0.4
    await request.closed.wait()
    await wire.close()


@nova
async def test_close_is_bounded_when_the_service_does_not_read(wire, service):
    request = await open_live_stream(wire, service)
    request.is_reading = False
    task = asyncio.create_task(wire.send(client_event("audioInput", content="x" * 200_000)))
    await asyncio.sleep(0.1)
    task.cancel()
    await asyncio.wait([task])
    began = asyncio.get_running_loop().time()
    await wire.close()
    # A frame is missing, so no other could follow it: none is tried.
    assert asyncio.get_running_loop().time() - began < 0.05
    await request.closed.wait()


@nova
async def test_close_before_the_response_leaves_nothing(wire, service):
    await open_stream(wire, service)
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


def test_nobody_listens_on_the_port():
    async def main():
        wire = wire_to("http://127.0.0.1:9")
        with pytest.raises(SessionError, match="can't be reached") as caught:
            await wire.open()
        assert caught.value.kind is ErrorKind.RECYCLE
        await wire.close()

    run_virtual(main(), grace=0.0)


@nova
async def test_service_that_never_answers_pings_is_not_taken_for_dead(wire, service):
    request = await open_stream(wire, service)
    request.answers_pings = False
    request.accept()
    assert isinstance(await wire.receive(), StreamAccepted)
    for _ in range(4):
        assert await wire.receive() == StreamIdle()
        await wire.send(client_event("audioInput"))
    assert request.pings >= 4


def test_tls_with_alpn_and_a_certificate_that_is_checked():
    tls = pytest.importorskip(
        "duologue.simulators._test_ca", reason="the simulate extra is missing"
    )
    authority = tls.TemporaryCA()

    async def main():
        async with run_service(authority.server_context(["h2"])) as service:
            wire = wire_to(service.url, authority.client_context(["h2"]))
            request = await open_live_stream(wire, service)
            assert request.alpn == "h2"
            request.send_exception("modelTimeoutException", "Model has timed out.")
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

        async with run_service(authority.server_context(["http/1.1"])) as service:
            wire = wire_to(service.url, authority.client_context(["h2"]))
            with pytest.raises(SessionError, match="does not speak HTTP/2"):
                await wire.open()
            await wire.close()

    asyncio.run(main())


@asynccontextmanager
async def proxying(answer=b"HTTP/1.1 200 Connection established\r\n\r\n", to=None, tls=None):
    """Run an HTTP proxy that leads to the local port ``to``; yield its port and the heads."""
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


def test_stream_goes_through_an_http_proxy():
    tls = pytest.importorskip(
        "duologue.simulators._test_ca", reason="the simulate extra is missing"
    )
    authority = tls.TemporaryCA()

    async def main():
        async with (
            run_service(authority.server_context(["h2"])) as service,
            proxying(to=urlsplit(service.url).port) as (port, heads),
        ):
            proxy = f"http://me:s%40crat@127.0.0.1:{port}"
            wire = wire_to(service.url, authority.client_context(["h2"]), proxy=proxy)
            request = await open_live_stream(wire, service)
            await wire.send(client_event("audioInput"))
            await request.wait_until(lambda r: len(r.events) > 1)
            request.send_event("completionStart")
            assert b"completionStart" in await wire.receive()
            await wire.close()
            await request.closed.wait()
        host = urlsplit(service.url).netloc
        basic = f"Proxy-Authorization: Basic {b64encode(b'me:s@crat').decode()}"
        assert heads == [f"CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n{basic}\r\n\r\n"]

    asyncio.run(main())
    gc.collect()


def test_proxy_of_the_environment_is_used(monkeypatch):
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


async def test_proxy_that_is_no_http_proxy_is_named_by_where_it_was_given():
    proxy = "socks5://me:s3cret@127.0.0.1:1"
    wire = wire_to("https://bedrock.invalid", ssl.create_default_context(), proxy=proxy)
    with pytest.raises(
        SessionError, match=r"^proxy can't be used: socks5://127\.0\.0\.1:1"
    ) as told:
        await wire.open()
    await wire.close()
    assert told.value.kind is ErrorKind.FATAL
    assert "s3cret" not in str(told.value)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", "does not speak HTTP"),
        (b"HTTP/1.1\r\n\r\n", "does not speak HTTP"),
        (b"", "the proxy closed the connection"),
        (b"HTTP/1.1 200 " + b"x" * 20000, "the proxy's answer is too long"),
    ],
)
def test_invalid_proxy_is_reported(answer, words):
    async def main():
        async with proxying(answer) as (port, _):
            wire = wire_to("http://127.0.0.1:9", proxy=f"http://127.0.0.1:{port}")
            with pytest.raises(SessionError, match=words) as caught:
                await wire.open()
            await wire.close()
        assert "\n" not in str(caught.value)

    asyncio.run(main())
