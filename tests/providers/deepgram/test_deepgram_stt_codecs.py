import json

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from duologue.errors import SessionError
from duologue.pipeline.interfaces import (
    TimedWord,
    TurnEnded,
    TurnMayEnd,
    TurnResumed,
    TurnStarted,
    TurnUpdated,
)
from duologue.pipeline.stt_codec import RecognitionFailed
from duologue.providers.deepgram._flux_stt_codec import FluxCodec
from duologue.providers.deepgram._nova_stt_codec import NovaCodec
from duologue.realtime import BinaryMessage


def error(code, text):
    return SessionError(text, code=code)


def event(**fields):
    return json.dumps(fields).encode()


def turn(kind, index=0, text="", **fields):
    return event(type="TurnInfo", event=kind, turn_index=index, transcript=text, **fields)


def results(text, *, final=False, finalized=False, words=()):
    alternatives = [{"transcript": text, "words": list(words)}]
    return event(
        type="Results",
        is_final=final,
        from_finalize=finalized,
        channel={"alternatives": alternatives},
    )


@pytest.mark.parametrize("codec", [FluxCodec, NovaCodec])
def test_audio_is_sent_as_it_is(codec):
    [message] = codec(error).audio(np.array([1, -2], np.int16))
    assert isinstance(message, BinaryMessage)
    assert bytes(message) == b"\x01\x00\xfe\xff"
    assert codec(error).open() == ()
    assert json.loads(codec(error).closing()[0]) == {"type": "CloseStream"}


def test_flux_tells_the_turns():
    codec = FluxCodec(error)
    words = [{"word": "Hi", "start": 0.5, "end": 0.8}, {"word": "x"}]
    told = [
        *codec.decode(turn("StartOfTurn", audio_window_start=0.4)),
        *codec.decode(turn("Update", text="Hi", words=words)),
        *codec.decode(turn("Update")),
        *codec.decode(turn("EagerEndOfTurn", text="Hi")),
        *codec.decode(turn("EagerEndOfTurn")),
        *codec.decode(turn("TurnResumed")),
        *codec.decode(turn("EndOfTurn", text="Hi", words=words, audio_window_end=2.0)),
        *codec.decode(turn("EndOfTurn", 1, "", audio_window_end=3.0)),
        *codec.decode(turn("StartOfTurn", 2, "So")),
    ]
    hi = [TimedWord("Hi", 0.5, 0.8)]
    assert told == [
        TurnStarted(0, 0.4),
        TurnUpdated(0, "Hi", words=hi),
        TurnMayEnd(0, "Hi"),
        TurnResumed(0),
        TurnEnded(0, "Hi", 0.8, hi),
        TurnEnded(1, "", 3.0, []),
        TurnStarted(2),
        TurnUpdated(2, "So", words=[]),
    ]


def test_flux_is_told_to_end_a_turn_and_needs_nothing_else():
    codec = FluxCodec(error)
    assert json.loads(codec.end_turn()[0]) == {"type": "ForceEndTurn"}
    assert [*codec.settle(), *codec.keep_alive()] == []


def test_flux_counts_what_it_does_not_know():
    codec = FluxCodec(error)
    for message in (
        turn("News"),
        event(type="News"),
        event(type="Connected"),
        b"x",
        turn("Update", -1),
    ):
        assert codec.decode(message) == ()
    assert (codec.unknown, codec.malformed) == (2, 2)
    [failed] = codec.decode(event(type="Error", code="E", description="bad"))
    assert isinstance(failed, RecognitionFailed)
    assert (str(failed.error), failed.error.code) == ("bad", "E")


def test_nova_joins_what_is_final_and_what_is_not():
    codec = NovaCodec(error)
    word = {"word": "my", "punctuated_word": "My", "start": 0.1, "end": 0.3}
    told = [
        *codec.decode(results("my")),
        *codec.decode(results("")),
        *codec.decode(results("My number", final=True, words=[word])),
        *codec.decode(results("is five")),
    ]
    assert [(one.text, one.final) for one in told] == [
        ("my", False),
        ("My number", True),
        ("My number is five", False),
    ]
    assert told[1].words == (TimedWord("My", 0.1, 0.3),)
    assert json.loads(codec.settle()[0]) == {"type": "Finalize"}
    [last] = codec.decode(results("is five.", final=True, finalized=True))
    assert (last.turn, last.text, last.final) == (0, "My number is five.", True)


def test_nova_drops_what_comes_late_of_a_turn_that_is_over():
    codec = NovaCodec(error)
    codec.decode(results("one"))
    assert [json.loads(message) for message in codec.end_turn()] == [{"type": "Finalize"}]
    assert codec.decode(results("one more", final=True, finalized=True)) == ()
    [told] = codec.decode(results("two"))
    assert (told.turn, told.text) == (1, "two")


def test_nova_ends_a_settled_turn_without_asking_again():
    codec = NovaCodec(error)
    codec.decode(results("one"))
    codec.settle()
    codec.decode(results("One.", final=True, finalized=True))
    assert codec.end_turn() == ()
    [told] = codec.decode(results("Two.", final=True))
    assert (told.turn, told.text) == (1, "Two.")


def test_nova_keeps_its_connection_and_tells_errors():
    codec = NovaCodec(error)
    assert json.loads(codec.keep_alive()[0]) == {"type": "KeepAlive"}
    assert codec.decode(event(type="SpeechStarted")) == ()
    assert codec.decode(event(type="News")) == ()
    assert codec.decode(event(type="Results")) == ()
    assert codec.decode(results("", final=True)) == ()
    assert codec.unknown == 1
    [failed] = codec.decode(event(type="Error", variant="V", description="bad"))
    assert (str(failed.error), failed.error.code) == ("bad", "V")


@given(
    st.binary()
    | st.dictionaries(
        st.sampled_from(["type", "event", "turn_index", "transcript", "words", "channel"]),
        st.none() | st.text() | st.integers() | st.sampled_from(["TurnInfo", "Results"]),
    ).map(lambda fields: json.dumps(fields).encode()),
    st.sampled_from([FluxCodec, NovaCodec]),
)
def test_nothing_makes_them_raise(message, codec):
    codec(error).decode(message)
