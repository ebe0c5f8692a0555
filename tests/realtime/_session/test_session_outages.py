"""How a session continues on its next connection, and when it takes one for silent."""

import asyncio

import numpy as np
import pytest
from fake_connection import FakeModel, audio_frame, live_session, wait_reconnected

from duologue.audio import AudioFrame
from duologue.errors import SessionClosedError
from duologue.events import RealtimeReconnectedEvent, RealtimeReconnectingEvent
from duologue.items import AgentItem, UserItem
from duologue.realtime._session.resume import CONTINUE_PROMPT
from duologue.realtime.commands import (
    AddItem,
    CancelReply,
    ClearInput,
    DeleteItem,
    EndTurn,
    Ping,
    RequestReply,
    Say,
    Truncate,
)
from duologue.realtime.outputs import (
    Alive,
    ReplyAudio,
    ReplyDone,
    ReplyStarted,
    SpeechStarted,
    ToolCall,
    UserTranscript,
    UserTurnEnded,
)
from duologue.realtime.reconnect import ReconnectPolicy
from duologue.testing import virtual_time

RATE = 16000
QUICK = ReconnectPolicy(base_s=0.01, cap_s=0.01)
SILENT = "the model has fallen silent: nothing has come for 25 s"
UNNOTICED = "the model has not shown for 25 s that it has heard the person"


def emit_all(model, *outputs):
    for output in outputs:
        model.latest.emit(output)


async def speak(model, seconds, level=8000):
    for _ in range(round(seconds * 50)):
        await asyncio.sleep(0.02)
        model.send_audio(AudioFrame(np.full(RATE // 50, level, np.int16), RATE))


async def be_silent(model, seconds):
    await speak(model, seconds, level=0)


async def reconnect(model):
    model.latest.lose()
    await wait_reconnected(model, len(model.opened) + 1)


@virtual_time
async def test_a_running_reply_continues_where_the_person_stopped_hearing_it():
    model = FakeModel()
    async with live_session(model) as observer:
        emit_all(model, ReplyStarted("r"))
        observer.spoken["r"] = "I am"
        await reconnect(model)
        (requested,) = model.latest.sent(RequestReply)
        assert requested.instructions == CONTINUE_PROMPT
        assert observer.lost == [("r", requested.request_id)]


@virtual_time
async def test_a_text_that_was_said_to_its_end_is_not_requested_again():
    model = FakeModel()
    async with live_session(model) as observer:
        model.say("q", "one two")
        emit_all(model, ReplyStarted("r", "q"))
        observer.spoken["r"] = "one two"
        await reconnect(model)
        assert not model.latest.sent(Say)
        assert observer.lost == [("r", None)]


@virtual_time
async def test_an_interrupted_reply_ends_with_its_connection():
    model = FakeModel(confirms_cancel=False)
    async with live_session(model) as observer:
        emit_all(model, UserTurnEnded("u", reply_follows=False), ReplyStarted("r"))
        model.interrupt()
        await reconnect(model)
        assert not observer.lost
        assert not model.latest.commands
        assert not model.pending


@virtual_time
async def test_a_reply_that_an_interruption_made_stale_is_not_requested_again():
    model = FakeModel()
    async with live_session(model):
        emit_all(model, UserTurnEnded("u"), UserTranscript("u", "hello", final=True))
        model.interrupt()
        await reconnect(model)
        assert not model.latest.sent(RequestReply)


@virtual_time
async def test_an_expected_reply_is_requested_from_the_next_connection():
    model = FakeModel()
    async with live_session(model):
        emit_all(model, UserTurnEnded("u"), UserTranscript("u", "hello", final=True))
        await reconnect(model)
        assert len(model.latest.sent(RequestReply)) == 1


@virtual_time
async def test_a_turn_without_a_transcript_comes_again_with_its_reply():
    model = FakeModel()
    async with live_session(model) as observer:
        model.send_audio(audio_frame(np.full(500, 1000)))
        emit_all(model, SpeechStarted("u", position=0), UserTurnEnded("u", position=400))
        await reconnect(model)
        assert observer.reported.count(("u",)) == 1
        assert len(model.latest.received) == 500
        assert not model.latest.sent(RequestReply)
        emit_all(model, SpeechStarted("v", position=0), UserTurnEnded("v"), ReplyStarted("r"))
        assert observer.of(ReplyStarted) == [ReplyStarted("r")]


def start_answered_turn(model):
    """Send a turn whose reply is audible and whose transcript is missing."""
    model.send_audio(audio_frame(np.full(500, 1000)))
    audio = ReplyAudio("r", "i", audio_frame(np.full(100, 5)))
    emit_all(model, SpeechStarted("u", position=0), UserTurnEnded("u", position=400))
    emit_all(model, ReplyStarted("r"), audio, audio)


@virtual_time
async def test_a_second_reply_to_a_replayed_turn_is_cancelled():
    model = FakeModel()
    async with live_session(model) as observer:
        start_answered_turn(model)
        emit_all(model, ReplyDone("r"))
        await reconnect(model)
        assert ("u",) not in observer.reported
        reported = len(observer.reported)
        emit_all(model, SpeechStarted("v", position=0), UserTurnEnded("v"), ReplyStarted("s"))
        assert model.latest.sent(CancelReply) == [CancelReply("s")]
        assert len(observer.reported) == reported
        emit_all(model, UserTranscript("v", "hello", final=True))
        assert observer.reported[-1] == UserTranscript("u", "hello", final=True)


@virtual_time
async def test_a_replayed_turn_that_gets_no_second_reply_delays_no_request():
    model = FakeModel()
    async with live_session(model):
        start_answered_turn(model)
        emit_all(model, ReplyDone("r"))
        await reconnect(model)
        model.request_reply("q")
        assert not model.latest.sent(RequestReply)
        emit_all(model, SpeechStarted("v", position=0), UserTurnEnded("v", reply_follows=False))
        assert model.latest.sent(RequestReply) == [RequestReply("q")]


@pytest.mark.parametrize("truncation", ["native", "as_text"])
@virtual_time
async def test_a_late_transcript_goes_to_its_place_in_a_history_that_can_be_changed(truncation):
    model = FakeModel(truncation=truncation)
    async with live_session(model) as observer:
        start_answered_turn(model)
        emit_all(model, ReplyDone("r"))
        question = UserItem("u", "Who are you?")
        observer.items = (question, AgentItem("a", "I am"))
        await reconnect(model)
        emit_all(model, SpeechStarted("v", position=0), UserTurnEnded("v"), ReplyStarted("s"))
        emit_all(model, UserTranscript("v", question.text, final=True))
        changes = [c for c in model.latest.commands if isinstance(c, AddItem | DeleteItem)]
        moved = [DeleteItem("v"), AddItem(question, before=("a",))]
        assert changes == (moved if truncation == "native" else [])


@pytest.mark.parametrize("truncation", ["native", "none"])
@virtual_time
async def test_changes_while_the_next_connection_connects_are_sent_to_it(truncation):
    before = UserItem("a", "one"), AgentItem("b", "two")
    model = FakeModel([{}, {"starts_after": 1.0}], truncation=truncation)
    async with live_session(model, before) as observer:
        model.latest.lose()
        await asyncio.sleep(0.5)
        added = UserItem("c", "three")
        observer.items = AgentItem("b", "tw", "cut", 10), added
        model.add_item(added)
        await wait_reconnected(model)
        changes = [DeleteItem("a"), Truncate("b", 10, "tw")] if truncation == "native" else []
        assert model.latest.commands == [*changes, AddItem(added)]


@virtual_time
async def test_a_turn_whose_audio_was_lost_in_the_outage_is_reported_as_ended():
    policy = ReconnectPolicy(base_s=0.01, cap_s=0.01, keep_s=1.0)
    model = FakeModel([{}, {"starts_after": 3.0}], policy)
    async with live_session(model) as observer:
        emit_all(model, SpeechStarted("u", position=0))
        model.latest.lose()
        await be_silent(model, 2.0)
        await wait_reconnected(model)
        assert isinstance(observer.reported[-2], RealtimeReconnectedEvent)
        assert observer.reported[-1] == UserTurnEnded("u", None, reply_follows=False, empty=True)


@virtual_time
async def test_audio_that_the_program_took_back_is_taken_back_on_the_next_connection():
    model = FakeModel(manual_turns=True)
    with pytest.raises(SessionClosedError):
        model.clear_input()
    async with live_session(model):
        model.send_audio(audio_frame(range(100, 200)))
        model.clear_input()
        model.send_audio(audio_frame(range(200, 300)))
        model.end_turn()
        kinds = [type(command) for command in model.latest.commands]
        assert kinds[1::2] == [ClearInput, EndTurn]
        await reconnect(model)
        kinds = [type(command) for command in model.latest.commands]
        assert kinds[1::2] == [ClearInput, EndTurn]


@virtual_time
async def test_a_request_that_nothing_follows_is_sent_to_the_next_connection():
    model = FakeModel(policy=QUICK)
    async with live_session(model) as observer:
        model.request_reply("q")
        await asyncio.sleep(24.9)
        assert len(model.opened) == 1
        await wait_reconnected(model)
        (reported,) = observer.of(RealtimeReconnectingEvent)
        assert reported.reason == SILENT
        assert model.latest.sent(RequestReply) == [RequestReply("q")]


@virtual_time
async def test_a_sign_of_life_delays_the_end_of_a_connection_that_owes_a_reply():
    model = FakeModel(policy=QUICK)
    async with live_session(model):
        emit_all(model, UserTurnEnded("u"))
        await asyncio.sleep(7)
        emit_all(model, UserTranscript("u", "hello", final=True))
        await asyncio.sleep(24.9)
        assert len(model.opened) == 1
        await asyncio.sleep(0.2)
        assert len(model.opened) == 2


@virtual_time
async def test_a_reply_that_waits_for_its_tool_is_not_taken_for_stuck():
    model = FakeModel(policy=QUICK)
    async with live_session(model):
        emit_all(model, ReplyStarted("r"), ToolCall("r", "c", "look", "{}"))
        await asyncio.sleep(100)
        assert len(model.opened) == 1


@virtual_time
async def test_loud_audio_without_a_sign_of_life_causes_a_ping_and_its_answer_is_enough():
    model = FakeModel(policy=QUICK, answers_pings=True)
    async with live_session(model):
        for pings in (1, 2):
            await speak(model, 1.0)
            await be_silent(model, 17.0)
            assert len(model.latest.sent(Ping)) == pings
            emit_all(model, Alive())
        await be_silent(model, 60.0)
        assert len(model.opened) == 1


@virtual_time
async def test_a_connection_that_leaves_a_ping_without_an_answer_is_replaced():
    model = FakeModel(policy=QUICK, answers_pings=True)
    async with live_session(model) as observer:
        await speak(model, 1.0)
        await be_silent(model, 26.0)
        assert len(model.opened) == 2
        assert observer.of(RealtimeReconnectingEvent)[0].reason == SILENT


@virtual_time
async def test_a_turn_of_the_program_without_a_sign_of_life_causes_a_ping():
    model = FakeModel(policy=QUICK, answers_pings=True, manual_turns=True, speech_detection="none")
    async with live_session(model):
        await speak(model, 1.0)
        await be_silent(model, 30.0)
        assert not model.latest.sent(Ping)
        model.end_turn()
        await asyncio.sleep(17)
        assert len(model.latest.sent(Ping)) == 1


@virtual_time
async def test_a_watch_that_is_due_in_an_outage_does_nothing():
    model = FakeModel([{}, {"starts_after": 9.0}], QUICK)
    async with live_session(model) as observer:
        model.request_reply("q")
        await asyncio.sleep(20)
        model.latest.lose()
        await asyncio.sleep(6)
        assert not model.connected
        await wait_reconnected(model)
        await asyncio.sleep(20)
        assert len(model.opened) == 2
        assert len(observer.of(RealtimeReconnectingEvent)) == 1


@virtual_time
async def test_speech_that_the_service_has_not_noticed_leads_to_a_rollover():
    model = FakeModel(policy=QUICK, speech_detection="local", may_ignore=True)
    async with live_session(model) as observer:
        await be_silent(model, 1.0)
        await speak(model, 1.0)
        await be_silent(model, 30.0)
        (reported,) = observer.of(RealtimeReconnectingEvent)
        assert reported.reason == UNNOTICED
        assert observer.of(RealtimeReconnectedEvent)[0].gap_ms == 0


@pytest.mark.parametrize("sign", [Alive(), UserTranscript("p", "yes", final=False)])
@virtual_time
async def test_speech_that_the_service_has_noticed_changes_nothing(sign):
    model = FakeModel(policy=QUICK, speech_detection="local", may_ignore=True)
    async with live_session(model):
        await be_silent(model, 1.0)
        await speak(model, 1.0)
        emit_all(model, sign)
        await be_silent(model, 60.0)
        assert len(model.opened) == 1


@virtual_time
async def test_short_pauses_of_a_long_speech_are_not_its_end():
    model = FakeModel(policy=QUICK, speech_detection="local", may_ignore=True)
    async with live_session(model):
        await be_silent(model, 1.0)
        for _ in range(10):
            await speak(model, 3.0)
            await be_silent(model, 2.0)
        assert len(model.opened) == 1


@virtual_time
async def test_a_detected_turn_ends_with_the_reply_and_gets_its_transcript():
    model = FakeModel(speech_detection="local")
    async with live_session(model) as observer:
        await speak(model, 1.0)
        await be_silent(model, 0.5)
        emit_all(model, UserTranscript("p", "Hello.", final=False), ReplyStarted("r"))
        (started,) = observer.of(SpeechStarted)
        (ended,) = observer.of(UserTurnEnded)
        assert ended.item_id == started.item_id
        emit_all(model, ReplyDone("r"))
        assert observer.of(UserTranscript)[-1] == UserTranscript(
            started.item_id, "Hello.", final=True
        )
