"""Switching to the next connection before one ends."""

import asyncio

import numpy as np
from fake_connection import LOST, Model, living, sound

from duologue.events import RealtimeReconnectedEvent, RealtimeReconnectingEvent
from duologue.realtime._session.resume import CONTINUE_PROMPT
from duologue.realtime.commands import RequestReply
from duologue.realtime.outputs import (
    GoAway,
    ReplyDone,
    ReplyStarted,
    SpeechStarted,
    UserTranscript,
    UserTurnEnded,
)
from duologue.realtime.reconnect import ReconnectPolicy
from duologue.testing import virtual_time


@virtual_time
async def test_a_rollover_connects_first_and_waits_for_a_silence():
    model = Model([{"expires_in": 100.0}, {"answers": 0.5}])
    async with living(model) as ear:
        await asyncio.sleep(79)
        assert len(model.lines) == 1
        model.line.tell(ReplyStarted("r"))
        await asyncio.sleep(5)
        assert len(model.lines) == 1
        model.line.tell(ReplyDone("r"))
        await asyncio.sleep(0.1)
        assert len(model.lines) == 2
        assert not model.lines[0].closed
        model.send_audio(sound(np.full(100, 1000)))
        assert len(model.lines[0].heard) == 100
        await asyncio.sleep(0.6)
        assert model.lines[0].closed
        assert len(model.lines[1].heard) == 100
        assert ear.of(RealtimeReconnectingEvent)[0].attempt == 0
        (event,) = ear.of(RealtimeReconnectedEvent)
        assert (event.outcome, event.lost_ms, event.gap_ms) == ("replayed", 0, 0)
        assert not ear.lost


@virtual_time
async def test_a_rollover_does_not_wait_for_ever_and_continues_the_reply():
    model = Model([{"expires_in": 10.0}, {}])
    async with living(model) as ear:
        model.line.tell(ReplyStarted("r"))
        ear.said["r"] = "half"
        await asyncio.sleep(10)
        assert model.lines[0].closed
        assert model.line.sent(RequestReply)[0].instructions == CONTINUE_PROMPT
        assert model.connected


@virtual_time
async def test_a_person_who_begins_to_speak_during_a_rollover_is_not_cut_off():
    model = Model([{}, {"answers": 1.0}])
    async with living(model):
        model.roll_over()
        await asyncio.sleep(0.5)
        model.line_two = model.lines[1]
        model.lines[0].tell(SpeechStarted("u", position=0))
        await asyncio.sleep(2)
        assert not model.lines[0].closed
        model.lines[0].tell(UserTurnEnded("u", position=10, reply_follows=False))
        model.lines[0].tell(UserTranscript("u", "hello", final=True))
        await asyncio.sleep(0.1)
        assert model.lines[0].closed
        assert len(model.lines) == 2


@virtual_time
async def test_a_connection_that_ends_during_a_rollover_is_replaced():
    model = Model([{}, {"answers": 1.0}, {}])
    async with living(model):
        model.roll_over()
        await asyncio.sleep(0.5)
        model.lines[0].lose()
        await asyncio.sleep(0.5)
        assert model.connected
        assert len(model.lines) == 3
        assert model.lines[1].closed


@virtual_time
async def test_a_next_connection_that_fails_is_retried_while_the_old_one_lives():
    model = Model([{}, {"fails": LOST}, {"fails": LOST}, {}])
    async with living(model) as ear:
        model.roll_over()
        await asyncio.sleep(2)
        assert len(model.lines) == 4
        assert model.connected
        assert len(ear.of(RealtimeReconnectedEvent)) == 1


@virtual_time
async def test_a_rollover_that_never_succeeds_keeps_the_connection():
    model = Model([{}, {"fails": LOST}], ReconnectPolicy(max_attempts=2, base_s=0.1))
    async with living(model):
        model.roll_over()
        await asyncio.sleep(2)
        assert len(model.lines) == 3
        assert model.connected
        assert not model.lines[0].closed


@virtual_time
async def test_a_go_away_starts_a_rollover_at_once_and_is_obeyed_in_time():
    model = Model()
    async with living(model):
        model.line.tell(ReplyStarted("r"))
        model.line.tell(GoAway(5.0))
        await asyncio.sleep(1.5)
        assert len(model.lines) == 1
        await asyncio.sleep(2.0)
        assert len(model.lines) == 2
        assert not model.lines[0].closed
        await asyncio.sleep(1)
        assert model.lines[0].closed
        model.roll_over()
        model.roll_over(0.5)
        await asyncio.sleep(1)
        assert len(model.lines) == 3


@virtual_time
async def test_a_very_short_notice_is_obeyed_at_its_end():
    model = Model()
    async with living(model):
        model.line.tell(ReplyStarted("r"))
        model.line.tell(GoAway(3.5))
        await asyncio.sleep(2.4)
        assert len(model.lines) == 1
        await asyncio.sleep(0.2)
        assert len(model.lines) == 2


@virtual_time
async def test_a_connection_that_takes_long_is_live_before_the_old_one_ends():
    model = Model([{}, {"answers": 3.0, "restored": True}])
    async with living(model) as ear:
        model.line.tell(ReplyStarted("r"))
        model.line.tell(GoAway(10.0))
        await asyncio.sleep(8.9)
        assert len(model.lines) == 2
        assert not model.lines[0].closed
        await asyncio.sleep(0.2)
        assert model.lines[0].closed
        (event,) = ear.of(RealtimeReconnectedEvent)
        assert (event.outcome, event.gap_ms, event.lost_ms) == ("restored", 0, 0)


@virtual_time
async def test_a_single_connection_is_replaced_in_a_silence():
    model = Model([{"expires_in": 10.0}, {"answers": 0.1, "restored": True}])
    model.single_connection = True
    async with living(model) as ear:
        model.line.tell(ReplyStarted("r"))
        await asyncio.sleep(9)
        assert len(model.lines) == 1
        model.line.tell(ReplyDone("r"))
        await asyncio.sleep(0.05)
        assert model.lines[0].closed
        assert not model.connected
        assert model.alive
        model.send_audio(sound(np.full(100, 1000)))
        await asyncio.sleep(0.5)
        assert len(model.lines[1].heard) == 100
        (event,) = ear.of(RealtimeReconnectedEvent)
        assert (event.outcome, event.lost_ms) == ("restored", 0)
        assert 100 <= event.gap_ms <= 350
        assert not ear.lost


@virtual_time
async def test_a_connection_that_ends_between_two_attempts_is_replaced_at_once():
    refused = {"fails": LOST}
    model = Model([{}, *[refused] * 6, {}])
    async with living(model) as ear:
        await asyncio.sleep(5)
        model.line.tell(GoAway(60.0))
        while len(model.lines) < 7:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.5)
        model.lines[0].lose()
        await asyncio.sleep(0.6)
        (event,) = ear.of(RealtimeReconnectedEvent)
        assert event.gap_ms < 600


@virtual_time
async def test_impossible_ages_do_not_cause_a_connection_every_second():
    model = Model([{"expires_in": 2.0}])
    async with living(model):
        await asyncio.sleep(1000)
        times = [round(at) for at in model.at]
    assert times == [0, 5, 15, 35, 75, 155, 315, 615, 915]


@virtual_time
async def test_a_short_age_is_believed_once_the_service_has_kept_it():
    model = Model([{"expires_in": 20.0}], ReconnectPolicy(base_s=0.01, cap_s=0.01))
    async with living(model) as ear:
        while model.clock.now() < 200:
            await asyncio.sleep(0.1)
            line = model.line
            if model.clock.now() - model.at[-1] > 20 and not line.closed:
                line.lose()
        reasons = [event.reason for event in ear.of(RealtimeReconnectingEvent)]
    assert reasons.count(str(LOST)) == 1
    assert len(model.lines) >= 200 / 20
