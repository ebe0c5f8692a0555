"""Which reply each of Gemini's messages belongs to: ends of replies and turns, interruptions."""

import numpy as np
import pytest
from gemini_codec_harness import Harness

from duologue.audio import AudioFrame
from duologue.errors import ErrorKind
from duologue.providers.gemini._reply_tracker import ReplyRequest, ReplyTracker, TurnFailure
from duologue.realtime.commands import CancelReply, RequestReply, Say, SendAudio
from duologue.realtime.outputs import (
    ProviderError,
    ReplyDone,
    ReplyInterrupted,
    ReplyStarted,
    ReplyText,
    SayMismatch,
)

PREVIEW = "gemini-3.1-flash-live-preview"


def kinds(outputs):
    return [type(output).__name__ for output in outputs]


# Ends of replies and of turns


def test_text_after_the_audio_belongs_to_the_same_reply():
    harness = Harness()
    started, audio = harness.begin_reply()
    harness.generated()
    assert harness.text(" late") == [ReplyText(started.reply_id, audio.item_id, " late")]
    harness.completed()
    assert harness.text(" later") == [ReplyText(started.reply_id, audio.item_id, " later")]
    assert harness.text("\n") == []
    again, audio = harness.begin_reply()
    assert again.reply_id != started.reply_id
    assert harness.text("next") == [ReplyText(again.reply_id, audio.item_id, "next")]


@pytest.mark.parametrize("spoken", [True, False])
def test_text_before_its_reply_waits_for_the_audio(spoken):
    harness = Harness()
    assert (
        harness.text(" ") == harness.text("Fi") == harness.text("rst. ") == []
    )  # No reply has begun yet.
    started, told, audio = harness.audio()
    assert told == ReplyText(started.reply_id, audio.item_id, "First. ")
    harness.completed()
    if spoken:
        harness.content(inputTranscription={"text": "How are you?"})
    else:
        harness.send(RequestReply("q"))
    assert harness.text("Fine.") == []
    started, told, audio = harness.audio()
    assert started.request_id == (None if spoken else "q")
    assert told == ReplyText(started.reply_id, audio.item_id, "Fine.")
    assert harness.completed() == [ReplyDone(started.reply_id)]


def test_text_after_a_turn_with_user_speech_belongs_to_the_next_reply():
    harness = Harness()
    harness.begin_reply()
    harness.content(inputTranscription={"text": "Mhm, go on."})
    harness.completed()
    assert harness.text("Yes?") == []
    started, told, audio = harness.audio()
    assert told == ReplyText(started.reply_id, audio.item_id, "Yes?")


@pytest.mark.parametrize(
    ("seconds", "loud", "silent"),
    [(0.1, 9000, 0.5), (0.5, 9000, 0.1), (0.5, 9000, 0.0), (9.0, 20, 0.0)],
)
def test_text_after_enough_user_audio_is_not_late(seconds, loud, silent):
    harness = Harness()
    before, _ = harness.begin_reply()
    harness.completed()
    for _ in range(round(seconds * 50)):
        harness.send(SendAudio(AudioFrame(np.full(320, loud, np.int16), 16000)))
    for _ in range(round(silent * 50)):
        harness.send_audio()
    words = harness.text("Yes?")
    if seconds < 0.2 or loud < 600 or not silent:
        assert [told.reply_id for told in words] == [before.reply_id]
    else:
        assert words == []
        started, told, audio = harness.audio()
        assert told == ReplyText(started.reply_id, audio.item_id, "Yes?")


def test_a_turn_with_text_only_is_a_reply_when_it_is_complete():
    harness = Harness()
    harness.send(RequestReply("q"))
    for _ in range(200):
        assert harness.text("x" * 100) == []  # Text without audio is bounded.
    started, told, done = harness.completed()
    assert (started.request_id, len(told.text)) == ("q", 4096)
    assert done == ReplyDone(started.reply_id)


def test_a_reply_without_an_end_ends_with_its_turn():
    harness = Harness()
    started, _ = harness.begin_reply()
    assert harness.completed() == [ReplyDone(started.reply_id)]
    assert harness.generated() == []


def test_a_model_that_says_nothing_ends_the_request():
    harness = Harness()
    harness.send(RequestReply("q"))
    started, done = harness.completed()
    assert started.request_id == "q"
    assert done == ReplyDone(started.reply_id, "completed")
    # Also for a user turn that it does not reply to.
    started, done = harness.completed(interactionStatus="IDLE")
    assert (started.request_id, done.status) == (None, "completed")


def test_a_turn_followed_by_another_is_not_an_empty_reply():
    harness = Harness()
    harness.send(RequestReply("q"))
    assert harness.completed(interactionStatus="IN_PROGRESS") == []
    started, _ = harness.begin_reply()
    assert started.request_id == "q"
    # Only gemini-3.8 reports that; other models' values mean nothing.
    other = Harness(PREVIEW)
    other.send(RequestReply("q"))
    assert kinds(other.completed(interactionStatus="IN_PROGRESS")) == ["ReplyStarted", "ReplyDone"]


@pytest.mark.parametrize(
    "reason",
    [
        "MALFORMED_FUNCTION_CALL", "RESPONSE_REJECTED", "PROHIBITED_INPUT_CONTENT", "INPUT_OTHER",
        "BLOCKLIST", "UNSAFE_PROMPT_FOR_IMAGE_GENERATION", "GENERATED_AUDIO_SAFETY",
        "OUTPUT_IMAGE_IP_PROHIBITED", "GENERATED_OTHER", "MAX_REGENERATION_REACHED", "BRAND_NEW",
    ],
)  # fmt: skip
def test_a_failed_turn_fails_the_request(reason):
    harness = Harness()
    harness.send(RequestReply("q"))
    started, done = harness.completed(turnCompleteReason=reason)
    message = "the model did not reply: " + reason.lower().replace("_", " ")
    assert (started.request_id, done) == ("q", ReplyDone(started.reply_id, "failed", message))
    # In the middle of a reply.
    started, _ = harness.begin_reply()
    assert harness.completed(turnCompleteReason=reason) == [
        ReplyDone(started.reply_id, "failed", message)
    ]
    # After its end.
    harness.begin_reply()
    harness.generated()
    assert harness.completed(turnCompleteReason=reason) == [
        ProviderError(ErrorKind.RETRY, reason, message)
    ]


@pytest.mark.parametrize("reason", ["NEED_MORE_INPUT", "TURN_COMPLETE_REASON_UNSPECIFIED", "", 3])
def test_reasons_that_are_not_failures(reason):
    harness = Harness()
    started, _ = harness.begin_reply()
    assert harness.completed(turnCompleteReason=reason) == [ReplyDone(started.reply_id)]


# Interruptions


def test_an_interruption_ends_the_reply_and_is_reported_once():
    harness = Harness()
    started, audio = harness.begin_reply()
    assert harness.interrupted() == [
        ReplyInterrupted(started.reply_id),
        ReplyDone(started.reply_id, "cancelled"),
    ]
    assert harness.interrupted() == []
    # Late text does not begin a reply.
    assert harness.text(" more") == [ReplyText(started.reply_id, audio.item_id, " more")]
    assert harness.completed() == []
    assert kinds(harness.audio()) == ["ReplyStarted", "ReplyAudio"]


def test_an_interruption_while_playing_names_the_reply():
    harness = Harness()
    started, _ = harness.begin_reply()
    harness.generated()
    assert harness.interrupted() == [ReplyInterrupted(started.reply_id)]
    assert harness.completed() == []


def test_an_interruption_of_nothing_is_reported_and_ends_nothing():
    harness = Harness()
    assert harness.interrupted() == [ReplyInterrupted(None)]
    # The next interruption is reported, whether this turn is completed or not.
    started, _ = harness.begin_reply()
    assert harness.interrupted()[0] == ReplyInterrupted(started.reply_id)
    harness = Harness()
    harness.interrupted()
    assert harness.completed() == []
    started, _ = harness.begin_reply()
    assert harness.interrupted()[0] == ReplyInterrupted(started.reply_id)


def test_a_person_who_speaks_first_ends_a_request_without_a_reply():
    harness = Harness()
    harness.send(RequestReply("q"))
    told, started, done = harness.interrupted()
    assert told == ReplyInterrupted(None)
    assert (started.request_id, done.status) == ("q", "cancelled")
    assert harness.completed() == []


@pytest.mark.parametrize("complete", [True, False])
def test_an_interruption_by_our_own_message_is_no_barge_in(complete):
    harness = Harness()
    started, _ = harness.begin_reply()
    if complete:
        harness.generated()
    harness.send(RequestReply("q"))
    ended = [] if complete else [ReplyDone(started.reply_id, "cancelled")]
    assert harness.interrupted() == ended
    assert harness.completed() == []
    begun, _ = harness.begin_reply()
    assert begun.request_id == "q"
    # The next interruption is the person's again.
    assert isinstance(harness.interrupted()[0], ReplyInterrupted)


def test_a_turn_that_ends_before_our_request_arrives_does_not_answer_it():
    harness = Harness()
    harness.begin_reply()
    harness.generated()
    harness.send(RequestReply("q"))
    assert harness.completed() == []  # The server had sent it before it read the request.
    begun, _ = harness.begin_reply()
    assert begun.request_id == "q"


def test_a_cancelled_reply_only_reports_its_end():
    harness = Harness()
    started, _ = harness.begin_reply()
    harness.send(CancelReply(started.reply_id))
    assert harness.audio() == harness.text("x") == []
    assert harness.generated() == [ReplyDone(started.reply_id, "cancelled")]
    harness.completed()
    started, _ = harness.begin_reply()
    harness.send(CancelReply("another"))
    assert kinds(harness.audio()) == ["ReplyAudio"]
    harness.send(CancelReply(started.reply_id))
    assert harness.completed() == [ReplyDone(started.reply_id, "cancelled")]


# Scripted text


def test_scripted_text_ends_with_its_last_word():
    harness = Harness()
    harness.send(Say("q", "Good morning."))
    started, audio = harness.begin_reply()
    assert started.request_id == "q"
    harness.text("Good")
    assert harness.generated() == []
    assert harness.text(" morning") == [
        ReplyText(started.reply_id, audio.item_id, " morning"),
        ReplyDone(started.reply_id),
    ]
    assert harness.completed() == []


def test_words_other_than_the_scripted_ones_are_reported():
    harness = Harness()
    harness.send(Say("q", "Good morning."))
    started, _ = harness.begin_reply()
    harness.text("Hello. ")
    assert harness.generated() == []
    assert harness.completed() == [
        SayMismatch(started.reply_id, "Good morning.", "Hello."),
        ReplyDone(started.reply_id),
    ]


def test_scripted_text_that_is_cancelled_is_no_mismatch():
    harness = Harness()
    harness.send(Say("q", "Good morning."))
    started, _ = harness.begin_reply()
    harness.text("Good")
    harness.send(CancelReply(started.reply_id))
    assert harness.generated() == [ReplyDone(started.reply_id, "cancelled")]
    harness.completed()
    harness.send(Say("q", "Good morning."))
    started, _ = harness.begin_reply()
    harness.text("Good")
    assert harness.interrupted()[-1] == ReplyDone(started.reply_id, "cancelled")


def test_without_transcripts_scripted_text_is_assumed_to_be_said():
    harness = Harness(output_transcription=None)
    harness.send(Say("q", "Good morning."))
    started, told, audio = harness.audio()
    assert told == ReplyText(started.reply_id, audio.item_id, "Good morning.")
    assert harness.generated() == [ReplyDone(started.reply_id)]
    harness.completed()
    harness.send(RequestReply("r"))
    assert kinds(harness.audio()) == ["ReplyStarted", "ReplyAudio"]


# The tracker by itself


def input_audio(seconds, level):
    return AudioFrame(np.full(round(seconds * 16000), level, np.int16), 16000)


def started_reply(tracker, text=""):
    reply, _ = tracker.content_received()
    if text:
        tracker.text_received(text)
    return reply


def test_the_model_has_the_turn_from_the_request_to_the_end_of_the_turn():
    tracker = ReplyTracker()
    assert not tracker.model_has_turn
    tracker.expect_reply(ReplyRequest("q"))
    assert tracker.model_has_turn
    started_reply(tracker)
    tracker.generation_completed()
    assert tracker.model_has_turn  # The audio is still playing.
    tracker.turn_completed(None, turn_follows=True)
    assert tracker.model_has_turn
    started_reply(tracker)
    tracker.turn_completed(None)
    assert not tracker.model_has_turn


def test_a_tool_call_ends_the_reply_and_late_text_is_still_its_own():
    tracker = ReplyTracker()
    reply = started_reply(tracker)
    assert tracker.tool_called(model_waits=True) == (ReplyDone(reply.id),)
    assert tracker.tool_called(model_waits=True) == ()
    late, _ = tracker.text_received("One moment.")
    assert late is reply


def test_a_model_that_does_not_wait_for_its_tool_continues_in_another_reply():
    tracker = ReplyTracker()
    reply = started_reply(tracker)
    tracker.tool_called(model_waits=False)
    following, outputs = tracker.text_received("Meanwhile,")
    assert following is not reply
    assert [type(one) for one in outputs] == [ReplyStarted, ReplyText]


def test_text_after_a_tool_result_waits_for_the_reply_to_it():
    tracker = ReplyTracker()
    started_reply(tracker)
    tracker.tool_called(model_waits=True)
    tracker.turn_completed(None)
    tracker.tool_result_sent()
    assert tracker.text_received("It is noon.") == (None, ())
    reply, outputs = tracker.content_received()
    assert reply.text == "It is noon."
    assert [type(one) for one in outputs] == [ReplyStarted, ReplyText]


def test_a_cancelled_reply_is_unheard_unless_the_session_says_otherwise():
    for truncated in (False, True):
        tracker = ReplyTracker()
        reply = started_reply(tracker)
        tracker.cancel("another")
        tracker.cancel(reply.id)
        assert tracker.take_unheard() == ()  # It has not ended yet.
        if truncated:
            tracker.mark_truncated("another")
            tracker.mark_truncated(reply.item_id)
        assert tracker.generation_completed() == (ReplyDone(reply.id, "cancelled"),)
        assert tracker.take_unheard() == (() if truncated else (reply.item_id,))
        assert tracker.take_unheard() == ()


def test_text_after_an_interruption_is_late_until_enough_audio_was_sent():
    tracker = ReplyTracker()
    reply = started_reply(tracker)
    tracker.turn_interrupted()
    tracker.audio_sent(input_audio(0.1, 20))
    assert tracker.text_received(" five")[0] is reply
    tracker.turn_completed(None)
    tracker.audio_sent(input_audio(0.2, 20))
    assert tracker.text_received("Yes?") == (None, ())


def test_empty_audio_is_not_measured():
    tracker = ReplyTracker()
    tracker.audio_sent(input_audio(0.0, 0))
    tracker.audio_sent(input_audio(0.5, 9000))
    assert tracker._loud_s == pytest.approx(0.5)


def test_a_failure_after_the_end_of_a_reply_is_reported_by_itself():
    tracker = ReplyTracker()
    started_reply(tracker)
    tracker.generation_completed()
    failure = TurnFailure("RESPONSE_REJECTED", "rejected")
    assert tracker.turn_completed(failure) == (
        ProviderError(ErrorKind.RETRY, "RESPONSE_REJECTED", "rejected"),
    )
    tracker.expect_reply(ReplyRequest("q"))
    started, done = tracker.turn_completed(failure)
    assert (started.request_id, done.status, done.message) == ("q", "failed", "rejected")


def test_an_interruption_after_all_audio_completes_the_reply():
    tracker = ReplyTracker()
    tracker.expect_reply(ReplyRequest("q", "Good morning."))
    reply = started_reply(tracker, "Good")
    assert tracker.generation_completed() == ()  # The last word is missing.
    _, done = tracker.turn_interrupted()
    assert done == ReplyDone(reply.id, "completed")
