"""The way of the person's audio: resampled, kept, and replayed after a lost connection."""

import numpy as np
import pytest

from duologue.audio import AudioFrame
from duologue.realtime._session.input_audio import InputAudio
from duologue.realtime.commands import ClearInput, EndTurn, SendAudio
from duologue.realtime.outputs import SpeechStarted, SpeechStopped, UserTranscript, UserTurnEnded
from duologue.vad.energy import EnergyVAD

RATE = 16000
FRAME = 320


def frame(seconds=0.02, level=3000, rate=RATE):
    samples = np.full(round(seconds * rate), level, np.int16)
    samples[::2] *= -1
    return AudioFrame(samples, rate)


def audio_of(*, keep_s=10.0, vad=None, transcribes=True, reconnects=True, detects_turns=False):
    return InputAudio(
        RATE, keep_s, transcribes=transcribes, reconnects=reconnects, vad=vad,
        detects_turns=detects_turns,
    )  # fmt: skip


def seconds_of(commands):
    return sum(c.frame.duration for c in commands if isinstance(c, SendAudio))


def kinds(signals):
    return [type(signal).__name__ for signal in signals]


class Person:
    """Speaks to an `InputAudio` with a VAD, in frames of 20 ms; every signal is tracked."""

    def __init__(self, **options):
        self.audio = audio_of(vad=EnergyVAD(), detects_turns=True, **options)
        self.now = 0.0
        self.passed = []

    def track(self, signals):
        passed = [self.audio.track(signal, self.now) for signal in signals]
        self.passed += [signal for signal in passed if signal is not None]

    def speak(self, seconds, level=3000):
        for _ in range(round(seconds * 50)):
            self.now += 0.02
            self.track(
                self.audio.detect(self.audio.accept(frame(level=level), live=True), self.now)
            )

    def transcript(self, text):
        self.track(self.audio.translate(UserTranscript("piece", text, final=False), self.now))

    def reply(self, *, requested=False):
        self.track(self.audio.reply_started(requested=requested))
        self.audio.mark_answered()
        self.track(self.audio.reply_done())


def test_audio_of_another_rate_is_resampled():
    audio = audio_of()
    assert audio.accept(AudioFrame(np.zeros(1, np.int16), 8000), live=True) is None
    total = sum(len(audio.accept(frame(0.02, rate=48000), live=True) or ()) for _ in range(50))
    assert total == pytest.approx(RATE, abs=200)
    assert audio.accept(frame(), live=True).rate == RATE


def test_audio_without_a_connection_is_kept_up_to_the_limit_and_the_rest_is_lost():
    audio = audio_of(keep_s=1.0)
    for _ in range(75):
        audio.accept(frame(), live=False)
    assert audio.keep_s == 1.0
    assert audio.lost_samples == RATE // 2
    assert seconds_of(audio.replay(0.0)) == pytest.approx(1.0)


def test_an_engine_that_is_not_reconnected_gets_only_what_came_before_it_was_live():
    audio = audio_of(reconnects=False)
    audio.accept(frame(0.5), live=False)
    audio.mark_boundary(EndTurn())
    assert seconds_of(audio.replay(0.0)) == pytest.approx(0.5)
    audio.accept(frame(0.5), live=True)
    started = SpeechStarted("u", position=0)
    assert audio.track(started, 0.0) is started
    audio.connection_lost()
    assert audio.replay(0.0) == []


def test_audio_is_replayed_from_the_last_turn_with_a_transcript():
    audio = audio_of()
    for number, at in enumerate((0, RATE)):
        audio.accept(frame(1.0), live=True)
        audio.track(SpeechStarted(f"{number}", position=at), 1.0)
        audio.track(SpeechStopped(f"{number}", position=at + RATE // 2), 1.0)
        audio.track(UserTurnEnded(f"{number}", position=at + RATE // 2), 1.0)
    assert audio.speaking
    audio.track(UserTranscript("0", "hello", final=True), 1.0)
    assert audio.connection_lost() == ["1"]
    assert seconds_of(audio.replay(1.0)) == pytest.approx(1.5)
    assert not audio.speaking


def test_a_signal_without_a_position_is_assumed_a_second_late():
    audio = audio_of()
    audio.accept(frame(3.0), live=True)
    audio.track(SpeechStarted("u"), 3.0)
    audio.track(SpeechStopped("u"), 3.0)
    audio.connection_lost()
    assert audio.lost_samples == 0
    assert seconds_of(audio.replay(3.0)) == pytest.approx(3.0)


def test_the_end_of_speech_follows_from_the_silence_behind_it():
    audio = audio_of()
    audio.accept(frame(2.0), live=True)
    ended = audio.track(UserTurnEnded("u", position=RATE, silence_s=0.5), 10.0)
    assert ended.speech_end == pytest.approx(8.5)
    ended = audio.track(UserTurnEnded("v", silence_s=0.5), 10.0)
    assert ended.speech_end == pytest.approx(9.5)


def test_a_turn_with_a_reply_is_replayed_for_its_transcript_only():
    audio = audio_of()
    audio.accept(frame(1.0), live=True)
    audio.track(SpeechStarted("u", position=0), 1.0)
    audio.track(UserTurnEnded("u", position=RATE), 1.0)
    audio.mark_answered()
    assert audio.connection_lost() == []
    assert audio.replayed_turns == 1
    audio.replay(1.0)
    assert audio.track(SpeechStarted("v", position=0), 1.0) is None
    assert audio.track(UserTurnEnded("v"), 1.5) is None
    transcript = audio.track(UserTranscript("v", "hello", final=True), 1.6)
    assert transcript == UserTranscript("u", "hello", final=True)


@pytest.mark.parametrize("text", ["", "hello"])
def test_an_open_turn_of_which_nothing_loud_is_kept_ends(text):
    audio = audio_of(keep_s=1.0)
    audio.accept(frame(0.5), live=True)
    audio.track(SpeechStarted("u", position=0), 0.5)
    if text:
        audio.track(UserTranscript("u", text, final=False), 0.5)
    audio.connection_lost()
    audio.accept(frame(1.5, level=0), live=False)
    audio.replay(2.0)
    ends = audio.take_dropped_turns()
    assert kinds(ends) == [*(["UserTranscript"] if text else []), "UserTurnEnded"]
    assert ends[-1].empty is not bool(text)
    assert audio.take_dropped_turns() == []


def test_an_open_turn_continues_on_the_next_connection_under_its_new_id():
    audio = audio_of()
    audio.accept(frame(0.5), live=True)
    audio.track(SpeechStarted("u", position=0), 0.5)
    audio.connection_lost()
    audio.replay(0.5)
    started = SpeechStarted("v", position=0)
    assert audio.track(started, 0.6) is started
    audio.connection_lost()
    audio.accept(frame(9.9, level=0), live=False)
    audio.accept(frame(9.9, level=0), live=False)
    audio.replay(9.0)
    assert [end.item_id for end in audio.take_dropped_turns()] == ["v"]


def test_commands_of_the_program_keep_their_places():
    audio = audio_of()
    audio.accept(frame(0.1), live=True)
    audio.mark_boundary(ClearInput())
    audio.accept(frame(0.1), live=True)
    audio.mark_boundary(EndTurn())
    audio.accept(frame(0.1), live=True)
    audio.connection_lost()
    assert kinds(audio.replay(0.3)) == [
        "SendAudio", "ClearInput", "SendAudio", "EndTurn", "SendAudio",
    ]  # fmt: skip


def test_a_vad_beside_the_signals_of_a_service_only_measures_the_voice():
    audio = audio_of(vad=EnergyVAD())
    assert not audio.detects_turns
    for level in [3000] * 25 + [0] * 25:
        assert audio.detect(audio.accept(frame(level=level), live=True), 1.0) == ()
    assert audio.loud_s == pytest.approx(0.5)
    assert audio.voice_meter is not None
    assert audio_of().detect(frame(), 1.0) == ()
    started = SpeechStarted("u")
    assert audio.translate(started, 1.0) == (started,)
    assert (audio.reply_started(requested=True), audio.reply_done()) == ((), ())
    assert audio.end_turn(reply_follows=True) == ()
    audio.use_manual_turns()


@pytest.mark.parametrize("text_first", [True, False])
def test_a_detected_turn_with_a_reply_is_replayed_for_its_transcript_only(text_first):
    person = Person()
    person.speak(1.0)
    person.speak(0.5, level=0)
    person.reply()
    first = person.passed[0].item_id
    assert kinds(person.passed) == ["SpeechStarted", "SpeechStopped", "UserTurnEnded"]
    person.speak(0.5)
    assert person.audio.connection_lost() == []
    assert person.audio.replayed_turns == 1
    assert seconds_of(person.audio.replay(person.now)) > 1.0
    person.passed.clear()
    steps = [lambda: person.transcript("hello"), person.reply]
    for step in steps if text_first else reversed(steps):
        step()
    assert person.passed == [UserTranscript(first, "hello", final=True)]
    person.transcript("hello again")
    assert kinds(person.passed[1:]) == ["UserTranscript"]


def test_without_detected_speech_little_is_replayed():
    person = Person()
    person.speak(3.0, level=0)
    assert person.audio.connection_lost() == []
    assert seconds_of(person.audio.replay(person.now)) == pytest.approx(1.0)


def test_the_program_ends_a_detected_turn():
    person = Person()
    person.audio.use_manual_turns()
    person.speak(1.0)
    person.transcript("hello")
    person.speak(5.0, level=0)
    assert "UserTurnEnded" not in kinds(person.passed)
    person.track(person.audio.end_turn(reply_follows=True))
    assert isinstance(person.passed[-1], UserTurnEnded)


def test_a_cough_is_passed_on_without_a_transcript():
    person = Person()
    person.speak(0.3)
    person.speak(12.0, level=0)
    ends = [signal for signal in person.passed if isinstance(signal, UserTurnEnded)]
    assert [end.empty for end in ends] == [True]
    assert not [signal for signal in person.passed if isinstance(signal, UserTranscript)]
