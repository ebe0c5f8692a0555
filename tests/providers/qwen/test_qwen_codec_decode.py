"""What Qwen's events mean: what differs from OpenAI, and nothing else."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qwen_codec_harness import ITEM, QwenLine

from duologue.errors import ErrorKind
from duologue.realtime.commands import CancelReply, EndTurn, RequestReply, Say, UpdateSession
from duologue.realtime.outputs import (
    ProviderError,
    ReplyAudio,
    ReplyDone,
    ReplyInterrupted,
    ReplyRefused,
    ReplyStarted,
    ReplyText,
    SpeechStarted,
    SpeechStopped,
    ToolCall,
    Usage,
    UserTranscript,
    UserTurnEnded,
)

NONE_ACTIVE = "Conversation has none active response"
ACTIVE = "Conversation already has an active response"
FAILED = "Internal service error: null"


def test_a_turn_and_its_words_with_what_is_not_sure_yet():
    line = QwenLine()
    assert line.turn(end_ms=800) == [
        SpeechStarted("u", None, 0),
        SpeechStopped("u", None, 12800),
        UserTurnEnded("u", reply_follows=True, position=12800, silence_s=0.8),
    ]
    words = "conversation.item.input_audio_transcription"
    got = line.get(f"{words}.delta", item_id="u", text="", stash="How are")
    got += line.get(f"{words}.delta", item_id="u", text="How are", stash=" you")
    got += line.get(f"{words}.completed", item_id="u", transcript="How are you?")
    assert got == [
        UserTranscript("u", "How are", final=False),
        UserTranscript("u", "How are you", final=False),
        UserTranscript("u", "How are you?", final=True),
    ]


def test_a_reply_with_its_names_of_old_and_usage_by_modality():
    line = QwenLine()
    line.began()
    [heard] = line.sound(240)
    assert (heard.reply_id, heard.item_id, len(heard.frame), heard.frame.rate) == (
        "resp", ITEM, 240, 24000,
    )  # fmt: skip
    place = {"response_id": "resp", "item_id": ITEM}
    assert line.get("response.audio_transcript.delta", delta="Hi", **place) == [
        ReplyText("resp", ITEM, "Hi")
    ]
    assert line.get("response.audio_transcript.done", transcript="Hi.", **place) == [
        ReplyText("resp", ITEM, ".")
    ]
    assert line.get("response.text.delta", delta=" Yes", **place) == [
        ReplyText("resp", ITEM, " Yes")
    ]
    usage = {
        "total_tokens": 9,
        "input_tokens_details": {"text_tokens": 3, "audio_tokens": 2, "image_tokens": 1},
        "output_tokens_details": {"text_tokens": 1, "audio_tokens": 2},
    }
    assert line.done(usage=usage) == [
        Usage({"text": 3, "audio": 2, "image": 1}, {"text": 1, "audio": 2}),
        ReplyDone("resp", "completed"),
    ]
    for ignored in ("response.audio.done", "session.finished", "response.content_part.done"):
        assert line.get(ignored, response_id="resp", item_id=ITEM) == []
    assert not line.codec.unknown


def test_the_rate_of_the_sound_is_what_was_asked_for():
    line = QwenLine(output_rate=48000)
    line.began()
    [heard] = line.sound(480)
    assert heard.frame.rate == 48000


def test_a_call_with_its_arguments():
    line = QwenLine()
    line.began(item=None)
    call = {"id": "c", "type": "function_call", "name": "time", "call_id": "call_1"}
    line.get("response.output_item.added", response_id="resp", item=call)
    place = {"response_id": "resp", "item_id": "c"}
    done = "response.function_call_arguments.done"
    assert line.get(done, arguments=" {}", **place) == []
    called = ToolCall("resp", "call_1", "time", " {}")
    assert line.get("response.output_item.done", response_id="resp", item=call) == [called]
    assert line.done() == [ReplyDone("resp", "completed")]


def test_a_call_whose_item_is_never_told_to_be_done_counts_when_its_reply_is():
    line = QwenLine()
    line.began(item=None)
    call = {"id": "c", "type": "function_call", "name": "time", "call_id": "call_1"}
    line.get("response.output_item.added", response_id="resp", item=call)
    place = {"response_id": "resp", "item_id": "c"}
    line.get("response.function_call_arguments.done", arguments="{}", **place)
    assert line.done() == [
        ToolCall("resp", "call_1", "time", "{}"), ReplyDone("resp", "completed"),
    ]  # fmt: skip


# Which request a response answers


def test_responses_answer_requests_in_their_order():
    line = QwenLine()
    line.send(RequestReply("r1"))
    line.began("one", "r1")
    line.send(RequestReply("r2"))
    line.began("two", "r2")
    line.began("three")


def test_a_request_that_nothing_came_of_is_not_taken_for_the_next():
    line = QwenLine()
    line.send(RequestReply("lost"))
    line.send(RequestReply("r"))
    line.began("asked", "r")
    line.began("more")


def test_a_turn_that_ends_meanwhile_is_answered_first():
    line = QwenLine()
    line.get("session.updated", session={"turn_detection": {"type": "server_vad"}})
    line.send(RequestReply("r"))
    line.turn()
    line.began("automatic", None)
    line.began("asked", "r")


def test_a_turn_that_was_never_answered_is_not_waited_for_by_a_later_request():
    line = QwenLine()
    line.turn()
    line.send(RequestReply("r"))
    line.began("asked", "r")


def test_a_turn_is_not_answered_by_itself_where_the_service_is_not_to():
    line = QwenLine()
    line.get("session.updated", session={"turn_detection": None})
    line.send(RequestReply("r"))
    line.get("input_audio_buffer.committed", item_id="u")
    line.began("asked", "r")


def test_a_busy_service_refuses_the_request():
    line = QwenLine()
    line.send(RequestReply("r"))
    assert line.error(ACTIVE) == [ReplyRefused("r", "invalid_request_error", ACTIVE, busy=True)]
    line.began("automatic", None)
    [error] = line.error(ACTIVE)
    assert isinstance(error, ProviderError)
    assert error.kind is ErrorKind.RETRY


def test_a_request_that_is_refused_while_the_person_speaks_waits_for_their_turn():
    words = "Cannot create response while user is speaking."
    line = QwenLine()
    line.send(RequestReply("r"))
    assert line.error(words, code="invalid_value", param="response.create") == []
    *_, ended, refused = line.turn()
    assert ended == UserTurnEnded("u", reply_follows=True, position=12800, silence_s=0.8)
    assert refused == ReplyRefused("r", "invalid_value", words, busy=True)
    line.began("automatic", None)
    line.send(RequestReply("r"))
    line.began("asked", "r")


def test_another_refusal_of_a_request_reaches_its_caller():
    line = QwenLine()
    line.send(RequestReply("r"))
    words = "Invalid value for response.create"
    assert line.error(words) == [ReplyRefused("r", "invalid_request_error", words)]


def test_a_service_that_fails_before_a_reply_began_refuses_the_request():
    line = QwenLine()
    line.send(RequestReply("r"))
    assert line.error(FAILED, type="server_error") == [ReplyRefused("r", "server_error", FAILED)]
    [error] = line.error(FAILED)
    assert isinstance(error, ProviderError)
    line.send(RequestReply("next"))
    line.began("asked", "next")


def test_a_failure_while_a_turn_is_owed_an_answer_refuses_no_request():
    line = QwenLine()
    line.get("session.updated", session={"turn_detection": {"type": "server_vad"}})
    line.send(RequestReply("r"))
    line.turn()
    [error] = line.error(FAILED)
    assert isinstance(error, ProviderError)


def test_an_error_that_says_which_event_it_is_about_is_believed():
    line = QwenLine()
    line.send(RequestReply("r1"))
    [second] = line.send(RequestReply("r2"))
    [refused] = line.error("no", event_id=second["event_id"])
    assert refused.request_id == "r2"


def test_an_error_about_anything_else_refuses_no_request():
    line = QwenLine()
    line.send(RequestReply("r"))
    [error] = line.error("Something about an image.")
    assert error.kind is ErrorKind.UNKNOWN
    line.began("asked", "r")


def test_a_session_that_is_refused_is_the_end_and_a_later_change_is_not():
    line = QwenLine(live=False)
    line.get("session.created", session={})
    [error] = line.error("Unknown field: 'nonsense'.")
    assert error.kind is ErrorKind.FATAL
    line = QwenLine()
    line.send(UpdateSession("be brief"))
    [error] = line.error("Unknown field: 'nonsense'.")
    assert error.kind is ErrorKind.UNKNOWN


def test_a_passing_error_before_the_session_is_there_does_not_end_it():
    line = QwenLine(live=False)
    [error] = line.error("Internal service error: null")
    assert error.kind is ErrorKind.RETRY


def test_a_turn_without_sound_is_over_as_well():
    line = QwenLine()
    line.send(EndTurn())
    words = "Error committing input audio buffer, maybe no invalid audio stream."
    ended, error = line.error(words)
    assert (ended.empty, ended.reply_follows) == (True, False)
    assert error.kind is ErrorKind.BENIGN
    [error] = line.error(words)
    assert isinstance(error, ProviderError)


# Stopping


def test_a_reply_is_over_with_the_sign_that_the_person_speaks():
    line = QwenLine()
    line.get("session.updated", session={"turn_detection": {"type": "server_vad"}})
    line.began()
    speech = ("input_audio_buffer.speech_started", {"item_id": "u", "audio_start_ms": 0})
    assert line.get(speech[0], **speech[1]) == [
        SpeechStarted("u", None, 0), ReplyInterrupted("resp"),
    ]  # fmt: skip
    assert line.get(speech[0], **speech[1]) == [SpeechStarted("u", None, 0)]
    details = {"reason": "turn_detected"}
    assert line.done(status="cancelled", status_details=details) == [ReplyDone("resp", "cancelled")]


@pytest.mark.parametrize("detection", [None, {"type": "server_vad", "interrupt_response": False}])
def test_a_reply_that_may_not_be_interrupted_goes_on(detection):
    line = QwenLine()
    line.get("session.updated", session={"turn_detection": detection})
    line.began()
    got = line.get("input_audio_buffer.speech_started", item_id="u", audio_start_ms=0)
    assert got == [SpeechStarted("u", None, 0)]


def test_scripted_text_that_may_not_be_interrupted_goes_on():
    line = QwenLine()
    line.get("session.updated", session={"turn_detection": {"type": "server_vad"}})
    update, _say = line.bare(Say("r", "Notice.", interruptible=False))
    assert update["session"]["turn_detection"]["interrupt_response"] is False
    line.began(request_id="r")
    got = line.get("input_audio_buffer.speech_started", item_id="u", audio_start_ms=0)
    assert got == [SpeechStarted("u", None, 0)]
    line.done()
    [back] = line.pending()
    assert back["session"]["turn_detection"] == {"type": "server_vad"}


def test_a_cancelled_reply_ends_with_its_item_and_what_it_cost_is_told_later():
    line = QwenLine()
    line.began()
    line.sound()
    assert line.bare(CancelReply("resp")) == [{"type": "response.cancel"}]
    assert line.item_done() == [ReplyDone("resp", "cancelled")]
    assert line.item_done() == []
    usage = {"output_tokens_details": {"audio_tokens": 7}}
    assert line.done(status="cancelled", usage=usage) == [Usage({}, {"audio": 7})]
    assert line.done(status="cancelled", usage=usage) == []


def test_a_cancelled_reply_of_two_items_ends_with_the_second():
    line = QwenLine()
    line.began()
    second = {"id": "item_2", "type": "message", "role": "assistant"}
    line.get("response.output_item.added", response_id="resp", item=second)
    line.send(CancelReply("resp"))
    assert line.item_done() == []
    assert line.item_done(item="item_2") == [ReplyDone("resp", "cancelled")]


def test_a_reply_that_is_not_cancelled_ends_with_response_done_only():
    line = QwenLine()
    line.began()
    assert line.item_done(status="completed") == []
    assert line.done() == [ReplyDone("resp", "completed")]


def test_an_item_that_was_cut_by_the_service_ends_its_reply():
    line = QwenLine()
    line.began()
    assert line.item_done(status="cancelled") == [ReplyDone("resp", "cancelled")]


def test_a_reply_that_fails_when_it_has_begun_to_speak_has_failed():
    line = QwenLine()
    line.began()
    line.sound()
    assert line.item_done(status="incomplete") == []
    error = {"code": "internal_error", "message": FAILED}
    assert line.done(status="failed", status_details={"error": error}) == [
        ReplyDone("resp", "failed", FAILED)
    ]


@pytest.mark.parametrize(
    ("code", "words", "kind"),
    [
        ("Arrearage", "Access denied, please make sure ...", ErrorKind.FATAL),
        ("", "Your session was closed because no response was ...", ErrorKind.RECYCLE),
    ],
)
def test_an_error_in_the_end_of_a_reply_is_sorted_as_any_other(code, words, kind):
    line = QwenLine()
    line.began(item=None)
    error = {"type": "server_error", "code": code, "message": words}
    assert line.done(status="failed", status_details={"error": error}) == [
        ReplyDone("resp", "failed", words),
        ProviderError(kind, code or "server_error", words),
    ]


def test_none_active_ends_what_was_cancelled_and_is_no_error():
    line = QwenLine()
    line.began("one")
    line.began("two", item="item_2")
    line.send(CancelReply("one"))
    assert line.error(NONE_ACTIVE) == [
        ReplyDone("one", "cancelled"),
        ProviderError(ErrorKind.BENIGN, "invalid_request_error", NONE_ACTIVE),
    ]
    assert line.done("two") == [ReplyDone("two", "completed")]


def test_nothing_is_cancelled_that_has_ended():
    line = QwenLine()
    line.began()
    line.done()
    assert line.send(CancelReply("resp")) == []


def test_stale_sound_and_what_nobody_knows_change_nothing():
    line = QwenLine()
    assert isinstance(line.sound(reply="never")[0], ReplyAudio)
    assert line.get("qwen.surprise") == []
    assert line.codec.unknown == {"qwen.surprise": 1}
    assert line.get("response.audio.delta", response_id="resp") == []
    assert line.codec.malformed == 1


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)
KINDS = (
    "session.created", "session.updated", "error", "response.created", "response.done",
    "response.audio.delta", "response.audio_transcript.done", "response.output_item.added",
    "response.output_item.done", "response.function_call_arguments.done",
    "input_audio_buffer.speech_started", "input_audio_buffer.committed",
    "conversation.item.created", "conversation.item.input_audio_transcription.delta",
)  # fmt: skip
FIELDS = st.sampled_from(
    ("session", "error", "response", "response_id", "item", "item_id", "delta", "text", "stash",
     "transcript", "arguments", "audio_start_ms", "previous_item_id", "event_id")
)  # fmt: skip


@given(st.lists(st.tuples(st.sampled_from(KINDS), st.dictionaries(FIELDS, ANYTHING)), max_size=20))
@settings(max_examples=60, deadline=None)
def test_nothing_that_comes_breaks_the_codec(events):
    line = QwenLine()
    line.began()
    for kind, fields in events:
        line.get(kind, **fields)
    line.send(CancelReply("resp"))
    line.pending()


def test_a_reply_that_was_named_is_believed():
    line = QwenLine()
    line.send(RequestReply("r1"))
    made = {"id": "resp", "metadata": {"request_id": "other"}}
    assert line.get("response.created", response=made) == [ReplyStarted("resp", "other")]
