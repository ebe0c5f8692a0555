"""Ends of every kind, and servers that misbehave."""

import asyncio
import time

import numpy as np
import pytest
from conformance_targets import SPEAKS_BY_ITSELF, TARGETS, conformance, conversation

from duologue.audio import AudioFrame
from duologue.errors import SessionClosedError, SessionError
from duologue.events import (
    ErrorEvent,
    RateLimitsEvent,
    RealtimeConnectedEvent,
    RealtimeDisconnectedEvent,
    RealtimeReconnectedEvent,
    UsageEvent,
)
from duologue.testing import Reply, ToolUse, run_virtual
from fake_edge import agent_items, events_of

OPENAI = [name for name in TARGETS if name.startswith("openai")]


def openai_only(function):
    @pytest.mark.parametrize("target", OPENAI)
    def run(target):
        run_virtual(function(target), grace=0.0)

    run.__name__ = function.__name__
    return run


@conformance
@pytest.mark.parametrize("moment", [0.0, 0.2, 0.5, 0.9, 1.2, 1.5, 2.0, 3.0, 4.5])
async def test_closing_at_every_point_of_a_conversation(target, moment):
    replies = [Reply(tools=[ToolUse("slow")]), "That was it.", "More."]

    def register(agent):
        @agent.tool
        async def slow() -> str:
            """Take a second."""
            await asyncio.sleep(1)
            return "result"

    options = {"agent": {"prepare": register}}
    async with conversation(target, replies, ["the question"], **options) as (agent, person, _far):
        person.voice = True
        speech = agent.say("One moment.")
        await asyncio.sleep(min(moment, 1.0))
        person.voice = False
        await asyncio.sleep(max(0.0, moment - 1.0))
        loop = asyncio.get_running_loop()
        began, real = loop.time(), time.perf_counter()
        await agent.close()
        assert loop.time() - began <= 1
        assert time.perf_counter() - real < 1
        await agent.close()
        assert speech.done
        with pytest.raises(SessionClosedError):
            agent.say("late")
    (end,) = events_of(agent, RealtimeDisconnectedEvent)
    assert end.clean
    assert not agent.llm.alive


@openai_only
async def test_wrong_key_is_reported_at_once_in_the_servers_words(target):
    with pytest.raises(SessionError, match=r"(?i)api key"):
        async with conversation(target, api_key="sk-wrong"):
            pass
    assert asyncio.get_running_loop().time() < 1


@openai_only
async def test_refused_session_does_not_hang(target):
    with pytest.raises(SessionError, match="nonsense"):
        async with conversation(target, extra={"nonsense": 1}):
            pass
    assert asyncio.get_running_loop().time() < 2


@openai_only
async def test_session_reconnects_after_a_clean_close_of_the_server(target):
    from duologue.simulators.faults import Close, Fault

    async with conversation(target, ["Here."]) as (agent, _person, far):
        if not target.endswith("webrtc"):
            far.simulator.faults = [Fault(Close(1000, "bye"), at=0.5)]
            await far.drop_connection()
            await asyncio.sleep(2)
        else:
            call_id = next(iter(far.simulator._calls))
            await far.simulator.hang_up(call_id)
            await asyncio.sleep(5)
        assert agent.llm.connected
        assert events_of(agent, RealtimeReconnectedEvent)
        assert (await agent.simple_response("there?")).heard_text == "Here."


@openai_only
async def test_unknown_duplicate_and_malformed_events_change_nothing(target):
    from duologue.simulators.faults import Duplicate, Fault, Garbage, Unknown

    faults = [
        Fault(Unknown(), on="response.created"),
        Fault(Garbage(), on="response.created"),
        Fault(Duplicate("response.created")),
        Fault(Duplicate("response.output_audio.delta"), times=20),
        Fault(Duplicate("response.output_audio_transcript.delta"), times=20),
        Fault(Duplicate("response.done")),
    ]
    async with conversation(target, ["All is well."], simulator={"faults": faults}) as (
        agent,
        person,
        _far,
    ):
        speech = await agent.simple_response("well?")
        assert speech.heard_text == "All is well."
        assert len(person.played_audio) / 24000 == pytest.approx(12 / 15, abs=0.061)
        assert not events_of(agent, ErrorEvent)


@openai_only
async def test_server_errors_are_reported_and_the_session_continues(target):
    from duologue.simulators.faults import Error, Fault

    faults = [Fault(Error("server_error", "something broke"), at=0.5)]
    async with conversation(target, ["Fine."], simulator={"faults": faults}) as (
        agent,
        _person,
        _far,
    ):
        await asyncio.sleep(1)
        (error,) = events_of(agent, ErrorEvent)
        assert (error.message, error.code) == ("something broke", "server_error")
        assert (await agent.simple_response("fine?")).heard_text == "Fine."


@openai_only
async def test_usage_and_rate_limits_are_reported(target):
    async with conversation(target, ["Some words."], ["the question"]) as (agent, person, _far):
        await person.speak(0.6)
        await asyncio.sleep(3)
        (usage,) = events_of(agent, UsageEvent)
        assert usage.output["audio" if target in SPEAKS_BY_ITSELF else "text"] > 0
        assert usage.input["text"] >= 0
        assert events_of(agent, RateLimitsEvent)[0].limits[0].limit > 0


@openai_only
async def test_session_is_set_up_as_asked_for(target):
    from duologue.providers.openai import NoiseReduction, SemanticVAD, Transcription

    options = {
        "model": "gpt-realtime-2.1-mini",
        "voice": "cedar",
        "turn_detection": SemanticVAD("high"),
        "transcription": Transcription(language="en"),
        "noise_reduction": NoiseReduction("near_field"),
        "speed": 1.25,
        "max_output_tokens": 2000,
        "extra": {"audio": {"input": {"turn_detection": {"interrupt_response": False}}}},
    }
    async with conversation(target, agent={"instructions": "Be kind."}, **options) as (
        agent,
        _person,
        far,
    ):
        session = events_of(agent, RealtimeConnectedEvent)[0].session_config
        assert session == far.session.session_object
        assert session["model"] == "gpt-realtime-2.1-mini"
        assert session["instructions"] == "Be kind."
        assert session["max_output_tokens"] == 2000
        hears, speaks = session["audio"]["input"], session["audio"]["output"]
        assert (speaks["voice"], speaks["speed"]) == ("cedar", 1.25)
        assert hears["turn_detection"]["eagerness"] == "high"
        assert hears["turn_detection"]["interrupt_response"] is False
        assert hears["transcription"]["language"] == "en"
        assert hears["noise_reduction"]["type"] == "near_field"


@openai_only
async def test_say_mismatch_is_reported(target):
    if target not in SPEAKS_BY_ITSELF:
        pytest.skip("a TTS says exactly what it is given")
    from duologue.events import SayMismatchEvent

    options = {"simulator": {"paraphrase": True}}
    async with conversation(target, ["Something else."], **options) as (agent, _person, _far):
        speech = await agent.say("Exactly this.")
        (event,) = events_of(agent, SayMismatchEvent)
        assert event == SayMismatchEvent(speech.id, "Exactly this.", "Something else.")
        assert [i.text for i in agent_items(agent)] == ["Something else."]


@openai_only
async def test_manual_turns(target):
    from duologue.providers.openai import ManualTurns

    options = {"turn_detection": ManualTurns()}
    async with conversation(target, ["Yes.", "No."], ["is it you"], **options) as (
        agent,
        person,
        _far,
    ):
        await person.speak(0.6)
        await asyncio.sleep(2)
        assert not agent.conversation.items
        agent.llm.end_turn()
        await asyncio.sleep(3)
        assert [i.text for i in agent.conversation] == ["is it you", "Yes."]
        assert not events_of(agent, ErrorEvent)


def test_peer_that_does_not_read_is_bounded():
    from duologue.simulators.faults import Fault, Stall

    async def run():
        async with conversation("openai-websocket", ["Hi."]) as (agent, person, far):
            connection = agent.llm._session.connections.current.connection
            far.simulator.faults = [Fault(Stall("reading", 8.0), on="input_audio_buffer.append")]
            person.voice = True
            frame = AudioFrame(np.full(4800, 9000, np.int16), 24000)
            for _ in range(600):
                agent.llm.send_audio(frame)
                await asyncio.sleep(0.002)
            assert connection.dropped_audio > 0 or agent.llm._session.connections.current is None
            assert connection._queued_s <= 15.3
            at = asyncio.get_running_loop().time()
            agent.interrupt()
            assert asyncio.get_running_loop().time() == at
            await agent.close()

    run_virtual(run(), grace=0.0)
