"""Decoding of OpenAI's events."""

import base64
import json
import time

import numpy as np
import pytest
from codec_harness import ITEM, CodecHarness
from hypothesis import given
from hypothesis import strategies as st

from duologue.audio import AudioFrame
from duologue.errors import ErrorKind
from duologue.events import RateLimit
from duologue.items import UserItem
from duologue.providers.openai._config import RealtimeConfig
from duologue.realtime.commands import (
    AddItem,
    CancelReply,
    DeleteItem,
    EndTurn,
    RequestReply,
    Say,
    SendAudio,
    Truncate,
)
from duologue.realtime.options import ManualTurns, ServerVAD
from duologue.realtime.outputs import (
    ProviderError,
    RateLimits,
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


def test_turn_positions_are_samples_of_the_input_audio():
    harness = CodecHarness()
    speech = {"item_id": "u"}
    got = harness.receive("input_audio_buffer.speech_started", audio_start_ms=100, **speech)
    got += harness.receive("input_audio_buffer.speech_stopped", audio_end_ms=900, **speech)
    got += harness.receive("input_audio_buffer.committed", previous_item_id=None, **speech)
    assert got == [
        SpeechStarted("u", None, 2400),
        SpeechStopped("u", None, 21600),
        UserTurnEnded("u", reply_follows=True, position=21600, silence_s=0.5),
    ]


def test_silence_the_server_replies_to_is_an_empty_turn():
    harness = CodecHarness()
    got = harness.receive("input_audio_buffer.timeout_triggered", item_id="u", audio_start_ms=0)
    got += harness.receive("input_audio_buffer.committed", item_id="u")
    got += harness.receive("input_audio_buffer.committed", item_id="v")
    assert [(ended.item_id, ended.reply_follows, ended.empty) for ended in got] == [
        ("u", True, True),
        ("v", True, False),
    ]


def test_webrtc_speech_has_no_position():
    harness = CodecHarness("webrtc")
    got = harness.receive("input_audio_buffer.speech_started", audio_start_ms=100, item_id="u")
    assert got == [SpeechStarted("u")]


@pytest.mark.parametrize("detection", [ManualTurns(), ServerVAD(create_response=False)])
def test_turn_expects_no_reply_when_the_server_creates_none(detection):
    harness = CodecHarness(config=RealtimeConfig(turn_detection=detection))
    [ended] = harness.receive("input_audio_buffer.committed", item_id="u")
    assert not ended.reply_follows
    session = {"audio": {"input": {"turn_detection": {"type": "server_vad"}}}}
    harness.receive("session.updated", session=session)
    [ended] = harness.receive("input_audio_buffer.committed", item_id="u")
    assert ended.reply_follows


def test_transcript_deltas_accumulate_until_final():
    harness = CodecHarness()
    kind = "conversation.item.input_audio_transcription."
    got = harness.receive(kind + "delta", item_id="u", delta="Hel")
    got += harness.receive(kind + "delta", item_id="u", delta="lo")
    got += harness.receive(kind + "completed", item_id="u", transcript="Hello.")
    got += harness.receive(kind + "failed", item_id="v", error={"code": "bad", "message": "Hm."})
    assert got == [
        UserTranscript("u", "Hel", final=False),
        UserTranscript("u", "Hello", final=False),
        UserTranscript("u", "Hello.", final=True),
        UserTranscript("v", "", final=True),
        ProviderError(ErrorKind.RETRY, "bad", "Hm."),
    ]


def test_turn_without_audio_is_empty():
    harness = CodecHarness(config=RealtimeConfig(turn_detection=ManualTurns()))
    [commit] = harness.send(EndTurn())
    ended, error = harness.receive_error(commit["event_id"], "input_audio_buffer_commit_empty")
    assert ended.empty
    assert error.kind is ErrorKind.BENIGN


# Replies


def test_reply_has_text_audio_usage_and_an_end():
    harness = CodecHarness()
    harness.start_reply(request_id="q")
    assert harness.receive_text("Hi") == [ReplyText("resp", ITEM, "Hi")]
    [audio] = harness.receive_audio([1, -2, 3])
    assert isinstance(audio, ReplyAudio)
    assert (audio.reply_id, audio.item_id, audio.frame.rate) == ("resp", ITEM, 24000)
    assert audio.frame.samples.tolist() == [1, -2, 3]
    usage = {
        "input_token_details": {"text_tokens": 3, "audio_tokens": 4, "cached_tokens": 2},
        "output_token_details": {"text_tokens": 5, "audio_tokens": 6},
    }
    assert harness.finish_reply(usage=usage) == [
        Usage({"text": 3, "audio": 4, "cached": 2}, {"text": 5, "audio": 6}),
        ReplyDone("resp"),
    ]
    assert harness.finish_reply() == []


def test_half_a_sample_is_joined_with_the_next_chunk():
    harness = CodecHarness()
    harness.start_reply()
    pcm = np.array([1, 2, 3], "<i2").tobytes()
    samples = []
    for part in (pcm[:3], pcm[3:4], pcm[4:5], pcm[5:]):
        delta = base64.b64encode(part).decode()
        fields = {"response_id": "resp", "item_id": ITEM, "delta": delta}
        for audio in harness.receive("response.output_audio.delta", **fields):
            samples += audio.frame.samples.tolist()
    assert samples == [1, 2, 3]


def test_text_missing_from_deltas_is_reported_at_the_end():
    harness = CodecHarness()
    harness.start_reply()
    harness.receive_text("Hi")
    fields = {"response_id": "resp", "item_id": ITEM, "transcript": "Hi there"}
    kind = "response.output_audio_transcript.done"
    assert harness.receive(kind, **fields) == [ReplyText("resp", ITEM, " there")]
    assert harness.receive(kind, **fields) == []


CALL = {
    "id": "f",
    "type": "function_call",
    "status": "completed",
    "call_id": "c",
    "name": "time",
    "arguments": '{"a": 1}',
}
CALLED = ToolCall("resp", "c", "time", '{"a": 1}')


def test_tool_call_is_reported_once_although_the_server_repeats_it():
    harness = CodecHarness()
    harness.start_reply(item=None)
    harness.receive(
        "response.output_item.added", response_id="resp", item={**CALL, "arguments": ""}
    )
    got = harness.receive(
        "response.function_call_arguments.done",
        response_id="resp",
        item_id="f",
        arguments=CALL["arguments"],
    )
    got += harness.receive("response.output_item.done", response_id="resp", item=CALL)
    got += harness.finish_reply(output=[CALL])
    assert got == [CALLED, ReplyDone("resp")]


@pytest.mark.parametrize("status", ["incomplete", "cancelled"])
def test_arguments_of_a_truncated_reply_call_no_tool(status):
    harness = CodecHarness()
    harness.start_reply(item=None)
    harness.receive(
        "response.output_item.added", response_id="resp", item={**CALL, "arguments": ""}
    )
    half = {**CALL, "status": status, "arguments": '{"a'}
    place = {"response_id": "resp", "item_id": "f", "call_id": "c", "name": "time"}
    done = "response.function_call_arguments.done"
    assert harness.receive(done, arguments=half["arguments"], **place) == []
    assert harness.receive("response.output_item.done", response_id="resp", item=half) == []
    assert harness.finish_reply(status="incomplete", output=[half])[-1].reply_id == "resp"
    assert not harness.receive("response.output_item.done", response_id="resp", item=CALL)


@pytest.mark.parametrize("status", ["incomplete", "cancelled"])
def test_arguments_without_a_finished_item_count_only_in_a_completed_reply(status):
    place = {"response_id": "resp", "item_id": "f", "call_id": "c", "name": "time"}
    done = "response.function_call_arguments.done"
    harness = CodecHarness()
    harness.start_reply(item=None)
    assert harness.receive(done, arguments=CALL["arguments"], **place) == []
    assert harness.finish_reply() == [CALLED, ReplyDone("resp")]
    harness.start_reply(item=None)
    assert harness.receive(done, arguments='{"a', **place) == []
    assert not [one for one in harness.finish_reply(status=status) if isinstance(one, ToolCall)]


def test_tool_call_only_in_response_done_counts_unless_incomplete():
    harness = CodecHarness()
    harness.start_reply(item=None)
    assert harness.finish_reply(output=[CALL]) == [CALLED, ReplyDone("resp")]
    harness.start_reply(item=None)
    half = {**CALL, "status": "incomplete", "arguments": '{"a'}
    assert harness.receive("response.output_item.done", response_id="resp", item=half) == []
    assert harness.finish_reply(status="cancelled", output=[half]) == [
        ReplyDone("resp", "cancelled")
    ]


def test_reply_cancelled_by_turn_detection_is_an_interruption():
    harness = CodecHarness()
    harness.start_reply()
    got = harness.finish_reply(status="cancelled", status_details={"reason": "turn_detected"})
    assert got == [ReplyInterrupted("resp"), ReplyDone("resp", "cancelled")]


def test_incomplete_and_failed_replies_have_a_message():
    harness = CodecHarness()
    harness.start_reply()
    got = harness.finish_reply(status="incomplete", status_details={"reason": "max_output_tokens"})
    assert got == [ReplyDone("resp", "completed", "the reply was cut short: max_output_tokens")]
    harness.start_reply()
    error = {"code": "insufficient_quota", "message": "No money."}
    assert harness.finish_reply(status="failed", status_details={"error": error}) == [
        ReplyDone("resp", "failed", "No money."),
        ProviderError(ErrorKind.FATAL, "insufficient_quota", "No money."),
    ]


@pytest.mark.parametrize("named", [True, False])
def test_request_during_another_reply_is_refused_as_busy(named):
    harness = CodecHarness()
    [request] = harness.send(RequestReply("q"))
    code = "conversation_already_has_active_response"
    got = harness.receive_error(request["event_id"] if named else None, code)
    assert got == [ReplyRefused("q", code, "No.", busy=True)]


def test_fatal_refusal_is_also_a_fatal_error():
    harness = CodecHarness()
    [request] = harness.send(RequestReply("q"))
    refused, error = harness.receive_error(request["event_id"], "insufficient_quota")
    assert not refused.busy
    assert error.kind is ErrorKind.FATAL


def test_rate_limits_are_reported():
    limit = {"name": "tokens", "limit": 10, "remaining": 4, "reset_seconds": 1.5}
    assert CodecHarness().receive("rate_limits.updated", rate_limits=[limit]) == [
        RateLimits([RateLimit("tokens", 10, 4, 1.5)])
    ]


# WebRTC

LOUD = AudioFrame(np.full(480, 5000, np.int16), 24000)


def test_webrtc_audio_belongs_to_the_reply_that_is_playing():
    harness = CodecHarness("webrtc")
    assert list(harness.codec.decode(LOUD)) == []
    harness.start_reply()
    harness.receive_text("Hi")
    got = harness.receive("output_audio_buffer.started", response_id="resp")
    got += harness.codec.decode(LOUD)
    assert [(type(output), output.item_id) for output in got] == [(ReplyAudio, ITEM)] * 2
    assert harness.finish_reply() == []
    [cut] = harness.send_without_ids(Truncate(ITEM, 5000, "Hi"))
    assert cut["audio_end_ms"] == 40
    got = harness.receive("output_audio_buffer.cleared", response_id="resp")
    assert got == [ReplyInterrupted("resp"), ReplyDone("resp", "cancelled")]


def test_buffer_cleared_by_a_cancel_is_not_an_interruption():
    harness = CodecHarness("webrtc")
    harness.start_reply()
    harness.receive_text("Hi")
    harness.receive("output_audio_buffer.started", response_id="resp")
    harness.send(CancelReply("resp"))
    assert harness.receive("output_audio_buffer.cleared", response_id="resp") == []
    assert harness.finish_reply(status="cancelled") == [ReplyDone("resp", "cancelled")]


def test_interruption_is_reported_once():
    harness = CodecHarness("webrtc")
    harness.start_reply()
    harness.receive_text("Hi")
    harness.receive("output_audio_buffer.started", response_id="resp")
    got = harness.receive("output_audio_buffer.cleared", response_id="resp")
    got += harness.finish_reply(status="cancelled", status_details={"reason": "turn_detected"})
    assert got == [ReplyInterrupted("resp"), ReplyDone("resp", "cancelled")]


# Robustness


def test_duplicate_event_is_decoded_once():
    harness = CodecHarness()
    created = {"event_id": "e", "response": {"id": "resp"}}
    assert harness.receive("response.created", **created) == [ReplyStarted("resp")]
    assert harness.codec.repeated == 0
    assert harness.receive("response.created", **created) == []
    assert harness.codec.repeated == 1


def test_ids_of_long_ago_are_forgotten():
    harness = CodecHarness()
    for number in range(100):
        harness.receive("session.finished", event_id=f"e{number}")
    harness.receive("session.finished", event_id="e60")
    assert harness.codec.repeated == 0
    harness.receive("session.finished", event_id="e90")
    assert harness.codec.repeated == 1


def test_audio_whose_id_repeats_but_not_its_content_is_played_and_counted():
    harness = CodecHarness()
    harness.start_reply()
    name, fields = "response.output_audio.delta", {"response_id": "resp", "item_id": ITEM}
    heard = []
    for value in range(1, 6):
        delta = base64.b64encode(np.full(480, value, "<i2").tobytes()).decode()
        heard += harness.receive(name, event_id="always", delta=delta, **fields)
    assert [int(output.frame.samples[0]) for output in heard] == [1, 2, 3, 4, 5]
    assert harness.codec.repeated == 4


def test_unknown_and_malformed_messages_are_counted():
    harness = CodecHarness()
    assert harness.receive("brand.new") == harness.receive("response.output_audio.done") == []
    assert harness.codec.unknown == {"brand.new": 1}
    for message in (b"{", b"[]", b'"x"', b"{}", b'{"type": 1}', b'{"type": "response.created"}'):
        assert list(harness.codec.decode(message)) == []
    assert harness.codec.malformed == 6


KINDS = sorted(CodecHarness().codec._handlers)
NAMES = ["resp", ITEM, "c", "u", "q"]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9999) | st.sampled_from([*NAMES, "AAA=", "A"]),
    lambda inner: st.lists(inner, max_size=2)
    | st.dictionaries(
        st.sampled_from(
            ["id", "type", "name", "call_id", "arguments", "status", "code", "message", "metadata",
             "request_id", "event_id", "reason", "error", "output", "content", "input"]
        ),
        inner,
        max_size=4,
    ),
    max_leaves=6,
)  # fmt: skip
EVENTS = st.fixed_dictionaries(
    {"type": st.sampled_from(KINDS)},
    optional={
        key: st.sampled_from(NAMES) | VALUES
        for key in ("event_id", "response_id", "item_id", "delta", "transcript", "arguments",
                    "response", "item", "error", "session", "previous_item_id", "audio_start_ms",
                    "audio_end_ms", "content_index", "rate_limits", "part", "call_id", "name")
    },
)  # fmt: skip
COMMANDS = st.sampled_from(
    [
        Say("q", "Hi"),
        RequestReply("q"),
        CancelReply("resp"),
        Truncate(ITEM, 100, "Hi"),
        DeleteItem(ITEM),
        AddItem(UserItem("u", "Hm.")),
        EndTurn(),
        LOUD,
    ]
)


@given(st.sampled_from(["websocket", "webrtc"]), st.lists(EVENTS | COMMANDS, max_size=25))
def test_no_message_makes_the_codec_raise(transport, steps):
    harness = CodecHarness(transport)
    for step in steps:
        if isinstance(step, dict):
            harness.codec.decode(json.dumps(step).encode())
        elif isinstance(step, AudioFrame):
            harness.codec.decode(step)
        else:
            harness.send(step)
        for event in harness.pending():
            assert event["type"]


def test_20_ms_each_way_cost_well_under_100_us():
    harness = CodecHarness()
    harness.start_reply()
    frame = SendAudio(LOUD)
    delta = base64.b64encode(LOUD.to_bytes()).decode()
    fields = {"response_id": "resp", "item_id": ITEM, "delta": delta, "content_index": 0}
    message = json.dumps({"type": "response.output_audio.delta", **fields}).encode()
    best = min(
        timed(lambda: (harness.codec.encode(frame), harness.codec.decode(message)))
        for _ in range(200)
    )
    assert best < 60e-6


def timed(call):
    began = time.perf_counter()
    call()
    return time.perf_counter() - began
