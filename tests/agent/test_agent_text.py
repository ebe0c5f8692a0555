"""A model that answers in text, without a voice: the person reads the answer."""

import asyncio
import re
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from duologue import Agent
from duologue.errors import ConfigError
from duologue.events import (
    AgentHeardEvent,
    AgentTranscriptEvent,
    AgentTurnEndedEvent,
    AgentTurnStartedEvent,
    ErrorEvent,
    RealtimeReconnectedEvent,
    TurnMetricsEvent,
)
from duologue.items import AgentItem
from duologue.providers import openai, qwen
from duologue.realtime.codec import Connection, SessionSetup
from duologue.realtime.outputs import Output, ReplyAudio, ReplyDone, ReplyText, ToolCall
from duologue.realtime.reconnect import ReconnectPolicy
from duologue.testing import (
    SCRIPTED_CAPABILITIES,
    OpenAISimulator,
    QwenSimulator,
    Reply,
    ScriptedRealtime,
    ToolUse,
    run_virtual,
)
from duologue.vad.energy import EnergyVAD
from fake_edge import FakeEdge, agent_items, events_of

VENDORS: Mapping[str, Any] = {
    "openai": (OpenAISimulator, openai.Realtime, {"transport": "websocket"}),
    "openai over WebRTC": (OpenAISimulator, openai.Realtime, {"transport": "webrtc"}),
    "qwen": (QwenSimulator, qwen.Realtime, {}),
}


LONG = Reply(" ".join(f"word{i}" for i in range(60)), pace=1.0)


class Writer(ScriptedRealtime):
    """The model behind a simulated service, which writes a word for each audio frame it makes."""

    def __init__(self, script: deque[Reply]) -> None:
        capabilities = replace(SCRIPTED_CAPABILITIES, manual_turns=True)
        super().__init__(manual=True, capabilities=capabilities)
        self.replies = script

    def open(self, setup: SessionSetup) -> Connection:
        return WritingConnection(super().open(setup))


class WritingConnection:
    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.transmit = connection.transmit
        self.words: deque[str] = deque()

    async def run(self, receive: Callable[[Output], None]) -> None:
        text = ReplyText("", "", "")

        def write(output: Output) -> None:
            nonlocal text
            match output:
                case ReplyText():
                    text = output
                    self.words = deque(re.findall(r"\S+\s*", output.text))
                    return
                case ReplyAudio() if self.words:
                    receive(replace(text, text=self.words.popleft()))
                case ReplyDone() | ToolCall() if self.words:
                    receive(replace(text, text="".join(self.words)))
                    self.words.clear()
            receive(output)

        await self.connection.run(write)


class Page(FakeEdge):
    """An edge that shows words."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[Mapping[str, Any]] = []

    def send_event(self, event: Mapping[str, Any]) -> None:
        self.shown.append(event)


@asynccontextmanager
async def conversation(vendor: str, replies: list[Any], *, edge: Any = None, **options: Any) -> Any:
    simulator, realtime, more = VENDORS[vendor]
    script = deque(reply if isinstance(reply, Reply) else Reply(reply) for reply in replies)

    async with simulator(lambda: Writer(script), **options) as service:
        model = realtime(
            output="text",
            base_url=service.url,
            api_key=service.key,
            vad=EnergyVAD(),
            reconnect=ReconnectPolicy(base_s=0.1),
            **more,
        )
        agent = Agent(edge=edge or Page(), llm=model)
        yield agent, service


def recorded(agent: Agent) -> list[Any]:
    """Record the events of an agent, for `events_of`."""
    agent.recorded = []  # type: ignore[attr-defined]
    agent.events.tap(agent.recorded.append)  # type: ignore[attr-defined]
    return agent.recorded  # type: ignore[attr-defined,no-any-return]


def in_virtual_time(test: Callable[..., Any]) -> Callable[..., None]:
    def run(vendor: str) -> None:
        run_virtual(test(vendor), grace=0.0)

    run.__name__ = test.__name__
    return pytest.mark.parametrize("vendor", VENDORS)(run)


@in_virtual_time
async def test_text_is_told_shown_and_kept_as_read(vendor):
    page = Page()
    async with conversation(vendor, ["Good morning to you."], edge=page) as (agent, service):
        recorded(agent)
        async with agent.join():
            speech = await agent.simple_response("Hello")
            assert (speech.text, speech.heard_text) == ("Good morning to you.",) * 2
            assert (speech.state, speech.quality, speech.played_ms) == ("heard", "read", 0)
            deltas = [e for e in events_of(agent, AgentTranscriptEvent) if not e.final]
            assert "".join(e.text for e in deltas) == "Good morning to you."
            assert len(deltas) > 1
            read = "".join(e.text for e in events_of(agent, AgentHeardEvent))
            assert read == "Good morning to you."
            (final,) = [e for e in events_of(agent, AgentTranscriptEvent) if e.final]
            assert final.text == "Good morning to you."
            assert len(events_of(agent, AgentTurnStartedEvent)) == 1
            assert [e.interrupted for e in events_of(agent, AgentTurnEndedEvent)] == [False]
            (item,) = agent_items(agent)
            assert item == AgentItem(item.id, "Good morning to you.", "read", 0, speech.id)
            assert not events_of(agent, ErrorEvent)
            assert not page.played_audio.any()
            shown = [e["text"] for e in page.shown if e["type"] == "AgentTranscriptEvent"]
            assert shown[-1] == "Good morning to you."
            model_knows = str(service.sessions[-1].conversation)
            assert "Good morning to you." in model_knows


@in_virtual_time
async def test_spoken_turn_is_answered_in_text(vendor):
    page = Page()
    async with conversation(vendor, ["It is noon."], edge=page) as (agent, _service):
        recorded(agent)
        async with agent.join():
            await page.speak(0.6)
            await page.be_silent(3.0)
            assert [item.text for item in agent_items(agent)] == ["It is noon."]
            assert agent_items(agent)[0].state == "read"
            (metrics,) = events_of(agent, TurnMetricsEvent)
            assert metrics.first_text_ms is not None
            assert metrics.first_audio_ms is metrics.first_played_ms is None
            assert not events_of(agent, ErrorEvent)


@in_virtual_time
async def test_say_is_shown(vendor):
    async with conversation(vendor, ["Welcome back."]) as (agent, _service), agent.join():
        speech = await agent.say("Welcome back.")
        assert (speech.heard_text, speech.quality) == ("Welcome back.", "read")
        assert [item.text for item in agent_items(agent)] == ["Welcome back."]


@in_virtual_time
async def test_text_before_a_tool_call_was_read(vendor):
    replies = [Reply("I look.", tools=[ToolUse("hour")]), "It is noon."]
    async with conversation(vendor, replies) as (agent, _service):

        @agent.tool
        def hour() -> int:
            """Return the hour."""
            return 12

        async with agent.join():
            agent.simple_response("What time is it?")
            await asyncio.sleep(4)
            said = [(item.text, item.state) for item in agent_items(agent)]
            assert said == [("I look.", "read"), ("It is noon.", "read")]


@in_virtual_time
async def test_interrupted_text_was_read_as_far_as_it_was_shown(vendor):
    async with conversation(vendor, [LONG, "Yes?"]) as (
        agent,
        service,
    ):
        recorded(agent)
        async with agent.join():
            speech = agent.simple_response("Talk")
            await asyncio.sleep(0.8)
            agent.interrupt()
            await asyncio.sleep(2)
            shown = "".join(e.text for e in events_of(agent, AgentHeardEvent)).rstrip()
            assert speech.heard_text == shown
            assert shown.startswith("word0 word1")
            assert LONG.text.startswith(shown)
            assert shown != LONG.text
            assert (speech.state, speech.quality) == ("cut", "read")
            assert [(i.text, i.state) for i in agent_items(agent)] == [(shown, "cut")]
            assert shown in str(service.sessions[-1].conversation)
            await agent.simple_response("Go on")
            assert agent_items(agent)[-1].text == "Yes?"


@in_virtual_time
async def test_lost_connection_in_mid_answer_keeps_what_was_read(vendor):
    async with conversation(vendor, [LONG, "And so on."]) as (agent, service):
        recorded(agent)
        async with agent.join():
            speech = agent.simple_response("Talk")
            await asyncio.sleep(0.8)
            await service.kill()
            await speech
            assert events_of(agent, RealtimeReconnectedEvent)
            shown = "".join(e.text for e in events_of(agent, AgentHeardEvent))
            assert speech.heard_text == shown
            assert shown.startswith("word0 word1")
            assert shown.endswith("And so on.")
            assert (speech.state, speech.quality) == ("heard", "read")


@in_virtual_time
async def test_edge_that_shows_nothing_refuses_text_when_it_joins(vendor):
    async with conversation(vendor, ["Hi."], edge=FakeEdge()) as (agent, _service):
        with pytest.raises(ConfigError, match="give Agent a tts to speak it"):
            async with agent.join():
                pass


def test_spelling_in_extra_says_what_to_write():
    with pytest.raises(ConfigError, match="write output='text'"):
        openai.Realtime(api_key="key", extra={"output_modalities": ["text"]})
    with pytest.raises(ConfigError, match="write output='text'"):
        qwen.Realtime(api_key="key", extra={"modalities": ["text"]})
    assert openai.Realtime(api_key="k", extra={"output_modalities": ["audio"]}) is not None
    assert qwen.Realtime(api_key="k", extra={"modalities": ["audio", "text"]}) is not None


def test_models_that_only_speak_refuse_text():
    from duologue.providers import aws, gemini

    with pytest.raises(ConfigError, match="Gemini answers in audio only"):
        gemini.Realtime(api_key="key", output="text")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="Nova answers in audio only"):
        aws.Realtime(output="text")  # type: ignore[arg-type]


def test_unknown_output_is_refused():
    for realtime in (openai.Realtime, qwen.Realtime):
        with pytest.raises(ConfigError, match="output must be one of audio, text"):
            realtime(api_key="key", output="words")  # type: ignore[arg-type]
