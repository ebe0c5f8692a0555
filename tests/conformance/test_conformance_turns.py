"""What every Realtime does alike: turns, words, sound and their order."""

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
async def test_connect_and_close(subject):
    async with conversation(subject) as (agent, _line, _far):
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
async def test_a_spoken_turn(subject):
    async with conversation(subject, ["It is sunny today."], ["how is the weather"]) as (
        agent,
        line,
        far,
    ):
        await line.speak(1.0)
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
        assert len(line.played_audio) / 24000 == pytest.approx(18 / 15, abs=0.061)
        assert not events_of(agent, ErrorEvent)
        known = far.history()
        assert known in (
            None,
            [("user", "how is the weather"), ("agent", "It is sunny today.")],
        )
        if far.heard_s() is not None:
            assert far.heard_s() == pytest.approx(line.sent / 16000, abs=0.1)


@conformance
async def test_three_turns_in_order(subject):
    async with conversation(
        subject, ["One.", "Two.", "Three."], ["ask one", "ask two", "ask three"]
    ) as (
        agent,
        line,
        _far,
    ):
        for _ in range(3):
            await line.speak(0.6)
            await asyncio.sleep(3)
        assert [i.text for i in agent.conversation] == SIX
        assert agent.llm.epoch == 0


@conformance
async def test_a_written_turn(subject):
    async with conversation(subject, ["Hello to you."]) as (agent, line, far):
        speech = await agent.simple_response("Hello?")
        assert speech.heard_text == "Hello to you."
        assert speech.state == "heard"
        assert speech.played_ms == pytest.approx(13 / 15 * 1000, abs=61)
        assert [i.text for i in agent.conversation] == ["Hello?", "Hello to you."]
        assert not next(i for i in agent.conversation if isinstance(i, UserItem)).spoken
        assert far.history() in (None, [("user", "Hello?"), ("agent", "Hello to you.")])
        assert len(events_of(agent, AgentTurnEndedEvent)) == 1
        assert len(line.played_audio) / 24000 == pytest.approx(13 / 15, abs=0.061)


@conformance
async def test_scripted_text_is_said_word_for_word(subject):
    async with conversation(subject) as (agent, _line, far):
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
async def test_scripted_text_by_the_agents_own_voice(subject):
    async with conversation(subject, agent={"tts": FakeTTS()}) as (agent, _line, far):
        speech = await agent.say("Five words and no more")
        assert speech.heard_text == "Five words and no more"
        await asyncio.sleep(0.5)
        assert await far.known() in (None, [("agent", "Five words and no more")])


@conformance
async def test_a_reply_that_fails_is_told_and_the_session_goes_on(subject):
    replies = [Reply("", 0.0, fails="overloaded"), "Now it works."]
    async with conversation(subject, replies) as (agent, _line, far):
        speech = agent.simple_response("one")
        if far.failure is None:
            # It fails with its stream, and is asked for again on the next one.
            assert (await speech).heard_text == "Now it works."
            return
        with pytest.raises(Exception, match=far.failure):
            await speech
        (error,) = events_of(agent, ErrorEvent)
        assert far.failure in error.message
        assert (await agent.simple_response("two")).heard_text == "Now it works."


@conformance
async def test_instructions_and_tools_change_in_mid_session(subject):
    async with conversation(subject, ["Ok."]) as (agent, _line, far):

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
async def test_what_the_profile_lacks_is_an_error(subject):
    async with conversation(subject) as (agent, _line, _far):
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
