"""What events say of their time, and of a turn whose transcript comes late."""

import asyncio
import json
import time
from typing import get_args

import pytest

from duologue.events import (
    AgentTurnEndedEvent,
    AgentTurnStartedEvent,
    ErrorEvent,
    Event,
    UserTranscriptEvent,
    UserTurnEndedEvent,
    UserTurnStartedEvent,
    events,
)
from duologue.events.bus import EventBus
from duologue.events.json import event_to_json
from duologue.items import UserItem
from duologue.realtime.outputs import SpeechStarted, SpeechStopped, UserTranscript, UserTurnEnded
from duologue.testing import At, ScriptedRealtime, run_virtual, virtual_time
from fake_edge import events_of, join_agent


def test_every_event_has_a_time_and_is_equal_regardless_of_it():
    for kind in get_args(Event.__value__):
        assert issubclass(kind, events.TimedEvent)
    one, other = ErrorEvent("a", "b", at=1.0), ErrorEvent("a", "b")
    assert one == other
    assert (one.at, other.at) == (1.0, 0.0)
    assert hash(one) == hash(other)


def test_a_bus_of_its_own_uses_the_wall_clock():
    bus, event = EventBus(), ErrorEvent("a", "b")
    bus.emit(event)
    assert event.at == pytest.approx(time.time(), abs=5)
    sent = event.at
    bus.emit(event)
    assert event.at == sent


def test_times_of_events_start_at_the_wall_clock_and_advance_by_our_own():
    async def main():
        async with join_agent(ScriptedRealtime()) as agent:
            await agent.say("Exactly two seconds, here.", interruptible=True)
            began, ended = events_of(agent, AgentTurnStartedEvent | AgentTurnEndedEvent)
            assert ended.at - began.at == pytest.approx(26 / 15, abs=0.021)
            assert agent.recorded[0].at == pytest.approx(time.time(), abs=60)
            assert [e.at for e in agent.recorded] == sorted(e.at for e in agent.recorded)
            made = json.loads(json.dumps(event_to_json(ended)))
            assert made["at"] == ended.at
        return agent

    run_virtual(main())


@virtual_time
async def test_a_cough_and_a_late_transcript_differ():
    turns = ScriptedRealtime(
        at=[
            At(1.0, SpeechStarted("cough")),
            At(1.2, SpeechStopped("cough")),
            At(1.3, UserTurnEnded("cough", reply_follows=False, empty=True)),
            At(2.0, SpeechStarted("late")),
            At(3.0, SpeechStopped("late")),
            At(3.1, UserTurnEnded("late", reply_follows=False)),
            At(4.0, UserTranscript("late", "hello there", final=True)),
            At(5.0, SpeechStarted("now")),
            At(6.0, UserTranscript("now", "and again", final=True)),
            At(6.1, UserTurnEnded("now", reply_follows=False)),
        ]
    )
    async with join_agent(turns) as agent:
        await asyncio.sleep(7)
        began = [e.turn_id for e in events_of(agent, UserTurnStartedEvent)]
        ended = [(e.turn_id, e.text, e.empty) for e in events_of(agent, UserTurnEndedEvent)]
        assert began == ["cough", "late", "now"]
        assert ended == [
            ("cough", None, True),
            ("late", None, False),
            ("now", "and again", False),
        ]
        texts = {e.turn_id: e.text for e in events_of(agent, UserTranscriptEvent) if e.final}
        assert texts == {"late": "hello there", "now": "and again"}
        kept = {i.id: i.text for i in agent.conversation if isinstance(i, UserItem)}
        assert kept == texts
