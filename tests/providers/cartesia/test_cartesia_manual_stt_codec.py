import json

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from duologue.errors import ConfigError, SessionError
from duologue.pipeline.interfaces import TimedWord, TurnUpdated
from duologue.pipeline.stt_codec import RecognitionFailed
from duologue.providers import cartesia
from duologue.providers.cartesia._manual_stt_codec import CartesiaManualCodec
from duologue.realtime import BinaryMessage

AUDIO = np.full(320, 7, np.int16)


def codec():
    return CartesiaManualCodec(lambda code, text: SessionError(text, code=code))


def transcript(text, *, final=False, words=()):
    rows = [{"word": word, "start": start, "end": end} for word, start, end in words]
    fields = {"type": "transcript", "text": text, "is_final": final, "words": rows}
    return json.dumps(fields).encode()


def event(**fields):
    return json.dumps(fields).encode()


FLUSHED = event(type="flush_done")


def test_commands_are_bare_words():
    one = codec()
    assert one.open() == ()
    (message,) = one.audio(AUDIO)
    assert isinstance(message, BinaryMessage)
    assert bytes(message) == AUDIO.tobytes()
    assert one.settle() == [b"finalize"]
    assert one.settle() == ()
    assert one.keep_alive() == ()
    assert one.closing() == [b"close"]


def test_final_transcripts_are_joined_as_they_are():
    one = codec()
    assert one.decode(transcript("Guten")) == [TurnUpdated(0, "Guten")]
    one.audio(AUDIO)
    one.settle()
    assert one.decode(transcript("Guten Mor", final=True, words=[("Guten", 0.1, 0.4)])) == [
        TurnUpdated(0, "Guten Mor")
    ]
    assert one.decode(transcript("gen ")) == [TurnUpdated(0, "Guten Morgen")]
    assert one.decode(transcript("gen ", final=True)) == [TurnUpdated(0, "Guten Morgen")]
    assert one.decode(FLUSHED) == [
        TurnUpdated(0, "Guten Morgen", final=True, words=(TimedWord("Guten", 0.1, 0.4),))
    ]


def test_what_comes_before_the_answer_of_a_command_belongs_to_its_turn():
    one = codec()
    one.audio(AUDIO)
    assert one.end_turn() == [b"finalize"]
    assert one.end_turn() == ()
    one.audio(AUDIO)
    assert one.decode(transcript("one ", final=True)) == [TurnUpdated(0, "one")]
    assert one.decode(FLUSHED) == [TurnUpdated(0, "one", final=True)]
    assert one.decode(transcript("two")) == [TurnUpdated(2, "two")]


def test_an_answer_without_text_settles_the_open_turn_only():
    one = codec()
    one.audio(AUDIO)
    one.settle()
    assert one.decode(FLUSHED) == [TurnUpdated(0, "", final=True)]
    one.audio(AUDIO)
    one.end_turn()
    assert one.decode(FLUSHED) == ()
    assert one.decode(transcript(" ")) == ()


def test_errors_and_unknown_messages():
    one = codec()
    (failed,) = one.decode(event(type="error", status_code=402, title="Over"))
    assert isinstance(failed, RecognitionFailed)
    assert (failed.error.code, str(failed.error)) == ("402", "Over")
    assert one.decode(event(type="done")) == ()
    assert one.decode(event(type="news")) == ()
    assert one.decode(b"{") == ()
    assert (one.unknown, one.malformed) == (1, 1)


@given(st.binary())
def test_nothing_makes_it_raise(data):
    codec().decode(data)


@pytest.mark.parametrize(
    ("options", "turns"),
    [
        ({}, "service"),
        ({"language": "en-GB"}, "service"),
        ({"turns": "local"}, "local"),
        ({"model": "ink-2"}, "service"),
        ({"language": "de"}, "local"),
        ({"model": "ink-whisper"}, "local"),
    ],
)
def test_who_finds_the_turns_is_decided_by_language_and_model(options, turns):
    stt = cartesia.STT(base_url="http://127.0.0.1:1", **options)
    assert stt.turns == turns


def test_turns_of_the_service_need_english():
    with pytest.raises(ConfigError, match="for English"):
        cartesia.STT(base_url="http://127.0.0.1:1", language="de", turns="service")
    with pytest.raises(ConfigError, match="turns must be one of service, local"):
        cartesia.STT(base_url="http://127.0.0.1:1", turns="mine")
