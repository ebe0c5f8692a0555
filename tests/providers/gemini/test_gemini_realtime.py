"""Gemini's Realtime behind an agent, against the simulator: conversations and tools."""

import asyncio
import wave
from pathlib import Path

import numpy as np
import pytest
from gemini_scene import conversation, now, realtime, sent, texts, until, virtual

from duologue.errors import ErrorKind, SessionError
from duologue.events import (
    ErrorEvent,
    InterruptionEvent,
    RealtimeConnectedEvent,
    RealtimeReconnectingEvent,
    SayMismatchEvent,
    ToolEndEvent,
    UsageEvent,
    UserTurnEndedEvent,
)
from duologue.items import AgentItem, UserItem
from duologue.providers import gemini
from duologue.simulators.faults import Fault, Stall
from duologue.testing import GeminiSimulator, Reply, ToolUse
from duologue.vad.earshot import EarshotVAD
from fake_edge import agent_items, events_of, join_agent, tone

SPEECH = Path(__file__).parents[2] / "data" / "speech"
LONG = " ".join(f"word{index}" for index in range(40))
"""About 18 seconds of speech."""
PREVIEW = "gemini-3.1-flash-live-preview"


# Connecting


@virtual
async def test_a_conversation():
    async with conversation(["Hello.", LONG], ["Hi.", "Tell me."]) as (agent, person, server):
        (event,) = events_of(agent, RealtimeConnectedEvent)
        (session,) = server.sessions
        shown = {k: v for k, v in session.setup.items() if k != "sessionResumption"}
        assert event.session_config == shown
        await person.speak(0.5)
        await asyncio.sleep(3)
        await person.speak(0.5)
        await asyncio.sleep(2)
        await person.speak(0.5)
        await until(lambda: events_of(agent, InterruptionEvent))
        there = [(type(item), item.text) for item in agent.conversation][:3]
        assert there == [(UserItem, "Hi."), (AgentItem, "Hello."), (UserItem, "Tell me.")]
        (_, second) = agent_items(agent)
        assert second.state == "cut"
        assert LONG.startswith(second.text)
        assert events_of(agent, UsageEvent)[0].input["audio"] > 0
        assert events_of(agent, UsageEvent)[0].output["audio"] > 0
        assert not events_of(agent, ErrorEvent)


@virtual
async def test_voice_and_language_reach_the_service():
    async with conversation(voice="Puck", language="de-DE", media_resolution="low") as (
        _,
        _,
        server,
    ):
        generation = server.sessions[0].setup["generationConfig"]
        assert generation["speechConfig"] == {
            "voiceConfig": {"prebuiltVoiceConfig": {"voiceName": "Puck"}},
            "languageCode": "de-DE",
        }
        assert generation["mediaResolution"] == "MEDIA_RESOLUTION_LOW"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"api_key": "wrong"}, "API key not valid. Please pass a valid API key. (close code 1007)"),
        ({"model": "gemini-0"}, "models/gemini-0 is not found for API version v1, or is not"),
        (
            {"extra": {"noSuchField": 1}},
            'Invalid JSON payload received. Unknown name "noSuchField"',
        ),
    ],
)
@virtual
async def test_a_permanent_error_ends_the_session_at_once_in_the_services_words(options, words):
    async with GeminiSimulator(unknown_models=["gemini-0"]) as server:
        began = now()
        model = realtime(server, **options)
        with pytest.raises(SessionError) as caught:
            async with join_agent(model):
                pass
        assert now() - began < 2
        assert caught.value.kind is ErrorKind.FATAL
        assert str(caught.value).startswith(words)
        assert "\n" not in str(caught.value)
        assert len(server.failures) <= 1


@pytest.mark.parametrize(("fault", "tries"), [("busy", 3), ("down", 3)])
@virtual
async def test_a_busy_service_is_tried_again(fault, tries):
    async with conversation(["Hi."], simulator={"faults": [fault]}) as (agent, _, server):
        assert len(server.fired_actions) == tries - 1
        assert (await agent.simple_response("Hello.")).heard_text == "Hi."


@virtual
async def test_a_service_that_refuses_the_key_is_not_tried_again():
    async with GeminiSimulator(faults=["unauthorized"]) as server:
        with pytest.raises(SessionError, match="invalid authentication credentials") as caught:
            async with join_agent(realtime(server)):
                pass
        assert (caught.value.kind, caught.value.code) == (ErrorKind.FATAL, "UNAUTHENTICATED")
        assert len(server.fired_actions) == 1


@pytest.mark.parametrize("fault", ["unknown", "garbage", "duplicate", "slow"])
@virtual
async def test_unusual_traffic_changes_nothing(fault):
    async with conversation(["Hi."], simulator={"faults": [fault]}) as (agent, _, server):
        speech = await agent.simple_response("Hello.")
        assert speech.heard_text == "Hi."
        assert server.fired_actions
        assert not events_of(agent, RealtimeReconnectingEvent)
        assert not events_of(agent, ErrorEvent)


@virtual
async def test_a_server_that_answers_pings_slowly_is_not_given_up():
    """Google's servers take up to 30 s on working connections."""
    async with conversation(["Hi."]) as (agent, _, server):
        server.faults = [Fault(Stall("reading", 30.0), at=0.0)]
        await asyncio.sleep(40)
        assert server.fired_actions
        assert (await agent.simple_response("Hello.")).heard_text == "Hi."
        assert not events_of(agent, RealtimeReconnectingEvent)


# Audio


@pytest.mark.parametrize("pace", [0.0, 1.3, 4.0])
@virtual
async def test_bursts_are_played_without_a_gap(pace):
    async with conversation([LONG], simulator={"audio_pace": pace}) as (agent, person, _server):
        speech = await agent.simple_response("Tell me.")
        assert person.gaps == []
        seconds = len(LONG) / 15
        assert speech.played_ms == pytest.approx(seconds * 1000, abs=40)
        wanted = tone(seconds)
        heard = person.played_audio[: len(wanted)].astype(int)
        # Sample by sample: nothing is lost, duplicated or misplaced.
        assert np.abs(heard - wanted[: len(heard)]).max() < 200


@virtual
async def test_a_delayed_burst_is_played_without_a_gap():
    faults = {"faults": ["burst"], "audio_pace": 4.0}
    async with conversation([LONG], simulator=faults) as (agent, person, _server):
        speech = await agent.simple_response("Tell me.")
        assert speech.heard_text == LONG
        assert person.gaps == []


@virtual
async def test_the_agents_turn_ends_when_playing_ends():
    async with conversation([LONG]) as (agent, _person, server):
        speech = agent.simple_response("Tell me.")
        await until(lambda: "serverContent.generationComplete" in server.sessions[0].messages_out)
        assert not speech.done
        assert agent.llm.capabilities.output_rate == 24000
        at = now()
        await speech
        assert now() - at > 10


# User turns


def clip(name):
    with wave.open(str(SPEECH / f"{name}.wav"), "rb") as file:
        assert (file.getframerate(), file.getnchannels()) == (16000, 1)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2")


@pytest.mark.parametrize("name", ["austen-0880", "austen-0930"])
@virtual
async def test_real_speech_has_its_turns_at_the_right_times(name):
    pytest.importorskip("earshot", reason="the gemini extra is not installed")
    samples = clip(name)
    options = {"vad": None, "turn_detection": gemini.AutomaticActivity(silence_duration_ms=500)}
    async with conversation(simulator={"backend": "echo"}, **options) as (agent, person, server):
        assert isinstance(agent.llm.vad, EarshotVAD)
        times = {}

        def note(event):
            times.setdefault(type(event).__name__, []).append(now())

        agent.events.tap(note)
        await asyncio.sleep(1)
        began = now()
        person.speech = samples
        await asyncio.sleep(len(samples) / 16000 + 6)
        seconds = len(samples) / 16000
        (started,) = times["UserTurnStartedEvent"]
        (ended,) = times["UserTurnEndedEvent"]
        # The clip begins and ends with a breath.
        assert 0 <= started - began < 0.5
        assert seconds - 0.5 < ended - began < seconds + 1.2
        assert times["AgentTurnStartedEvent"][0] >= ended
        # Nothing interrupted the echo.
        assert not events_of(agent, InterruptionEvent)
        assert len(server.sessions[0].user_turns) == 1
        assert len(events_of(agent, UserTurnEndedEvent)) == 1


@virtual
async def test_local_detection_interrupts_once_before_the_service_reports_it():
    async with conversation([LONG, "Yes?"], ["Tell me.", "Stop."]) as (agent, person, server):
        await person.speak(0.5)
        await asyncio.sleep(3)
        out = server.sessions[0].messages_out
        cut = []

        def note(event):
            if isinstance(event, InterruptionEvent):
                cut.append(out.count("serverContent.interrupted"))

        agent.events.tap(note)
        await person.speak(0.8)
        await asyncio.sleep(6)
        assert agent.llm.epoch == 1
        assert len(cut) == 1
        assert out.count("serverContent.interrupted") == 1
        assert [i.text for i in agent.conversation][-2:] == ["Stop.", "Yes?"]
        assert not events_of(agent, ErrorEvent)


class Deaf:
    """Voice activity detection that never detects anything."""

    rate = 16000
    frame_samples = 256

    def stream(self):
        return self

    def push(self, samples):
        return 0.0


@virtual
async def test_without_local_detection_the_services_signal_and_transcripts_interrupt():
    options = {"vad": Deaf()}
    async with conversation([LONG, "Yes?"], ["Tell me.", "Stop."], **options) as (
        agent,
        person,
        server,
    ):
        await person.speak(0.5)
        await asyncio.sleep(3)
        assert person.at
        began = now()
        await person.speak(0.8)
        await asyncio.sleep(6)
        assert agent.llm.epoch == 1
        (event,) = events_of(agent, InterruptionEvent)
        assert 1000 < event.played_ms < 4000
        assert not [t for t in person.at if began + 0.1 < t < began + 0.6]
        assert not [t for t in person.at if began + 1.6 < t < began + 1.8]
        assert [i.text for i in agent_items(agent)] == [event.heard_text, "Yes?"]
        assert server.sessions[0].messages_out.count("serverContent.interrupted") == 1


@virtual
async def test_an_interruption_of_nothing_changes_nothing():
    async with conversation(["Hi.", "Ho."]) as (agent, _person, server):
        await agent.simple_response("Hello.")
        await asyncio.sleep(2)
        session = server.sessions[0]
        session.emit("serverContent.interrupted", {"serverContent": {"interrupted": True}})
        await asyncio.sleep(1)
        assert agent.llm.epoch == 0
        assert not events_of(agent, InterruptionEvent)
        assert agent_items(agent)[0].state == "heard"
        assert (await agent.simple_response("And?")).heard_text == "Ho."


@pytest.mark.parametrize("model", ["gemini-3.8-live", "gemini-2.5-flash-native-audio"])
@pytest.mark.parametrize("told", [True, False])
@virtual
async def test_truncation_is_reported_unless_that_is_switched_off(model, told):
    options = {"report_truncation": told, "model": model}
    async with conversation([LONG, "Yes?"], **options) as (agent, _person, server):
        speech = agent.simple_response("Tell me.")
        await asyncio.sleep(2.5)
        agent.interrupt()
        await speech
        await asyncio.sleep(20)
        notes = [words for _, words in texts(server.sessions[0]) if "interrupted you" in words]
        if told:
            (note,) = notes
            assert note.endswith(
                f'Of your last message only this was heard: "{speech.heard_text}"]'
            )
        else:
            assert notes == []
        assert agent_items(agent)[0].text == speech.heard_text
        assert (await agent.simple_response("Are you there?")).heard_text == "Yes?"


@virtual
async def test_manual_turns():
    options = {"turn_detection": gemini.ManualTurns()}
    replies = ["One.", LONG, Reply(tools=[ToolUse("slow")]), "Three."]

    def register(agent):
        @agent.tool
        async def slow() -> str:
            """Take two seconds, in which the microphone is open."""
            await asyncio.sleep(2)
            return "done"

    words = ["first", "second", "third"]
    async with conversation(replies, words, agent={"prepare": register}, **options) as (
        agent,
        person,
        server,
    ):
        for _ in range(2):
            await person.speak(0.6)
            await asyncio.sleep(1)  # The microphone stays open, before and after.
            agent.llm.end_turn()
            await asyncio.sleep(4)
        # The person speaks during the reply: the program begins the turn.
        agent.interrupt()
        assert agent.llm.epoch == 1
        await person.speak(0.6)
        agent.llm.end_turn()
        await asyncio.sleep(8)
        assert [i.text for i in agent.conversation if isinstance(i, UserItem)] == words
        assert [i.text for i in agent_items(agent)][::2] == ["One.", "Three."]
        (end,) = events_of(agent, ToolEndEvent)
        assert end.status == "done"
        started = len(sent(server, "activityStart"))
        assert started == len(sent(server, "activityEnd")) + 1  # The next turn is open.
        assert agent.llm.epoch == 1
        assert len(events_of(agent, InterruptionEvent)) == 1
        assert not events_of(agent, ErrorEvent)


@virtual
async def test_interrupting_a_running_tool_begins_a_turn():
    options = {"turn_detection": gemini.ManualTurns()}

    def register(agent):
        @agent.tool(cancel_on_interrupt=True)
        async def slow() -> str:
            """Take ten seconds."""
            await asyncio.sleep(10)
            return "done"

    replies = [Reply(tools=[ToolUse("slow")]), "Two."]
    async with conversation(
        replies, ["first", "second"], agent={"prepare": register}, **options
    ) as (
        agent,
        person,
        server,
    ):
        await person.speak(0.6)
        agent.llm.end_turn()
        await asyncio.sleep(2)
        agent.interrupt()
        await person.speak(1.5)
        agent.llm.end_turn()
        await asyncio.sleep(4)
        assert [end.status for end in events_of(agent, ToolEndEvent)] == ["cancelled"]
        assert [i.text for i in agent.conversation if isinstance(i, UserItem)] == [
            "first",
            "second",
        ]
        assert [i.text for i in agent_items(agent)] == ["Two."]
        heard = server.sessions[0].user_turns[1]
        assert heard.end - heard.start >= 1.5 * 16000
        assert not events_of(agent, ErrorEvent)


@virtual
async def test_transcripts_after_the_reply_become_final_without_more_speech():
    simulator = {"transcription_delay": 0.7}
    async with conversation(["One."], ["first"], simulator=simulator) as (agent, person, _server):
        await person.speak(0.5)
        await asyncio.sleep(6)
        assert [item.text for item in agent.conversation] == ["first", "One."]


@virtual
async def test_ending_a_turn_twice_ends_it_once():
    options = {"turn_detection": gemini.ManualTurns()}
    replies = [Reply("Yes.", after_s=0.5), "No."]
    async with conversation(replies, ["first"], **options) as (agent, person, server):
        await person.speak(0.6)
        agent.llm.end_turn()
        await asyncio.sleep(0.15)
        agent.llm.end_turn()
        await asyncio.sleep(4)
        assert len(sent(server, "activityEnd")) == 1
        assert len(events_of(agent, UserTurnEndedEvent)) == 1
        assert [item.text for item in agent.conversation] == ["first", "Yes."]
        assert not agent.llm.pending


# Scripted text


@virtual
async def test_scripted_text_is_said_and_a_mismatch_is_reported():
    async with conversation(simulator={"paraphrase": False}) as (agent, _person, _server):
        assert (await agent.say("Exactly this.")).heard_text == "Exactly this."
        assert not events_of(agent, SayMismatchEvent)
    async with conversation(["Something else."], simulator={"paraphrase": True}) as (agent, _, _):
        speech = await agent.say("Exactly this.")
        (event,) = events_of(agent, SayMismatchEvent)
        assert event == SayMismatchEvent(speech.id, "Exactly this.", "Something else.")


@virtual
async def test_scripted_text_without_transcripts():
    async with conversation(output_transcription=None) as (agent, _person, _server):
        assert (await agent.say("Exactly this.")).heard_text == "Exactly this."
        assert not events_of(agent, SayMismatchEvent)


@virtual
async def test_a_model_that_stays_silent_ends_the_request():
    async with conversation([Reply(""), "Yes."]) as (agent, _person, _server):
        began = now()
        speech = await agent.simple_response("Hm.")
        assert now() - began < 1
        assert speech.heard_text == ""
        assert (await agent.simple_response("Hello?")).heard_text == "Yes."


# Tools


def schedules(scheduling, seconds=1.0):
    def register(agent):
        @agent.tool(scheduling=scheduling)
        async def look_up() -> str:
            """Look something up."""
            await asyncio.sleep(seconds)
            return "found"

    return {"prepare": register}


@pytest.mark.parametrize("scheduling", ["when_idle", "silent", "interrupt"])
@virtual
async def test_a_model_speaks_while_a_tool_runs(scheduling):
    replies = [Reply("Let me see.", tools=[ToolUse("look_up")]), LONG, "Found it."]
    async with conversation(replies, ["first"], agent=schedules(scheduling, 3.0)) as (
        agent,
        person,
        server,
    ):
        await person.speak(0.5)
        await until(lambda: agent_items(agent) and agent_items(agent)[0].state == "heard")
        speech = agent.simple_response("And meanwhile?", interrupt=False)
        await until(lambda: events_of(agent, ToolEndEvent))
        assert speech.interrupted is (scheduling == "interrupt")
        await asyncio.sleep(25)
        (answer,) = sent(server, "toolResponse")
        (told,) = answer["functionResponses"]
        assert told["scheduling"] == scheduling.upper()
        assert told["response"] == {"output": "found"}
        said = [item.text for item in agent_items(agent)]
        assert said[0] == "Let me see."
        assert ("Found it." in said) is (scheduling != "silent")
        if scheduling == "when_idle":
            assert said == ["Let me see.", LONG, "Found it."]
        assert not agent.llm.pending
        assert not events_of(agent, ErrorEvent)


@virtual
async def test_a_result_that_interrupts_is_spoken_at_once():
    replies = [Reply("Let me see.", tools=[ToolUse("look_up")]), LONG, "Found it."]
    async with conversation(replies, ["first"], agent=schedules("interrupt", 3.0)) as (
        agent,
        person,
        _server,
    ):
        await person.speak(0.5)
        await until(lambda: agent_items(agent) and agent_items(agent)[0].state == "heard")
        agent.simple_response("And meanwhile?", interrupt=False)
        await until(lambda: events_of(agent, ToolEndEvent))
        at = now()
        await until(lambda: any(item.text == "Found it." for item in agent_items(agent)))
        assert now() - at < 1.5


@virtual
async def test_a_tool_reports_its_progress():
    def register(agent):
        @agent.tool(scheduling="when_idle")
        async def book():
            """Book a room."""
            yield "asking"
            await asyncio.sleep(3)
            yield "booked"

    replies = [Reply(tools=[ToolUse("book")]), "I am asking.", "It is booked."]
    async with conversation(replies, ["book it"], agent={"prepare": register}) as (
        agent,
        person,
        server,
    ):
        await person.speak(0.5)
        await asyncio.sleep(10)
        told = [one["functionResponses"][0] for one in sent(server, "toolResponse")]
        assert [one["response"] for one in told] == [{"output": "asking"}, {"output": "booked"}, {}]
        assert [one.get("willContinue") for one in told] == [True, True, False]
        assert [one["scheduling"] for one in told] == ["WHEN_IDLE", "WHEN_IDLE", "SILENT"]
        (end,) = events_of(agent, ToolEndEvent)
        assert (end.status, end.output) == ("done", "booked")
        assert [item.text for item in agent_items(agent)] == ["I am asking.", "It is booked."]
        assert not agent.llm.pending
        assert not events_of(agent, ErrorEvent)


@virtual
async def test_calls_that_the_service_cancels_are_cancelled():
    def register(agent):
        @agent.tool
        async def slow() -> str:
            """Take ten seconds."""
            await asyncio.sleep(10)
            return "done"

    replies = [Reply(tools=[ToolUse("slow"), ToolUse("slow")]), "Two."]
    async with conversation(replies, ["first", "second"], agent={"prepare": register}) as (
        agent,
        person,
        server,
    ):
        await person.speak(0.5)
        await asyncio.sleep(2)
        await person.speak(0.5)
        await asyncio.sleep(4)
        assert "toolCallCancellation" in server.sessions[0].messages_out
        assert [end.status for end in events_of(agent, ToolEndEvent)] == ["cancelled"] * 2
        assert sent(server, "toolResponse") == []
        assert [item.text for item in agent_items(agent)] == ["Two."]
        assert not events_of(agent, ErrorEvent)


@virtual
async def test_parallel_calls_run_at_the_same_time():
    def register(agent):
        @agent.tool
        async def slow(n: int) -> str:
            """Take two seconds."""
            await asyncio.sleep(2)
            return str(n)

    calls = [ToolUse("slow", {"n": n}) for n in range(4)]
    async with conversation([Reply(tools=calls), "All."], agent={"prepare": register}) as (
        agent,
        _person,
        _server,
    ):
        began = now()
        assert (await agent.simple_response("Go.")).heard_text == "All."
        assert now() - began < 4
        assert sorted(end.output for end in events_of(agent, ToolEndEvent)) == ["0", "1", "2", "3"]
