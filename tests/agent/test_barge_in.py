import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from duologue.agent.barge_in import BargeIn, BargeInPolicy, Decision
from duologue.errors import ConfigError

HOLD, RESUME, INTERRUPT, NOTHING = (
    Decision.HOLD,
    Decision.RESUME,
    Decision.INTERRUPT,
    Decision.NOTHING,
)


def barge_in(*, needs_words=True, **policy):
    return BargeIn(BargeInPolicy(**policy), needs_words=needs_words)


def test_audio_is_held_at_the_first_sign_and_interrupted_at_the_first_word():
    it = barge_in()
    assert it.speech_started(1.0, may_interrupt=True, started_at=0.95) is HOLD
    assert it.held
    assert it.deadline == 1.6
    assert it.transcript_received("uh", 1.1, may_interrupt=True) is NOTHING
    assert it.transcript_received("wait", 1.3, may_interrupt=True) is INTERRUPT
    assert not it.held
    assert it.deadline is None


def test_transcript_waits_for_the_minimum_duration():
    it = barge_in(min_speech_s=0.5)
    it.speech_started(1.0, may_interrupt=True, started_at=None)
    assert it.transcript_received("wait", 1.2, may_interrupt=True) is NOTHING
    assert it.deadline == 1.5
    assert it.poll(1.5, may_interrupt=True) is INTERRUPT


def test_audio_resumes_after_a_cough():
    it = barge_in()
    it.speech_started(1.0, may_interrupt=True, started_at=None)
    assert it.poll(1.6, may_interrupt=True) is RESUME
    assert not it.held
    assert it.poll(2.0, may_interrupt=True) is NOTHING
    it = barge_in()
    it.speech_started(1.0, may_interrupt=True, started_at=None)
    assert it.turn_ended(empty=True) is RESUME
    assert it.turn_ended(empty=True) is NOTHING


def test_late_transcript_still_interrupts():
    it = barge_in()
    it.speech_started(1.0, may_interrupt=True, started_at=None)
    assert it.poll(1.6, may_interrupt=True) is RESUME
    assert it.transcript_received("excuse me", 1.8, may_interrupt=True) is INTERRUPT


def test_speech_that_was_too_short_does_not_interrupt():
    it = barge_in()
    it.speech_started(1.0, may_interrupt=True, started_at=None)
    assert it.speech_stopped(1.3, may_interrupt=True, ended_at=1.05) is NOTHING
    assert it.transcript_received("yes", 1.4, may_interrupt=True) is NOTHING
    assert it.poll(1.6, may_interrupt=True) is RESUME
    it.turn_ended(empty=False)
    assert it.transcript_received("left over", 5.0, may_interrupt=True) is NOTHING


def test_duration_alone_interrupts_without_transcripts():
    it = barge_in(needs_words=False)
    assert it.speech_started(1.0, may_interrupt=True, started_at=0.9) is HOLD
    assert it.deadline == pytest.approx(1.25)
    assert it.poll(1.25, may_interrupt=True) is INTERRUPT


def test_speech_after_a_stop_counts_from_zero():
    it = barge_in(needs_words=False)
    it.speech_started(1.0, may_interrupt=True, started_at=None)
    it.speech_stopped(1.2, may_interrupt=True, ended_at=1.1)
    it.speech_started(1.25, may_interrupt=True, started_at=None)
    assert it.poll(1.5, may_interrupt=True) is NOTHING
    assert it.poll(1.6, may_interrupt=True) is INTERRUPT


@pytest.mark.parametrize("needs_words", [True, False])
def test_uninterruptible_audio_is_neither_held_nor_interrupted(needs_words):
    it = barge_in(needs_words=needs_words)
    assert it.speech_started(1.0, may_interrupt=False, started_at=None) is NOTHING
    assert it.transcript_received("stop", 1.5, may_interrupt=False) is NOTHING
    assert it.speech_stopped(2.0, may_interrupt=False, ended_at=None) is NOTHING
    assert it.deadline is None


def test_disabled_policy_never_interrupts():
    it = barge_in(enabled=False)
    assert it.speech_started(1.0, may_interrupt=True, started_at=None) is NOTHING
    assert it.transcript_received("stop", 1.5, may_interrupt=True) is NOTHING
    assert it.poll(9.0, may_interrupt=True) is NOTHING


def test_interruption_from_elsewhere_ends_the_hold():
    it = barge_in()
    it.speech_started(1.0, may_interrupt=True, started_at=None)
    it.agent_interrupted()
    assert not it.held
    assert it.turn_ended(empty=True) is NOTHING
    assert it.poll(1.6, may_interrupt=True) is NOTHING


def test_speech_stop_without_a_start_does_nothing():
    it = barge_in(needs_words=False)
    assert it.speech_stopped(1.0, may_interrupt=True, ended_at=1.0) is NOTHING


@pytest.mark.parametrize("wrong", [{"min_speech_s": -0.1}, {"words_within_s": -1}])
def test_negative_times_are_rejected(wrong):
    with pytest.raises(ConfigError, match="0 s or more"):
        BargeInPolicy(**wrong)


class Talk(RuleBasedStateMachine):
    """Any signals in any order; an agent that always plays and follows every decision at once."""

    @initialize(needs_words=st.booleans(), min_s=st.sampled_from([0.0, 0.2, 0.9]))
    def begin(self, needs_words, min_s):
        self.it = barge_in(
            needs_words=needs_words, min_speech_s=min_s, without_words_s=max(min_s, 0.35)
        )
        self.needs_words, self.min_s = needs_words, min_s
        self.now = 0.0
        self.playing = self.may_interrupt = True
        self.held = False
        self.held_at = self.started_at = self.ended_at = None
        self.has_words = False

    def follow(self, decision):
        if decision is HOLD:
            assert not self.held
            assert self.may_interrupt
            self.held, self.held_at = True, self.now
        elif decision is RESUME:
            assert self.held
            self.held = False
        elif decision is INTERRUPT:
            assert self.may_interrupt
            assert self.started_at is not None
            min_s = self.min_s if self.has_words else max(self.min_s, 0.35)
            assert (self.ended_at or self.now) - self.started_at >= min_s - 1e-6
            assert self.has_words or not self.needs_words
            self.held = self.may_interrupt = False
            self.it.agent_interrupted()
        assert self.it.held == self.held

    @rule(back=st.floats(0, 0.3))
    def starts(self, back):
        if self.started_at is None or self.ended_at is not None:
            self.started_at, self.has_words = self.now - back, False
        self.ended_at = None
        self.follow(
            self.it.speech_started(
                self.now, may_interrupt=self.may_interrupt, started_at=self.now - back
            )
        )

    @rule(text=st.sampled_from(["stop now", "uh", ""]))
    def says(self, text):
        self.has_words = self.has_words or text == "stop now"
        self.follow(self.it.transcript_received(text, self.now, may_interrupt=self.may_interrupt))

    @rule()
    def stops(self):
        if self.started_at is not None:
            self.ended_at = self.now
        self.follow(
            self.it.speech_stopped(self.now, may_interrupt=self.may_interrupt, ended_at=self.now)
        )

    @rule(empty=st.booleans())
    def turn_ends(self, empty):
        self.started_at = self.ended_at = None
        self.has_words = False
        self.follow(self.it.turn_ended(empty=empty))

    @rule()
    def the_agent_speaks_again(self):
        self.may_interrupt = True

    @rule(seconds=st.floats(0.001, 1.0))
    def time_passes(self, seconds):
        until = self.now + seconds
        polls = 0
        while self.it.deadline is not None and self.it.deadline <= until:
            self.now = max(self.now, self.it.deadline)
            self.follow(self.it.poll(self.now, may_interrupt=self.may_interrupt))
            polls += 1
            assert polls <= 4, "never a busy loop"
        self.now = until

    @invariant()
    def nothing_is_held_for_longer_than_it_takes_to_decide(self):
        if hasattr(self, "it") and self.held:
            assert self.now - self.held_at <= 0.6 + 1e-6
            assert self.it.deadline is not None


TestTalk = Talk.TestCase
TestTalk.settings = settings(max_examples=100, stateful_step_count=25, deadline=None)


@given(st.floats(0, 5), st.floats(0, 1))
def test_no_deadline_is_returned_twice(held_at, min_s):
    it = barge_in(without_words_s=min_s, needs_words=False)
    it.speech_started(held_at, may_interrupt=True, started_at=None)
    seen = set()
    while (deadline := it.deadline) is not None:
        assert deadline not in seen
        seen.add(deadline)
        it.poll(deadline, may_interrupt=False)
    assert not it.held


class FakeVoice:
    """A voice as `VoiceMeter` measures it, advanced by the test."""

    def __init__(self):
        self.stretch_count, self.started_at, self.seconds, self.active = (
            0,
            float("-inf"),
            0.0,
            False,
        )
        self.speech = True

    def begin(self, now):
        self.stretch_count, self.started_at, self.seconds, self.active = (
            self.stretch_count + 1,
            now,
            0.05,
            True,
        )

    def is_speech(self):
        return self.speech


def measured(*, needs_words=False, follows=True, **policy):
    voice = FakeVoice()
    it = BargeIn(
        BargeInPolicy(**policy), needs_words=needs_words, voice=voice, follows_model=follows
    )
    return it, voice


def test_measured_voice_decides_rather_than_the_length_of_the_models_signals():
    it, voice = measured()
    voice.begin(1.0)
    assert it.voice_measured(1.05, may_interrupt=True) is HOLD
    assert it.speech_started(1.1, may_interrupt=True, started_at=None, turn_id="a") is NOTHING
    voice.seconds, voice.active = 0.3, False
    assert it.voice_measured(1.4, may_interrupt=True) is NOTHING
    assert it.poll(1.6, may_interrupt=True) is NOTHING
    assert it.deadline == pytest.approx(1.65)
    assert it.poll(1.65, may_interrupt=True) is RESUME


def test_lasting_voice_interrupts_if_it_sounds_like_speech():
    it, voice = measured()
    voice.begin(1.0)
    it.voice_measured(1.05, may_interrupt=True)
    voice.seconds, voice.speech = 0.4, False
    assert it.voice_measured(1.4, may_interrupt=True) is NOTHING
    voice.speech = True
    assert it.voice_measured(1.42, may_interrupt=True) is INTERRUPT


def test_voice_from_before_the_agents_speech_does_not_count():
    it, voice = measured()
    voice.begin(1.0)
    voice.seconds = 2.0
    assert it.voice_measured(3.0, may_interrupt=False) is NOTHING
    voice.seconds = 2.1
    assert it.voice_measured(3.1, may_interrupt=True) is HOLD
    assert it.voice_measured(3.3, may_interrupt=True) is NOTHING
    voice.seconds = 2.4
    assert it.voice_measured(3.4, may_interrupt=True) is INTERRUPT


def test_one_stretch_of_voice_holds_once():
    it, voice = measured()
    voice.begin(1.0)
    voice.speech = False
    assert it.voice_measured(1.05, may_interrupt=True) is HOLD
    assert it.poll(1.65, may_interrupt=True) is RESUME
    assert it.voice_measured(1.7, may_interrupt=True) is NOTHING
    assert it.speech_started(1.8, may_interrupt=True, started_at=None, turn_id="a") is NOTHING
    voice.begin(2.6)
    assert it.voice_measured(2.65, may_interrupt=True) is HOLD


def test_signal_of_the_model_holds_if_no_voice_was_measured():
    it, _ = measured()
    assert it.speech_started(1.0, may_interrupt=True, started_at=None, turn_id="a") is HOLD
    assert it.poll(1.5, may_interrupt=True) is NOTHING
    assert it.poll(1.6, may_interrupt=True) is RESUME


@pytest.mark.parametrize("known", ["words", "none", "too short"])
def test_undecided_turn_is_open_until_its_transcript_is_known(known):
    it, voice = measured(min_speech_s=0.5 if known == "too short" else 0.1)
    voice.begin(1.0)
    it.voice_measured(1.05, may_interrupt=True)
    it.speech_started(1.1, may_interrupt=True, started_at=None, turn_id="a")
    voice.seconds, voice.active = 0.2, False
    it.voice_measured(1.3, may_interrupt=True)
    assert it.poll(1.65, may_interrupt=True) is RESUME
    it.speech_stopped(1.8, may_interrupt=True, ended_at=None)
    assert not it.is_turn_open("a")
    it.turn_ended(empty=False, may_interrupt=True, turn_id="a")
    assert it.is_turn_open("a")
    text = "" if known == "none" else "stop"
    decided = INTERRUPT if known == "words" else NOTHING
    assert it.transcript_received(text, 2.4, may_interrupt=True, turn_id="a") is decided
    it.close_turn("a")
    assert not it.is_turn_open("a")


@pytest.mark.parametrize("why", ["interrupted", "words", "empty", "nothing to interrupt"])
def test_decided_turn_is_not_open(why):
    it, voice = measured()
    voice.begin(1.0)
    it.voice_measured(1.05, may_interrupt=True)
    it.speech_started(1.1, may_interrupt=True, started_at=None, turn_id="a")
    if why == "interrupted":
        it.agent_interrupted()
    if why == "words":
        it.transcript_received("stop", 1.2, may_interrupt=True, turn_id="a")
    may = why != "nothing to interrupt"
    it.turn_ended(empty=why == "empty", may_interrupt=may, turn_id="a")
    assert not it.is_turn_open("a")


def test_open_turns_are_bounded():
    it, _ = measured()
    for turn in range(100):
        it.speech_started(float(turn), may_interrupt=True, started_at=None, turn_id=str(turn))
        it.turn_ended(empty=False, may_interrupt=True, turn_id=str(turn))
    assert it.is_turn_open("99")
    assert not it.is_turn_open("50")


@pytest.mark.parametrize("follows", [True, False])
def test_model_that_stops_by_itself_is_followed_or_is_one_more_sign(follows):
    it, _ = measured(follows=follows)
    decided = it.model_stopped(1.0, may_interrupt=True)
    assert decided is (INTERRUPT if follows else HOLD)
    if not follows:
        assert it.poll(1.6, may_interrupt=True) is RESUME
        assert it.transcript_received("wait", 2.0, may_interrupt=True, turn_id="b") is INTERRUPT
