"""What OpenAI's events mean."""

import base64
import json
import time

import numpy as np
import pytest
from codec_harness import ITEM, Line
from hypothesis import given
from hypothesis import strategies as st

from duologue.audio import AudioFrame
from duologue.errors import ErrorKind
from duologue.events import RateLimit
from duologue.items import UserItem
from duologue.providers.openai._config import ManualTurns, RealtimeConfig, ServerVAD
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


def test_a_turn_has_its_places_in_the_sound_that_was_sent():
    line = Line()
    speech = {"item_id": "u"}
    got = line.get("input_audio_buffer.speech_started", audio_start_ms=100, **speech)
    got += line.get("input_audio_buffer.speech_stopped", audio_end_ms=900, **speech)
    got += line.get("input_audio_buffer.committed", previous_item_id=None, **speech)
    assert got == [
        SpeechStarted("u", None, 2400),
        SpeechStopped("u", None, 21600),
        UserTurnEnded("u", reply_follows=True, position=21600, silence_s=0.5),
    ]


def test_a_silence_that_the_server_answers_is_an_empty_turn():
    line = Line()
    got = line.get("input_audio_buffer.timeout_triggered", item_id="u", audio_start_ms=0)
    got += line.get("input_audio_buffer.committed", item_id="u")
    got += line.get("input_audio_buffer.committed", item_id="v")
    assert [(ended.item_id, ended.reply_follows, ended.empty) for ended in got] == [
        ("u", True, True),
        ("v", True, False),
    ]


def test_a_call_has_no_places():
    line = Line("webrtc")
    got = line.get("input_audio_buffer.speech_started", audio_start_ms=100, item_id="u")
    assert got == [SpeechStarted("u")]


@pytest.mark.parametrize("detection", [ManualTurns(), ServerVAD(create_response=False)])
def test_no_reply_follows_where_the_server_makes_none(detection):
    line = Line(config=RealtimeConfig(turn_detection=detection))
    [ended] = line.get("input_audio_buffer.committed", item_id="u")
    assert not ended.reply_follows
    session = {"audio": {"input": {"turn_detection": {"type": "server_vad"}}}}
    line.get("session.updated", session=session)
    [ended] = line.get("input_audio_buffer.committed", item_id="u")
    assert ended.reply_follows


def test_words_add_up_till_they_are_final():
    line = Line()
    kind = "conversation.item.input_audio_transcription."
    got = line.get(kind + "delta", item_id="u", delta="Hel")
    got += line.get(kind + "delta", item_id="u", delta="lo")
    got += line.get(kind + "completed", item_id="u", transcript="Hello.")
    got += line.get(kind + "failed", item_id="v", error={"code": "bad", "message": "Hm."})
    assert got == [
        UserTranscript("u", "Hel", final=False),
        UserTranscript("u", "Hello", final=False),
        UserTranscript("u", "Hello.", final=True),
        UserTranscript("v", "", final=True),
        ProviderError(ErrorKind.RETRY, "bad", "Hm."),
    ]


def test_a_turn_without_sound_is_empty():
    line = Line(config=RealtimeConfig(turn_detection=ManualTurns()))
    [commit] = line.send(EndTurn())
    ended, error = line.error(commit["event_id"], "input_audio_buffer_commit_empty")
    assert ended.empty
    assert error.kind is ErrorKind.BENIGN


# Replies


def test_a_reply_has_words_sound_usage_and_an_end():
    line = Line()
    line.began(request_id="q")
    assert line.words("Hi") == [ReplyText("resp", ITEM, "Hi")]
    [audio] = line.sound([1, -2, 3])
    assert isinstance(audio, ReplyAudio)
    assert (audio.reply_id, audio.item_id, audio.frame.rate) == ("resp", ITEM, 24000)
    assert audio.frame.samples.tolist() == [1, -2, 3]
    usage = {
        "input_token_details": {"text_tokens": 3, "audio_tokens": 4, "cached_tokens": 2},
        "output_token_details": {"text_tokens": 5, "audio_tokens": 6},
    }
    assert line.done(usage=usage) == [
        Usage({"text": 3, "audio": 4, "cached": 2}, {"text": 5, "audio": 6}),
        ReplyDone("resp"),
    ]
    assert line.done() == []


def test_half_a_sample_waits_for_its_other_half():
    line = Line()
    line.began()
    pcm = np.array([1, 2, 3], "<i2").tobytes()
    samples = []
    for part in (pcm[:3], pcm[3:4], pcm[4:5], pcm[5:]):
        delta = base64.b64encode(part).decode()
        fields = {"response_id": "resp", "item_id": ITEM, "delta": delta}
        for audio in line.get("response.output_audio.delta", **fields):
            samples += audio.frame.samples.tolist()
    assert samples == [1, 2, 3]


def test_words_that_came_only_as_a_whole_are_told():
    line = Line()
    line.began()
    line.words("Hi")
    fields = {"response_id": "resp", "item_id": ITEM, "transcript": "Hi there"}
    kind = "response.output_audio_transcript.done"
    assert line.get(kind, **fields) == [ReplyText("resp", ITEM, " there")]
    assert line.get(kind, **fields) == []


CALL = {
    "id": "f",
    "type": "function_call",
    "status": "completed",
    "call_id": "c",
    "name": "time",
    "arguments": '{"a": 1}',
}
CALLED = ToolCall("resp", "c", "time", '{"a": 1}')


def test_a_tool_is_called_once_however_often_it_is_told():
    line = Line()
    line.began(item=None)
    line.get("response.output_item.added", response_id="resp", item={**CALL, "arguments": ""})
    got = line.get(
        "response.function_call_arguments.done",
        response_id="resp",
        item_id="f",
        arguments=CALL["arguments"],
    )
    got += line.get("response.output_item.done", response_id="resp", item=CALL)
    got += line.done(output=[CALL])
    assert got == [CALLED, ReplyDone("resp")]


@pytest.mark.parametrize("status", ["incomplete", "cancelled"])
def test_arguments_that_are_done_because_the_reply_was_cut_call_nothing(status):
    line = Line()
    line.began(item=None)
    line.get("response.output_item.added", response_id="resp", item={**CALL, "arguments": ""})
    half = {**CALL, "status": status, "arguments": '{"a'}
    place = {"response_id": "resp", "item_id": "f", "call_id": "c", "name": "time"}
    done = "response.function_call_arguments.done"
    assert line.get(done, arguments=half["arguments"], **place) == []
    assert line.get("response.output_item.done", response_id="resp", item=half) == []
    assert line.done(status="incomplete", output=[half])[-1].reply_id == "resp"
    assert not line.get("response.output_item.done", response_id="resp", item=CALL)


@pytest.mark.parametrize("status", ["incomplete", "cancelled"])
def test_arguments_without_an_item_that_is_done_count_only_in_a_whole_reply(status):
    place = {"response_id": "resp", "item_id": "f", "call_id": "c", "name": "time"}
    done = "response.function_call_arguments.done"
    line = Line()
    line.began(item=None)
    assert line.get(done, arguments=CALL["arguments"], **place) == []
    assert line.done() == [CALLED, ReplyDone("resp")]
    line.began(item=None)
    assert line.get(done, arguments='{"a', **place) == []
    assert not [one for one in line.done(status=status) if isinstance(one, ToolCall)]


def test_a_call_told_only_at_the_end_counts_and_half_of_one_does_not():
    line = Line()
    line.began(item=None)
    assert line.done(output=[CALL]) == [CALLED, ReplyDone("resp")]
    line.began(item=None)
    half = {**CALL, "status": "incomplete", "arguments": '{"a'}
    assert line.get("response.output_item.done", response_id="resp", item=half) == []
    assert line.done(status="cancelled", output=[half]) == [ReplyDone("resp", "cancelled")]


def test_a_reply_that_the_server_cut_is_an_interruption():
    line = Line()
    line.began()
    got = line.done(status="cancelled", status_details={"reason": "turn_detected"})
    assert got == [ReplyInterrupted("resp"), ReplyDone("resp", "cancelled")]


def test_ends_that_are_not_good_say_why():
    line = Line()
    line.began()
    got = line.done(status="incomplete", status_details={"reason": "max_output_tokens"})
    assert got == [ReplyDone("resp", "completed", "the reply was cut short: max_output_tokens")]
    line.began()
    error = {"code": "insufficient_quota", "message": "No money."}
    assert line.done(status="failed", status_details={"error": error}) == [
        ReplyDone("resp", "failed", "No money."),
        ProviderError(ErrorKind.FATAL, "insufficient_quota", "No money."),
    ]


@pytest.mark.parametrize("named", [True, False])
def test_a_request_that_comes_too_early_is_refused_as_busy(named):
    line = Line()
    [request] = line.send(RequestReply("q"))
    code = "conversation_already_has_active_response"
    got = line.error(request["event_id"] if named else None, code)
    assert got == [ReplyRefused("q", code, "No.", busy=True)]


def test_a_refusal_for_good_is_fatal_too():
    line = Line()
    [request] = line.send(RequestReply("q"))
    refused, error = line.error(request["event_id"], "insufficient_quota")
    assert not refused.busy
    assert error.kind is ErrorKind.FATAL


def test_limits_are_told():
    limit = {"name": "tokens", "limit": 10, "remaining": 4, "reset_seconds": 1.5}
    assert Line().get("rate_limits.updated", rate_limits=[limit]) == [
        RateLimits([RateLimit("tokens", 10, 4, 1.5)])
    ]


# WebRTC

LOUD = AudioFrame(np.full(480, 5000, np.int16), 24000)


def test_the_sound_of_a_call_belongs_to_the_reply_whose_buffer_plays():
    line = Line("webrtc")
    assert list(line.codec.decode(LOUD)) == []
    line.began()
    line.words("Hi")
    got = line.get("output_audio_buffer.started", response_id="resp")
    got += line.codec.decode(LOUD)
    assert [(type(output), output.item_id) for output in got] == [(ReplyAudio, ITEM)] * 2
    assert line.done() == []
    [cut] = line.bare(Truncate(ITEM, 5000, "Hi"))
    assert cut["audio_end_ms"] == 40
    got = line.get("output_audio_buffer.cleared", response_id="resp")
    assert got == [ReplyInterrupted("resp"), ReplyDone("resp", "cancelled")]


def test_clearing_at_our_own_word_is_no_interruption():
    line = Line("webrtc")
    line.began()
    line.words("Hi")
    line.get("output_audio_buffer.started", response_id="resp")
    line.send(CancelReply("resp"))
    assert line.get("output_audio_buffer.cleared", response_id="resp") == []
    assert line.done(status="cancelled") == [ReplyDone("resp", "cancelled")]


def test_an_interruption_is_told_once():
    line = Line("webrtc")
    line.began()
    line.words("Hi")
    line.get("output_audio_buffer.started", response_id="resp")
    got = line.get("output_audio_buffer.cleared", response_id="resp")
    got += line.done(status="cancelled", status_details={"reason": "turn_detected"})
    assert got == [ReplyInterrupted("resp"), ReplyDone("resp", "cancelled")]


# Whatever may come


def test_an_event_that_comes_twice_counts_once():
    line = Line()
    created = {"event_id": "e", "response": {"id": "resp"}}
    assert line.get("response.created", **created) == [ReplyStarted("resp")]
    assert line.get("response.created", **created) == []


def test_the_unknown_and_the_broken_are_counted():
    line = Line()
    assert line.get("brand.new") == line.get("response.output_audio.done") == []
    assert line.codec.unknown == {"brand.new": 1}
    for message in (b"{", b"[]", b'"x"', b"{}", b'{"type": 1}', b'{"type": "response.created"}'):
        assert list(line.codec.decode(message)) == []
    assert line.codec.malformed == 6


KINDS = sorted(Line().codec._handlers)
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
def test_nothing_that_comes_is_ever_raised(transport, steps):
    line = Line(transport)
    for step in steps:
        if isinstance(step, dict):
            line.codec.decode(json.dumps(step).encode())
        elif isinstance(step, AudioFrame):
            line.codec.decode(step)
        else:
            line.send(step)
        for event in line.pending():
            assert event["type"]


def test_20_ms_each_way_cost_well_under_100_us():
    line = Line()
    line.began()
    frame = SendAudio(LOUD)
    delta = base64.b64encode(LOUD.to_bytes()).decode()
    fields = {"response_id": "resp", "item_id": ITEM, "delta": delta, "content_index": 0}
    message = json.dumps({"type": "response.output_audio.delta", **fields}).encode()
    best = min(
        timed(lambda: (line.codec.encode(frame), line.codec.decode(message))) for _ in range(200)
    )
    assert best < 60e-6


def timed(call):
    began = time.perf_counter()
    call()
    return time.perf_counter() - began
