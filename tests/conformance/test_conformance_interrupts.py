"""Interrupting every `Realtime`: epochs, what was heard, and what the model knows of it."""

import asyncio

import pytest
from conformance_targets import REPLIES_UNASKED, SPEAKS_BY_ITSELF, conformance, conversation

from duologue._word_timing import weight
from duologue.events import AgentTurnEndedEvent, ErrorEvent, InterruptionEvent, ToolEndEvent
from duologue.items import AgentItem
from duologue.testing import Reply, ToolUse
from fake_edge import agent_items, events_of

LONG = " ".join(f"word{index}" for index in range(40))
"""About 18 seconds of speech."""


def silent_since(person, when):
    """Return the seconds of loud audio that the person got after ``when``."""
    return sum(0.02 for at in person.at if at > when + 0.001)


@conformance
@pytest.mark.parametrize("moment", [0.0, 0.05, 0.3, 1.0, 3.0])
async def test_written_turn_is_interrupted_at_a_moment(target, moment):
    replies = [Reply(LONG, after_s=0.2), "Yes?"]
    async with conversation(target, replies) as (agent, person, far):
        speech = agent.simple_response("Tell me a long story.")
        await asyncio.sleep(moment)
        at = asyncio.get_running_loop().time()
        assert agent.interrupt() == 1
        assert agent.llm.epoch == 1
        await speech
        assert speech.interrupted
        await asyncio.sleep(2)
        assert silent_since(person, at) == 0
        (event,) = events_of(agent, InterruptionEvent)
        assert event.epoch == 1
        assert event.played_ms == speech.played_ms <= moment * 1000
        assert LONG.startswith(event.heard_text)
        heard = [i.text for i in agent_items(agent)]
        assert heard == ([event.heard_text] if event.played_ms else [])
        known = await far.known_history()
        if known is not None:
            said = [text for role, text in known if role == "agent"]
            assert said in ([], [""], [event.heard_text]) or said[0].startswith(event.heard_text)
            assert len(" ".join(said)) < len(LONG) / 2
        answer = await agent.simple_response("Are you there?")
        assert answer.heard_text == "Yes?"
        assert not events_of(agent, ErrorEvent)


@conformance
async def test_interrupting_twice_and_interrupting_nothing(target):
    async with conversation(target, [LONG, "Second."]) as (agent, _person, _far):
        assert agent.interrupt() == 1
        agent.simple_response("Go.")
        await asyncio.sleep(1)
        assert agent.interrupt() == 2
        assert agent.interrupt() == 3
        await asyncio.sleep(1)
        assert (await agent.simple_response("Again.")).heard_text == "Second."
        await asyncio.sleep(0.5)
        assert agent.interrupt() == 4
        await asyncio.sleep(1)
        assert [i.text for i in agent_items(agent)][-1] == "Second."
        assert not events_of(agent, ErrorEvent)


@conformance
async def test_voice_interrupts_once_however_many_signals_come(target):
    async with conversation(target, [LONG, "Of course."], ["tell me more", "stop please"]) as (
        agent,
        person,
        far,
    ):
        await person.speak(0.6)
        await asyncio.sleep(3)
        assert person.at
        await person.speak(0.8)
        at = asyncio.get_running_loop().time()
        await asyncio.sleep(4)
        (event,) = events_of(agent, InterruptionEvent)
        assert agent.llm.epoch == event.epoch == 1
        assert event.played_ms > 500
        assert LONG.startswith(event.heard_text)
        first, second = agent_items(agent)
        assert (first.text, first.state) == (event.heard_text, "cut")
        assert second.text == "Of course."
        ends = [e.interrupted for e in events_of(agent, AgentTurnEndedEvent)]
        assert ends == [True, False]
        known = far.history()
        if known is not None:
            assert [role for role, _ in known] in (
                ["user", "agent", "user", "agent"],
                [
                    "user",
                    "user",
                    "agent",
                ],  # A server that drops the transcript of a truncated item.
            )
        assert min((t for t in person.at if t > at), default=at + 1) > at + 0.1
        assert not events_of(agent, ErrorEvent)


@conformance
async def test_uninterruptible_speech_is_not_interrupted_by_a_voice(target):
    async with conversation(target, ["Sure."], ["hello hello"]) as (agent, person, _far):
        speech = agent.say("These are twenty words or so of legal notice.", interruptible=False)
        await asyncio.sleep(0.8)
        await person.speak(0.6)
        await speech
        assert speech.heard_text == "These are twenty words or so of legal notice."
        assert speech.played_ms > 2500
        assert not events_of(agent, InterruptionEvent)


@conformance
async def test_interrupted_say_is_known_as_far_as_it_was_heard(target):
    text = "one two three four five six seven eight nine ten eleven twelve"
    async with conversation(target, ["Ok."]) as (agent, _person, far):
        speech = agent.say(text)
        await asyncio.sleep(2)
        agent.interrupt()
        await speech
        assert 1000 < speech.played_ms < 2000
        assert text.startswith(speech.heard_text)
        await asyncio.sleep(1)
        (item,) = agent_items(agent)
        assert item.text == speech.heard_text
        assert await far.known_history() in (None, [("agent", speech.heard_text)])
        assert not events_of(agent, ErrorEvent)


@conformance
async def test_tool_calls_of_an_interrupted_reply(target):
    unheard = ["Here it is."] if target in REPLIES_UNASKED else []
    replies = [Reply(tools=[ToolUse("slow")], after_s=0.1), *unheard, "Something else."]

    def register(agent):
        @agent.tool
        async def slow() -> str:
            """Take two seconds."""
            await asyncio.sleep(2)
            return "late result"

    async with conversation(target, replies, agent={"prepare": register}) as (agent, person, _far):
        agent.simple_response("Look it up.")
        await asyncio.sleep(1)
        agent.interrupt()
        await asyncio.sleep(3)
        (end,) = events_of(agent, ToolEndEvent)
        assert (end.status, end.output) == ("done", "late result")
        assert not person.at
        assert not [i for i in agent.conversation if isinstance(i, AgentItem)]
        assert not agent.llm.pending
        assert (await agent.simple_response("What now?")).heard_text == "Something else."
        assert not events_of(agent, ErrorEvent)


SCRIPTS = {
    "chinese": "今天天气很好，我们可以去公园散步，公园里有很多花，也有很多鸟，旁边还有一家咖啡馆。",
    "japanese": "今日は天気がいいので、公園を散歩しましょう。コーヒーも飲める。花も咲いている。",
    "thai": "วันนี้อากาศดีมากเราสามารถไปเดินเล่นในสวนสาธารณะได้ที่นั่นมีดอกไม้และนกมากมาย",
    "hindi": "आज मौसम बहुत अच्छा है, हम पार्क में घूमने जा सकते हैं, वहाँ बहुत सारे फूल और पक्षी हैं।",
    "mixed": "我们的 Wi-Fi 密码是 garden2024，请在 iPhone 上打开设置，然后选择网络，就可以上网了。",
}


@conformance
@pytest.mark.parametrize("script", SCRIPTS)
async def test_model_is_told_what_was_heard_in_every_script(target, script):
    text = SCRIPTS[script]
    seconds = weight(text) / 14
    async with conversation(target, [Reply(text, seconds), "Yes?"]) as (agent, _person, far):
        speech = agent.simple_response("?")
        while speech.state != "playing":
            await asyncio.sleep(0.05)
        # The built-in engine speaks letter by letter.
        await asyncio.sleep(seconds / 2 if target != "local" else 0.025 * len(text))
        agent.interrupt()
        await asyncio.sleep(1)
        heard = speech.heard_text
        assert text.startswith(heard)
        assert 0.2 * weight(text) <= weight(heard) <= 0.55 * weight(text)
        assert [item.text for item in agent_items(agent)] == [heard]
        known = await far.known_history()
        if known is not None:
            said = [words for role, words in known if role == "agent"]
            # This server truncates the audio and drops its transcript.
            assert said == ([] if target in SPEAKS_BY_ITSELF else [heard])
