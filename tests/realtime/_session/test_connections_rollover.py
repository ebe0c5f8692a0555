"""Switching to the next connection before one ends."""

import asyncio

import numpy as np
import pytest
from fake_connection import LOST, FakeModel, audio_frame, live_session

from duologue.errors import ErrorKind, SessionError
from duologue.events import RealtimeReconnectedEvent, RealtimeReconnectingEvent
from duologue.realtime._session.resume import CONTINUE_PROMPT
from duologue.realtime.commands import RequestReply
from duologue.realtime.outputs import (
    GoAway,
    ProviderError,
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
    model = FakeModel([{"expires_in": 100.0}, {"starts_after": 0.5}])
    async with live_session(model) as observer:
        await asyncio.sleep(79)
        assert len(model.opened) == 1
        model.latest.emit(ReplyStarted("r"))
        await asyncio.sleep(5)
        assert len(model.opened) == 1
        model.latest.emit(ReplyDone("r"))
        await asyncio.sleep(0.1)
        assert len(model.opened) == 2
        assert not model.opened[0].closed
        model.send_audio(audio_frame(np.full(100, 1000)))
        assert len(model.opened[0].received) == 100
        await asyncio.sleep(0.6)
        assert model.opened[0].closed
        assert len(model.opened[1].received) == 100
        assert observer.of(RealtimeReconnectingEvent)[0].attempt == 0
        (event,) = observer.of(RealtimeReconnectedEvent)
        assert (event.outcome, event.lost_ms, event.gap_ms) == ("replayed", 0, 0)
        assert not observer.lost


@virtual_time
async def test_a_rollover_does_not_wait_for_ever_and_continues_the_reply():
    model = FakeModel([{"expires_in": 10.0}, {}])
    async with live_session(model) as observer:
        model.latest.emit(ReplyStarted("r"))
        observer.spoken["r"] = "half"
        await asyncio.sleep(10)
        assert model.opened[0].closed
        assert model.latest.sent(RequestReply)[0].instructions == CONTINUE_PROMPT
        assert model.connected


@virtual_time
async def test_a_person_who_begins_to_speak_during_a_rollover_is_not_cut_off():
    model = FakeModel([{}, {"starts_after": 1.0}])
    async with live_session(model):
        model.roll_over()
        await asyncio.sleep(0.5)
        model.line_two = model.opened[1]
        model.opened[0].emit(SpeechStarted("u", position=0))
        await asyncio.sleep(2)
        assert not model.opened[0].closed
        model.opened[0].emit(UserTurnEnded("u", position=10, reply_follows=False))
        model.opened[0].emit(UserTranscript("u", "hello", final=True))
        await asyncio.sleep(0.1)
        assert model.opened[0].closed
        assert len(model.opened) == 2


@virtual_time
async def test_a_connection_that_ends_during_a_rollover_is_replaced():
    model = FakeModel([{}, {"starts_after": 1.0}, {}])
    async with live_session(model):
        model.roll_over()
        await asyncio.sleep(0.5)
        model.opened[0].lose()
        await asyncio.sleep(0.5)
        assert model.connected
        assert len(model.opened) == 3
        assert model.opened[1].closed


@virtual_time
async def test_a_next_connection_that_fails_is_retried_while_the_old_one_lives():
    model = FakeModel([{}, {"fails": LOST}, {"fails": LOST}, {}])
    async with live_session(model) as observer:
        model.roll_over()
        await asyncio.sleep(2)
        assert len(model.opened) == 4
        assert model.connected
        assert len(observer.of(RealtimeReconnectedEvent)) == 1


@virtual_time
async def test_a_rollover_that_never_succeeds_keeps_the_connection():
    model = FakeModel([{}, {"fails": LOST}], ReconnectPolicy(max_attempts=2, base_s=0.1))
    async with live_session(model):
        model.roll_over()
        await asyncio.sleep(2)
        assert len(model.opened) == 3
        assert model.connected
        assert not model.opened[0].closed


@virtual_time
async def test_a_go_away_starts_a_rollover_at_once_and_is_obeyed_in_time():
    model = FakeModel()
    async with live_session(model):
        model.latest.emit(ReplyStarted("r"))
        model.latest.emit(GoAway(5.0))
        await asyncio.sleep(1.5)
        assert len(model.opened) == 1
        await asyncio.sleep(2.0)
        assert len(model.opened) == 2
        assert not model.opened[0].closed
        await asyncio.sleep(1)
        assert model.opened[0].closed
        model.roll_over()
        model.roll_over(0.5)
        await asyncio.sleep(1)
        assert len(model.opened) == 3


@virtual_time
async def test_a_very_short_notice_is_obeyed_at_its_end():
    model = FakeModel()
    async with live_session(model):
        model.latest.emit(ReplyStarted("r"))
        model.latest.emit(GoAway(3.5))
        await asyncio.sleep(2.4)
        assert len(model.opened) == 1
        await asyncio.sleep(0.2)
        assert len(model.opened) == 2


@virtual_time
async def test_a_connection_that_takes_long_is_live_before_the_old_one_ends():
    model = FakeModel([{}, {"starts_after": 3.0, "restored": True}])
    async with live_session(model) as observer:
        model.latest.emit(ReplyStarted("r"))
        model.latest.emit(GoAway(10.0))
        await asyncio.sleep(8.9)
        assert len(model.opened) == 2
        assert not model.opened[0].closed
        await asyncio.sleep(0.2)
        assert model.opened[0].closed
        (event,) = observer.of(RealtimeReconnectedEvent)
        assert (event.outcome, event.gap_ms, event.lost_ms) == ("restored", 0, 0)


@virtual_time
async def test_a_single_connection_is_replaced_in_a_silence():
    model = FakeModel([{"expires_in": 10.0}, {"starts_after": 0.1, "restored": True}])
    model.single_connection = True
    async with live_session(model) as observer:
        model.latest.emit(ReplyStarted("r"))
        await asyncio.sleep(9)
        assert len(model.opened) == 1
        model.latest.emit(ReplyDone("r"))
        await asyncio.sleep(0.05)
        assert model.opened[0].closed
        assert not model.connected
        assert model.alive
        model.send_audio(audio_frame(np.full(100, 1000)))
        await asyncio.sleep(0.5)
        assert len(model.opened[1].received) == 100
        (event,) = observer.of(RealtimeReconnectedEvent)
        assert (event.outcome, event.lost_ms) == ("restored", 0)
        assert 100 <= event.gap_ms <= 350
        assert not observer.lost


@virtual_time
async def test_a_connection_that_ends_between_two_attempts_is_replaced_at_once():
    refused = {"fails": LOST}
    model = FakeModel([{}, *[refused] * 6, {}])
    async with live_session(model) as observer:
        await asyncio.sleep(5)
        model.latest.emit(GoAway(60.0))
        while len(model.opened) < 7:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.5)
        model.opened[0].lose()
        await asyncio.sleep(0.6)
        (event,) = observer.of(RealtimeReconnectedEvent)
        assert event.gap_ms < 600


@virtual_time
async def test_impossible_ages_do_not_cause_a_connection_every_second():
    model = FakeModel([{"expires_in": 2.0}])
    async with live_session(model):
        await asyncio.sleep(1000)
        times = [round(at) for at in model.at]
    assert times == [0, 5, 15, 35, 75, 155, 315, 615, 915]


@virtual_time
async def test_a_short_age_is_believed_once_the_service_has_kept_it():
    model = FakeModel([{"expires_in": 20.0}], ReconnectPolicy(base_s=0.01, cap_s=0.01))
    async with live_session(model) as observer:
        while model.clock.now() < 200:
            await asyncio.sleep(0.1)
            connection = model.latest
            if model.clock.now() - model.at[-1] > 20 and not connection.closed:
                connection.lose()
        reasons = [event.reason for event in observer.of(RealtimeReconnectingEvent)]
    assert reasons.count(str(LOST)) == 1
    assert len(model.opened) >= 200 / 20


@virtual_time
async def test_a_second_rollover_request_can_only_bring_the_switch_forward():
    model = FakeModel([{}, {"starts_after": 0.5}])
    async with live_session(model) as observer:
        model.roll_over()
        await asyncio.sleep(0.1)
        assert len(model.opened) == 2
        model.latest.emit(ReplyStarted("early"))
        model.opened[0].emit(ReplyStarted("r"))
        await asyncio.sleep(10)
        assert not model.opened[0].closed
        for within in (2.0, 60.0, None):
            model.roll_over(within)
        await asyncio.sleep(1.9)
        assert not model.opened[0].closed
        await asyncio.sleep(0.2)
        assert model.opened[0].closed
        assert len(model.opened) == 2
        assert len(observer.of(RealtimeReconnectingEvent)) == 1


@virtual_time
async def test_a_next_connection_that_fails_while_it_waits_for_a_silence_is_made_again():
    model = FakeModel([{}, {"starts_after": 0.1}, {}])
    async with live_session(model) as observer:
        model.roll_over()
        await asyncio.sleep(0.05)
        model.opened[0].emit(ReplyStarted("r"))
        await asyncio.sleep(1)
        with pytest.raises(SessionError, match="too old") as raised:
            model.opened[1].emit(ProviderError(ErrorKind.RECYCLE, "session_expired", "too old"))
        model.opened[1].lose(raised.value)
        await asyncio.sleep(1)
        assert model.connected
        assert not model.opened[0].closed
        assert len(model.opened) == 2
        model.opened[0].emit(ReplyDone("r"))
        await asyncio.sleep(0.1)
        assert model.opened[0].closed
        assert len(model.opened) == 3
        assert not observer.of(ProviderError)


@virtual_time
async def test_outputs_of_a_connection_that_is_not_the_current_one_are_counted_and_dropped():
    model = FakeModel([{}, {"starts_after": 0.1}])
    async with live_session(model) as observer:
        model.roll_over()
        await asyncio.sleep(0.05)
        model.opened[0].emit(ReplyStarted("r"))
        await asyncio.sleep(1)
        model.opened[1].emit(ReplyStarted("early"))
        model.opened[1].emit(ProviderError(ErrorKind.RETRY, "busy", "try again"))
        assert model._session.connections.unused_outputs == 2
        assert observer.of(ReplyStarted) == [ReplyStarted("r")]
        assert not observer.of(ProviderError)
