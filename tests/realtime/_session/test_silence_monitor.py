"""A service whose connection works, and which sends nothing any more."""

import asyncio

import numpy as np
import pytest
from fake_connection import FakeModel, live_session, wait_reconnected

from duologue.audio import AudioFrame
from duologue.errors import ConfigError
from duologue.events import RealtimeReconnectedEvent, RealtimeReconnectingEvent
from duologue.realtime._session.silence_monitor import MAX_PATIENCE, SilenceMonitor, Verdict
from duologue.realtime.commands import Ping, RequestReply
from duologue.realtime.outputs import (
    Alive,
    ReplyAudio,
    ReplyDone,
    ReplyRefused,
    ReplyStarted,
    ReplyText,
    SessionStarted,
    SpeechStarted,
    SpeechStopped,
    ToolCall,
    UserTranscript,
    UserTurnEnded,
)
from duologue.realtime.reconnect import ReconnectPolicy
from duologue.testing import virtual_time

RATE = 16000
QUICK = ReconnectPolicy(base_s=0.01, cap_s=0.01)
SILENT = "the model has fallen silent: nothing has come for 25 s"


async def speak(model, seconds, level=8000):
    for _ in range(round(seconds * 50)):
        await asyncio.sleep(0.02)
        model.send_audio(AudioFrame(np.full(RATE // 50, level, np.int16), RATE))


def make_model(**abilities):
    abilities = {"answers_pings": True, **abilities}
    return FakeModel(policy=QUICK, **abilities)


def emit_all(model, *outputs):
    for output in outputs:
        model.latest.emit(output)


@virtual_time
async def test_a_turn_that_nothing_follows_is_replayed_to_the_next_connection():
    model = make_model()
    async with live_session(model) as observer:
        began = model.clock.now()
        await speak(model, 1.0)
        await speak(model, 27.0, level=0)
        assert [type(c) for c in model.opened[0].commands if isinstance(c, Ping)] == [Ping]
        (reported,) = observer.of(RealtimeReconnectingEvent)
        assert reported.reason == SILENT
        await wait_reconnected(model)
        assert model.at[1] - began < 27


@virtual_time
async def test_a_service_that_answers_a_ping_is_kept_in_any_noise():
    model = make_model()
    async with live_session(model) as observer:
        for _ in range(100):
            before = len(model.latest.sent(Ping))
            await speak(model, 1.0)
            if len(model.latest.sent(Ping)) > before:
                emit_all(model, Alive())
        assert len(model.opened) == 1
        assert len(model.latest.sent(Ping)) == 5
        assert not observer.of(Alive)


@virtual_time
async def test_quiet_people_and_coughs_cause_no_ping():
    model = make_model()
    async with live_session(model):
        await speak(model, 60.0, level=300)
        await speak(model, 0.2)
        await speak(model, 60.0, level=0)
        assert not model.latest.sent(Ping)
        assert len(model.opened) == 1


@virtual_time
async def test_a_connection_that_can_not_be_pinged_is_replaced_without_a_gap():
    model = FakeModel(policy=QUICK, speech_detection="local", may_ignore=True)
    async with live_session(model) as observer:
        await speak(model, 1.0, level=0)
        await speak(model, 1.0)
        await speak(model, 30.0, level=0)
        (reported,) = observer.of(RealtimeReconnectingEvent)
        assert reported.reason == "the model has not shown for 25 s that it has heard the person"
        assert observer.of(RealtimeReconnectedEvent)[0].gap_ms == 0
        # It is not replaced again and again: what the VAD takes for speech may be none for the
        # service.
        for _ in range(40):
            await speak(model, 1.0)
            await speak(model, 9.0, level=0)
        assert [round(at / 10) for at in model.at] == [0, 3, 9, 20, 41]
        changes = len(model.opened)
        await speak(model, 1.0)
        emit_all(model, UserTranscript("a", "yes", final=True))
        await speak(model, 60.0, level=0)
        await speak(model, 1.0)
        await speak(model, 30.0, level=0)
        assert len(model.opened) == changes + 1


@virtual_time
async def test_a_long_speech_with_pauses_is_not_doubted_before_its_end():
    model = FakeModel(policy=QUICK, speech_detection="local", may_ignore=True)
    async with live_session(model):
        await speak(model, 1.0, level=0)
        for _ in range(20):
            await speak(model, 3.0)
            await speak(model, 2.0, level=0)
        assert len(model.opened) == 1
        await speak(model, 25.0, level=0)
        assert len(model.opened) == 2


@pytest.mark.parametrize(
    "abilities",
    [
        {"speech_detection": "local", "may_ignore": True, "user_transcripts": "none"},
        {"speech_detection": "local", "may_ignore": True, "manual_turns": True},
        {"speech_detection": "none", "manual_turns": True, "answers_pings": True},
    ],
)
@virtual_time
async def test_speech_that_needs_no_reply_changes_nothing(abilities):
    model = FakeModel(policy=QUICK, **abilities)
    async with live_session(model):
        await speak(model, 2.0)
        await speak(model, 60.0, level=0)
        assert len(model.opened) == 1
        assert not model.latest.sent(Ping)


@virtual_time
async def test_the_end_of_a_manual_turn_needs_a_sign():
    model = make_model(speech_detection="none", manual_turns=True, turn_reply="requested")
    async with live_session(model) as observer:
        await speak(model, 1.0)
        model.end_turn()
        await asyncio.sleep(27)
        assert observer.of(RealtimeReconnectingEvent)[0].reason == SILENT
        await wait_reconnected(model)
        emit_all(model, UserTurnEnded("a", reply_follows=False))
        (requested,) = model.latest.sent(RequestReply)
        emit_all(model, ReplyStarted("r", requested.request_id))


@virtual_time
async def test_an_announced_reply_is_made_by_the_next_connection():
    model = make_model()
    async with live_session(model) as observer:
        emit_all(
            model,
            SpeechStarted("a", None, 0),
            SpeechStopped("a", None, 100),
            UserTurnEnded("a"),
            UserTranscript("a", "hello", final=True),
        )
        await asyncio.sleep(20)
        assert len(model.opened) == 1
        await wait_reconnected(model)
        assert observer.of(RealtimeReconnectingEvent)[0].reason == SILENT
        assert len(model.latest.sent(RequestReply)) == 1


@pytest.mark.parametrize("reply_follows", [False, True])
@virtual_time
async def test_a_turn_without_an_announced_reply_needs_none(reply_follows):
    model = make_model(may_ignore=reply_follows)
    async with live_session(model):
        emit_all(
            model,
            SpeechStarted("a", None, 0),
            UserTurnEnded("a", reply_follows=reply_follows),
            UserTranscript("a", "hello", final=True),
        )
        await asyncio.sleep(120)
        assert len(model.opened) == 1


@virtual_time
async def test_a_request_is_sent_again_when_nothing_comes():
    model = make_model()
    async with live_session(model) as observer:
        model.request_reply("x")
        await wait_reconnected(model)
        (requested,) = model.latest.sent(RequestReply)
        assert requested.request_id == "x"
        emit_all(model, ReplyStarted("r", "x"), ReplyDone("r"))
        assert not [t for t in observer.reported if isinstance(t, tuple)]


@virtual_time
async def test_a_request_that_is_sent_again_here_is_due_since_the_first_time():
    model = FakeModel(policy=QUICK, defers_requests=True)
    async with live_session(model):
        model.request_reply("x")
        for _ in range(2):
            await asyncio.sleep(10)
            emit_all(model, ReplyRefused("x", "unanswered", "Nothing came.", busy=True))
        assert len(model.latest.sent(RequestReply)) == 3
        await wait_reconnected(model)
        assert 25 <= model.at[1] < 26
        (requested,) = model.latest.sent(RequestReply)
        assert requested.request_id == "x"
        # On the new connection its time starts again.
        await asyncio.sleep(24)
        assert len(model.opened) == 2


@virtual_time
async def test_a_request_that_is_deferred_while_audio_plays_is_not_due():
    model = FakeModel(policy=QUICK, defers_requests=True)
    async with live_session(model):
        audio = AudioFrame(np.ones(40 * RATE, np.int16), RATE)
        emit_all(model, ReplyStarted("r"), ReplyAudio("r", "i", audio), ReplyDone("r"))
        model.request_reply("x")
        await asyncio.sleep(64)
        assert len(model.opened) == 1
        await wait_reconnected(model)
        assert 65 < model.at[1] < 66


@virtual_time
async def test_a_reply_that_never_ends_is_continued_by_the_next_connection():
    model = make_model()
    async with live_session(model) as observer:
        observer.spoken = {"r": "Well,"}
        audio = AudioFrame(np.ones(10 * RATE, np.int16), RATE)
        emit_all(
            model,
            ReplyStarted("r"),
            ReplyText("r", "i", "Well,"),
            ReplyAudio("r", "i", audio),
        )
        for _ in range(3):
            # Signals about the person's speech do not count as its progress.
            await asyncio.sleep(10)
            emit_all(model, SpeechStarted("a", None, 0), UserTurnEnded("a", reply_follows=False))
        assert len(model.opened) == 1
        await wait_reconnected(model)
        assert 35 <= model.at[1] < 36
        assert len(observer.lost) == 1


@virtual_time
async def test_thinking_within_the_bound_and_long_tools_are_waited_for():
    model = make_model()
    async with live_session(model):
        emit_all(model, ReplyStarted("r"))
        await asyncio.sleep(24)
        emit_all(model, ToolCall("r", "c", "look", "{}"))
        await asyncio.sleep(300)
        emit_all(model, ReplyDone("r"))
        await asyncio.sleep(300)
        assert len(model.opened) == 1
        model.send_tool_result("c", "look", "42", failed=False)
        assert len(model.latest.sent(RequestReply)) == 1
        await wait_reconnected(model)


@virtual_time
async def test_an_interrupted_request_is_not_due():
    model = make_model()
    async with live_session(model):
        model.request_reply("x")
        model.interrupt()
        emit_all(model, SpeechStarted("a", None, 0), UserTurnEnded("a"))
        await asyncio.sleep(5)
        model.interrupt()
        await asyncio.sleep(120)
        assert len(model.opened) == 1


@virtual_time
async def test_the_bound_can_be_set_and_turned_off():
    policy = ReconnectPolicy(base_s=0.01, cap_s=0.01, silence_s=3.0)
    model = FakeModel(policy=policy, answers_pings=True)
    async with live_session(model):
        await speak(model, 0.5)
        await speak(model, 3.0, level=0)
        assert len(model.opened) == 2
    model = FakeModel(policy=ReconnectPolicy(silence_s=None), answers_pings=True)
    async with live_session(model):
        await speak(model, 1.0)
        await speak(model, 300.0, level=0)
        assert len(model.opened) == 1
    with pytest.raises(ConfigError, match="silence_s must be above 0, or None"):
        ReconnectPolicy(silence_s=0)


@virtual_time
async def test_a_server_that_confirms_nothing_gets_no_ping():
    model = make_model()
    async with live_session(model):
        model.latest.emit(SessionStarted(confirms_updates=False))
    model = make_model()
    model.plans = [{"confirms": False}]
    async with live_session(model):
        await speak(model, 1.0)
        await speak(model, 60.0, level=0)
        assert len(model.opened) == 1
        assert not model.latest.sent(Ping)


def test_a_late_ping_gets_its_time_for_an_answer():
    silence = SilenceMonitor(30.0, pings=True)
    silence.raise_doubt(0.0)
    assert silence.deadline(None, None) == 20.0
    assert silence.poll(None, None, 40.0) is Verdict.PING
    assert silence.deadline(None, None) == 50.0
    assert silence.poll(None, None, 49.0) is None
    assert silence.poll(None, None, 50.0) is Verdict.LOST
    assert silence.deadline(None, None) is None


def test_the_patience_with_doubts_is_bounded():
    silence = SilenceMonitor(10.0, pings=False)
    now = 0.0
    for power in range(8):
        silence.raise_doubt(now)
        wait = 10.0 * min(2**power, MAX_PATIENCE)
        assert silence.deadline(None, None) == now + wait
        now += wait
        assert silence.poll(None, None, now) is Verdict.ROLL_OVER
    silence.record_content()
    silence.raise_doubt(now)
    assert silence.deadline(None, None) == now + 10.0
