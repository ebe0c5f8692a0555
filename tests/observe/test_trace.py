"""Traces of whole conversations, read back through the OpenTelemetry SDK."""

import asyncio
import json

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from duologue import ReconnectPolicy
from duologue.errors import ErrorKind, SessionError
from duologue.events import UserTurnEndedEvent
from duologue.observe import trace
from duologue.realtime.outputs import Usage
from duologue.testing import At, Reply, ScriptedRealtime, ToolUse, virtual_time
from fake_edge import FakeEdge, events_of, join_agent


class Traced:
    """The finished spans of one conversation."""

    def __init__(self, **options):
        self.options = options
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))

    def prepare(self, agent):
        trace(agent, self.provider, **self.options)

    def named(self, start):
        return [s for s in self.exporter.get_finished_spans() if s.name.startswith(start)]

    def one(self, start):
        (span,) = self.named(start)
        return span

    def children(self, parent):
        spans = self.exporter.get_finished_spans()
        return [s for s in spans if s.parent and s.parent.span_id == parent.context.span_id]


def length(span):
    return (span.end_time - span.start_time) / 1e9


@virtual_time
async def test_a_turn_has_the_speech_the_reply_and_the_tool_in_it():
    traced = Traced(agent_name="support")
    edge = FakeEdge()
    model = ScriptedRealtime(
        [Reply(tools=[ToolUse("look_up", {"x": 2})]), Reply("It is four.", seconds=1.0)],
        transcripts=["my secret number"],
        at=[At(3.75, Usage({"audio": 30, "text": 5, "cached": 4}, {"audio": 60, "text": 9}))],
    )

    def prepare(agent):
        traced.prepare(agent)

        @agent.tool
        async def look_up(x: int) -> int:
            """Look up a number."""
            await asyncio.sleep(0.5)
            return x * 2

    async with join_agent(model, edge, prepare) as agent:
        await edge.be_silent(0.5)
        await edge.speak(1.0)
        await edge.be_silent(5.0)
        (ended,) = events_of(agent, UserTurnEndedEvent)
    turn = traced.one("invoke_agent support")
    assert turn.attributes["gen_ai.agent.invocation.end_reason"] == "completed"
    names = sorted(span.name for span in traced.children(turn))
    assert names == [
        "execute_tool look_up",
        "realtime_inference script",
        "realtime_inference script",
        "user_speech",
    ]
    speech = traced.one("user_speech")
    assert length(speech) == pytest.approx(1.0, abs=0.05)
    assert speech.end_time / 1e9 == pytest.approx(ended.at - ended.silence_ms / 1000, abs=0.001)
    first, second = sorted(traced.named("realtime_inference"), key=lambda s: s.start_time)
    tool = traced.one("execute_tool")
    assert first.start_time / 1e9 == pytest.approx(ended.at, abs=0.001)
    assert first.end_time <= tool.start_time
    assert length(tool) == pytest.approx(0.5, abs=0.01)
    assert second.start_time == tool.end_time
    assert turn.start_time == speech.start_time
    assert turn.end_time > second.end_time
    assert turn.attributes["duologue.first_played_ms"] > 0
    everything = json.dumps(
        [json.loads(span.to_json()) for span in traced.exporter.get_finished_spans()]
    )
    assert "secret" not in everything
    assert "four" not in everything


@virtual_time
async def test_usage_is_told_on_the_reply_by_modality():
    traced = Traced()
    usage = Usage({"audio": 30, "text": 5, "cached": 4}, {"audio": 60, "reasoning": 9})
    model = ScriptedRealtime([Reply("Hello.", after_s=0.1)], at=[At(0.1, usage)])
    async with join_agent(model, prepare=traced.prepare) as agent:
        await agent.simple_response("hi")
    attributes = traced.one("realtime_inference").attributes
    assert attributes["gen_ai.usage.input_tokens"] == 35
    assert attributes["gen_ai.usage.output_tokens"] == 60
    assert attributes["gen_ai.usage.audio.input_tokens"] == 30
    assert attributes["gen_ai.usage.cache_read.input_tokens"] == 4
    assert attributes["gen_ai.usage.reasoning.output_tokens"] == 9
    assert attributes["gen_ai.operation.name"] == "realtime_inference"
    assert attributes["gen_ai.provider.name"] == "scripted"


@virtual_time
async def test_an_interruption_ends_the_turn_and_says_what_was_heard():
    traced = Traced(capture_content=True)
    edge = FakeEdge()
    model = ScriptedRealtime(
        [Reply("a long answer that goes on and on", seconds=10.0), Reply("Sorry.")],
        transcripts=["stop that now"],
    )
    async with join_agent(model, edge, traced.prepare) as agent:
        agent.simple_response("talk")
        await asyncio.sleep(2.1)
        await edge.speak(1.5)
        await edge.be_silent(3.0)
    first, second = sorted(traced.named("invoke_agent"), key=lambda s: s.start_time)
    assert first.attributes["gen_ai.agent.invocation.end_reason"] == "interrupted"
    assert first.attributes["duologue.interrupted_by"] == "person"
    assert 1500 < first.attributes["duologue.heard_ms"] < 3500
    heard = json.loads(first.attributes["gen_ai.output.messages"])[0]["parts"][0]["content"]
    assert heard
    assert "a long answer that goes on and on".startswith(heard)
    assert second.attributes["gen_ai.agent.invocation.end_reason"] == "completed"
    said = json.loads(second.attributes["gen_ai.input.messages"])[0]["parts"][0]["content"]
    assert said == "stop that now"


@virtual_time
async def test_a_reconnect_is_a_span_with_its_outcome():
    traced = Traced()
    lost = SessionError("the line is gone", kind=ErrorKind.RETRY)
    model = ScriptedRealtime(
        [Reply("Hello.")], at=[At(1.0, lost)], reconnect=ReconnectPolicy(base_s=0.5)
    )
    async with join_agent(model, prepare=traced.prepare):
        await asyncio.sleep(1.9)
    span = traced.one("realtime_reconnect")
    assert span.attributes["duologue.outcome"] == "replayed"
    assert span.attributes["duologue.attempts"] == 1
    assert length(span) > 0.2


@virtual_time
async def test_everything_ends_with_the_session():
    traced = Traced()
    model = ScriptedRealtime([Reply("a long answer", seconds=10.0, pace=1.0)])
    async with join_agent(model, prepare=traced.prepare) as agent:
        agent.simple_response("talk")
        await asyncio.sleep(1.0)
    assert traced.one("gen_ai.client.realtime_session.ended").attributes["duologue.clean"]
    assert traced.one("realtime_inference").attributes["error.type"] == "session_closed"
    ids = {
        span.attributes["gen_ai.realtime_session.id"]
        for span in traced.exporter.get_finished_spans()
    }
    assert len(ids) == 1
    assert traced.one("invoke_agent")
