"""Counters of a connection, its codec and its wire, and of a session over its connections."""

import asyncio
from collections import Counter
from types import SimpleNamespace

import pytest
from fake_connection import FakeModel, audio_frame, live_session, wait_reconnected

from duologue.providers._openai_protocol.codec import Codec as OpenAICodec
from duologue.providers._openai_protocol.webrtc import WebRTCWire
from duologue.providers.aws._codec import Codec as AwsCodec
from duologue.providers.gemini._codec import Codec as GeminiCodec
from duologue.realtime.codec import SessionSetup
from duologue.realtime.commands import SendAudio
from duologue.realtime.reconnect import ReconnectPolicy
from duologue.realtime.stats import (
    ConnectionStats,
    MeasuredConnection,
    RealtimeStats,
)
from duologue.realtime.wire_connection import WireConnection
from duologue.testing import virtual_time


def test_stats_can_be_added():
    one, two = ConnectionStats(0.5, 1, 0.25, 2, 3), ConnectionStats(unknown_messages=5)
    assert one + two == ConnectionStats(0.5, 1, 0.25, 7, 3)


@pytest.mark.parametrize("codec", [OpenAICodec, AwsCodec, GeminiCodec])
def test_every_codec_counts_what_it_does_not_understand(codec):
    names = {*vars(codec), *codec.__init__.__code__.co_names}
    assert {"unknown", "malformed"} <= names


def test_wire_of_a_call_counts_what_it_drops():
    assert issubclass(WebRTCWire, MeasuredConnection)


@virtual_time
async def test_connection_adds_up_its_queue_its_codec_and_its_wire():
    class Wire:
        async def open(self):
            await asyncio.Event().wait()

        async def close(self): ...

        def stats(self):
            return ConnectionStats(dropped_reply_s=0.5)

    codec = SimpleNamespace(unknown=Counter(a=2, b=1), malformed=4, repeated=5)
    connection = WireConnection(Wire, codec, SessionSetup(""), audio_limit_s=1.0)
    assert connection.stats() == ConnectionStats(
        unknown_messages=3, malformed_messages=4, repeated_messages=5
    )
    task = asyncio.create_task(connection.run(lambda output: None))
    await asyncio.sleep(0.01)
    for _ in range(150):
        connection.transmit(SendAudio(audio_frame(range(10))))
    stats = connection.stats()
    assert stats.dropped_input_s == pytest.approx(connection.dropped_audio / 1000)
    assert stats.dropped_input_s == pytest.approx(0.5, abs=0.02)
    assert stats.dropped_reply_s == 0.5
    task.cancel()
    await asyncio.wait([task])


@virtual_time
async def test_session_counts_connections_and_input_audio_that_none_received():
    model = FakeModel([{}, {"starts_after": 5.0}], ReconnectPolicy(keep_s=1.0))
    assert model.stats() == RealtimeStats(0, 0.0, 0, ConnectionStats())
    async with live_session(model):
        assert (model.stats().connections, model.stats().reconnects) == (1, 0)
        model.latest.lose()
        for start in range(0, 3000, 100):
            model.send_audio(audio_frame(range(start + 1, start + 101)))
            await asyncio.sleep(0.1)
        await wait_reconnected(model)
        stats = model.stats()
        assert (stats.connections, stats.reconnects) == (2, 1)
        assert stats.lost_input_s == pytest.approx(model.lost_audio / 1000)
        assert stats.lost_input_s > 1.0
