import base64
import json

import hypothesis.strategies as st
import numpy as np
from hypothesis import given

from duologue.errors import ErrorKind, SessionError
from duologue.pipeline.tts_codec import (
    ContextAudio,
    ContextEnded,
    ContextFailed,
    ContextTokens,
    VoiceFailed,
)
from duologue.providers.cartesia._tts_codec import CartesiaTTSCodec

REQUEST = {"model_id": "sonic-3", "voice": {"mode": "id", "id": "v"}}


def codec():
    return CartesiaTTSCodec(REQUEST, 24000, lambda code, text: SessionError(text, code=code))


def event(**fields):
    return json.dumps(fields).encode()


def test_a_reply_is_a_context_that_the_last_message_ends():
    one = codec()
    assert [*one.open(), *one.start("c"), *one.flush("c"), *one.keep_alive()] == []
    messages = [*one.text("c", "Hello there, "), *one.finish("c")]
    assert [json.loads(message) for message in messages] == [
        {**REQUEST, "context_id": "c", "transcript": "Hello there, ", "continue": True},
        {**REQUEST, "context_id": "c", "transcript": "", "continue": False},
    ]
    assert [json.loads(message) for message in one.cancel("c", 1.5)] == [
        {"context_id": "c", "cancel": True}
    ]


def test_audio_words_and_the_end_are_told_by_context():
    samples = np.array([1, -2, 3], "<i2")
    data = base64.b64encode(samples.tobytes()).decode()
    [audio] = codec().decode(event(type="chunk", context_id="c", data=data, done=False))
    assert isinstance(audio, ContextAudio)
    assert (audio.context, audio.frame.rate, list(audio.frame.samples)) == ("c", 24000, [1, -2, 3])
    columns = {"words": ["Hi", "you", "x"], "start": [0, 0.5, None], "end": [0.4, 0.9, 1]}
    assert codec().decode(event(type="timestamps", context_id="c", word_timestamps=columns)) == [
        ContextTokens("c", [("Hi", 0.0, 0.4), ("you", 0.5, 0.9)])
    ]
    assert codec().decode(event(type="done", context_id="c", done=True)) == [ContextEnded("c")]
    assert codec().decode(event(type="flush_done", context_id="c")) == ()


def test_an_error_is_of_its_context_or_of_the_connection():
    [failed] = codec().decode(event(type="error", context_id="c", status_code=404, message="no"))
    assert isinstance(failed, ContextFailed)
    assert (str(failed.error), failed.error.code) == ("no", "404")
    [failed] = codec().decode(event(type="error", error_code="quota_exceeded", title="Over"))
    assert isinstance(failed, VoiceFailed)
    assert (str(failed.error), failed.error.code) == ("Over", "quota_exceeded")
    assert failed.error.kind is ErrorKind.RETRY


def test_what_is_unknown_or_malformed_is_counted():
    one = codec()
    odd = event(type="chunk", context_id="c", data="AA==")
    for message in (b"[]", b"{", odd, event(type="chunk", data=5)):
        assert one.decode(message) == ()
    assert one.malformed == 4
    assert one.decode(event(type="news")) == ()
    assert one.unknown == 1
    [empty] = [one.decode(event(type="timestamps", word_timestamps={"words": 3}))]
    assert empty == [ContextTokens("", [])]


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
KEYS = ("type", "context_id", "data", "word_timestamps", "words", "start", "end", "error_code")
KINDS = st.sampled_from(["chunk", "timestamps", "done", "error", "flush_done"])


@given(st.dictionaries(st.sampled_from(KEYS), json_values), st.none() | KINDS)
def test_no_message_makes_it_raise(fields, kind):
    codec().decode(json.dumps(fields | ({"type": kind} if kind else {})).encode())


@given(st.binary())
def test_no_bytes_make_it_raise(message):
    codec().decode(message)
