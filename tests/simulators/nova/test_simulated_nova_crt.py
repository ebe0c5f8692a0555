"""The simulated Nova Sonic with the official SDK over its own transport, in real time."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress

import numpy as np
import pytest

pytest.importorskip("aws_sdk_bedrock_runtime", reason="the aws extra is not installed")
pytest.importorskip("h2", reason="the simulate extra is not installed")
pytest.importorskip("awscrt", reason="awscrt is not installed")

from aws_sdk_bedrock_runtime.models import ModelStreamErrorException
from awscrt import io
from nova_client import QUICK, open_stream, sdk, silence, tone, tool
from smithy_http.aio.crt import AWSCRTHTTPClient

from duologue.testing import NovaSimulator, Reply, ToolUse


class Trusting(AWSCRTHTTPClient):
    """The official transport, with the simulator's certificate authority."""

    def __init__(self, ca_pem, **options):
        super().__init__(**options)
        self.ca_pem = ca_pem
        trust = io.TlsContextOptions()
        trust.override_default_trust_store(ca_pem)
        self._tls_ctx = io.ClientTlsContext(trust)

    def __deepcopy__(self, memo):
        # The client copies its configuration and would lose the authority.
        return Trusting(self.ca_pem, eventloop=self._eventloop, client_config=self._config)


async def test_official_transport_carries_a_whole_conversation():
    replies = [
        Reply("It is sunny. Take a hat.", 0.6),
        Reply("One two three four five.", 5.0),
        Reply(tools=[ToolUse("weather", {"city": "Rome"})]),
        Reply("It is warm.", 0.2),
    ]
    transcripts = ["How is it?", "Tell me.", "Stop. Rome?"]
    async with NovaSimulator(
        tls=True, replies=replies, transcripts=transcripts, endpointing_ms=QUICK
    ) as sim:
        client = await open_stream(await sdk(sim, Trusting(sim.ca_pem)))
        await client.start(tools=[tool()])
        await client.send_turn()
        await client.receive_reply()
        assert [block[1:] for block in client.blocks] == [
            ("How is it?", "PARTIAL_TURN"),
            ("It is sunny.", "PARTIAL_TURN"),
            ("", "PARTIAL_TURN"),
            ("Take a hat.", "PARTIAL_TURN"),
            ("", "END_TURN"),
            ("It is sunny.", "PARTIAL_TURN"),
            ("Take a hat.", "END_TURN"),
        ]
        assert len(client.audio) == round(0.6 * 24000)
        await client.send_turn()
        await client.until("contentEnd", type="AUDIO")
        await asyncio.sleep(0.5)
        await client.send_audio(np.concatenate((tone(0.3), silence(0.4))))
        await client.until("contentEnd", stopReason="INTERRUPTED")
        use = await client.until("toolUse")
        assert json.loads(use["content"]) == {"city": "Rome"}
        await client.send_result(use["toolUseId"], {"degrees": 25})
        await client.receive_reply()
        await client.end()
        assert await client.until("never") is None
        assert client.names[-1] == "completionEnd"
        assert sim.sessions[0].ended_cleanly
        assert [one.text for one in sim.sessions[0].conversation] == [
            "How is it?",
            "It is sunny. Take a hat.",
            "Tell me.",
            "Stop. Rome?",
            "It is warm.",
        ]


async def test_official_transport_carries_many_streams_on_one_connection():
    async with NovaSimulator(tls=True, replies=["Yes."], endpointing_ms=QUICK) as sim:
        transport = Trusting(sim.ca_pem)
        made = await sdk(sim, transport)
        clients = []
        for _ in range(2):
            client = await open_stream(made)
            await client.start()
            await client.send_turn()
            await client.until("audioOutput")
            clients.append(client)
        assert len(sim.sessions) == 2
        assert len(sim._connections) == 1
        await clients[0].receive_reply()
        await clients[0].end()
        assert await clients[0].until("never") is None
        await clients[1].receive_reply()
        await clients[1].end()
        assert await clients[1].until("never") is None
        await asyncio.sleep(0.1)
        (connection,) = sim._connections
        assert not connection._streams
        assert not connection._lingering


async def test_official_transport_reports_exceptions():
    simulator = NovaSimulator(tls=True, replies=["Yes."], endpointing_ms=QUICK, faults=["unstable"])
    async with simulator as sim:
        client = await open_stream(await sdk(sim, Trusting(sim.ca_pem)))
        await client.start()
        await client.send_turn()
        error = await client.error()
        assert isinstance(error, ModelStreamErrorException)
        assert "System instability detected" in error.message
        with suppress(OSError):
            await client.stream.input_stream.close()
