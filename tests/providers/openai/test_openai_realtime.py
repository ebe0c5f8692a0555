"""OpenAI's Realtime behind an agent, against the simulator, on both transports."""

import asyncio

import numpy as np
import pytest

from duologue.audio import AudioFrame
from duologue.errors import SessionError
from duologue.events import ErrorEvent
from duologue.items import AgentItem, UserItem
from duologue.providers import openai
from duologue.providers._openai_protocol import webrtc
from duologue.realtime.reconnect import ReconnectPolicy
from duologue.simulators.openai.server import OpenAISimulator
from duologue.testing import Reply
from duologue.video import VideoFrame
from fake_edge import FakeEdge, event_names, join_agent

both = pytest.mark.parametrize("transport", ["websocket", "webrtc"])


class Person(FakeEdge):
    """A person who stays in the call, and is silent unless the test lets them speak."""

    level = 0

    async def run(self, person, ready):
        self.person = person
        ready()
        at = np.arange(320)
        while not self.hung_up.is_set():
            await asyncio.sleep(0.02)
            audio = (self.level * np.sin(at * 0.15)).astype(np.int16)
            person.push_audio(AudioFrame(audio, 16000))

    async def says(self, seconds):
        self.level = 8000
        await asyncio.sleep(seconds)
        self.level = 0


def realtime(simulator, transport, **options):
    options.setdefault("turn_detection", openai.ServerVAD(silence_duration_ms=200))
    return openai.Realtime(
        transport=transport, base_url=simulator.url, api_key=simulator.key, **options
    )


async def until(condition, seconds=5.0):
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


def texts(session):
    """Return the server's conversation as (role, text)."""
    return [
        (item["role"], part.get("text") or part.get("transcript"))
        for item in session.conversation
        if item["type"] == "message"
        for part in item["content"]
    ]


@both
async def test_a_conversation(transport):
    replies = [Reply("Hello."), Reply("Twelve words are enough to be cut in the middle of them.")]
    async with OpenAISimulator(replies=replies, transcripts=["Hi."]) as simulator:
        person = Person()
        model = realtime(simulator, transport)
        async with join_agent(model, person) as agent:
            [session] = simulator.sessions
            await person.says(0.4)
            await until(lambda: any(isinstance(i, AgentItem) for i in agent.conversation.items))
            said = await agent.say("Good morning.")
            assert said.heard_text == "Good morning."
            cut = agent.simple_response("Tell me.")
            await until(lambda: event_names(agent).count("AgentTurnStartedEvent") == 3)
            await asyncio.sleep(0.6)
            model.interrupt()
            await cut
            assert 0 < len(cut.heard_text) < 50
            names = ("conversation.item.truncate",)
            await until(lambda: any(event["type"] in names for event in session.events_in))
            await asyncio.sleep(0.05)
            there = [type(item) for item in agent.conversation.items]
            assert there == [UserItem, AgentItem, AgentItem, UserItem, AgentItem]
            known = texts(session)
            assert known[1:4] == [
                ("assistant", "Hello."), ("assistant", "Good morning."), ("user", "Tell me."),
            ]  # fmt: skip
            assert not [event for event in agent.recorded if isinstance(event, ErrorEvent)]


@both
async def test_scripted_text_is_known_to_the_next_reply(transport):
    async with OpenAISimulator(replies=["It was 4711."]) as simulator:
        model = realtime(simulator, transport)
        async with join_agent(model, Person()) as agent:
            [session] = simulator.sessions
            agent.say("Code 4711.")
            await agent.simple_response("Repeat it.", interrupt=False)
            told = [
                event["item"]["role"] if "item" in event else event["type"]
                for event in session.events_in
                if event["type"] in ("conversation.item.create", "response.create")
            ]
            assert told[0] == told[-1] == "response.create"
            assert sorted(told[1:-1]) == ["assistant", "user"]


@both
async def test_reply_that_is_incomplete_before_its_audio_ends(transport):
    async with OpenAISimulator(replies=["Hello my dear friend there."]) as simulator:
        model = realtime(simulator, transport, max_output_tokens=3)
        async with join_agent(model, Person()) as agent:
            async with asyncio.timeout(4):
                await agent.simple_response("Hi.")


@both
async def test_second_uninterruptible_text_is_not_interrupted(transport):
    notices = ["A legal notice.", "Another one, which is quite a lot longer."]
    async with OpenAISimulator(replies=["Yes."], transcripts=["hello"]) as simulator:
        person = Person()
        model = realtime(simulator, transport)
        async with join_agent(model, person) as agent:
            says = [agent.say(text, interruptible=False) for text in notices]
            await says[0]
            await asyncio.sleep(0.5)
            await person.says(0.5)
            await says[1]
            assert says[1].heard_text == notices[1]
            assert says[1].played_ms > len(notices[1]) / 15 * 1000 - 150
            assert "InterruptionEvent" not in event_names(agent)


async def test_new_connection_knows_the_history():
    async with OpenAISimulator(replies=[Reply("Hello."), Reply("Again.")]) as simulator:
        policy = ReconnectPolicy(base_s=0.05)
        model = realtime(simulator, "websocket", reconnect=policy)
        async with join_agent(model, Person()) as agent:
            await agent.simple_response("Hi.")
            await simulator.kill()
            await until(lambda: len(simulator.sessions) == 2 and model.connected)
            speech = await agent.simple_response("Once more.")
            assert speech.heard_text
            assert texts(simulator.sessions[1])[:3] == [
                ("user", "Hi."), ("assistant", "Hello."), ("user", "Once more."),
            ]  # fmt: skip


@both
async def test_images_reach_the_server(transport):
    async with OpenAISimulator() as simulator:
        model = realtime(simulator, transport)
        async with join_agent(model, Person()):
            image = np.random.default_rng(1).integers(0, 256, (1200, 1600, 3), np.uint8)
            model.send_video(VideoFrame(image, 0.0))
            await until(lambda: len(simulator.sessions[0].conversation) == 1)
            [part] = simulator.sessions[0].conversation[0]["content"]
            assert part["type"] == "input_image"


async def test_images_fit_the_default_message_size(monkeypatch):
    async def ask(wire, offer, asked=webrtc.WebRTCWire._exchange_sdp):
        lines = (await asked(wire, offer)).splitlines(keepends=True)
        return "".join(line for line in lines if "max-message-size" not in line)

    monkeypatch.setattr(webrtc.WebRTCWire, "_exchange_sdp", ask)
    async with OpenAISimulator() as simulator:
        model = realtime(simulator, "webrtc")
        async with join_agent(model, Person()):
            image = np.random.default_rng(1).integers(0, 256, (480, 640, 3), np.uint8)
            model.send_video(VideoFrame(image, 0.0))
            await until(lambda: len(simulator.sessions[0].conversation) == 1)


@both
async def test_wrong_key_ends_the_session_with_the_servers_message(transport):
    async with OpenAISimulator() as simulator:
        model = openai.Realtime(transport=transport, base_url=simulator.url, api_key="wrong")
        with pytest.raises(Exception, match="API key") as caught:
            async with join_agent(model, Person()):
                await asyncio.sleep(5)
        assert caught.type is SessionError or caught.group_contains(SessionError)
