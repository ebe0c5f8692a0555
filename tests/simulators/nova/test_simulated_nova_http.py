"""Nova Sonic's HTTP/2: authentication, the start of the response, and the end of streams."""

from __future__ import annotations

import asyncio
import socket
import ssl

import h2.connection
import h2.events
import pytest

pytest.importorskip("aws_sdk_bedrock_runtime", reason="the aws extra is not installed")
pytest.importorskip("h2", reason="the simulate extra is not installed")

from aws_sdk_bedrock_runtime.models import (
    ModelTimeoutException,
    ThrottlingException,
    ValidationException,
)
from hpack import Encoder
from hyperframe.frame import (
    DataFrame,
    HeadersFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from nova_client import MODEL, PROMPT, QUICK, connected, open_stream, sdk, silence, tone
from nova_transport import H2Transport
from smithy_aws_event_stream.exceptions import UnmodeledEventError

from duologue.errors import ConfigError
from duologue.simulators.faults import Close, Fault, Stall
from duologue.simulators.nova._eventstream import Decoder, Message, encode
from duologue.simulators.nova._http2 import PREFACE
from duologue.simulators.nova._sigv4 import Credentials
from duologue.testing import NovaSimulator, Reply, ScriptedRealtime, virtual_time

YES = Reply("Yes.", 0.2)


def now():
    return asyncio.get_running_loop().time()


def answering(*replies, **options):
    return NovaSimulator(replies=replies or [YES] * 5, endpointing_ms=QUICK, **options)


async def refused(sim, model=MODEL, **keys):
    """Return the SDK's error for a refused request."""
    async with H2Transport(sim.ssl_context) as transport:
        client = await open_stream(await sdk(sim, transport, **keys), model)
        error = await client.error()
        head = dict(await transport.exchanges[0].head)
        return error, head


@pytest.mark.parametrize(
    ("keys", "kind"),
    [
        ({"key": "AKIDOTHER"}, "UnrecognizedClientException"),
        ({"secret": "other"}, "InvalidSignatureException"),
    ],
)
def test_wrong_keys_are_forbidden(keys, kind):
    @virtual_time
    async def run():
        async with answering() as sim:
            error, head = await refused(sim, **keys)
            assert (head[":status"], head["x-amzn-errortype"]) == ("403", kind)
            assert not sim.sessions
            return error

    assert run() is not None


@virtual_time
async def test_without_checks_every_key_is_valid():
    async with answering(check_signatures=False) as sim, H2Transport() as transport:
        client = await open_stream(await sdk(sim, transport, key="AKIDOTHER"))
        await client.start()
        await client.send_turn()
        await client.receive_reply()


@virtual_time
async def test_without_checks_chunks_need_no_signature():
    async with answering(check_signatures=False) as sim, connected(sim, start=False) as client:
        body = client.stream.input_stream._writer
        whole = body.write

        async def write(data):
            (message,) = Decoder().push(bytes(data))
            await whole(message.payload)

        body.write = write
        await client.start()
        await client.send_turn()
        await client.receive_reply()


@virtual_time
async def test_changed_keys_apply_to_later_streams():
    async with answering() as sim, connected(sim) as old:
        await asyncio.sleep(0.1)
        sim.credentials = Credentials("NEW", "new", sim.credentials.region)
        await old.send_turn()
        await old.receive_reply()
        async with connected(sim) as new:
            await new.send_turn()
            await new.receive_reply()


@virtual_time
async def test_unknown_models_are_refused():
    async with answering(unknown_models=["amazon.nova-sonic-v1:0"]) as sim:
        for model in ("amazon.nova-lite-v1:0", "amazon.nova-sonic-v1:0"):
            error, head = await refused(sim, model)
            assert isinstance(error, ValidationException)
            assert error.message == "The provided model identifier is invalid."
            assert head[":status"] == "400"
        models = [MODEL, f"us.{MODEL}", "amazon.nova-2-5-sonic", "us.amazon.nova-2-5-sonic-v1:0"]
        for model in models:
            async with connected(sim, model) as client:
                await client.send_turn()
                await client.receive_reply()
        assert [session.model for session in sim.sessions] == models


@virtual_time
async def test_number_of_streams_is_limited():
    async with answering() as sim:
        async with asyncio.TaskGroup() as tasks:
            done = asyncio.Event()

            async def hold():
                async with connected(sim):
                    await done.wait()

            for _ in range(20):
                tasks.create_task(hold())
            await asyncio.sleep(1)
            error, head = await refused(sim)
            assert isinstance(error, ThrottlingException)
            assert head[":status"] == "429"
            done.set()
        async with connected(sim) as client:
            await client.send_turn()
            await client.receive_reply()


@virtual_time
async def test_number_of_connections_is_limited():
    async with answering() as sim:
        writers = []
        for _ in range(64):
            reader, writer = await asyncio.open_connection("127.0.0.1", sim.port)
            writer.write(PREFACE + SettingsFrame(0).serialize())
            await reader.read(1000)
            writers.append(writer)
        reader, writer = await asyncio.open_connection("127.0.0.1", sim.port)
        with pytest.raises(ConnectionResetError):
            await reader.read(1000)
        for one in (*writers, writer):
            one.close()
        await asyncio.sleep(0.1)
        async with connected(sim) as client:
            await client.send_turn()
            await client.receive_reply()


@virtual_time
async def test_response_begins_with_the_first_event():
    async with answering() as sim, connected(sim, start=False) as client:
        await asyncio.sleep(5)
        (exchange,) = client.transport.exchanges
        assert not exchange.head.done()
        await client.send("sessionStart")
        await asyncio.sleep(0.1)
        head = dict(exchange.head.result())
        assert head[":status"] == "200"
        assert head["content-type"] == "application/vnd.amazon.eventstream"


@pytest.mark.parametrize("change", ["signature", "bytes", "unsigned", "not framed"])
def test_wrongly_signed_chunks_end_the_stream(change):
    @virtual_time
    async def run():
        async with answering() as sim, connected(sim) as client:
            await client.send_turn()
            await client.receive_reply()
            body = client.stream.input_stream._writer
            whole = body.write

            async def write(data):
                data = bytearray(data)
                match change:
                    case "bytes":
                        data[-20] ^= 1
                    case "signature":
                        (message,) = Decoder().push(bytes(data))
                        headers = {**message.headers, ":chunk-signature": bytes(32)}
                        data = encode(Message(headers, message.payload))
                    case "unsigned":
                        headers = {":message-type": "event", ":event-type": "chunk"}
                        data = encode(Message(headers, b'{"bytes": "e30="}'))
                    case "not framed":
                        data = b"GET / HTTP/1.1\r\n\r\n"
                await whole(bytes(data))

            body.write = write
            await client.send_audio(silence(0.01))
            error = await client.error()
            assert sim.sessions[0].closed
            return error

    error = run()
    assert isinstance(error, UnmodeledEventError)
    kind = "InvalidSignatureException" if change in ("signature", "unsigned") else "Serialization"
    assert kind in str(error)


@pytest.mark.parametrize("ends", [False, True])
def test_stream_of_a_client_that_sends_after_the_end_is_reset(ends):
    @virtual_time
    async def run():
        async with answering(faults=[Fault(Close(0, ""), at=1.0)]) as sim, connected(sim) as client:
            assert await client.error() is None
            assert not sim.sessions[0].ended_cleanly
            (exchange,) = client.transport.exchanges
            if ends:
                exchange.h2.end_stream(exchange.number)
            else:
                exchange.h2.send_data(exchange.number, b"more")
            exchange.flush()
            await asyncio.sleep(0.9)
            assert exchange.reset is None
            await asyncio.sleep(0.3)
            return exchange.reset

    assert run() == (None if ends else 0)


@virtual_time
async def test_refused_events_end_the_stream_with_an_exception():
    async with answering() as sim, connected(sim, start=False) as client:
        await client.send("promptStart", promptName=PROMPT)
        error = await client.error()
        assert isinstance(error, ValidationException)
        assert "promptStart.audioOutputConfiguration" in error.message
    async with answering() as sim, connected(sim, start=False) as client:
        await client.send_raw("{not JSON")
        assert "not JSON" in (await client.error()).message
    assert sim.sessions[0].events_out == ["validationException"]


@pytest.mark.parametrize("scale", [1, 60])
def test_stream_ends_after_eight_minutes(scale):
    @virtual_time
    async def run():
        async with answering(clock_scale=scale) as sim, connected(sim) as client:
            began = now()

            async def go_on():
                while True:
                    await asyncio.sleep(1)
                    await client.send_audio(silence(0.1))

            going = asyncio.create_task(go_on())
            error = await client.error()
            going.cancel()
            assert isinstance(error, ModelTimeoutException)
            assert "Model has timed out in processing the request" in error.message
            assert sim.sessions[0].closed
            assert not sim.sessions[0].ended_cleanly
            return now() - began

    assert run() == pytest.approx(480 / scale, abs=1)


@virtual_time
async def test_silent_client_times_out():
    async with answering() as sim, connected(sim) as client:
        await asyncio.sleep(50)
        await client.send_audio(silence(0.1))
        began = now()
        error = await client.error()
        assert isinstance(error, ValidationException)
        assert error.message == "Timed out waiting for input events"
        assert now() - began == pytest.approx(55, abs=0.1)
        # Nor does it wait for one that sends nothing at all.
        async with connected(sim, start=False) as client:
            assert (await client.error()).message == "Timed out waiting for input events"


@virtual_time
async def test_streams_can_be_cut():
    async with answering() as sim:
        async with connected(sim) as one, connected(sim) as two, connected(sim) as three:
            await asyncio.sleep(0.1)
            await sim.kill(1)
            assert isinstance(await two.error(), OSError)
            await one.send_turn()
            await one.receive_reply()
            await sim.drop_all()
            for client in (one, three):
                assert isinstance(await client.error(), OSError)
        assert all(session.closed for session in sim.sessions)
        async with connected(sim):
            await asyncio.sleep(0.1)
            assert len(sim.sessions) == 4


async def test_cut_is_a_tcp_reset():
    async with answering() as sim:
        reader, writer = await asyncio.open_connection("127.0.0.1", sim.port)
        connection = h2.connection.H2Connection()
        connection.initiate_connection()
        writer.write(connection.data_to_send())
        await reader.read(1000)
        await sim.drop_all()
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()


@virtual_time
async def test_client_that_vanishes_leaves_nothing():
    async with answering() as sim:
        async with connected(sim) as client:
            await client.send_turn()
            await client.until("audioOutput")
            client.transport.exchanges[0].writer.transport.abort()
            await asyncio.sleep(0.1)
            assert sim.sessions[0].closed
            assert not sim.sessions[0].ended_cleanly
        names = {task.get_name() for task in asyncio.all_tasks()}
        assert not {name for name in names if name.startswith("simulator")}


@virtual_time
async def test_client_that_resets_its_stream_keeps_the_others_on_its_connection():
    async with answering() as sim, connected(sim) as client:
        await client.send_turn()
        await client.until("audioOutput")
        exchange = client.transport.exchanges[0]
        exchange.h2.reset_stream(exchange.number)
        exchange.flush()
        await asyncio.sleep(0.1)
        assert sim.sessions[0].closed
        exchange.h2.ping(b"12345678")
        exchange.flush()
        await asyncio.sleep(0.1)
        assert not exchange.reader.at_eof()


@virtual_time
async def test_client_that_does_not_read_gets_everything_later():
    async with answering(Reply("A long one.", 30.0)) as sim, connected(sim) as client:
        await client.send_turn()
        await client.until("audioOutput")
        exchange = client.transport.exchanges[0]
        exchange.paused.clear()
        await asyncio.sleep(2)
        exchange.paused.set()
        await client.until("contentEnd", type="AUDIO")
        assert len(client.audio) == 30 * 24000


class Never(ScriptedRealtime):
    """A backend that never becomes ready."""

    def open(self, setup):
        return self

    async def run(self, *args):
        if len(args) == 2:
            await super().run(*args)
        await asyncio.Event().wait()

    def transmit(self, command):
        pass


@virtual_time
async def test_simulator_stops_while_a_backend_never_becomes_ready():
    async with H2Transport() as transport:
        async with NovaSimulator(Never) as sim:
            client = await open_stream(await sdk(sim, transport))
            await client.start()
            await asyncio.sleep(1)
            assert len(sim.sessions) == 1
            began = now()
        assert now() - began < 0.5
        assert isinstance(await client.error(), OSError)


@virtual_time
async def test_stream_ends_while_a_backend_never_becomes_ready():
    async with NovaSimulator(Never) as sim, connected(sim) as client:
        assert (await client.error()).message == "Timed out waiting for input events"
        await asyncio.sleep(0.1)
        assert not sim._stream_tasks


@virtual_time
async def test_client_that_causes_output_and_does_not_read_fills_no_memory():
    async with H2Transport(window=2**31 - 1) as transport:
        async with answering(Reply("A long one.", 200.0)) as sim:
            client = await open_stream(await sdk(sim, transport))
            await client.start()
            await client.send_turn()
            await client.until("audioOutput")
            transport.exchanges[0].writer.transport.pause_reading()
            await asyncio.sleep(2)
            (connection,) = sim._connections
            stuck = connection._transport.get_write_buffer_size()
            assert 0 < stuck < 500_000
            began = now()
        assert now() - began < 0.5
        transport.exchanges[0].writer.transport.abort()


@virtual_time
async def test_client_that_never_reads_the_end_of_its_stream_is_dropped():
    simulator = answering(Reply("A long one.", 60.0), max_stream_s=5)
    async with simulator as sim, connected(sim) as client:
        await client.send_turn()
        await client.until("audioOutput")
        (exchange,) = client.transport.exchanges
        exchange.paused.clear()
        await asyncio.sleep(14.8)
        assert len(sim._stream_tasks) == 1
        await asyncio.sleep(0.3)
        assert not sim._stream_tasks
        exchange.paused.set()
        assert isinstance(await client.error(), OSError)


@virtual_time
async def test_service_that_does_not_read_blocks_the_client():
    deaf = Fault(Stall("reading", 10.0), at=1.0)
    async with answering(faults=[deaf]) as sim, connected(sim) as client:
        await asyncio.sleep(1.5)
        (exchange,) = client.transport.exchanges
        sending = asyncio.create_task(client.send_audio(tone(60.0)))
        await asyncio.sleep(5)
        assert not sending.done()
        assert exchange.h2.local_flow_control_window(exchange.number) == 0
        await sending
        await asyncio.sleep(0.1)
        assert now() > 10
        assert sim.sessions[0].audio_in_samples == 60 * 16000


@virtual_time
async def test_an_hour_of_audio_passes_flow_control():
    async with answering(max_stream_s=4000) as sim, connected(sim) as client:
        await client.send_audio(silence(600.0), chunk=160_000)
        await client.send_turn()
        await client.receive_reply()
        assert sim.sessions[0].audio_in_samples > 600 * 16000


async def test_tls_needs_its_certificate_and_http_2():
    async with answering(tls=True) as sim:
        assert sim.url.startswith("https://127.0.0.1:")
        with pytest.raises(ssl.SSLCertVerificationError):
            await asyncio.open_connection("127.0.0.1", sim.port, ssl=ssl.create_default_context())
        for name in ("127.0.0.1", "localhost"):
            _, writer = await asyncio.open_connection(
                "127.0.0.1", sim.port, ssl=sim.ssl_context, server_hostname=name
            )
            assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "h2"
            writer.close()
        context = ssl.create_default_context(cadata=sim.ca_pem.decode())
        context.set_alpn_protocols(["http/1.1"])
        reader, writer = await asyncio.open_connection("127.0.0.1", sim.port, ssl=context)
        async with asyncio.timeout(5):
            assert (await reader.read()).startswith(b"HTTP/1.1 505")
        writer.close()
        async with connected(sim) as client:
            await client.send_turn()
            await client.receive_reply()


async def test_other_protocol_gets_a_readable_error():
    async with answering() as sim:
        reader, writer = await asyncio.open_connection("127.0.0.1", sim.port)
        writer.write(b"POST /model/x HTTP/1.1\r\nhost: x\r\n\r\n")
        assert (await reader.read()).endswith(b"This is an HTTP/2 service.")
        writer.close()


@virtual_time
async def test_invalid_http_2_does_not_harm_other_connections():
    failures = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
    settings = SettingsFrame(0).serialize()
    fields = [(b":method", b"POST"), (b":path", b"\xff"), (b":scheme", b"h"), (b"\xff", b"\xff")]
    request = HeadersFrame(1, Encoder().encode(fields), flags=["END_HEADERS"]).serialize()
    frames = [
        b"",
        b"\x00" * 50,
        DataFrame(1, b"x").serialize(),
        request + request,
        request + RstStreamFrame(1, 8).serialize() + DataFrame(1, b"x").serialize(),
        WindowUpdateFrame(0, 2**31 - 1).serialize(),
        request + DataFrame(1, b"x", flags=["END_STREAM"]).serialize() * 2,
    ]
    async with answering() as sim:
        for more in frames:
            reader, writer = await asyncio.open_connection("127.0.0.1", sim.port)
            writer.write(PREFACE + settings + more)
            await reader.read(1000)
            await asyncio.sleep(0.1)
            writer.transport.abort()
        async with connected(sim) as client:
            await client.send_turn()
            await client.receive_reply()
        await asyncio.sleep(2)
        assert not sim._connections
        assert not sim._stream_tasks
    assert not failures


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/model/x/invoke-with-bidirectional-stream"), ("POST", "/model/x/converse")],
)
def test_other_operations_are_unknown(method, path):
    @virtual_time
    async def run():
        async with answering() as sim:
            reader, writer = await asyncio.open_connection("127.0.0.1", sim.port)
            connection = h2.connection.H2Connection()
            connection.initiate_connection()
            fields = {":method": method, ":path": path, ":scheme": "http", ":authority": "x"}
            connection.send_headers(1, list(fields.items()))
            writer.write(connection.data_to_send())
            found = {}
            body = b""
            while "end" not in found:
                for event in connection.receive_data(await reader.read(65536)):
                    match event:
                        case h2.events.ResponseReceived(headers=headers):
                            found.update(headers)
                        case h2.events.DataReceived(data=data):
                            body += data
                        case h2.events.StreamEnded():
                            found["end"] = True
            writer.close()
            return found[b":status"], found[b"x-amzn-errortype"]

    assert run() == (b"404", b"UnknownOperationException")


@virtual_time
async def test_simulator_stops_at_once_in_any_state():
    async with H2Transport() as transport:
        async with answering(Reply("Long.", 60.0), faults=["deaf"]) as sim:
            client = await open_stream(await sdk(sim, transport))
            await client.start()
            await client.send_turn()
            await client.until("audioOutput")
            transport.exchanges[0].paused.clear()
            await asyncio.sleep(2)
            began = now()
        assert now() - began < 0.5
        transport.exchanges[0].paused.set()
        assert isinstance(await client.error(), OSError)
    left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    assert not left


async def test_port_in_use_is_reported_in_one_line():
    async with answering() as sim:
        with pytest.raises(ConfigError, match=f"can't listen on 127.0.0.1 port {sim.port}"):
            async with answering(port=sim.port):
                pass


def test_wrong_options_are_refused():
    with pytest.raises(ConfigError, match="there is no backend 'parrot'"):
        NovaSimulator("parrot")
    with pytest.raises(ConfigError, match="clock_scale"):
        NovaSimulator(clock_scale=0)
    with pytest.raises(ConfigError, match="no fault is called 'ice'"):
        NovaSimulator(faults=["ice"])


async def test_simulator_listens_on_other_local_addresses():
    if not socket.has_ipv6:
        pytest.skip("no IPv6")
    async with answering(host="::1", tls=True) as sim:
        assert sim.url == f"https://[::1]:{sim.port}"
        async with connected(sim) as client:
            await client.send_turn()
            await client.receive_reply()
