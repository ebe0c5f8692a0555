"""Replies that are stopped, refused, unwanted or late."""

import asyncio
import logging

import pytest
from fake_connection import FakeModel, audio_frame, live_session

from duologue.errors import ErrorKind, SessionClosedError, SessionError
from duologue.realtime.codec import SessionSetup
from duologue.realtime.commands import CancelReply, RequestReply, Say
from duologue.realtime.outputs import (
    Alive,
    ProviderError,
    ReplyAudio,
    ReplyDone,
    ReplyRefused,
    ReplyStarted,
    ReplyText,
    Resumable,
    SpeechStarted,
    UserTranscript,
    UserTurnEnded,
)
from duologue.testing import virtual_time
from duologue.vad.energy import EnergyVAD


def emit_all(model, *outputs):
    for output in outputs:
        model.latest.emit(output)


def begin_protected_text(model, observer, heard="one"):
    """Let the model say a text to its end; the person has heard ``heard`` so far."""
    model.say("q", "one two three", interruptible=False)
    emit_all(model, ReplyStarted("r", "q"))
    observer.spoken["r"] = heard


@virtual_time
async def test_a_protected_text_that_the_model_stops_is_continued_at_once_in_silence():
    model = FakeModel()
    async with live_session(model) as observer:
        begin_protected_text(model, observer)
        emit_all(model, ReplyDone("r", "cancelled"))
        (rest,) = model.latest.sent(Say)[1:]
        assert rest == Say(rest.request_id, "two three", interruptible=False)
        assert observer.lost == [("r", rest.request_id)]
        assert not observer.of(ReplyDone)


@virtual_time
async def test_a_protected_text_that_the_model_stops_waits_until_the_person_has_finished():
    model = FakeModel()
    async with live_session(model) as observer:
        begin_protected_text(model, observer)
        emit_all(model, SpeechStarted("u", position=0), ReplyDone("r", "cancelled"))
        assert len(model.latest.sent(Say)) == 1
        assert model.pending
        emit_all(model, UserTurnEnded("u", reply_follows=False))
        assert model.latest.sent(Say)[1].text == "two three"
        assert observer.lost == [("r", model.latest.sent(Say)[1].request_id)]


@virtual_time
async def test_an_interruption_drops_the_rest_of_a_protected_text():
    model = FakeModel()
    async with live_session(model) as observer:
        begin_protected_text(model, observer)
        emit_all(model, SpeechStarted("u", position=0), ReplyDone("r", "cancelled"))
        ((_, rest_id),) = observer.lost
        model.interrupt()
        assert observer.reported[-1] == (rest_id, None)
        assert not model.pending
        emit_all(model, UserTurnEnded("u", reply_follows=False))
        assert len(model.latest.sent(Say)) == 1


@virtual_time
async def test_the_rest_of_a_protected_text_fails_with_the_session():
    model = FakeModel()
    async with live_session(model) as observer:
        begin_protected_text(model, observer)
        emit_all(model, SpeechStarted("u", position=0), ReplyDone("r", "cancelled"))
    ((_, rest_id),) = observer.lost
    request_id, error = observer.reported[-2]
    assert request_id == rest_id
    assert isinstance(error, SessionClosedError)
    assert str(error) == "no reply: closed"


@pytest.mark.parametrize(
    ("interruptible", "status", "heard"),
    [
        (True, "cancelled", "one"),
        (False, "completed", "one"),
        (False, "cancelled", "one two three"),
    ],
)
@virtual_time
async def test_a_text_that_is_over_is_not_continued(interruptible, status, heard):
    model = FakeModel()
    async with live_session(model) as observer:
        model.say("q", "one two three", interruptible=interruptible)
        emit_all(model, ReplyStarted("r", "q"))
        observer.spoken["r"] = heard
        emit_all(model, ReplyDone("r", status))
        assert len(model.latest.sent(Say)) == 1
        assert observer.of(ReplyDone) == [ReplyDone("r", status)]


@virtual_time
async def test_a_protected_text_that_the_program_interrupts_is_not_continued():
    model = FakeModel()
    async with live_session(model) as observer:
        begin_protected_text(model, observer)
        model.interrupt()
        emit_all(model, ReplyDone("r", "cancelled"))
        assert len(model.latest.sent(Say)) == 1
        assert not observer.lost


@virtual_time
async def test_an_automatic_reply_that_the_provider_refuses_is_requested():
    model = FakeModel()
    async with live_session(model):
        emit_all(model, UserTurnEnded("u"), ReplyRefused("", "busy", "not now"))
        assert len(model.latest.sent(RequestReply)) == 1


@virtual_time
async def test_a_stale_automatic_reply_that_the_provider_refuses_is_not_requested():
    model = FakeModel()
    async with live_session(model):
        emit_all(model, UserTurnEnded("u"))
        model.interrupt()
        emit_all(model, ReplyRefused("", "busy", "not now"))
        assert not model.latest.sent(RequestReply)
        assert not model.pending


def discard_every_reply(model, observer):
    """Let the observer take every turn for a cough."""
    report = observer.output

    def output(one, epoch):
        report(one, epoch)
        if isinstance(one, UserTurnEnded):
            model.discard_reply(one.item_id)

    observer.output = output


@virtual_time
async def test_the_reply_to_a_turn_that_may_have_been_a_cough_is_cancelled():
    model = FakeModel()
    async with live_session(model) as observer:
        discard_every_reply(model, observer)
        emit_all(model, SpeechStarted("u", position=0), UserTurnEnded("u"))
        assert not model.replying
        emit_all(model, ReplyStarted("r"))
        assert model.latest.commands == [CancelReply("r")]
        assert not observer.of(ReplyStarted)


@virtual_time
async def test_a_discarded_reply_that_has_not_begun_is_restored():
    model = FakeModel()
    async with live_session(model) as observer:
        discard_every_reply(model, observer)
        emit_all(model, SpeechStarted("u", position=0), UserTurnEnded("u"))
        model.restore_reply()
        assert model.replying
        emit_all(model, ReplyStarted("r"))
        assert not model.latest.commands
        assert observer.of(ReplyStarted)


@virtual_time
async def test_a_discarded_reply_that_was_cancelled_is_requested():
    model = FakeModel()
    async with live_session(model) as observer:
        discard_every_reply(model, observer)
        emit_all(model, SpeechStarted("u", position=0), UserTurnEnded("u"), ReplyStarted("r"))
        model.restore_reply()
        emit_all(model, ReplyDone("r", "cancelled"))
        (requested,) = model.latest.sent(RequestReply)
        emit_all(model, ReplyStarted("s", requested.request_id))
        assert observer.of(ReplyStarted) == [ReplyStarted("s", requested.request_id)]


@virtual_time
async def test_late_text_of_an_ended_reply_is_reported_and_late_audio_is_not():
    model = FakeModel()
    async with live_session(model) as observer:
        late = []
        observer.late_transcript = late.append
        emit_all(model, ReplyStarted("r"), ReplyDone("r"))
        text = ReplyText("r", "i", "The end.")
        audio = ReplyAudio("r", "i", audio_frame([1] * 10))
        emit_all(model, text, audio)
        assert observer.reported[-1] == text
        assert model.stale_outputs == 1
        model.interrupt()
        emit_all(model, text, ReplyText("r", "i", "Not said.", planned=True))
        assert late == [text]
        assert model.stale_outputs == 3


@pytest.mark.parametrize("reply", [True, False])
@pytest.mark.parametrize("turn_reply", ["requested", "automatic"])
@virtual_time
async def test_the_program_says_whether_its_turn_gets_a_reply(turn_reply, reply):
    model = FakeModel(manual_turns=True, turn_reply=turn_reply, speech_detection="none")
    async with live_session(model):
        model.end_turn(reply=reply)
        emit_all(model, UserTurnEnded("u", reply_follows=reply and turn_reply == "automatic"))
        requested = reply and turn_reply == "requested"
        assert len(model.latest.sent(RequestReply)) == requested
        assert model.replying == reply


@virtual_time
async def test_an_empty_turn_of_the_program_gets_no_reply():
    model = FakeModel(manual_turns=True, turn_reply="requested", speech_detection="none")
    async with live_session(model):
        model.end_turn()
        emit_all(model, UserTurnEnded("u", reply_follows=False, empty=True))
        assert not model.pending
        assert not model.latest.sent(RequestReply)


@virtual_time
async def test_a_session_that_can_not_be_resumed_now_is_not_moved_to_another_connection():
    model = FakeModel()
    async with live_session(model) as observer:
        emit_all(model, Resumable(False), Alive())
        model.roll_over()
        await asyncio.sleep(5)
        assert len(model.opened) == 1
        emit_all(model, Resumable(True))
        await asyncio.sleep(1)
        assert len(model.opened) == 2
        assert not observer.of(Resumable)
        assert not observer.of(Alive)


@virtual_time
async def test_an_error_that_ends_the_connection_is_raised_and_not_reported():
    model = FakeModel()
    async with live_session(model) as observer:
        with pytest.raises(SessionError, match="too old") as caught:
            emit_all(model, ProviderError(ErrorKind.RECYCLE, "session_expired", "too old"))
        assert (caught.value.code, caught.value.kind) == ("session_expired", ErrorKind.RECYCLE)
        assert not observer.of(ProviderError)


@virtual_time
async def test_outputs_after_the_end_of_the_session_are_ignored():
    model = FakeModel()
    async with live_session(model) as observer:
        session = model._session
    reported = len(observer.reported)
    session.receive(ReplyStarted("r"))
    assert len(observer.reported) == reported
    assert not model.pending


@virtual_time
async def test_long_partial_transcripts_are_passed_on_less_often():
    model = FakeModel(user_transcripts="partial")
    async with live_session(model) as observer:
        emit_all(model, SpeechStarted("u", position=0))
        for count in range(3000, 3010):
            emit_all(model, UserTranscript("u", "x" * count, final=False))
        assert len(observer.of(UserTranscript)) == 1
        emit_all(model, UserTranscript("u", "x" * 3010 + "\ud800", final=True))
        assert observer.of(UserTranscript)[-1].text == "x" * 3010 + "?"


@virtual_time
async def test_the_debug_log_names_messages_without_their_text(caplog):
    caplog.set_level(logging.DEBUG, "duologue.realtime")
    model = FakeModel()
    async with live_session(model):
        model.send_audio(audio_frame([1000] * 10))
        model.say("q", "secret")
        emit_all(model, ReplyStarted("r", "q"), ReplyText("r", "i", "secret"))
        emit_all(model, ReplyAudio("r", "i", audio_frame([1] * 10)))
    lines = [line for line in caplog.messages if "sends" in line or "receives" in line]
    session = f"session {model.session_id}"
    assert lines == [
        f"{session} sends Say",
        f"{session} receives ReplyStarted",
        f"{session} receives ReplyText",
    ]
    assert "secret" not in caplog.text


class BrokenVAD(EnergyVAD):
    def stream(self):
        return self

    def push(self, samples):
        raise ValueError("no weights")


@pytest.mark.parametrize("speech_detection", ["server", "local"])
@virtual_time
async def test_a_voice_detector_that_fails_is_reported_and_the_session_continues(speech_detection):
    model = FakeModel(speech_detection=speech_detection, vad=BrokenVAD())
    async with live_session(model) as observer:
        model.send_audio(audio_frame([1000] * 1000))
        (error,) = observer.of(ProviderError)
        assert error.kind is ErrorKind.RETRY
        assert error.message.startswith("voice activity detection: ")
        assert "no weights" in error.message
        assert len(model.latest.received) == 1000


@virtual_time
async def test_a_model_whose_turns_the_program_ends_has_no_voice_detector():
    model = FakeModel(speech_detection="none", vad=EnergyVAD())
    assert model.voice_meter is None
    with pytest.raises(SessionClosedError):
        model.restore_reply()
    await asyncio.sleep(0)
    assert model.history() == SessionSetup().history
