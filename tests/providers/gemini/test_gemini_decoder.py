"""Decoding Gemini's messages: sessions, audio, usage, and messages outside the protocol."""

import json
from base64 import b64encode

import numpy as np
import pytest
from gemini_codec_harness import (
    MODEL,
    OLD,
    TEXT_ONLY,
    Harness,
    encoded,
    pcm_part,
    texts,
    turn,
)
from gemini_codec_harness import kinds as kinds_of_input
from hypothesis import example, given
from hypothesis import strategies as st

from duologue.errors import ErrorKind
from duologue.providers.gemini._audio import AudioShape
from duologue.realtime.codec import Codec as CodecProtocol
from duologue.realtime.commands import CancelReply, EndTurn
from duologue.realtime.options import ManualTurns
from duologue.realtime.outputs import (
    GoAway,
    ProviderError,
    ReplyAudio,
    ReplyDone,
    ReplyText,
    Resumable,
    SessionStarted,
    Usage,
    UserTranscript,
)


def kinds(outputs):
    return [type(output).__name__ for output in outputs]


# A session


def test_the_setup_is_sent_alone_and_its_reply_starts_the_session():
    harness = Harness(live=False)
    assert list(harness.opening) == ["setup"]
    assert harness.pending() == []
    assert harness.receive(setupComplete={"sessionId": "s"}) == [
        SessionStarted(
            {k: v for k, v in harness.opening["setup"].items() if k != "sessionResumption"},
            58 * 60.0,
            restored=False,
        )
    ]
    assert harness.receive(setupComplete={}) == []
    assert Harness(OLD).started[0].expires_in is None


def test_a_whole_turn_in_the_servers_casing():
    harness = Harness()
    assert harness.content(inputTranscription={"text": "How are", "languageCode": "en"}) == [
        UserTranscript("heard_1", "How are", final=False)
    ]
    assert harness.content(inputTranscription={"text": " you?", "finished": True}) == [
        UserTranscript("heard_2", " you?", final=False)
    ]
    started, audio = harness.begin_reply([1, -2, 3])
    assert started.request_id is None
    assert (audio.frame.samples.tolist(), audio.frame.rate) == ([1, -2, 3], 24000)
    assert harness.text("Fine.") == [ReplyText(started.reply_id, audio.item_id, "Fine.")]
    (more,) = harness.audio([4])
    assert (more.reply_id, more.item_id) == (audio.reply_id, audio.item_id)
    assert harness.generated() == [ReplyDone(started.reply_id)]
    usage = {
        "promptTokenCount": 12,
        "responseTokenCount": 9,
        "totalTokenCount": 21,
        "promptTokensDetails": [{"modality": "AUDIO", "tokenCount": 12}],
        "responseTokensDetails": [{"modality": "AUDIO", "tokenCount": 9}],
    }
    content = {"turnComplete": True, "interactionStatus": "IDLE"}
    assert harness.receive(serverContent=content, usageMetadata=usage) == [
        Usage({"audio": 12}, {"audio": 9})
    ]
    again, _ = harness.begin_reply()
    assert again.reply_id != started.reply_id


def test_several_parts_and_several_things_in_one_message():
    harness = Harness()
    outputs = harness.content(
        inputTranscription={"text": "Hi"},
        modelTurn=turn(pcm_part([1]), {"text": "thinking", "thought": True}, pcm_part([2, 3])),
        outputTranscription={"text": "Hello"},
        generationComplete=True,
        turnComplete=True,
    )
    assert kinds(outputs) == [
        "UserTranscript", "ReplyStarted", "ReplyAudio", "ReplyAudio", "ReplyText", "ReplyDone",
    ]  # fmt: skip
    assert [o.frame.samples.tolist() for o in outputs if isinstance(o, ReplyAudio)] == [[1], [2, 3]]
    assert harness.completed()  # The next completion is of another turn, an empty one.


@pytest.mark.parametrize(
    ("rate", "hz"), [(";rate=24000", 24000), ("", 24000), ("; rate=16000", 16000)]
)
def test_audio_has_the_rate_that_its_type_names(rate, hz):
    harness = Harness()
    _, audio = harness.audio(rate=rate)
    assert audio.frame.rate == hz


@pytest.mark.parametrize(
    "rate",
    [";rate=0", ";rate=4000", ";rate=99999", ";rate=99999999", ";rate=" + "9" * 5000, ";rate=x"],
)
def test_audio_with_an_invalid_rate_is_counted_and_begins_no_reply(rate):
    harness = Harness()
    assert harness.audio(rate=rate) == []
    assert harness.codec.malformed == 1
    harness.begin_reply()


def test_half_a_sample_waits_for_its_other_half():
    harness = Harness()
    pcm = np.array([1, 2, -3, 4], "<i2").tobytes()
    samples = []
    for piece in (pcm[:1], pcm[1:2], pcm[2:5], pcm[5:5], pcm[5:7], pcm[7:]):
        blob = {"mimeType": "audio/pcm;rate=24000", "data": encoded(piece)}
        for output in harness.content(modelTurn=turn({"inlineData": blob})):
            if isinstance(output, ReplyAudio):
                samples += output.frame.samples.tolist()
    assert samples == [1, 2, -3, 4]
    assert harness.codec.malformed == 0


def test_an_invalid_audio_part_costs_neither_the_reply_nor_the_rest_of_its_message():
    harness = Harness()
    bad = {"inlineData": {"mimeType": "audio/pcm;rate=24000", "data": "a"}}
    outputs = harness.content(inputTranscription={"text": "Hi"}, modelTurn=turn(bad, pcm_part([5])))
    assert kinds(outputs) == ["UserTranscript", "ReplyStarted", "ReplyAudio"]
    assert harness.codec.malformed == 1
    assert kinds(harness.content(modelTurn=turn(bad), generationComplete=True)) == ["ReplyDone"]


# The rest of the protocol


@pytest.mark.parametrize(
    ("left", "seconds"),
    [("10s", 10.0), ("9.5s", 9.5), ("0.000000001s", 1e-9), ("0s", 0.0), (None, 0.0), ("-1s", 0.0),
     ("soon", 0.0), (10, 0.0), ("9" * 400 + "s", 0.0)],
)  # fmt: skip
def test_go_away_reports_the_time_left(left, seconds):
    assert Harness().receive(goAway={"timeLeft": left}) == [GoAway(seconds)]


@pytest.mark.parametrize(
    ("usage", "told"),
    [
        (
            {
                "promptTokensDetails": [
                    {"modality": "AUDIO", "tokenCount": 3},
                    {"modality": "TEXT", "tokenCount": 4},
                    {"modality": "AUDIO", "tokenCount": "5"},
                    {"tokenCount": 1},
                ],
                "toolUsePromptTokenCount": 2,
                "cachedContentTokenCount": 6,
                "responseTokensDetails": [{"modality": "AUDIO", "tokenCount": 7}],
                "thoughtsTokenCount": 8,
            },
            Usage(
                {"audio": 8, "text": 4, "other": 1, "tool_use": 2, "cached": 6},
                {"audio": 7, "thoughts": 8},
            ),
        ),
        ({"promptTokenCount": 3, "responseTokenCount": 4}, Usage({"tokens": 3}, {"tokens": 4})),
        ({"promptTokenCount": 3}, Usage({"tokens": 3}, {})),
        ({"totalTokenCount": 3}, None),
        ({"promptTokenCount": 1e300, "responseTokenCount": -1, "thoughtsTokenCount": True}, None),
    ],
)
def test_usage_by_modality(usage, told):
    assert Harness().receive(usageMetadata=usage) == ([] if told is None else [told])


def test_messages_outside_the_protocol_are_counted_and_ignored():
    harness = Harness()
    harness.begin_reply()
    assert (
        harness.receive(brandNew={"a": 1}, voiceActivity={"voiceActivityType": "ACTIVITY_START"})
        == []
    )
    for index in range(400):
        harness.receive(**{f"x{index}": {}})
    assert harness.codec.unknown["brandNew"] == 1
    assert "voiceActivity" not in harness.codec.unknown
    assert len(harness.codec.unknown) == 257
    assert sum(harness.codec.unknown.values()) == 401
    assert kinds(harness.audio()) == ["ReplyAudio"]


@pytest.mark.parametrize(
    "message", [b"", b"\xff", b"[]", b"3", b'{"serverContent": 3}', b"{" * 100, b'{"goAway": "x"}']
)
def test_malformed_messages_are_counted(message):
    harness = Harness()
    assert not harness.codec.decode(message)
    assert harness.codec.malformed == 1


def test_it_fits_the_codec_protocol():
    codec: CodecProtocol[bytes] = Harness().codec
    assert codec.pending() == []
    assert Harness(MODEL).receive(sessionResumptionUpdate={}) == [Resumable(False)]
    assert Harness(TEXT_ONLY).receive(sessionResumptionUpdate={"newHandle": "h"}) == [
        Resumable(False)
    ]


# Errors and ends


@pytest.mark.parametrize("reason", ["RESPONSE_REJECTED", "x" * 200])
def test_a_turn_that_ends_for_a_reason_is_a_failure_of_bounded_length(reason):
    harness = Harness()
    started, _ = harness.begin_reply()
    (done,) = harness.completed(turnCompleteReason=reason)
    assert (done.reply_id, done.status) == (started.reply_id, "failed")
    assert len(done.message) < 150


def test_an_error_is_sorted_by_what_the_session_can_do_about_it():
    error = {"code": 14, "status": "UNAVAILABLE", "message": "try later"}
    (live,) = Harness().receive(error=error)
    assert live == ProviderError(ErrorKind.RETRY, "UNAVAILABLE", "try later")
    # Before the session it came instead of that: connect again.
    (early,) = Harness(live=False).receive(error=error)
    assert early.kind is ErrorKind.RECYCLE
    wrong = {"code": 3, "status": "INVALID_ARGUMENT", "message": "no such field"}
    (fatal,) = Harness(live=False).receive(error=wrong)
    assert fatal.kind is ErrorKind.FATAL


def test_an_error_while_a_session_is_resumed_is_about_its_handle():
    first = Harness()
    first.handle("h")
    second = Harness(live=False, resumption=first.resumption)
    wrong = {"code": 3, "status": "INVALID_ARGUMENT", "message": "no such handle"}
    (error,) = second.receive(error=wrong)
    assert error.kind is ErrorKind.RECYCLE
    assert first.resumption.handle is None


def test_a_resumed_session_says_so_and_keeps_its_handle():
    first = Harness()
    first.handle("h")
    second = Harness(live=False, resumption=first.resumption)
    (started,) = second.receive(setupComplete={})
    assert started.restored
    assert first.resumption.handle.value == "h"


def test_text_and_audio_of_a_cancelled_reply_are_not_reported_but_remembered():
    harness = Harness()
    started, audio = harness.begin_reply()
    harness.text("One two")
    harness.send(CancelReply(started.reply_id))
    assert harness.text(" three.") == harness.audio() == []
    assert harness.codec._context.transcript.texts == {audio.item_id: "One two three."}
    # Nobody heard it: the model is sent that once its turn is over.
    harness.generated()
    harness.completed()
    ((_, note),) = texts(harness.pending()[0])
    assert note.endswith("Of your last message nothing was heard.]")


def test_a_reply_ends_the_wait_of_a_manual_turn():
    harness = Harness(turn_detection=ManualTurns())
    harness.send_audio()
    harness.send(EndTurn())
    assert harness.send_audio() == []
    harness.begin_reply()
    harness.completed()
    assert kinds_of_input(harness.send_audio()) == ["activityStart", "audio", "audio"]


def test_parts_that_are_not_audio_are_left_out():
    harness = Harness()
    text = {"text": "Hello."}
    image = {"inlineData": {"mimeType": "image/png", "data": encoded(b"png")}}
    assert harness.content(modelTurn=turn(text, image)) == []
    assert harness.codec.malformed == 0


# Messages of the same shape, which are not parsed again


def audio_message(data, kind="audio/pcm;rate=24000", *, indent=2, **part):
    part["inlineData"] = {"mimeType": kind, "data": data}
    return json.dumps({"serverContent": {"modelTurn": {"parts": [part]}}}, indent=indent).encode()


def blob_of(message):
    return json.loads(message)["serverContent"]["modelTurn"]["parts"][0]["inlineData"]


def decoded(codec, message):
    """Return the audio of a message and what it was counted as."""
    before = codec.malformed, dict(codec.unknown)
    outputs = codec.decode(message)
    frames = [output.frame for output in outputs if isinstance(output, ReplyAudio)]
    audio = [(frame.samples.tolist(), frame.rate) for frame in frames]
    return audio, codec.malformed - before[0], before[1] == dict(codec.unknown)


def two_codecs(first):
    """Return a codec that has met ``first``, and one that has met no message of such a shape."""
    warm, fresh = Harness().codec, Harness().codec
    warm.decode(first)
    # A thought that is none keeps the shape from being remembered.
    blob = blob_of(first)
    fresh.decode(audio_message(blob["data"], blob["mimeType"], thought=False))
    return warm, fresh


def test_shape_of_audio_is_remembered():
    shape = AudioShape()
    assert shape.read(FIRST) is None
    shape.learn(FIRST, json.loads(FIRST))
    assert shape.read(HEAD + b"AQID" + TAIL) == (b"\x01\x02\x03", 24000)


FIRST = audio_message(b64encode(bytes(40)).decode())
HEAD, TAIL = FIRST.split(b64encode(bytes(40)))


@given(
    st.binary(max_size=60).map(b64encode)
    | st.binary(max_size=60)
    | st.text('AQ="\\\n ').map(str.encode)
)
@example(b"")
@example(b"AAA")
@example(b'AAAA", "x": "AAAA')
@example(b"AA\\u0041A")
@example(b"AA AA")
@example(b"_-__")
def test_data_of_any_kind_means_the_same_as_in_a_new_shape(data):
    warm, fresh = two_codecs(FIRST)
    assert decoded(warm, HEAD + data + TAIL) == decoded(fresh, HEAD + data + TAIL)


@pytest.mark.parametrize(
    "message",
    [
        HEAD,
        TAIL,
        HEAD + TAIL[1:],
        HEAD + b"AQID" + TAIL[:-1] + b"]",
        FIRST[:-1],
        FIRST + b"x",
        b" " + FIRST,
        audio_message("AQID", "audio/pcm;rate=16000"),
        audio_message("AQID", "audio/pcm"),
        audio_message("AQID", "audio/pcm;rate=1"),
        audio_message("AQID", "text/plain"),
        audio_message("AQID", indent=None),
        audio_message("AQID", thought=True),
        audio_message("AQID", text="words"),
        json.dumps({"serverContent": {}, "noSuchThing": 1}).encode(),
        b"[]",
        b"",
    ],
)
def test_message_of_another_shape_is_parsed(message):
    warm, fresh = two_codecs(FIRST)
    for _ in range(2):
        assert decoded(warm, message) == decoded(fresh, message)
    assert decoded(warm, audio_message("AQIDBA=="))[0] == [([0x0201, 0x0403], 24000)]


@pytest.mark.parametrize(
    "first",
    [
        audio_message("audio"),  # The data is in the type as well.
        audio_message("AQID", "audio/pcm;rate=1"),
        audio_message("AQID", "text/plain"),
        audio_message("AQID\u00e9"),
    ],
)
def test_only_plain_audio_makes_a_shape(first):
    warm, fresh = two_codecs(first)
    for data in ("AQIDBA==", "audio", "A"):
        message = audio_message(data, blob_of(first)["mimeType"])
        assert decoded(warm, message) == decoded(fresh, message)
