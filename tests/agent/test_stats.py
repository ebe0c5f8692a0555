"""`Agent.stats`: every counter of a conversation in one place."""

import asyncio
from dataclasses import FrozenInstanceError, fields

import numpy as np
import pytest
from test_agent_heard import NUMBERS, Model

from duologue import Agent
from duologue.agent.stats import AgentStats
from duologue.audio import AudioFrame
from duologue.edges.protocol import EdgeStats
from duologue.events import AgentTranscriptEvent
from duologue.realtime.outputs import ReplyAudio
from duologue.realtime.stats import ConnectionStats
from duologue.testing import Reply, ScriptedRealtime, virtual_time
from fake_edge import FakeEdge, join_agent


def test_all_counters_are_zero_before_join_and_cannot_be_changed():
    stats = Agent(edge=FakeEdge(), llm=ScriptedRealtime()).stats()
    assert all(not getattr(stats, field.name) for field in fields(stats) if field.name != "edge")
    assert stats.edge == EdgeStats()
    with pytest.raises(FrozenInstanceError):
        stats.reconnects = 1


@virtual_time
async def test_reconnects_and_stale_audio_are_counted_and_stay_after_the_conversation():
    model = Model()
    async with join_agent(model) as agent:
        agent.simple_response("Count.")
        model.fake.send_reply("r", NUMBERS, 1.0, request=model.fake.last_request.request_id)
        await model.lose_connection()
        await model.lose_connection()
        assert (agent.stats().connections, agent.stats().reconnects) == (3, 2)
        agent.interrupt()
        model.fake.emit(ReplyAudio("r", "item", AudioFrame(np.zeros(2400, np.int16), 24000)))
        assert agent.stats().stale_outputs + (agent.stats().stale_audio_s > 0) == 1
    assert agent.stats().reconnects == 2


@virtual_time
async def test_connections_that_count_are_added_up():
    class Measured(Model):
        def open(self, setup):
            connection = super().open(setup)
            connection.stats = lambda: ConnectionStats(0.5, 1, 0.25, 2, 3)
            return connection

    model = Measured()
    async with join_agent(model) as agent:
        await model.lose_connection()
        stats = agent.stats()
    assert (stats.dropped_input_s, stats.dropped_images, stats.dropped_reply_s) == (1.0, 2, 0.5)
    assert (stats.unknown_messages, stats.malformed_messages) == (4, 6)
    assert agent.stats() == stats


@virtual_time
async def test_counters_of_the_edge_and_of_slow_handlers_are_included(monkeypatch):
    monkeypatch.setattr("duologue.events.bus.QUEUE_LIMIT", 1)

    class Measured(FakeEdge):
        def stats(self):
            return EdgeStats(lost_packets=7)

    def add(agent):
        @agent.events.subscribe
        async def slow(event: AgentTranscriptEvent) -> None:
            await asyncio.sleep(100)

    replies = [Reply("one"), Reply("two"), Reply("three")]
    async with join_agent(ScriptedRealtime(replies), Measured(), add) as agent:
        for _ in replies:
            await agent.simple_response("more")
        assert agent.stats().edge.lost_packets == 7
        assert agent.stats().dropped_events >= 3


def test_every_counter_is_documented():
    for kind in (AgentStats, ConnectionStats, EdgeStats):
        for field in fields(kind):
            assert f"    {field.name}: " in kind.__doc__, field.name
