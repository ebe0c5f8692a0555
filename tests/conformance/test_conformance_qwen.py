"""The conformance tests for Qwen's own protocol: its events, ends and models."""

import asyncio
import functools

import numpy as np
import pytest
from conformance_targets import conversation

from duologue.errors import ConfigError, SessionError, UnsupportedError
from duologue.events import (
    ErrorEvent,
    InterruptionEvent,
    RealtimeConnectedEvent,
    RealtimeDisconnectedEvent,
    RealtimeReconnectedEvent,
    RealtimeReconnectingEvent,
    SayMismatchEvent,
    UsageEvent,
    UserTurnStartedEvent,
)
from duologue.items import UserItem
from duologue.realtime.reconnect import ReconnectPolicy
from duologue.testing import Reply, ToolUse, run_virtual
from duologue.video import VideoFrame
from fake_edge import agent_items, events_of

qwen = functools.partial(conversation, "qwen")
both_ends = pytest.mark.parametrize("done", [False, True], ids=["no-done", "done"])

NEW = "qwen3.8-omni-flash-realtime"
OLD = "qwen3-omni-flash-realtime"
LONG = " ".join(f"word{index}" for index in range(40))

STEPS = [
    "session.created",
    "session.updated",
    "input_audio_buffer.append",
    "input_audio_buffer.speech_started",
    "input_audio_buffer.speech_stopped",
    "input_audio_buffer.committed",
    "conversation.item.created",
    "conversation.item.input_audio_transcription.delta",
    "conversation.item.input_audio_transcription.completed",
    "response.created",
    "response.output_item.added",
    "response.content_part.added",
    "response.audio_transcript.delta",
    "response.audio.delta",
    "response.audio.done",
    "response.output_item.done",
    "response.done",
]
"""Events of either side in the order of a turn (Model Studio, server events)."""


def virtual(function):
    """Run a test in virtual time."""

    @functools.wraps(function)
    def run(*args, **more):
        run_virtual(function(*args, **more), grace=0.0)

    return run


def users(agent):
    return [i.text for i in agent.conversation if isinstance(i, UserItem)]


def sent(session, kind):
    return [event for event in session.events_in if event["type"] == kind]


# Lost connections


@pytest.mark.parametrize("step", STEPS)
@virtual
async def test_connection_lost_at_every_step_of_the_protocol(step):
    from duologue.simulators.faults import Fault, Reset

    first = step in ("session.created", "session.updated")
    simulator = {"faults": [Fault(Reset(), on=step)] if first else []}
    answers, words = ["An answer."] * 4, ["the only question"]
    async with qwen(answers, words, simulator=simulator) as (agent, person, far):
        await asyncio.sleep(1)
        far.simulator.faults = [] if first else [Fault(Reset(), on=step)]
        await person.speak(0.8)
        await asyncio.sleep(20)
        assert far.simulator.fired_actions
        assert users(agent) == words
        assert agent_items(agent)[0].text.endswith("An answer.")
        assert len(agent_items(agent)) == 1
        assert agent.llm.lost_audio == 0
        assert len(far.simulator.sessions) == 2
        assert not events_of(agent, ErrorEvent)


@pytest.mark.parametrize("delay", [0.5, 1.5])
@pytest.mark.parametrize("moment", [0.9, 1.3, 1.6, 1.8, 2.4])
@virtual
async def test_turn_is_answered_once_although_its_transcript_comes_late(delay, moment):
    simulator = {"transcription_delay": delay}
    words = ["the first one", "the second one"]
    async with qwen(["An answer."] * 6, words, simulator=simulator) as (agent, person, far):

        async def lose_connection():
            await asyncio.sleep(moment)
            await far.drop_connection()

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(lose_connection())
            await person.speak(0.8)
            await asyncio.sleep(14)
        assert users(agent) == words[:1]
        assert len(agent_items(agent)) == 1
        assert isinstance(agent.conversation.items[0], UserItem)
        assert not events_of(agent, InterruptionEvent)
        # Nothing can be moved there: the turn may stand behind its reply, but nothing stands twice,
        # and the model is not told that its reply was not heard.
        session = far.session
        written = [str(e["item"]) for e in sent(session, "conversation.item.create")]
        assert not [item for item in written if "heard" in item]
        assert [w for role, w in far.history() if role == "user"] == words[:1]
        await person.speak(0.8)
        await asyncio.sleep(6)
        assert users(agent) == words
        assert len(agent_items(agent)) == 2
        assert not agent.llm.pending
        assert agent.llm.lost_audio == 0
        assert not events_of(agent, ErrorEvent)


@pytest.mark.parametrize("code", [1000, 1011, 1013])
@virtual
async def test_close_by_the_service_causes_one_reconnect(code):
    from duologue.simulators.faults import Close, Fault

    async with qwen(["Here."]) as (agent, _person, far):
        far.simulator.faults = [Fault(Close(code, "bye"), on="input_audio_buffer.append")]
        await asyncio.sleep(3)
        assert len(far.simulator.sessions) == 2
        (event,) = events_of(agent, RealtimeReconnectedEvent)
        assert event.outcome == "replayed"
        assert (await agent.simple_response("there?")).heard_text == "Here."
        assert not events_of(agent, RealtimeDisconnectedEvent)


@pytest.mark.parametrize("code", [1000, 1006])
@virtual
async def test_service_that_closes_every_session_causes_no_busy_loop(code):
    from duologue.simulators.faults import Close, Fault, Reset

    what = Reset() if code == 1006 else Close(code)
    faults = [Fault(what, on="session.updated", times=1000)]
    policy = ReconnectPolicy(base_s=0.2, cap_s=2.0, max_attempts=5)
    async with qwen(reconnect=policy) as (agent, _person, far):
        loop = asyncio.get_running_loop()
        far.simulator.faults = faults
        began = loop.time()
        await far.drop_connection()
        with pytest.raises(SessionError):
            await agent.finish()
        assert loop.time() - began > 0.5 * (0.2 + 0.4 + 0.8 + 1.6 + 2.0)
        assert len(events_of(agent, RealtimeReconnectingEvent)) == 5
        assert len(far.simulator.sessions) <= 7
        (end,) = events_of(agent, RealtimeDisconnectedEvent)
        assert not end.clean


@virtual
async def test_session_survives_the_end_after_two_hours():
    """A service that ends sessions without warning is reconnected to, with a gap."""
    turns = [f"question number {i}" for i in range(8)]
    simulator = {"max_session_s": 20.0}
    async with qwen(["An answer."] * 20, turns, simulator=simulator) as (agent, person, far):
        for _ in turns:
            await person.speak(0.8)
            await asyncio.sleep(6)
        assert users(agent) == turns
        assert len(far.simulator.sessions) >= 3
        assert agent.llm.lost_audio == 0
        assert [w for role, w in far.history() if role == "user"] == turns


@virtual
async def test_older_model_starts_fresh_and_says_so():
    async with qwen(["One.", "Two."], ["first question"], model=OLD) as (agent, person, far):
        await person.speak(0.6)
        await asyncio.sleep(3)
        await far.drop_connection()
        await asyncio.sleep(2)
        (event,) = events_of(agent, RealtimeReconnectedEvent)
        assert event.outcome == "fresh"
        assert far.history() == []
        speech = await agent.simple_response("Are you there?")
        assert speech.heard_text == "Two."
        [asked] = sent(far.session, "response.create")
        assert asked["response"]["instructions"].endswith("Are you there?")
        assert not sent(far.session, "conversation.item.create")
        assert not events_of(agent, ErrorEvent)


# Interruptions


@both_ends
@pytest.mark.parametrize("pace", [1.0, 0.0], ids=["being-made", "made"])
@virtual
async def test_voice_flushes_at_once_if_that_is_left_to_the_service(done, pace):
    from duologue.providers.qwen import ServerVAD

    simulator = {"done_after_cancel": done}
    words = ["tell me more", "stop please"]
    replies = [Reply(LONG, pace=pace), "Of course."]
    stops = ServerVAD(silence_duration_ms=300, interrupt_response=True)
    options = {"simulator": simulator, "turn_detection": stops}
    async with qwen(replies, words, **options) as (agent, person, _far):
        await person.speak(0.6)
        await asyncio.sleep(3)
        assert person.at
        told = {}
        loop = asyncio.get_running_loop()
        agent.events.tap(lambda event: told.update({type(event): (loop.time(), event)}))
        await person.speak(0.8)
        await asyncio.sleep(4)
        started_at, _ = told[UserTurnStartedEvent]
        at, event = told[InterruptionEvent]
        # The service has dropped the reply that it was generating. A complete reply is held at
        # once, and dropped when the audio was more than a cough.
        assert at == started_at if pace else at - started_at == pytest.approx(0.3, abs=0.04)
        assert max(t for t in person.at if t < started_at + 0.8) <= started_at + 0.02
        assert len(events_of(agent, InterruptionEvent)) == 1
        assert agent.llm.epoch == event.epoch == 1
        first, second = agent_items(agent)
        assert (first.text, first.state) == (event.heard_text, "cut")
        assert second.text == "Of course."
        assert not events_of(agent, ErrorEvent)


@both_ends
@pytest.mark.parametrize("moment", [0.0, 0.1, 0.3, 1.0])
@virtual
async def test_cancelled_reply_makes_way_for_the_next(done, moment):
    simulator = {"done_after_cancel": done}
    replies = [Reply(LONG, after_s=0.2, pace=1.0), "Yes?"]
    async with qwen(replies, simulator=simulator) as (agent, _person, far):
        agent.simple_response("Tell me a long story.")
        await asyncio.sleep(moment)
        agent.interrupt()
        loop = asyncio.get_running_loop()
        began = loop.time()
        speech = await agent.simple_response("Are you there?")
        assert speech.heard_text == "Yes?"
        # Without response.done, and without an item that could end, only a timeout helps.
        assert loop.time() - began < (2.0 if done or moment >= 0.3 else 7.0)
        assert len(sent(far.session, "response.cancel")) == 1
        assert not agent.llm.pending
        assert not events_of(agent, ErrorEvent)


@virtual
async def test_request_during_an_active_response_is_sent_again():
    from duologue.simulators.faults import Delay, Fault

    async with qwen(["Automatic.", "Asked."], transcription=None) as (agent, person, far):
        far.simulator.faults = [Fault(Delay(200.0), on="input_audio_buffer.speech_stopped")]
        await person.speak(0.6)
        while "response.created" not in far.session.events_out:
            await asyncio.sleep(0.005)
        # The service has begun to reply, and its event is still on its way.
        speech = agent.simple_response("And this?", interrupt=False)
        await speech
        assert far.session.events_out.count("error") == 1
        assert len(sent(far.session, "response.create")) == 2
        assert [i.text for i in agent_items(agent)] == ["Automatic.", "Asked."]
        assert speech.heard_text == "Asked."
        assert not events_of(agent, ErrorEvent)


# Models, sessions and their options


@pytest.mark.parametrize("rate", [24000, 48000])
@virtual
async def test_current_model_with_its_nested_session(rate):
    options = {"model": NEW, "voice": "Tina", "output_rate": rate}
    async with qwen(["It is sunny."], ["how is it"], **options) as (agent, person, far):
        await person.speak(0.6)
        await asyncio.sleep(4)
        assert [i.text for i in agent.conversation] == ["how is it", "It is sunny."]
        audio = far.session.session_object["audio"]
        assert audio["output"] == {
            "voice": "Tina", "format": {"type": "pcm", "sample_rate": rate},
        }  # fmt: skip
        assert len(person.played_audio) / 24000 == pytest.approx(12 / 15, abs=0.061)
        assert not events_of(agent, ErrorEvent)


@pytest.mark.parametrize("model", ["qwen3-omni-flash-realtime", "qwen-omni-turbo-realtime"])
@virtual
async def test_older_model_with_its_formats(model):
    async with qwen(["It is sunny.", "Yes."], ["how is it"], model=model) as (agent, person, far):
        await person.speak(0.6)
        await asyncio.sleep(4)
        assert (await agent.simple_response("Really?")).heard_text == "Yes."
        assert [i.text for i in agent.conversation] == [
            "how is it", "It is sunny.", "Really?", "Yes.",
        ]  # fmt: skip
        assert far.session.session_object["input_audio_format"] == "pcm16"
        assert (await agent.say("Good morning.")).state == "heard"
        assert not events_of(agent, ErrorEvent)


@virtual
async def test_session_is_set_up_as_asked_for():
    from duologue.providers.qwen import SemanticVAD, Transcription

    options = {
        "voice": "Ethan",
        "turn_detection": SemanticVAD(
            threshold=0.1, silence_duration_ms=400, interrupt_response=False
        ),
        "transcription": Transcription(language="en"),
        "temperature": 0.3,
        "enable_search": True,
        "extra": {"search_options": {"enable_source": True}, "turn_detection": {"threshold": 0}},
    }
    async with qwen(agent={"instructions": "Be kind."}, **options) as (agent, _person, far):
        session = events_of(agent, RealtimeConnectedEvent)[0].session_config
        assert session == far.session.session_object
        assert (session["voice"], session["temperature"]) == ("Ethan", 0.3)
        assert session["instructions"] == "Be kind."
        assert session["enable_search"] is True
        assert session["search_options"] == {"enable_source": True}
        assert session["input_audio_transcription"]["language"] == "en"
        detection = session["turn_detection"]
        assert (detection["type"], detection["threshold"]) == ("semantic_vad", 0)
        assert detection["interrupt_response"] is False


@virtual
async def test_wrong_key_is_reported_at_once_in_the_services_words():
    with pytest.raises(SessionError, match="Invalid API-key provided"):
        async with qwen(api_key="sk-wrong"):
            pass
    assert asyncio.get_running_loop().time() < 1


@virtual
async def test_missing_model_is_reported_at_once():
    simulator = {"unknown_models": ["qwen3.5-omni-none-realtime"]}
    with pytest.raises(SessionError, match="model does not exist"):
        async with qwen(model="qwen3.5-omni-none-realtime", simulator=simulator):
            pass
    assert asyncio.get_running_loop().time() < 1


@virtual
async def test_refused_session_does_not_hang():
    with pytest.raises(SessionError, match="nonsense"):
        async with qwen(extra={"nonsense": 1}):
            pass
    assert asyncio.get_running_loop().time() < 2


def register(agent):
    @agent.tool
    async def weather(city: str) -> str:
        """The weather."""
        return f"sunny in {city}"


@virtual
async def test_tools_beside_a_search_are_refused_before_anything_is_sent():
    words = "tools and enable_search exclude each other"
    with pytest.raises(ConfigError, match=words):
        async with qwen(enable_search=True, agent={"prepare": register}) as (agent, _person, far):
            pytest.fail(f"{agent} {far}")
    async with qwen(enable_search=True) as (agent, _person, far):
        register(agent)
        with pytest.raises(ConfigError, match=words):
            agent.update_tools()
        assert len(sent(far.session, "session.update")) == 1


@virtual
async def test_tools_of_an_older_model_are_an_error():
    with pytest.raises(UnsupportedError, match="can't call tools"):
        async with qwen(model=OLD, agent={"prepare": register}):
            pass
    async with qwen(model=OLD) as (agent, _person, _far):
        register(agent)
        with pytest.raises(UnsupportedError, match="can't change tools"):
            agent.update_tools()


@virtual
async def test_tool_result_on_a_later_connection_is_sent_as_text():
    replies = [Reply(tools=[ToolUse("slow")]), "Here it is."]

    def prepare(agent):
        @agent.tool
        async def slow() -> str:
            """Take three seconds."""
            await asyncio.sleep(3)
            return "the result"

    async with qwen(replies, agent={"prepare": prepare}) as (agent, _person, far):
        speech = agent.simple_response("Look it up.")
        await asyncio.sleep(1)
        await far.drop_connection()
        await speech
        assert speech.heard_text == "Here it is."
        [note] = [words for _role, words in far.history() if "tool_result" in words]
        assert note == '<tool_result name="slow" arguments="{}">the result</tool_result>'
        assert not events_of(agent, ErrorEvent)


@virtual
async def test_manual_turns():
    from duologue.providers.qwen import ManualTurns

    options = {"turn_detection": ManualTurns()}
    async with qwen(["Yes.", "No."], ["is it you"], **options) as (agent, person, _far):
        await person.speak(0.6)
        await asyncio.sleep(2)
        assert not agent.conversation.items
        agent.llm.end_turn()
        await asyncio.sleep(3)
        assert [i.text for i in agent.conversation] == ["is it you", "Yes."]
        assert not events_of(agent, ErrorEvent)


@virtual
async def test_usage_is_reported_by_modality():
    async with qwen(["Some words."], ["the question"]) as (agent, person, _far):
        person.camera = lambda at: VideoFrame(np.zeros((72, 128, 3), np.uint8), at)
        await asyncio.sleep(2)
        await person.speak(0.6)
        await asyncio.sleep(3)
        (usage,) = events_of(agent, UsageEvent)
        assert usage.input["audio"] > 0
        assert usage.input["image"] > 0
        assert usage.output.keys() == {"text", "audio"}


@virtual
async def test_say_mismatch_is_reported():
    async with qwen(["Something else."], simulator={"paraphrase": True}) as (agent, _person, _far):
        speech = await agent.say("Exactly this.")
        (event,) = events_of(agent, SayMismatchEvent)
        assert event == SayMismatchEvent(speech.id, "Exactly this.", "Something else.")


@virtual
async def test_unknown_duplicate_and_malformed_events_change_nothing():
    from duologue.simulators.faults import Duplicate, Fault, Garbage, Unknown

    faults = [
        Fault(Unknown(), on="response.created"),
        Fault(Garbage(), on="response.created"),
        Fault(Duplicate("response.created")),
        Fault(Duplicate("response.audio.delta"), times=20),
        Fault(Duplicate("response.audio_transcript.delta"), times=20),
        Fault(Duplicate("response.done")),
    ]
    async with qwen(["All is well."], simulator={"faults": faults}) as (agent, person, _far):
        speech = await agent.simple_response("well?")
        assert speech.heard_text == "All is well."
        assert len(person.played_audio) / 24000 == pytest.approx(12 / 15, abs=0.061)
        assert not events_of(agent, ErrorEvent)


# Images


@virtual
async def test_image_always_fits():
    async with qwen(max_image_side=1920) as (agent, _person, far):
        noise = np.random.default_rng(1).integers(0, 256, (2160, 3840, 3), np.uint8)
        agent.llm.send_video(VideoFrame(noise, 0.0))
        await asyncio.sleep(1)
        [image] = far.session.images
        assert 50_000 < len(image.data) <= 190_000
        assert not events_of(agent, ErrorEvent)
