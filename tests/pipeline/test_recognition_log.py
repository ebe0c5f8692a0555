import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from duologue.errors import ErrorKind, SessionError
from duologue.pipeline._recognition_log import LEAD_S, RecognitionLog
from duologue.pipeline.interfaces import (
    AudioLost,
    TimedWord,
    TurnEnded,
    TurnMayEnd,
    TurnResumed,
    TurnStarted,
    TurnUpdated,
)
from duologue.pipeline.stt_codec import RecognitionFailed, RecognizerTraits

RATE = 8000
FRAME = RATE // 50


class PlainCodec:
    """Messages are tuples or events, so that what is sent and received can be compared."""

    def open(self):
        return [("open",)]

    def audio(self, samples):
        return [("audio", samples)]

    def settle(self):
        return [("settle",)]

    def end_turn(self):
        return [("end_turn",)]

    def keep_alive(self):
        return []

    def closing(self):
        return []

    def decode(self, message):
        return [message]


def frames(first, count):
    """Loud frames, each with a value of its own."""
    return [np.full(FRAME, 1000 + first + index, np.int16) for index in range(count)]


def sent(log):
    """Return the numbers of the frames that were sent since the last call."""
    audio = [message[1] for message in log.messages() if message[0] == "audio"]
    return [int(samples[0]) - 1000 for samples in audio]


def connected():
    log = RecognitionLog(RecognizerTraits(), RATE)
    assert log.connected(PlainCodec()) == []
    log.messages()
    return log


def test_turns_and_seconds_go_on_over_connections():
    log = connected()
    for frame in frames(0, 100):
        log.push(frame)
    words = (TimedWord("hi", 0.2, 0.5),)
    assert log.received(TurnStarted(0, 0.2))[0] == [TurnStarted(0, 0.2)]
    assert log.received(TurnUpdated(0, "hi", words=words))[0] == [
        TurnUpdated(0, "hi", words=list(words))
    ]
    assert log.received(TurnEnded(0, "hi", 1.0, words))[0] == [TurnEnded(0, "hi", 1.0, list(words))]
    log.disconnected()
    log.messages()
    log.connected(PlainCodec())
    assert sent(log) == list(range(50, 100))
    events = log.received(TurnUpdated(0, "you", words=(TimedWord("you", 0.5, 0.7),)))[0]
    assert events == [
        TurnStarted(1),
        TurnUpdated(1, "you", words=[TimedWord("you", 1.5, 1.7)]),
    ]


def test_an_open_turn_keeps_its_number_and_starts_once():
    log = connected()
    for frame in frames(0, 60):
        log.push(frame)
    log.received(TurnStarted(0, 0.1))
    log.disconnected()
    for frame in frames(60, 10):
        log.push(frame)
    log.connected(PlainCodec())
    assert sent(log) == list(range(70))
    assert log.received(TurnStarted(0, 0.1))[0] == []
    assert log.received(TurnMayEnd(0, "hello"))[0] == [TurnMayEnd(0, "hello")]
    assert log.received(TurnResumed(0))[0] == [TurnResumed(0)]
    assert log.received(TurnEnded(0, "hello"))[0] == [TurnEnded(0, "hello", None, [])]


def test_reports_of_a_turn_that_is_over_are_dropped():
    log = connected()
    log.received(TurnStarted(0))
    log.received(TurnEnded(0, "one"))
    assert log.received(TurnUpdated(0, "one more"))[0] == []
    assert not log.in_turn


def test_a_turn_without_words_that_was_never_reported_stays_so():
    log = connected()
    assert log.received(TurnEnded(0, ""))[0] == []
    assert log.received(TurnUpdated(1, "x"))[0] == [TurnStarted(1), TurnUpdated(1, "x", words=[])]


def test_an_outage_that_is_too_long_is_told():
    log = RecognitionLog(RecognizerTraits(), RATE, keep_s=2.0)
    log.connected(PlainCodec())
    log.push(frames(0, 1)[0])
    log.disconnected()
    for frame in frames(1, 150):
        log.push(frame)
    assert log.connected(PlainCodec()) == [AudioLost(1.0)]
    assert sent(log) == list(range(51, 151))


def test_silence_between_turns_is_not_kept():
    log = connected()
    for _ in range(500):
        log.push(np.zeros(FRAME, np.int16))
    assert log.kept_s <= LEAD_S
    log.disconnected()
    for _ in range(500):
        log.push(np.zeros(FRAME, np.int16))
    assert log.connected(PlainCodec()) == []


def test_errors_end_the_connection_unless_they_are_benign():
    log = connected()
    error = SessionError("no", kind=ErrorKind.FATAL)
    assert log.received(RecognitionFailed(error, benign=True)) == ([], None)
    assert log.received(RecognitionFailed(error)) == ([], error)


def test_loud_audio_without_a_message_is_counted():
    log = connected()
    for frame in frames(0, 50):
        log.push(frame)
    assert round(log.loud_s, 6) == 1.0
    log.received(TurnStarted(0))
    assert log.loud_s == 0.0


def test_commands_need_a_connection():
    log = RecognitionLog(RecognizerTraits(), RATE)
    log.settle()
    log.end_turn()
    assert log.messages() == []
    log.connected(PlainCodec())
    log.settle()
    log.end_turn()
    assert log.messages() == [("open",), ("settle",), ("end_turn",)]


def test_a_turn_is_ended_here_if_the_service_cannot_be_told_to():
    log = RecognitionLog(RecognizerTraits(ends_turns=False), RATE)
    log.connected(PlainCodec())
    assert log.end_turn() == []
    log.received(TurnStarted(0))
    log.received(TurnUpdated(0, "my number is"))
    assert log.end_turn() == [TurnEnded(0, "my number is")]
    assert log.received(TurnEnded(0, "my number is five"))[0] == []
    assert log.received(TurnStarted(1))[0] == [TurnStarted(1)]


def test_a_turn_that_is_found_here_is_over_at_once():
    log = RecognitionLog(RecognizerTraits(turns="local"), RATE)
    log.connected(PlainCodec())
    assert log.end_turn() == []
    assert ("end_turn",) in log.messages()
    assert log.received(TurnUpdated(0, "late"))[0] == []
    assert log.received(TurnUpdated(1, "new"))[0] == [
        TurnStarted(1),
        TurnUpdated(1, "new", words=[]),
    ]


@given(st.lists(st.sampled_from(["push", "lose", "connect", "start", "end"]), max_size=60))
def test_every_frame_of_an_open_turn_reaches_the_connection_that_ends_it(steps):
    """Whatever happens, a connection's audio has no gap and nothing twice."""
    log = RecognitionLog(RecognizerTraits(), RATE)
    number = 0
    got, on = [], False
    turn_from = None
    count = -1
    for step in steps:
        match step:
            case "push":
                log.push(frames(number, 1)[0])
                number += 1
            case "lose" if on:
                log.disconnected()
                log.messages()
                got, on, count = [], False, -1
            case "connect" if not on:
                assert log.connected(PlainCodec()) == []
                on = True
            case "start" if on and not log.in_turn and number:
                count += 1
                log.received(TurnStarted(count))
                turn_from = number - 1
            case "end" if on and log.in_turn:
                count = max(count, 0)
                log.received(TurnEnded(count, "words"))
            case _:
                pass
        got += sent(log) if on else []
        if got:
            assert got == list(range(got[0], got[-1] + 1))
            assert got[-1] == number - 1
            if log.in_turn and turn_from is not None:
                assert got[0] <= turn_from


def test_a_final_transcript_is_asked_for_again_on_the_next_connection():
    log = RecognitionLog(RecognizerTraits(turns="local"), RATE)
    assert log.catching_up
    log.settle()
    log.connected(PlainCodec())
    assert log.messages() == [("open",), ("settle",)]
    assert not log.catching_up
    log.push(frames(0, 1)[0])
    log.disconnected()
    assert log.catching_up
    log.connected(PlainCodec())
    assert [message[0] for message in log.messages()] == ["open", "audio", "settle"]
    assert log.catching_up
    log.received(TurnUpdated(0, "hi"))
    assert not log.catching_up
    log.received(TurnUpdated(0, "hi", final=True))
    log.disconnected()
    log.connected(PlainCodec())
    assert ("settle",) not in log.messages()


@pytest.mark.parametrize("speech_after", [0, 5, 25, 60])
def test_speech_after_the_pause_belongs_to_the_next_turn_though_the_end_is_told_late(
    speech_after,
):
    """0.5 s of speech, 0.5 s of silence, and the next speech before the end was told."""
    log = connected()
    log.received(TurnStarted(0))
    silence = [np.zeros(FRAME, np.int16)] * 25
    for frame in [*frames(0, 25), *silence, *frames(50, speech_after * 2)]:
        log.push(frame)
    log.received(TurnEnded(0, "hi"))
    log.disconnected()
    log.messages()
    log.connected(PlainCodec())
    audio = [m[1] for m in log.messages() if m[0] == "audio"]
    loud = [int(samples[0]) - 1000 for samples in audio if samples.any()]
    if speech_after < 60:
        assert loud == list(range(50, 50 + speech_after * 2))
    else:
        assert len(loud) == 15


def test_a_turn_that_ends_while_it_is_sent_again_spoils_the_connection():
    log = RecognitionLog(RecognizerTraits(turns="local"), RATE)
    log.connected(PlainCodec())
    log.push(frames(0, 1)[0])
    log.received(TurnUpdated(0, "hi", final=True))
    log.disconnected()
    log.connected(PlainCodec())
    log.end_turn()
    assert log.is_spoiled
    assert log.received(TurnUpdated(1, "hi")) == ([], None)
    log.disconnected()
    log.connected(PlainCodec())
    assert not log.is_spoiled
