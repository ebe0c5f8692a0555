"""Decoding of Qwen's events, where they differ from OpenAI's."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qwen_codec_harness import ITEM, QwenCodecHarness

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


def test_turn_has_partial_and_final_transcripts():
    harness = QwenCodecHarness()
    assert harness.receive_turn(end_ms=800) == [
        SpeechStarted("u", None, 0),
        SpeechStopped("u", None, 12800),
        UserTurnEnded("u", reply_follows=True, position=12800, silence_s=0.8),
    ]
    words = "conversation.item.input_audio_transcription"
    got = harness.receive(f"{words}.delta", item_id="u", text="", stash="How are")
    got += harness.receive(f"{words}.delta", item_id="u", text="How are", stash=" you")
    got += harness.receive(f"{words}.completed", item_id="u", transcript="How are you?")
    assert got == [
        UserTranscript("u", "How are", final=False),
        UserTranscript("u", "How are you", final=False),
        UserTranscript("u", "How are you?", final=True),
    ]


def test_reply_with_beta_event_names_has_usage_by_modality():
    harness = QwenCodecHarness()
    harness.start_reply()
    [heard] = harness.receive_audio(240)
    assert (heard.reply_id, heard.item_id, len(heard.frame), heard.frame.rate) == (
        "resp", ITEM, 240, 24000,
    )  # fmt: skip
    place = {"response_id": "resp", "item_id": ITEM}
    assert harness.receive("response.audio_transcript.delta", delta="Hi", **place) == [
        ReplyText("resp", ITEM, "Hi")
    ]
    assert harness.receive("response.audio_transcript.done", transcript="Hi.", **place) == [
        ReplyText("resp", ITEM, ".")
    ]
    assert harness.receive("response.text.delta", delta=" Yes", **place) == [
        ReplyText("resp", ITEM, " Yes")
    ]
    usage = {
        "total_tokens": 9,
        "input_tokens_details": {"text_tokens": 3, "audio_tokens": 2, "image_tokens": 1},
        "output_tokens_details": {"text_tokens": 1, "audio_tokens": 2},
    }
    assert harness.finish_reply(usage=usage) == [
        Usage({"text": 3, "audio": 2, "image": 1}, {"text": 1, "audio": 2}),
        ReplyDone("resp", "completed"),
    ]
    for ignored in ("response.audio.done", "session.finished", "response.content_part.done"):
        assert harness.receive(ignored, response_id="resp", item_id=ITEM) == []
    assert not harness.codec.unknown


def test_reply_audio_has_the_requested_rate():
    harness = QwenCodecHarness(output_rate=48000)
    harness.start_reply()
    [heard] = harness.receive_audio(480)
    assert heard.frame.rate == 48000


def test_tool_call_has_its_arguments():
    harness = QwenCodecHarness()
    harness.start_reply(item=None)
    call = {"id": "c", "type": "function_call", "name": "time", "call_id": "call_1"}
    harness.receive("response.output_item.added", response_id="resp", item=call)
    place = {"response_id": "resp", "item_id": "c"}
    done = "response.function_call_arguments.done"
    assert harness.receive(done, arguments=" {}", **place) == []
    called = ToolCall("resp", "call_1", "time", " {}")
    assert harness.receive("response.output_item.done", response_id="resp", item=call) == [called]
    assert harness.finish_reply() == [ReplyDone("resp", "completed")]


def test_tool_call_without_a_finished_item_counts_when_its_reply_is_done():
    harness = QwenCodecHarness()
    harness.start_reply(item=None)
    call = {"id": "c", "type": "function_call", "name": "time", "call_id": "call_1"}
    harness.receive("response.output_item.added", response_id="resp", item=call)
    place = {"response_id": "resp", "item_id": "c"}
    harness.receive("response.function_call_arguments.done", arguments="{}", **place)
    assert harness.finish_reply() == [
        ToolCall("resp", "call_1", "time", "{}"), ReplyDone("resp", "completed"),
    ]  # fmt: skip


# Matching responses with requests


def test_responses_match_requests_in_order():
    harness = QwenCodecHarness()
    harness.send(RequestReply("r1"))
    harness.start_reply("one", "r1")
    harness.send(RequestReply("r2"))
    harness.start_reply("two", "r2")
    harness.start_reply("three")


def test_lost_request_is_not_confused_with_the_next():
    harness = QwenCodecHarness()
    harness.send(RequestReply("lost"))
    harness.send(RequestReply("r"))
    harness.start_reply("asked", "r")
    harness.start_reply("more")


def test_turn_that_ends_meanwhile_gets_its_reply_first():
    harness = QwenCodecHarness()
    harness.receive("session.updated", session={"turn_detection": {"type": "server_vad"}})
    harness.send(RequestReply("r"))
    harness.receive_turn()
    harness.start_reply("automatic", None)
    harness.start_reply("asked", "r")


def test_later_request_does_not_wait_for_an_unanswered_turn():
    harness = QwenCodecHarness()
    harness.receive_turn()
    harness.send(RequestReply("r"))
    harness.start_reply("asked", "r")


def test_turn_expects_no_reply_when_the_service_creates_none():
    harness = QwenCodecHarness()
    harness.receive("session.updated", session={"turn_detection": None})
    harness.send(RequestReply("r"))
    harness.receive("input_audio_buffer.committed", item_id="u")
    harness.start_reply("asked", "r")


def test_busy_service_refuses_the_request():
    harness = QwenCodecHarness()
    harness.send(RequestReply("r"))
    assert harness.receive_error(ACTIVE) == [
        ReplyRefused("r", "invalid_request_error", ACTIVE, busy=True)
    ]
    harness.start_reply("automatic", None)
    [error] = harness.receive_error(ACTIVE)
    assert isinstance(error, ProviderError)
    assert error.kind is ErrorKind.RETRY


def test_request_refused_during_user_speech_waits_for_the_turn_to_end():
    words = "Cannot create response while user is speaking."
    harness = QwenCodecHarness()
    harness.send(RequestReply("r"))
    assert harness.receive_error(words, code="invalid_value", param="response.create") == []
    *_, ended, refused = harness.receive_turn()
    assert ended == UserTurnEnded("u", reply_follows=True, position=12800, silence_s=0.8)
    assert refused == ReplyRefused("r", "invalid_value", words, busy=True)
    harness.start_reply("automatic", None)
    harness.send(RequestReply("r"))
    harness.start_reply("asked", "r")


def test_other_refusal_of_a_request_reaches_its_caller():
    harness = QwenCodecHarness()
    harness.send(RequestReply("r"))
    words = "Invalid value for response.create"
    assert harness.receive_error(words) == [ReplyRefused("r", "invalid_request_error", words)]


def test_service_error_before_a_reply_refuses_the_request():
    harness = QwenCodecHarness()
    harness.send(RequestReply("r"))
    assert harness.receive_error(FAILED, type="server_error") == [
        ReplyRefused("r", "server_error", FAILED)
    ]
    [error] = harness.receive_error(FAILED)
    assert isinstance(error, ProviderError)
    harness.send(RequestReply("next"))
    harness.start_reply("asked", "next")


def test_error_while_a_turn_awaits_its_reply_refuses_no_request():
    harness = QwenCodecHarness()
    harness.receive("session.updated", session={"turn_detection": {"type": "server_vad"}})
    harness.send(RequestReply("r"))
    harness.receive_turn()
    [error] = harness.receive_error(FAILED)
    assert isinstance(error, ProviderError)


def test_error_that_names_its_event_is_matched_to_it():
    harness = QwenCodecHarness()
    harness.send(RequestReply("r1"))
    [second] = harness.send(RequestReply("r2"))
    [refused] = harness.receive_error("no", event_id=second["event_id"])
    assert refused.request_id == "r2"


def test_unrelated_error_refuses_no_request():
    harness = QwenCodecHarness()
    harness.send(RequestReply("r"))
    [error] = harness.receive_error("Something about an image.")
    assert error.kind is ErrorKind.UNKNOWN
    harness.start_reply("asked", "r")


def test_only_a_refused_initial_session_is_fatal():
    harness = QwenCodecHarness(confirmed=False)
    harness.receive("session.created", session={})
    [error] = harness.receive_error("Unknown field: 'nonsense'.")
    assert error.kind is ErrorKind.FATAL
    harness = QwenCodecHarness()
    harness.send(UpdateSession("be brief"))
    [error] = harness.receive_error("Unknown field: 'nonsense'.")
    assert error.kind is ErrorKind.UNKNOWN


def test_transient_error_before_the_session_starts_is_not_fatal():
    harness = QwenCodecHarness(confirmed=False)
    [error] = harness.receive_error("Internal service error: null")
    assert error.kind is ErrorKind.RETRY


def test_turn_without_audio_also_ends():
    harness = QwenCodecHarness()
    harness.send(EndTurn())
    words = "Error committing input audio buffer, maybe no invalid audio stream."
    ended, error = harness.receive_error(words)
    assert (ended.empty, ended.reply_follows) == (True, False)
    assert error.kind is ErrorKind.BENIGN
    [error] = harness.receive_error(words)
    assert isinstance(error, ProviderError)


# Cancellation


def test_speech_start_interrupts_the_reply():
    harness = QwenCodecHarness()
    harness.receive("session.updated", session={"turn_detection": {"type": "server_vad"}})
    harness.start_reply()
    speech = ("input_audio_buffer.speech_started", {"item_id": "u", "audio_start_ms": 0})
    assert harness.receive(speech[0], **speech[1]) == [
        SpeechStarted("u", None, 0), ReplyInterrupted("resp"),
    ]  # fmt: skip
    assert harness.receive(speech[0], **speech[1]) == [SpeechStarted("u", None, 0)]
    details = {"reason": "turn_detected"}
    assert harness.finish_reply(status="cancelled", status_details=details) == [
        ReplyDone("resp", "cancelled")
    ]


@pytest.mark.parametrize("detection", [None, {"type": "server_vad", "interrupt_response": False}])
def test_uninterruptible_reply_continues_during_speech(detection):
    harness = QwenCodecHarness()
    harness.receive("session.updated", session={"turn_detection": detection})
    harness.start_reply()
    got = harness.receive("input_audio_buffer.speech_started", item_id="u", audio_start_ms=0)
    assert got == [SpeechStarted("u", None, 0)]


def test_uninterruptible_scripted_text_continues_during_speech():
    harness = QwenCodecHarness()
    harness.receive("session.updated", session={"turn_detection": {"type": "server_vad"}})
    update, _say = harness.send_without_ids(Say("r", "Notice.", interruptible=False))
    assert update["session"]["turn_detection"]["interrupt_response"] is False
    harness.start_reply(request_id="r")
    got = harness.receive("input_audio_buffer.speech_started", item_id="u", audio_start_ms=0)
    assert got == [SpeechStarted("u", None, 0)]
    harness.finish_reply()
    [back] = harness.pending()
    assert back["session"]["turn_detection"] == {"type": "server_vad"}


def test_cancelled_reply_ends_with_its_item_and_reports_usage_later():
    harness = QwenCodecHarness()
    harness.start_reply()
    harness.receive_audio()
    assert harness.send_without_ids(CancelReply("resp")) == [{"type": "response.cancel"}]
    assert harness.finish_item() == [ReplyDone("resp", "cancelled")]
    assert harness.finish_item() == []
    usage = {"output_tokens_details": {"audio_tokens": 7}}
    assert harness.finish_reply(status="cancelled", usage=usage) == [Usage({}, {"audio": 7})]
    assert harness.finish_reply(status="cancelled", usage=usage) == []


def test_cancelled_reply_with_two_items_ends_with_the_second():
    harness = QwenCodecHarness()
    harness.start_reply()
    second = {"id": "item_2", "type": "message", "role": "assistant"}
    harness.receive("response.output_item.added", response_id="resp", item=second)
    harness.send(CancelReply("resp"))
    assert harness.finish_item() == []
    assert harness.finish_item(item="item_2") == [ReplyDone("resp", "cancelled")]


def test_reply_that_is_not_cancelled_ends_only_with_response_done():
    harness = QwenCodecHarness()
    harness.start_reply()
    assert harness.finish_item(status="completed") == []
    assert harness.finish_reply() == [ReplyDone("resp", "completed")]


def test_item_cancelled_by_the_service_ends_its_reply():
    harness = QwenCodecHarness()
    harness.start_reply()
    assert harness.finish_item(status="cancelled") == [ReplyDone("resp", "cancelled")]


def test_reply_that_fails_while_speaking_is_reported_as_failed():
    harness = QwenCodecHarness()
    harness.start_reply()
    harness.receive_audio()
    assert harness.finish_item(status="incomplete") == []
    error = {"code": "internal_error", "message": FAILED}
    assert harness.finish_reply(status="failed", status_details={"error": error}) == [
        ReplyDone("resp", "failed", FAILED)
    ]


@pytest.mark.parametrize(
    ("code", "words", "kind"),
    [
        ("Arrearage", "Access denied, please make sure ...", ErrorKind.FATAL),
        ("", "Your session was closed because no response was ...", ErrorKind.RECYCLE),
    ],
)
def test_error_in_response_done_is_classified_like_any_other(code, words, kind):
    harness = QwenCodecHarness()
    harness.start_reply(item=None)
    error = {"type": "server_error", "code": code, "message": words}
    assert harness.finish_reply(status="failed", status_details={"error": error}) == [
        ReplyDone("resp", "failed", words),
        ProviderError(kind, code or "server_error", words),
    ]


def test_no_active_response_ends_cancelled_replies_without_an_error():
    harness = QwenCodecHarness()
    harness.start_reply("one")
    harness.start_reply("two", item="item_2")
    harness.send(CancelReply("one"))
    assert harness.receive_error(NONE_ACTIVE) == [
        ReplyDone("one", "cancelled"),
        ProviderError(ErrorKind.BENIGN, "invalid_request_error", NONE_ACTIVE),
    ]
    assert harness.finish_reply("two") == [ReplyDone("two", "completed")]


def test_finished_reply_is_not_cancelled():
    harness = QwenCodecHarness()
    harness.start_reply()
    harness.finish_reply()
    assert harness.send(CancelReply("resp")) == []


def test_late_audio_and_unknown_events_change_nothing():
    harness = QwenCodecHarness()
    assert isinstance(harness.receive_audio(reply="never")[0], ReplyAudio)
    assert harness.receive("qwen.surprise") == []
    assert harness.codec.unknown == {"qwen.surprise": 1}
    assert harness.receive("response.audio.delta", response_id="resp") == []
    assert harness.codec.malformed == 1


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
def test_no_message_breaks_the_codec(events):
    harness = QwenCodecHarness()
    harness.start_reply()
    for kind, fields in events:
        harness.receive(kind, **fields)
    harness.send(CancelReply("resp"))
    harness.pending()


def test_reply_that_names_its_request_is_matched_to_it():
    harness = QwenCodecHarness()
    harness.send(RequestReply("r1"))
    made = {"id": "resp", "metadata": {"request_id": "other"}}
    assert harness.receive("response.created", response=made) == [ReplyStarted("resp", "other")]
