import json

import hypothesis.strategies as st
import numpy as np
from hypothesis import given

from duologue.errors import SessionError
from duologue.pipeline.interfaces import TurnUpdated
from duologue.pipeline.stt_codec import RecognitionFailed
from duologue.providers.openai._stt_codec import MAX_ITEMS, RATE, TranscriptionCodec

SESSION = {"type": "transcription"}


def codec():
    return TranscriptionCodec(SESSION, lambda code, text: SessionError(text, code=code))


def event(kind, **fields):
    return json.dumps({"type": kind, **fields}).encode()


def transcription(kind, **fields):
    return event(f"conversation.item.input_audio_transcription.{kind}", **fields)


def sent(messages):
    return [json.loads(message) for message in messages]


def second_of_audio():
    return np.zeros(RATE, np.int16)


def test_the_session_is_configured_and_audio_is_appended():
    one = codec()
    assert sent(one.open()) == [{"type": "session.update", "session": SESSION}]
    assert sent(one.audio(np.array([1], np.int16))) == [
        {"type": "input_audio_buffer.append", "audio": "AQA="}
    ]
    assert one.settle() == ()  # Too little to commit.
    assert [*one.keep_alive(), *one.closing()] == []


def test_a_turn_is_its_items_in_order():
    one = codec()
    one.audio(second_of_audio())
    assert sent(one.settle()) == [{"type": "input_audio_buffer.commit"}]
    told = [
        *one.decode(transcription("delta", item_id="a", delta="My ")),
        *one.decode(transcription("delta", item_id="a", delta="name")),
        *one.decode(event("input_audio_buffer.committed", item_id="a")),
        *one.decode(transcription("completed", item_id="a", transcript="My name")),
        *one.decode(transcription("delta", item_id="b", delta="is")),
    ]
    assert told == [
        TurnUpdated(0, "My"),
        TurnUpdated(0, "My name"),
        TurnUpdated(0, "My name", final=True),
        TurnUpdated(0, "My name is"),
    ]


def test_a_late_transcript_belongs_to_the_turn_of_its_commit():
    one = codec()
    one.audio(second_of_audio())
    one.end_turn()
    one.audio(second_of_audio())
    one.settle()
    for item in ("a", "b"):
        one.decode(event("input_audio_buffer.committed", item_id=item))
    assert one.decode(transcription("completed", item_id="b", transcript="two")) == [
        TurnUpdated(1, "two", final=True)
    ]
    assert one.decode(transcription("delta", item_id="a", delta="on")) == ()
    assert one.decode(transcription("completed", item_id="a", transcript="one")) == [
        TurnUpdated(0, "one", final=True)
    ]


def test_errors_end_the_connection_unless_they_are_harmless():
    one = codec()
    [failed] = one.decode(event("error", error={"code": "invalid_model", "message": "no"}))
    assert isinstance(failed, RecognitionFailed)
    assert (str(failed.error), failed.error.code, failed.benign) == ("no", "invalid_model", False)
    empty = {"code": "input_audio_buffer_commit_empty", "message": "small"}
    [failed] = one.decode(event("error", error=empty))
    assert failed.benign
    told = one.decode(transcription("failed", item_id="a", error={"message": "noise"}))
    assert isinstance(told[-1], RecognitionFailed)
    assert told[-1].benign


def test_what_is_unknown_or_malformed_is_counted():
    one = codec()
    for message in (event("session.created"), event("news"), b"x", transcription("completed")):
        assert one.decode(message) == ()
    assert (one.unknown, one.malformed) == (1, 2)


def test_old_items_are_forgotten():
    one = codec()
    for number in range(MAX_ITEMS + 5):
        one.decode(event("input_audio_buffer.committed", item_id=f"i{number}"))
    assert one.decode(transcription("delta", item_id="i0", delta="x")) == [TurnUpdated(0, "x")]


@given(
    st.binary()
    | st.dictionaries(
        st.sampled_from(["type", "item_id", "delta", "error"]), st.none() | st.text()
    ).map(lambda fields: json.dumps(fields).encode())
)
def test_nothing_makes_it_raise(message):
    codec().decode(message)
