"""Nova Sonic behind an agent, against the simulated service, in virtual time."""

import asyncio
from collections import deque
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from duologue.testing import SCRIPTED_CAPABILITIES

pytest.importorskip("aws_sdk_bedrock_runtime", reason="the aws extra is not installed")
pytest.importorskip("h2", reason="the aws extra is not installed")
pytest.importorskip("cryptography", reason="the simulate extra is not installed")

from duologue.audio import AudioFrame
from duologue.errors import ErrorKind, SessionError, UnsupportedError
from duologue.events import (
    ErrorEvent,
    InterruptionEvent,
    RealtimeDisconnectedEvent,
    RealtimeReconnectedEvent,
    SayMismatchEvent,
    UsageEvent,
)
from duologue.items import AgentItem, UserItem
from duologue.providers import aws
from duologue.realtime.reconnect import ReconnectPolicy
from duologue.testing import NovaSimulator, Reply, ScriptedRealtime, ToolUse, run_virtual
from duologue.vad.energy import EnergyVAD
from fake_edge import FakeEdge, events_of, join_agent

NOVA_1 = "amazon.nova-sonic-v1:0"
SOON = ReconnectPolicy(base_s=0.1, cap_s=0.5)


class Person(FakeEdge):
    """Always there: silent, or speaking while the test says so."""

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


def realtime(simulator, **options):
    keys = simulator.credentials
    options.setdefault("credentials", aws.Credentials(keys.access_key, keys.secret_key))
    options.setdefault("reconnect", SOON)
    return aws.Realtime(base_url=simulator.url, vad=EnergyVAD(), **options)


class Script(ScriptedRealtime):
    """The backend of all streams of a service, which gives each reply only once."""

    def __init__(self, replies, transcripts):
        super().__init__(
            manual=True,
            capabilities=replace(
                SCRIPTED_CAPABILITIES, manual_turns=True, user_transcripts="final"
            ),
        )
        self.replies = replies
        self.transcripts = transcripts


def service(replies=(), transcripts=(), **options):
    options.setdefault("endpointing_ms", {"HIGH": 300})
    script = deque(Reply(reply) if isinstance(reply, str) else reply for reply in replies)
    words = deque(transcripts)
    return NovaSimulator(lambda: Script(script, words), **options)


def nova(function):
    def run(*args, **kwargs):
        run_virtual(function(*args, **kwargs), grace=0.0)

    run.__name__ = function.__name__
    return run


def spoken(agent):
    return [item.text for item in agent.conversation if isinstance(item, AgentItem)]


@nova
async def test_conversation_from_greeting_to_goodbye():
    long = "One is here. Two is there. Three is nowhere. Four is the end of it."
    async with service(["Welcome!", "It is sunny.", long], transcripts=["How is it?"]) as simulator:
        person = Person()
        async with join_agent(realtime(simulator), person, instructions="Be brief.") as agent:
            [session] = simulator.sessions
            greeting = await agent.simple_response("Greet the person.")
            assert greeting.heard_text == "Welcome!"
            said = await agent.say("It is 5 o'clock.")
            assert said.heard_text == "It is 5 o'clock."
            await person.says(0.6)
            await asyncio.sleep(3)
            assert spoken(agent)[-1] == "It is sunny."
            cut = agent.simple_response("Tell me a story.")
            await asyncio.sleep(1.6)
            await person.says(0.5)
            await cut
            assert cut.interrupted
            assert len(events_of(agent, InterruptionEvent)) == 1
            assert long.startswith(cut.heard_text)
            assert 0 < len(cut.heard_text) < 40
            await asyncio.sleep(1)
            assert not events_of(agent, ErrorEvent)
        assert session.system_prompt == "Be brief."
        assert session.ended_cleanly
        names = [next(iter(event)) for event in session.events_in]
        assert names[:2] == ["sessionStart", "promptStart"]
        assert names[-3:] == ["contentEnd", "promptEnd", "sessionEnd"]
        starts = [event["contentStart"] for event in session.events_in if "contentStart" in event]
        assert [start["type"] for start in starts].count("AUDIO") == 1
        assert events_of(agent, RealtimeDisconnectedEvent)[0].clean


@nova
async def test_usage_is_what_the_service_counts():
    async with service(["It is sunny."], transcripts=["How is it?"]) as simulator:
        person = Person()
        async with join_agent(realtime(simulator), person) as agent:
            await person.says(1.0)
            await asyncio.sleep(4)
            told = events_of(agent, UsageEvent)
            blocks = simulator.sessions[0]._output
            for side in ("input", "output"):
                audio = sum(getattr(event, side).get("audio", 0) for event in told)
                text = sum(getattr(event, side).get("text", 0) for event in told)
                assert [audio, text] == blocks._usage[side]
                assert audio
                assert text


@nova
async def test_model_is_told_what_was_heard_of_its_reply():
    long = "One is here. Two is there. Three is nowhere. Four is the end of it."
    async with service([long, "I see."]) as simulator:
        async with join_agent(realtime(simulator), Person()) as agent:
            cut = agent.simple_response("Tell me a story.")
            await asyncio.sleep(1.5)
            agent.interrupt()
            await cut
            answer = await agent.simple_response("Where were we?")
            assert answer.heard_text == "I see."
        [text] = [said.text for said in simulator.sessions[0].conversation if "Where" in said.text]
        note, question = text.splitlines()
        assert note == (
            f'[The person interrupted you, and has heard no more than: "{cut.heard_text}"]'
        )
        assert question == "Where were we?"


@nova
async def test_text_behind_an_interrupted_speech_is_never_sent():
    long = "One is here. Two is there. Three is nowhere. Four is the end of it."
    async with service(["Yes."], transcripts=["What?"]) as simulator:
        person = Person()
        async with join_agent(realtime(simulator), person) as agent:
            cut, never = agent.say(long), agent.say("Never said.")
            await asyncio.sleep(1.5)
            await person.says(0.6)
            await cut
            await never
            assert cut.interrupted
            assert never.interrupted
            assert not never.played_ms
            await asyncio.sleep(3)
            assert spoken(agent) == [cut.heard_text, "Yes."]
            assert (await agent.say("Good.")).heard_text == "Good."
            events = simulator.sessions[0].events_in
            written = [e["textInput"]["content"] for e in events if "textInput" in e]
            assert "Never said." not in "".join(written)


@nova
async def test_person_who_speaks_before_a_greeting_has_begun_is_answered():
    greeting, answer = Reply("Welcome.", after_s=1.0), Reply("From seven to ten.", after_s=0.5)
    async with service(
        [greeting, answer], transcripts=["When is breakfast?"], endpointing_ms={"HIGH": 1500}
    ) as simulator:
        person = Person()
        async with join_agent(realtime(simulator), person) as agent:
            await asyncio.sleep(0.5)
            speech = agent.simple_response("Greet the person.")
            await asyncio.sleep(0.3)
            await person.says(1.0)
            await asyncio.sleep(8)
            assert speech.interrupted
            assert spoken(agent) == ["From seven to ten."]


@nova
async def test_cough_before_the_reply_does_not_delay_the_next_request():
    async with service(
        [Reply("Welcome.", after_s=1.0), "Welcome again.", "Still here."],
        transcripts=[""],
        endpointing_ms={"HIGH": 1500},
    ) as simulator:
        person = Person()
        async with join_agent(realtime(simulator), person) as agent:
            await asyncio.sleep(0.5)
            greeting = agent.simple_response("Greet the person.")
            await asyncio.sleep(0.4)
            await person.says(0.12)
            await asyncio.sleep(20)
            assert greeting.heard_text == "Welcome again."
            async with asyncio.timeout(20):
                later = await agent.simple_response("Are you there?")
            assert later.heard_text == "Still here."
            assert len(simulator.sessions) == 1


@pytest.fixture
def work(tmp_path, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "credentials").write_text(
        "[work]\naws_access_key_id = AKIDSIMULATOR\naws_secret_access_key = simulator-secret\n"
    )
    (tmp_path / "config").write_text("[profile work]\nregion = us-east-1\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_PROFILE", "gone")
    return "work"


def test_named_profile_takes_precedence_over_a_missing_one_of_the_environment(work):
    async def main():
        async with service(["Hello."]) as simulator:
            llm = realtime(simulator, credentials=None, profile=work)
            async with join_agent(llm, Person()) as agent:
                assert (await agent.simple_response("Hi.")).heard_text == "Hello."

    run_virtual(main(), grace=0.0)


@nova
async def test_lone_surrogate_does_not_end_the_session():
    async with service(["One."]) as simulator:
        async with join_agent(realtime(simulator), Person()) as agent:
            assert (await agent.simple_response("caf\udce9?")).heard_text == "One."
            assert (await agent.say("Number \ud83d 7.")).heard_text == "Number ? 7."
        assert simulator.sessions[0].conversation[0].text == "caf??"


@nova
async def test_interruption_of_a_speech_from_the_stream_before_is_reported():
    long = " ".join(f"This is sentence number {index}." for index in range(20))
    async with service([long, "I see."]) as simulator:
        async with join_agent(realtime(simulator), Person()) as agent:
            cut = agent.simple_response("Tell me a story.")
            await asyncio.sleep(2)
            agent.llm.roll_over()
            await asyncio.sleep(3)
            agent.interrupt()
            await cut
            await agent.simple_response("Where were we?")
        *_, question, _ = simulator.sessions[1].conversation
        assert len(simulator.sessions) == 2
        assert question.text.splitlines() == [
            f'[The person interrupted you, and has heard no more than: "{cut.heard_text}"]',
            "Where were we?",
        ]


@nova
async def test_say_mismatch_is_reported():
    async with (
        service(["Something like that."], paraphrase=True) as simulator,
        join_agent(realtime(simulator), Person()) as agent,
    ):
        await agent.say("Exactly this.")
        await asyncio.sleep(1)
        (event,) = events_of(agent, SayMismatchEvent)
        assert (event.wanted, event.said) == ("Exactly this.", "Something like that.")


@nova
async def test_rollovers_are_not_noticed():
    count = 9
    replies = [f"Answer {index}." for index in range(count)]
    questions = [f"question {index}" for index in range(count)]
    async with service(replies, transcripts=questions, max_stream_s=20.0) as simulator:
        person = Person()
        policy = ReconnectPolicy(base_s=0.1, max_age_s=16.0, roll_over_ahead_s=3.0)
        async with join_agent(realtime(simulator, reconnect=policy), person) as agent:
            for _ in range(count):
                await person.says(0.8)
                await asyncio.sleep(5)
            assert spoken(agent) == replies
            asked = [item.text for item in agent.conversation if isinstance(item, UserItem)]
            assert asked == questions
            changes = events_of(agent, RealtimeReconnectedEvent)
            assert len(changes) >= 3
            assert {(one.outcome, one.lost_ms) for one in changes} == {("replayed", 0)}
            assert not events_of(agent, ErrorEvent)
            assert not events_of(agent, InterruptionEvent)
        assert len(simulator.sessions) == len(changes) + 1
        for session in simulator.sessions:
            assert session.ended_cleanly
            assert "modelTimeoutException" not in session.events_out
        told = [(said.role, said.text) for said in simulator.sessions[-1].conversation[:4]]
        assert told == [
            ("USER", "question 0"),
            ("ASSISTANT", "Answer 0."),
            ("USER", "question 1"),
            ("ASSISTANT", "Answer 1."),
        ]


@nova
async def test_stream_that_reached_its_age_limit_is_replaced_with_the_whole_history():
    async with service(["One.", "Two."], max_stream_s=8.0) as simulator:
        policy = ReconnectPolicy(base_s=0.1, max_age_s=1000.0)
        async with join_agent(realtime(simulator, reconnect=policy), Person()) as agent:
            await agent.simple_response("first")
            await asyncio.sleep(9)
            await agent.simple_response("second")
            (change,) = events_of(agent, RealtimeReconnectedEvent)
            assert change.outcome == "replayed"
        assert simulator.sessions[0].events_out[-1] == "modelTimeoutException"
        told = [said.text for said in simulator.sessions[1].conversation]
        assert told == ["first", "One.", "second", "Two."]


@nova
async def test_keys_that_expire_are_replaced_in_time():
    async with service(["One.", "Two."]) as simulator:
        given = []

        async def newest():
            number = len(given)
            given.append(asyncio.get_running_loop().time())
            keys = type(simulator.credentials)(f"AKID{number}", f"secret{number}", "us-east-1")
            simulator.credentials = keys
            expires = datetime.now(UTC) + timedelta(seconds=30)
            return aws.Credentials(keys.access_key, keys.secret_key, expires_at=expires)

        model = realtime(simulator, credentials=newest, reconnect=None)
        async with join_agent(model, Person()) as agent:
            await agent.simple_response("first")
            await asyncio.sleep(25)
            assert (await agent.simple_response("second")).heard_text == "Two."
            assert not events_of(agent, ErrorEvent)
            assert len(events_of(agent, RealtimeReconnectedEvent)) == len(given) - 1
        assert len(given) == 2
        assert 15 < given[1] < 21


RECOVERED = [
    "throttled", "busy", "not-ready", "down", "expired-token", "unstable", "timeout", "internal",
    "unavailable", "corrupt", "reset", "reset-in-reply", "close", "garbage", "unknown",
    "duplicate", "slow", "burst", "stall", "deaf",
]  # fmt: skip


@pytest.mark.parametrize("fault", RECOVERED)
def test_session_survives_errors(fault):
    @nova
    async def run():
        replies = ["First answer.", "Second answer.", "Third answer."]
        async with service(replies, faults=[fault]) as simulator:
            async with join_agent(realtime(simulator), Person()) as agent:
                first = await agent.simple_response("one")
                assert first.heard_text
                await asyncio.sleep(3)
                second = await agent.simple_response("two")
                assert second.heard_text in replies[1:]
                assert simulator.fired_actions
            known = [said.text for said in simulator.sessions[-1].conversation]
            assert known[0].startswith("one")
            assert "two" in known
            assert not events_of(agent, RealtimeDisconnectedEvent)[0].reason.startswith("the model")

    run()


@pytest.mark.parametrize(
    ("options", "config", "words"),
    [
        ({"faults": ["forbidden"]}, {}, "The security token included in the request is invalid."),
        ({}, {"model": "amazon.nova-lite-v1:0"}, "The provided model identifier is invalid."),
        ({}, {"voice": "nobody"}, "Received invalid voiceId: nobody."),
        ({}, {"credentials": aws.Credentials("AKIDWRONG", "secret")}, "security token"),
    ],
)
def test_fatal_error_ends_the_session_with_the_services_words(options, config, words):
    @nova
    async def run():
        async with service(**options) as simulator:
            with pytest.raises(SessionError) as caught:
                async with join_agent(realtime(simulator, **config), Person()):
                    await asyncio.sleep(1)
            assert words in str(caught.value)
            assert caught.value.kind is ErrorKind.FATAL
            assert len(simulator.sessions) <= 1

    run()


@nova
async def test_tool_arguments_that_are_json_in_json():
    replies = [Reply(tools=[ToolUse("weather", {"city": "Bonn"})]), Reply("Sunny.")]
    async with service(replies, double_encoded_tools=True) as simulator:

        def register(agent):
            @agent.tool
            async def weather(city: str) -> str:
                """Tells the weather."""
                return f"sunny in {city}"

        async with join_agent(realtime(simulator), Person(), register) as agent:
            assert (await agent.simple_response("Weather?")).heard_text == "Sunny."
        assert simulator.sessions[0].tools == ["weather"]
        [result] = [e["toolResult"] for e in simulator.sessions[0].events_in if "toolResult" in e]
        assert result["content"] == '{"result": "sunny in Bonn"}'


@nova
async def test_missing_input_audio_does_not_end_the_session():
    async with service(["Still here."]) as simulator:
        async with join_agent(realtime(simulator, reconnect=None), FakeEdge()) as agent:
            await asyncio.sleep(200)
            assert (await agent.simple_response("Hello?")).heard_text == "Still here."
            assert not events_of(agent, RealtimeReconnectedEvent)
        assert simulator.sessions[0].ended_cleanly


@nova
async def test_nova_1_replies_to_speech_and_refuses_text():
    async with service(["It is sunny."], transcripts=["How is it?"]) as simulator:
        person = Person()
        async with join_agent(realtime(simulator, model=NOVA_1), person) as agent:
            await person.says(0.8)
            await asyncio.sleep(6)
            assert spoken(agent) == ["It is sunny."]
            with pytest.raises(UnsupportedError, match="replies to speech only"):
                agent.simple_response("Hello?")
            with pytest.raises(UnsupportedError, match="can't say scripted text"):
                agent.say("Hello.")
        assert simulator.sessions[0].ended_cleanly


def test_tls():
    async def run():
        async with service(["Hello."], tls=True) as simulator:
            model = realtime(simulator, ssl_context=simulator.ssl_context)
            async with join_agent(model, Person()) as agent:
                assert (await agent.simple_response("Hi.")).heard_text == "Hello."
            assert simulator.sessions[0].ended_cleanly
            with pytest.raises(SessionError, match="certificate"):
                async with join_agent(realtime(simulator), Person()):
                    pass

    run_virtual(run(), grace=0.002)
