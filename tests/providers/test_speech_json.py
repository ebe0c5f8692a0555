import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from duologue.providers._json_fields import MalformedError
from duologue.providers._speech_json import (
    JsonDecoder,
    align_characters,
    audio_field,
    base64_text,
    columns,
    join_transcripts,
    timed_words,
)


def test_characters_are_joined_to_words():
    text = "Hi you 你好"
    times = [index * 0.1 for index in range(len(text))]
    tokens = align_characters(list(text), times, [time + 0.1 for time in times])
    assert [token for token, _, _ in tokens] == ["Hi", "you", "你", "好"]
    assert tokens[1][1:] == (times[3], times[5] + 0.1)


def test_transcripts_are_joined_as_their_script_is_written():
    assert join_transcripts(["Hello ", "", " there.", "You"]) == "Hello there. You"
    assert join_transcripts(["你好。", "吃了吗"]) == "你好。吃了吗"


@given(st.lists(st.integers(-32768, 32767), min_size=1))
def test_audio_survives_base64(values):
    samples = np.array(values, np.int16)
    frame = audio_field({"audio": base64_text(samples)}, "audio", 8000)
    assert list(frame.samples) == values


def test_audio_that_is_missing_or_malformed():
    assert audio_field({"audio": None}, "audio", 8000) is None
    assert audio_field({}, "audio", 8000) is None
    for value in (5, "AA=="):
        with pytest.raises(MalformedError):
            audio_field({"audio": value}, "audio", 8000)


def test_rows_of_wrong_types_are_left_out():
    table = {"w": ["a", 5, "b", "c"], "s": [0, 1, True, 3], "e": [1, 2, 3, 4.5]}
    assert columns(table, "w", "s", "e") == [("a", 0.0, 1.0), ("c", 3.0, 4.5)]
    assert columns({"w": "a"}, "w", "s", "e") == []


def test_words_without_times_are_left_out():
    rows = [{"word": "hi", "start": 0, "end": 1}, {"word": "x", "start": 0}, {"start": 1, "end": 2}]
    assert [(w.text, w.start, w.end) for w in timed_words(rows, "punctuated", "word")] == [
        ("hi", 0, 1)
    ]


class Words(JsonDecoder[str]):
    """Takes the word of a message."""

    def decode_event(self, event):
        if "word" not in event:
            raise MalformedError("word")
        return [event["word"]]


def test_a_message_that_is_none_is_counted():
    decoder = Words()
    assert decoder.decode(b'{"word": "hi"}') == ["hi"]
    assert [*decoder.decode(b"[]"), *decoder.decode(b"{}"), *decoder.decode(b"\xff")] == []
    assert (decoder.malformed, decoder.unknown) == (3, 0)
