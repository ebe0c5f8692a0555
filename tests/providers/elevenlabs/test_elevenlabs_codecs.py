import base64
import json

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from duologue.errors import SessionError
from duologue.pipeline.interfaces import TimedWord, TurnUpdated
from duologue.pipeline.stt_codec import RecognitionFailed
from duologue.pipeline.tts_codec import (
    ContextAudio,
    ContextEnded,
    ContextFailed,
    ContextTokens,
    VoiceFailed,
)
from duologue.providers.elevenlabs._stt_codec import ScribeCodec
from duologue.providers.elevenlabs._tts_codec import ElevenLabsTTSCodec

RATE = 8000
SETTINGS = {"voice_settings": {"speed": 1.1}}


def error(code, text):
    return SessionError(text, code=code)


def voice():
    return ElevenLabsTTSCodec(SETTINGS, RATE, error)


def event(**fields):
    return json.dumps(fields).encode()


def audio(seconds):
    return base64.b64encode(np.ones(int(seconds * RATE), "<i2").tobytes()).decode()


def alignment(text, start_ms, step_ms=100):
    return {
        "chars": list(text),
        "charStartTimesMs": [start_ms + index * step_ms for index in range(len(text))],
        "charDurationsMs": [step_ms] * len(text),
    }


def sent(messages):
    return [json.loads(message) for message in messages]


def test_a_context_is_opened_by_a_space_and_closed_at_its_end():
    codec = voice()
    assert sent(codec.start("c")) == [{"text": " ", "context_id": "c", **SETTINGS}]
    assert sent(codec.text("c", "Hi there,")) == [{"text": "Hi there, ", "context_id": "c"}]
    assert sent(codec.text("c", "you. ")) == [{"text": "you. ", "context_id": "c"}]
    assert sent(codec.flush("c")) == [{"context_id": "c", "flush": True}]
    closed = {"context_id": "c", "close_context": True}
    assert sent(codec.finish("c")) == [{"context_id": "c", "flush": True}, closed]
    assert sent(codec.cancel("c", 1.0)) == [closed]
    assert [*codec.open(), *codec.keep_alive()] == []


@pytest.mark.parametrize("absolute", [False, True])
def test_times_are_placed_by_the_audio_whichever_way_they_count(absolute):
    codec = voice()
    codec.start("c")
    first = event(audio=audio(0.5), alignment=alignment("Hello", 0), contextId="c")
    start_ms = 500 if absolute else 0
    second = event(audio=audio(0.4), alignment=alignment(" you", start_ms), context_id="c")
    tokens = [
        token
        for message in (first, second)
        for output in codec.decode(message)
        if isinstance(output, ContextTokens)
        for token in output.tokens
    ]
    assert [(text, round(start, 3), round(end, 3)) for text, start, end in tokens] == [
        ("Hello", 0.0, 0.5),
        ("you", 0.6, 0.9),
    ]


def test_audio_comes_with_or_without_times_and_ends():
    codec = voice()
    codec.start("c")
    [told] = codec.decode(event(audio=audio(0.1), alignment=None, contextId="c"))
    assert isinstance(told, ContextAudio)
    assert codec.decode(event(audio=None, isFinal=True, contextId="c")) == [ContextEnded("c")]
    [late] = codec.decode(event(audio=audio(0.1), alignment=alignment("a", 0), contextId="c"))
    assert isinstance(late, ContextAudio)
    assert codec.decode(event(type="flush_done", contextId="c")) == []


def test_errors_are_of_a_context_or_of_the_connection():
    codec = voice()
    [failed] = codec.decode(event(message="Too many", error="max_active_conversations", code=1008))
    assert isinstance(failed, VoiceFailed)
    assert (str(failed.error), failed.error.code) == ("Too many", "max_active_conversations")
    [failed] = codec.decode(event(message="No", code=1008, contextId="c"))
    assert isinstance(failed, ContextFailed)
    assert failed.error.code == "1008"
    assert codec.decode(event(news=1)) == []
    assert codec.decode(event(audio=5, contextId="c")) == ()
    assert (codec.unknown, codec.malformed) == (1, 1)


def scribe():
    return ScribeCodec(RATE, error)


def second_of_audio():
    return np.zeros(RATE, np.int16)


def committed(text, words=()):
    return event(
        message_type="committed_transcript_with_timestamps",
        text=text,
        words=[
            {"text": word, "start": start, "end": end, "type": kind}
            for word, start, end, kind in words
        ],
    )


def test_a_turn_is_what_was_committed_and_what_follows():
    codec = scribe()
    [chunk] = sent(codec.audio(second_of_audio()))
    assert (chunk["message_type"], chunk["commit"], chunk["sample_rate"]) == (
        "input_audio_chunk",
        False,
        RATE,
    )
    [commit] = sent(codec.settle())
    assert (commit["commit"], commit["audio_base_64"]) == (True, "")
    assert codec.settle() == ()  # Nothing is new.
    words = [("My", 0.0, 0.2, "word"), (" ", 0.2, 0.3, "spacing"), ("name", 0.3, 0.6, "word")]
    told = [
        *codec.decode(event(message_type="partial_transcript", text="my")),
        *codec.decode(event(message_type="partial_transcript", text="")),
        *codec.decode(event(message_type="committed_transcript", text="My name")),
        *codec.decode(committed("My name", words)),
        *codec.decode(event(message_type="partial_transcript", text="is")),
    ]
    timed = (TimedWord("My", 0.0, 0.2), TimedWord("name", 0.3, 0.6))
    assert told == [
        TurnUpdated(0, "my"),
        TurnUpdated(0, "My name", final=True, words=timed),
        TurnUpdated(0, "My name is"),
    ]


def test_a_late_commit_belongs_to_its_turn():
    codec = scribe()
    codec.audio(second_of_audio())
    assert sent(codec.end_turn())[0]["commit"] is True
    assert codec.decode(committed("one")) == [TurnUpdated(0, "one", final=True)]
    assert codec.decode(committed("")) == [TurnUpdated(1, "", final=True, words=())]
    codec.audio(second_of_audio())
    codec.end_turn()
    assert codec.decode(committed("")) == ()


def test_soft_errors_do_not_end_the_session():
    codec = scribe()
    for kind, benign in (("commit_throttled", True), ("auth_error", False)):
        [failed] = codec.decode(event(message_type=kind, error="words"))
        assert isinstance(failed, RecognitionFailed)
        assert (str(failed.error), failed.error.code, failed.benign) == ("words", kind, benign)
    assert codec.decode(event(message_type="session_started")) == ()
    assert codec.decode(event(message_type="news")) == ()
    assert codec.unknown == 1
    assert [*codec.open(), *codec.keep_alive(), *codec.closing()] == []


@given(
    st.binary()
    | st.dictionaries(
        st.sampled_from(["audio", "alignment", "contextId", "message_type", "text", "words"]),
        st.none()
        | st.text()
        | st.integers()
        | st.sampled_from(["partial_transcript", "committed_transcript_with_timestamps"])
        | st.just(alignment("ab", 0)),
    ).map(lambda fields: json.dumps(fields).encode()),
    st.sampled_from([voice, scribe]),
)
def test_nothing_makes_them_raise(message, make):
    make().decode(message)
