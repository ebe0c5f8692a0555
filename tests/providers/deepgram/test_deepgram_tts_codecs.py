import json

import hypothesis.strategies as st
import pytest
from hypothesis import given

from duologue.errors import ErrorKind, SessionError
from duologue.pipeline.tts_codec import (
    ContextAudio,
    ContextClause,
    ContextEnded,
    ContextStopped,
    VoiceFailed,
)
from duologue.providers.deepgram._aura_tts_codec import (
    EAGER_FLUSHES,
    EAGER_MINUTE,
    MAX_CHARS,
    AuraCodec,
)
from duologue.providers.deepgram._flux_tts_codec import FluxTTSCodec
from duologue.realtime import BinaryMessage

RATE = 8000


def error(code, text):
    return SessionError(text, code=code)


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def aura(clock=None):
    return AuraCodec(RATE, error, clock or Clock())


def flux():
    return FluxTTSCodec(RATE, error)


def event(**fields):
    return json.dumps(fields).encode()


def kinds(messages):
    return [json.loads(message)["type"] for message in messages]


def told(events):
    """Return events in short: samples for audio."""
    return [
        (one.context, list(one.frame.samples)) if isinstance(one, ContextAudio) else one
        for one in events
    ]


def test_aura_tells_where_each_clause_begins():
    codec = aura()
    codec.start("c")
    messages = [
        message
        for text in ("One, ", "two, ", "three, ", "four.")
        for message in codec.text("c", text)
    ]
    assert kinds(messages) == ["Speak", "Flush"] * EAGER_FLUSHES + ["Speak", "Speak"]
    assert kinds(codec.finish("c")) == ["Flush"]
    events = [
        *codec.decode(BinaryMessage(b"\x01\x00\x02")),
        *codec.decode(BinaryMessage(b"\x00")),
        *codec.decode(event(type="Flushed")),
        *codec.decode(event(type="Flushed")),  # A clause without audio.
        *codec.decode(BinaryMessage(b"\x03\x00")),
        *codec.decode(event(type="Flushed")),
    ]
    assert told(events) == [
        ContextClause("c", "One, "),
        ("c", [1]),
        ("c", [2]),
        ContextClause("c", "two, "),
        ContextClause("c", "three, four."),
        ("c", [3]),
        ContextEnded("c"),
    ]


def test_aura_drops_audio_until_a_cancel_is_confirmed():
    codec = aura()
    codec.start("c")
    codec.text("c", "One. ")
    assert kinds(codec.cancel("c", 0.5)) == ["Clear"]
    assert codec.decode(BinaryMessage(b"\x01\x00")) == ()
    assert codec.decode(event(type="Flushed")) == ()
    assert codec.decode(event(type="Cleared")) == [ContextStopped("c")]
    assert codec.decode(event(type="Cleared")) == ()


def test_aura_flushes_no_more_than_the_service_takes():
    clock = Clock()
    codec = aura(clock)
    flushes = 0
    for number in range(14):
        codec.start(f"c{number}")
        messages = [*codec.text("c", "One. "), *codec.text("c", "Two. "), *codec.finish("c")]
        flushes += kinds(messages).count("Flush")
        clock.now += 4.0
    assert EAGER_MINUTE < flushes <= 20
    clock.now += 60.0
    codec.start("late")
    assert kinds(codec.text("late", "One. ")) == ["Speak", "Flush"]


def test_aura_cuts_a_long_text_and_flushes_on_demand():
    codec = aura()
    codec.start("c")
    assert kinds(codec.text("c", "x" * (MAX_CHARS + 1))) == ["Speak", "Speak", "Flush"]
    assert codec.flush("c") == []
    assert [*codec.open(), *codec.keep_alive()] == []


@pytest.mark.parametrize("make", [aura, flux])
def test_errors_and_unknown_messages(make):
    codec = make()
    [failed] = codec.decode(event(type="Error", code="NET-0001", description="bad"))
    assert isinstance(failed, VoiceFailed)
    assert (str(failed.error), failed.error.code) == ("bad", "NET-0001")
    assert codec.decode(event(type="News")) == ()
    assert codec.decode(event(type="Warning", code="X")) == ()
    assert codec.decode(b"no") == ()
    assert (codec.unknown, codec.malformed) == (1, 1)


def test_flux_speaks_one_turn_at_a_time():
    codec = flux()
    assert [*codec.open(), *codec.start("c"), *codec.flush("c"), *codec.keep_alive()] == []
    assert kinds([*codec.text("c", "Hi "), *codec.finish("c")]) == ["Speak", "Flush"]
    events = [
        *codec.decode(event(type="SpeechStarted")),
        *codec.decode(BinaryMessage(b"\x01\x00\x02")),
        *codec.decode(BinaryMessage(b"\x00")),
        *codec.decode(event(type="Flushed")),
        *codec.decode(event(type="SpeechMetadata")),
        *codec.decode(event(type="SpeechMetadata")),
        *codec.decode(BinaryMessage(b"\x01\x00")),
    ]
    assert told(events) == [("c", [1]), ("c", [2]), ContextEnded("c")]


def offset_of(messages):
    return json.loads(messages[0]).get("playback_offset", {}).get("value")


def test_flux_interrupts_at_what_was_heard_of_the_session():
    codec = flux()
    second = BinaryMessage(b"\x01\x00" * RATE)
    codec.start("a")
    codec.decode(second)
    codec.decode(event(type="SpeechMetadata"))
    codec.start("b")
    codec.decode(second)
    assert offset_of(codec.cancel("b", 0.25)) == 1250
    assert codec.decode(second) == ()
    stopped = event(type="SpeechInterrupted", audio_played_ms=1250, text_spoken="so")
    assert codec.decode(stopped) == [ContextStopped("b", "so")]
    codec.start("c")
    codec.decode(second)
    assert offset_of(codec.cancel("c", 9.0)) == 2250


def test_flux_interrupts_without_an_offset_what_has_no_audio():
    codec = flux()
    codec.start("a")
    assert offset_of(codec.cancel("a", 0.5)) is None
    assert codec.decode(event(type="Warning", code="NO_ACTIVE_SPEECH")) == [ContextStopped("a")]
    assert codec.decode(event(type="Warning", code="NO_ACTIVE_SPEECH")) == ()
    assert codec.decode(event(type="SpeechInterrupted")) == ()


@pytest.mark.parametrize(
    "code", ["NO_AUDIO_GENERATED", "INTERRUPT_IN_PROGRESS", "INVALID_INTERRUPT_OFFSET"]
)
def test_flux_gives_up_a_connection_whose_turn_can_not_be_stopped(code):
    """The turn goes on, and its audio has no id: it would be taken for the next turn's."""
    codec = flux()
    codec.start("a")
    assert codec.decode(event(type="Warning", code=code)) == ()
    codec.cancel("a", None)
    (failed,) = codec.decode(event(type="Warning", code=code, description="ignored"))
    assert isinstance(failed, VoiceFailed)
    assert failed.error.kind is ErrorKind.RECYCLE
    assert failed.error.code == code
    assert "ignored" in str(failed.error)


def test_flux_interrupts_only_behind_the_last_interruption():
    codec = flux()
    codec.start("a")
    codec.decode(BinaryMessage(bytes(4 * RATE)))
    assert offset_of(codec.cancel("a", 1.5)) == 1500
    codec.decode(event(type="SpeechInterrupted", audio_played_ms=1500))
    codec.start("b")
    assert offset_of(codec.cancel("b", 0.5)) is None


@given(st.binary(), st.booleans(), st.sampled_from([aura, flux]))
def test_nothing_makes_them_raise(data, binary, make):
    codec = make()
    codec.start("c")
    codec.text("c", "hello")
    codec.decode(BinaryMessage(data) if binary else data)
