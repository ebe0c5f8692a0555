"""The faults of the simulated Nova Sonic, as the official SDK reports them."""

from __future__ import annotations

import asyncio

import pytest

pytest.importorskip("aws_sdk_bedrock_runtime", reason="the aws extra is not installed")
pytest.importorskip("h2", reason="the simulate extra is not installed")

import aws_sdk_bedrock_runtime.models as sdk_models
from nova_client import QUICK, connected, open_stream, sdk
from nova_transport import H2Transport
from smithy_aws_event_stream.exceptions import ChecksumMismatch
from smithy_core.exceptions import CallError

from duologue.simulators.faults import (
    Close,
    Delay,
    Duplicate,
    Error,
    Fault,
    Handshake,
    Reset,
    load_faults,
)
from duologue.simulators.nova._eventstream import Decoder, FramingError
from duologue.simulators.nova.faults import PRESETS
from duologue.testing import NovaSimulator, Reply, virtual_time


def now():
    return asyncio.get_running_loop().time()


def answering(*faults, **options):
    replies = [Reply("Yes. No.", 0.4)] * 5
    return NovaSimulator(replies=replies, faults=faults, endpointing_ms=QUICK, **options)


@pytest.mark.parametrize(
    ("name", "kind", "text"),
    [
        ("timeout", "ModelTimeoutException", "Model has timed out in processing the request"),
        ("unstable", "ModelStreamErrorException", "System instability detected"),
        ("throttled", "ThrottlingException", "Too many requests"),
        ("internal", "InternalServerException", "unexpected error"),
        ("unavailable", "ServiceUnavailableException", "unavailable"),
    ],
)
def test_stream_can_end_with_every_exception(name, kind, text):
    @virtual_time
    async def run():
        async with answering(name) as sim, connected(sim) as client:
            await client.send_turn()
            error = await client.error()
            assert type(error) is getattr(sdk_models, kind)
            assert text in error.message
            await asyncio.sleep(0.1)
            assert sim.sessions[0].closed
            assert len(sim.fired_actions) == 1

    run()


@virtual_time
async def test_unknown_code_is_a_model_error():
    async with answering(Fault(Error("odd", "it is odd"), at=1.0)) as sim, connected(sim) as client:
        error = await client.error()
        assert isinstance(error, sdk_models.ModelStreamErrorException)
        assert error.message == "it is odd"


@virtual_time
async def test_failed_reply_ends_the_stream():
    replies = [Reply("Well", 0.2, fails="no more"), Reply("", refused="throttlingException")]
    errors = []
    for reply in replies:
        simulator = NovaSimulator(replies=[reply], endpointing_ms=QUICK)
        async with simulator as sim, connected(sim) as client:
            await client.send_turn()
            errors.append(await client.error())
    assert isinstance(errors[0], sdk_models.ModelStreamErrorException)
    assert errors[0].message == "no more"
    assert isinstance(errors[1], sdk_models.ThrottlingException)


@virtual_time
async def test_stream_can_end_without_an_error():
    async with answering("close") as sim, connected(sim) as client:
        await client.send_turn()
        assert await client.error() is None
        assert client.names == ["completionStart"]
        assert not sim.sessions[0].ended_cleanly


@virtual_time
async def test_stream_can_be_reset_during_a_reply():
    async with answering("reset-in-reply") as sim, connected(sim) as client:
        await client.send_turn()
        assert isinstance(await client.error(), OSError)
        assert client.names.count("audioOutput") <= 2


@virtual_time
async def test_stream_can_be_reset_at_a_time():
    async with answering(Fault(Reset(), at=3.0)) as sim, connected(sim) as client:
        began = now()
        assert isinstance(await client.error(), OSError)
        assert now() - began == pytest.approx(3.0, abs=0.2)


@virtual_time
async def test_service_can_stall_and_send_in_a_burst():
    for name, seconds in (("stall", 3.0), ("burst", 1.5)):
        async with answering(name) as sim, connected(sim) as client:
            await client.send_turn()
            began = now()
            await client.until("textOutput")
            assert now() - began == pytest.approx(seconds, abs=0.1)
            await client.receive_reply()


@virtual_time
async def test_service_can_stop_reading():
    async with answering("deaf") as sim, connected(sim) as client:
        await asyncio.sleep(1.5)
        began = now()
        await client.send_turn()
        await client.until("textOutput")
        assert now() - began == pytest.approx(4.5, abs=0.3)


@virtual_time
async def test_events_can_be_late_in_order_and_the_same_for_a_seed():
    async def times():
        async with answering(Fault(Delay(500, 400)), seed=7) as sim, connected(sim) as client:
            await client.send_turn()
            began = now()
            found = []
            while "END_TURN" not in [stop for _, _, stop in client.blocks]:
                name, _ = await client.receive()
                found.append((name, round(now() - began, 2)))
            return found

    first, second = await times(), await times()
    assert first == second
    assert first[0][1] >= 0.5
    assert [when for _, when in first] == sorted(when for _, when in first)


@virtual_time
async def test_events_can_come_twice_and_with_unknown_names():
    async with answering("duplicate", "unknown") as sim, connected(sim) as client:
        await client.send_turn()
        await client.receive_reply()
        audio_outputs = client.of("audioOutput")
        assert len(audio_outputs) == 2 * 5
        assert audio_outputs[0] == audio_outputs[1]
        assert client.names[:2] == ["completionStart", "surprise"]
        sim.faults = [Fault(Duplicate("textOutput"), on="textOutput")]
        client.events.clear()
        await client.send_turn()
        await client.receive_reply()
        assert client.names[1:3] == ["textOutput"] * 2


@virtual_time
async def test_invalid_events_can_be_sent():
    async with answering("garbage") as sim, connected(sim) as client:
        await client.send_turn()
        with pytest.raises(ValueError, match="Expecting"):
            await client.receive_reply()
    async with answering("corrupt") as sim, connected(sim) as client:
        await client.send_turn()
        assert isinstance(await client.error(), ChecksumMismatch)
        with pytest.raises(FramingError, match="checksum of a message is wrong"):
            Decoder().push(bytes_of_body(client))


def bytes_of_body(client):
    """Return the payload of the received DATA frames."""
    received = client.transport.exchanges[0].received
    body = b""
    while received:
        size, kind = int.from_bytes(received[:3]), received[3]
        if kind == 0:
            body += received[9 : 9 + size]
        del received[: 9 + size]
    return body


@pytest.mark.parametrize(
    ("fault", "status", "kind"),
    [
        ("forbidden", 403, "UnrecognizedClientException"),
        ("expired-token", 403, "ExpiredTokenException"),
        ("busy", 429, "ThrottlingException"),
        ("not-ready", 429, "ModelNotReadyException"),
        ("down", 503, "ServiceUnavailableException"),
        (Fault(Handshake(408)), 408, "ModelTimeoutException"),
        (Fault(Handshake(418, "Teapot")), 418, "Teapot"),
    ],
)
def test_request_can_be_refused(fault, status, kind):
    @virtual_time
    async def run():
        async with answering(fault) as sim, H2Transport() as transport:
            client = await open_stream(await sdk(sim, transport))
            error = await client.error()
            head = dict(await transport.exchanges[0].head)
            assert (head[":status"], head["x-amzn-errortype"]) == (str(status), kind)
            assert isinstance(error, CallError)
            if hasattr(sdk_models, kind):
                assert type(error) is getattr(sdk_models, kind)
            assert not sim.sessions

    run()


@virtual_time
async def test_request_is_refused_the_configured_number_of_times():
    async with answering("busy") as sim:
        for _ in range(2):
            async with H2Transport() as transport:
                client = await open_stream(await sdk(sim, transport))
                assert await client.error() is not None
        async with connected(sim) as client:
            await client.send_turn()
            await client.receive_reply()
        assert len(sim.fired_actions) == 2


@virtual_time
async def test_faults_can_be_set_while_sessions_run():
    async with answering() as sim, connected(sim) as client:
        await client.receive_for(10.0)
        sim.faults = [Fault(Close(0, ""), at=1.0)]
        began = now()
        assert await client.error() is None
        assert now() - began == pytest.approx(1.0, abs=0.1)


def test_faults_are_read_from_files(tmp_path):
    file = tmp_path / "faults.yaml"
    file.write_text(
        "- unstable\n"
        "- error: {code: throttlingException, message: slow down}\n"
        "  on: toolUse\n"
        "- duplicate: {event: textOutput}\n"
    )
    assert load_faults(str(file), PRESETS) == [
        PRESETS["unstable"],
        Fault(Error("throttlingException", "slow down"), on="toolUse"),
        Fault(Duplicate("textOutput"), on="textOutput"),
    ]
