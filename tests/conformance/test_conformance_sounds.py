"""Short sounds during the agent's speech: a cough holds it, a word stops it, everywhere."""

import asyncio

import pytest
from conformance_targets import conformance, conversation

from duologue.events import ErrorEvent, InterruptionEvent, SpeechHeldEvent, SpeechResumedEvent
from duologue.items import UserItem
from duologue.testing import Reply
from fake_edge import agent_items, events_of

LONG = " ".join(f"word{index}" for index in range(16))
"""About seven seconds of speech."""


@conformance
@pytest.mark.parametrize(
    ("seconds", "pace"), [(0.1, 0.0), (0.2, 0.0), (0.3, 0.0), (0.1, 1.0), (0.3, 1.0)]
)
async def test_sound_without_words_holds_the_agent_and_it_continues(target, seconds, pace):
    words = ["tell me more", "", "and then"]
    replies = [Reply(LONG, pace=pace), "What?", "The end.", "Good bye."]
    async with conversation(target, replies, words) as (agent, person, far):
        await person.speak(0.6)
        await asyncio.sleep(3)
        assert person.at
        began = asyncio.get_running_loop().time()
        await person.speak(seconds)
        await asyncio.sleep(12)
        assert not events_of(agent, InterruptionEvent)
        assert agent.llm.epoch == 0
        held = [at for at in person.at if began + 0.12 < at < began + 0.5]
        assert not held
        assert any(began + 0.5 < at < began + 0.75 for at in person.at)
        assert (
            len(events_of(agent, SpeechHeldEvent)) == len(events_of(agent, SpeechResumedEvent)) == 1
        )
        first = agent_items(agent)[0]
        assert first.state == "heard"
        assert LONG.startswith(first.text)
        if target not in STOPS_BY_ITSELF:
            assert [item.text for item in agent_items(agent)] == [LONG]
            said = [item.text for item in agent.conversation if isinstance(item, UserItem)]
            assert said == ["tell me more"]
            known = far.history()
            if known is not None:
                assert ("agent", "What?") not in known
        before = len(agent_items(agent))
        await person.speak(0.6)
        await asyncio.sleep(4)
        assert len(agent_items(agent)) == before + 1
        assert not events_of(agent, ErrorEvent)


STOPS_BY_ITSELF = frozenset({"gemini-3.8", "gemini-3.1", "nova"})
"""Services that drop the reply in progress at any noise; this can't be switched off."""


@conformance
async def test_speech_of_less_than_half_a_second_interrupts(target):
    async with conversation(target, [LONG, "Of course."], ["tell me more", "stop"]) as (
        agent,
        person,
        _far,
    ):
        await person.speak(0.6)
        await asyncio.sleep(3)
        assert person.at
        began = asyncio.get_running_loop().time()
        await person.speak(0.4)
        await asyncio.sleep(4)
        (event,) = events_of(agent, InterruptionEvent)
        assert event.epoch == agent.llm.epoch == 1
        answered = min(at for at in person.at if at > began + 0.2)
        assert not [at for at in person.at if began + 0.12 < at < answered]
        assert [item.text for item in agent_items(agent)] == [event.heard_text, "Of course."]
        assert not events_of(agent, SpeechResumedEvent)
        assert not events_of(agent, ErrorEvent)


@conformance
@pytest.mark.parametrize("pace", [0.0, 1.0])
@pytest.mark.parametrize("seconds", [0.14, 0.24])
async def test_short_word_stops_the_agent_once_it_is_transcribed(target, seconds, pace):
    replies = [Reply(LONG, pace=pace), "Of course.", "Yes."]
    async with conversation(target, replies, ["tell me more", "stop"]) as (agent, person, _far):
        await person.speak(0.6)
        await asyncio.sleep(3)
        began = asyncio.get_running_loop().time()
        await person.speak(seconds)
        await asyncio.sleep(9)
        (event,) = events_of(agent, InterruptionEvent)
        assert event.epoch == agent.llm.epoch == 1
        assert event.played_ms < 6000
        first, second = agent_items(agent)
        assert (first.text, first.state) == (event.heard_text, "cut")
        assert second.text in ("Of course.", "Yes.")
        assert not [at for at in person.at if began + 0.12 < at < began + 0.5]
        said = [item.text for item in agent.conversation if isinstance(item, UserItem)]
        assert said == ["tell me more", "stop"]
        assert not agent.llm.pending
        assert not events_of(agent, ErrorEvent)
