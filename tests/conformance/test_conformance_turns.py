"""What every `Realtime` does alike: turns, transcripts, audio and their order."""

import asyncio

import pytest
from conformance_targets import conformance, conversation

from duologue.errors import SessionClosedError, UnsupportedError
from duologue.events import (
    AgentTranscriptEvent,
    AgentTurnEndedEvent,
    AgentTurnStartedEvent,
    ErrorEvent,
    RealtimeConnectedEvent,
    RealtimeDisconnectedEvent,
    UserTranscriptEvent,
    UserTurnEndedEvent,
    UserTurnStartedEvent,
)
from duologue.items import UserItem
from duologue.testing import Reply
from fake_edge import FakeTTS, agent_items, event_names, events_of

SIX = ["ask one", "One.", "ask two", "Two.", "ask three", "Three."]


@conformance
async def test_connect_and_close(target):
    async with conversation(target) as (agent, _person, _far):
        (event,) = events_of(agent, RealtimeConnectedEvent)
        assert event.session_id == agent.llm.session_id
        assert event.session_config
        assert event.capabilities["model"] == agent.llm.capabilities.model
        assert agent.llm.connected
        assert agent.llm.epoch == 0
        await asyncio.sleep(1)
        assert event_names(agent) == ["RealtimeConnectedEvent"]
    (end,) = events_of(agent, RealtimeDisconnectedEvent)
    assert end.clean
    assert not agent.llm.connected
    with pytest.raises(SessionClosedError):
        agent.llm.request_reply("late")


@conformance
async def test_spoken_turn(target):
    async with conversation(target, ["It is sunny today."], ["how is the weather"]) as (
        agent,
        person,
        far,
    ):
        await person.speak(1.0)
        await asyncio.sleep(5)
        names = [
            name
            for name in event_names(agent)
            if name not in ("RateLimitsEvent", "UsageEvent", "RealtimeConnectedEvent")
        ]
        order = [UserTurnStartedEvent, UserTurnEndedEvent, AgentTurnStartedEvent]
        places = [names.index(kind.__name__) for kind in order]
        assert places == sorted(places)
        assert names.count("UserTurnStartedEvent") == names.count("UserTurnEndedEvent") == 1
        assert names[-1] == "AgentTurnEndedEvent"
        assert events_of(agent, UserTranscriptEvent)[-1].text == "how is the weather"
        assert events_of(agent, UserTranscriptEvent)[-1].final
        final = [e for e in events_of(agent, AgentTranscriptEvent) if e.final]
        assert [e.text for e in final] == ["It is sunny today."]
        assert [i.text for i in agent.conversation] == ["how is the weather", "It is sunny today."]
        assert len(person.played_audio) / 24000 == pytest.approx(18 / 15, abs=0.061)
        assert not events_of(agent, ErrorEvent)
        known = far.history()
        assert known in (
            None,
            [("user", "how is the weather"), ("agent", "It is sunny today.")],
        )
        if far.received_s() is not None:
            assert far.received_s() == pytest.approx(person.sent / 16000, abs=0.1)


@conformance
async def test_three_turns_in_order(target):
    async with conversation(
        target, ["One.", "Two.", "Three."], ["ask one", "ask two", "ask three"]
    ) as (
        agent,
        person,
        _far,
    ):
        for _ in range(3):
            await person.speak(0.6)
            await asyncio.sleep(3)
        assert [i.text for i in agent.conversation] == SIX
        assert agent.llm.epoch == 0


@conformance
async def test_written_turn(target):
    async with conversation(target, ["Hello to you."]) as (agent, person, far):
        speech = await agent.simple_response("Hello?")
        assert speech.heard_text == "Hello to you."
        assert speech.state == "heard"
        assert speech.played_ms == pytest.approx(13 / 15 * 1000, abs=61)
        assert [i.text for i in agent.conversation] == ["Hello?", "Hello to you."]
        assert not next(i for i in agent.conversation if isinstance(i, UserItem)).spoken
        assert far.history() in (None, [("user", "Hello?"), ("agent", "Hello to you.")])
        assert len(events_of(agent, AgentTurnEndedEvent)) == 1
        assert len(person.played_audio) / 24000 == pytest.approx(13 / 15, abs=0.061)


@conformance
async def test_say_is_spoken_word_for_word(target):
    async with conversation(target) as (agent, _person, far):
        first = agent.say("I'll be right back, in 5 minutes.")
        second = agent.say("Here I am.")
        await first
        await second
        assert first.heard_text == "I'll be right back, in 5 minutes."
        await asyncio.sleep(0.5)
        said = ["I'll be right back, in 5 minutes.", "Here I am."]
        assert [i.text for i in agent_items(agent)] == said
        assert far.history() in (None, [("agent", text) for text in said])


@conformance
async def test_say_with_the_agents_own_tts(target):
    async with conversation(target, agent={"tts": FakeTTS()}) as (agent, _person, far):
        speech = await agent.say("Five words and no more")
        assert speech.heard_text == "Five words and no more"
        await asyncio.sleep(0.5)
        assert await far.known_history() in (None, [("agent", "Five words and no more")])


@conformance
async def test_failed_reply_is_reported_and_the_session_continues(target):
    replies = [Reply("", 0.0, fails="overloaded"), "Now it works."]
    async with conversation(target, replies) as (agent, _person, far):
        speech = agent.simple_response("one")
        if far.failure is None:
            # The reply fails with its stream, and is requested again on the next one.
            assert (await speech).heard_text == "Now it works."
            return
        with pytest.raises(Exception, match=far.failure):
            await speech
        (error,) = events_of(agent, ErrorEvent)
        assert far.failure in error.message
        assert (await agent.simple_response("two")).heard_text == "Now it works."


@conformance
async def test_instructions_and_tools_change_in_mid_session(target):
    async with conversation(target, ["Ok."]) as (agent, _person, far):

        @agent.tool
        async def late(city: str) -> str:
            """Added while the session runs."""
            return city

        profile = agent.llm.capabilities
        if not (profile.mutable_instructions and profile.mutable_tools):
            for change in (lambda: agent.update_instructions("Be brief."), agent.update_tools):
                with pytest.raises(UnsupportedError, match="during a session"):
                    change()
            return
        agent.update_instructions("Be very brief.")
        agent.update_tools()
        await agent.simple_response("Hello?")
        assert far.instructions() == "Be very brief."
        assert far.tools() == ["late"]


@conformance
async def test_missing_capability_is_an_error(target):
    async with conversation(target) as (agent, _person, _far):
        model = agent.llm
        if not model.capabilities.manual_turns:
            with pytest.raises(UnsupportedError, match="by itself"):
                model.end_turn()
        if not model.capabilities.video:
            with pytest.raises(UnsupportedError, match="camera"):
                model.send_video(None)
        if not model._session.connections.reconnects:
            with pytest.raises(UnsupportedError, match="one connection"):
                model.roll_over()
