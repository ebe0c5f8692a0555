import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from duologue.barge_in import BargeIn, BargeInPolicy, Decision
from duologue.realtime.errors import ConfigError

HOLD, RESUME, INTERRUPT, NOTHING = (
    Decision.HOLD,
    Decision.RESUME,
    Decision.INTERRUPT,
    Decision.NOTHING,
)


def barge_in(*, needs_words=True, **policy):
    return BargeIn(BargeInPolicy(**policy), needs_words=needs_words)


def test_sound_is_held_at_the_first_sign_and_dropped_at_the_first_word():
    it = barge_in()
    assert it.speech_started(1.0, may_interrupt=True, began=0.95) is HOLD
    assert it.held
    assert it.deadline == 1.6
    assert it.words("uh", 1.1, may_interrupt=True) is NOTHING
    assert it.words("wait", 1.3, may_interrupt=True) is INTERRUPT
    assert not it.held
    assert it.deadline is None


def test_a_word_waits_for_the_least_duration():
    it = barge_in(min_speech_s=0.5)
    it.speech_started(1.0, may_interrupt=True, began=None)
    assert it.words("wait", 1.2, may_interrupt=True) is NOTHING
    assert it.deadline == 1.5
    assert it.poll(1.5, may_interrupt=True) is INTERRUPT


def test_a_cough_lets_the_sound_go_on():
    it = barge_in()
    it.speech_started(1.0, may_interrupt=True, began=None)
    assert it.poll(1.6, may_interrupt=True) is RESUME
    assert not it.held
    assert it.poll(2.0, may_interrupt=True) is NOTHING
    it = barge_in()
    it.speech_started(1.0, may_interrupt=True, began=None)
    assert it.turn_ended(empty=True) is RESUME
    assert it.turn_ended(empty=True) is NOTHING


def test_words_that_come_late_still_interrupt():
    it = barge_in()
    it.speech_started(1.0, may_interrupt=True, began=None)
    assert it.poll(1.6, may_interrupt=True) is RESUME
    assert it.words("excuse me", 1.8, may_interrupt=True) is INTERRUPT


def test_speech_that_was_too_short_does_not_interrupt():
    it = barge_in()
    it.speech_started(1.0, may_interrupt=True, began=None)
    assert it.speech_stopped(1.3, may_interrupt=True, ended=1.05) is NOTHING
    assert it.words("yes", 1.4, may_interrupt=True) is NOTHING
    assert it.poll(1.6, may_interrupt=True) is RESUME
    it.turn_ended(empty=False)
    assert it.words("left over", 5.0, may_interrupt=True) is NOTHING


def test_without_words_duration_alone_interrupts():
    it = barge_in(needs_words=False)
    assert it.speech_started(1.0, may_interrupt=True, began=0.9) is HOLD
    assert it.deadline == pytest.approx(1.25)
    assert it.poll(1.25, may_interrupt=True) is INTERRUPT


def test_speech_again_after_a_stop_counts_anew():
    it = barge_in(needs_words=False)
    it.speech_started(1.0, may_interrupt=True, began=None)
    it.speech_stopped(1.2, may_interrupt=True, ended=1.1)
    it.speech_started(1.25, may_interrupt=True, began=None)
    assert it.poll(1.5, may_interrupt=True) is NOTHING
    assert it.poll(1.6, may_interrupt=True) is INTERRUPT


@pytest.mark.parametrize("needs_words", [True, False])
def test_what_may_not_be_interrupted_is_neither_held_nor_cut(needs_words):
    it = barge_in(needs_words=needs_words)
    assert it.speech_started(1.0, may_interrupt=False, began=None) is NOTHING
    assert it.words("stop", 1.5, may_interrupt=False) is NOTHING
    assert it.speech_stopped(2.0, may_interrupt=False, ended=None) is NOTHING
    assert it.deadline is None


def test_nobody_interrupts_where_it_is_switched_off():
    it = barge_in(enabled=False)
    assert it.speech_started(1.0, may_interrupt=True, began=None) is NOTHING
    assert it.words("stop", 1.5, may_interrupt=True) is NOTHING
    assert it.poll(9.0, may_interrupt=True) is NOTHING


def test_an_interruption_by_somebody_else_ends_the_hold():
    it = barge_in()
    it.speech_started(1.0, may_interrupt=True, began=None)
    it.interrupted()
    assert not it.held
    assert it.turn_ended(empty=True) is NOTHING
    assert it.poll(1.6, may_interrupt=True) is NOTHING


def test_a_stop_that_nobody_began_is_nothing():
    it = barge_in(needs_words=False)
    assert it.speech_stopped(1.0, may_interrupt=True, ended=1.0) is NOTHING


@pytest.mark.parametrize("wrong", [{"min_speech_s": -0.1}, {"words_within_s": -1}])
def test_negative_times_are_refused(wrong):
    with pytest.raises(ConfigError, match="0 s or more"):
        BargeInPolicy(**wrong)


class Talk(RuleBasedStateMachine):
    """Any signals in any order; an agent that plays all the time and obeys at once."""

    @initialize(needs_words=st.booleans(), least=st.sampled_from([0.0, 0.2, 0.9]))
    def begin(self, needs_words, least):
        self.it = barge_in(
            needs_words=needs_words, min_speech_s=least, without_words_s=max(least, 0.35)
        )
        self.needs_words, self.least = needs_words, least
        self.now = 0.0
        self.playing = self.may = True
        self.held = False
        self.held_at = self.began = self.ended = None
        self.words_said = False

    def obey(self, decision):
        if decision is HOLD:
            assert not self.held
            assert self.may
            self.held, self.held_at = True, self.now
        elif decision is RESUME:
            assert self.held
            self.held = False
        elif decision is INTERRUPT:
            assert self.may
            assert self.began is not None
            least = self.least if self.words_said else max(self.least, 0.35)
            assert (self.ended or self.now) - self.began >= least - 1e-6
            assert self.words_said or not self.needs_words
            self.held = self.may = False
            self.it.interrupted()
        assert self.it.held == self.held

    @rule(back=st.floats(0, 0.3))
    def starts(self, back):
        if self.began is None or self.ended is not None:
            self.began, self.words_said = self.now - back, False
        self.ended = None
        self.obey(self.it.speech_started(self.now, may_interrupt=self.may, began=self.now - back))

    @rule(text=st.sampled_from(["stop now", "uh", ""]))
    def says(self, text):
        self.words_said = self.words_said or text == "stop now"
        self.obey(self.it.words(text, self.now, may_interrupt=self.may))

    @rule()
    def stops(self):
        if self.began is not None:
            self.ended = self.now
        self.obey(self.it.speech_stopped(self.now, may_interrupt=self.may, ended=self.now))

    @rule(empty=st.booleans())
    def turn_ends(self, empty):
        self.began = self.ended = None
        self.words_said = False
        self.obey(self.it.turn_ended(empty=empty))

    @rule()
    def the_agent_speaks_again(self):
        self.may = True

    @rule(seconds=st.floats(0.001, 1.0))
    def time_passes(self, seconds):
        until = self.now + seconds
        polls = 0
        while self.it.deadline is not None and self.it.deadline <= until:
            self.now = max(self.now, self.it.deadline)
            self.obey(self.it.poll(self.now, may_interrupt=self.may))
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
def test_a_deadline_is_never_asked_for_twice(held_at, least):
    it = barge_in(without_words_s=least, needs_words=False)
    it.speech_started(held_at, may_interrupt=True, began=None)
    seen = set()
    while (deadline := it.deadline) is not None:
        assert deadline not in seen
        seen.add(deadline)
        it.poll(deadline, may_interrupt=False)
    assert not it.held


class Measured:
    """A voice as `VoiceMeter` measures it, moved on by the test."""

    def __init__(self):
        self.count, self.began, self.seconds, self.active = 0, float("-inf"), 0.0, False
        self.speech = True

    def begin(self, now):
        self.count, self.began, self.seconds, self.active = self.count + 1, now, 0.05, True

    def is_speech(self):
        return self.speech


def measured(*, needs_words=False, follows=True, **policy):
    voice = Measured()
    it = BargeIn(BargeInPolicy(**policy), needs_words=needs_words, voice=voice, follows=follows)
    return it, voice


def test_the_measured_voice_decides_and_not_the_length_of_the_models_signals():
    it, voice = measured()
    voice.begin(1.0)
    assert it.listen(1.05, may_interrupt=True) is HOLD
    assert it.speech_started(1.1, may_interrupt=True, began=None, turn="a") is NOTHING
    voice.seconds, voice.active = 0.3, False
    assert it.listen(1.4, may_interrupt=True) is NOTHING
    assert it.poll(1.6, may_interrupt=True) is NOTHING
    assert it.deadline == pytest.approx(1.65)
    assert it.poll(1.65, may_interrupt=True) is RESUME


def test_a_voice_that_lasts_interrupts_if_it_sounds_like_speech():
    it, voice = measured()
    voice.begin(1.0)
    it.listen(1.05, may_interrupt=True)
    voice.seconds, voice.speech = 0.4, False
    assert it.listen(1.4, may_interrupt=True) is NOTHING
    voice.speech = True
    assert it.listen(1.42, may_interrupt=True) is INTERRUPT


def test_what_was_said_before_the_agent_spoke_does_not_count():
    it, voice = measured()
    voice.begin(1.0)
    voice.seconds = 2.0
    assert it.listen(3.0, may_interrupt=False) is NOTHING
    voice.seconds = 2.1
    assert it.listen(3.1, may_interrupt=True) is HOLD
    assert it.listen(3.3, may_interrupt=True) is NOTHING
    voice.seconds = 2.4
    assert it.listen(3.4, may_interrupt=True) is INTERRUPT


def test_one_stretch_of_voice_holds_once():
    it, voice = measured()
    voice.begin(1.0)
    voice.speech = False
    assert it.listen(1.05, may_interrupt=True) is HOLD
    assert it.poll(1.65, may_interrupt=True) is RESUME
    assert it.listen(1.7, may_interrupt=True) is NOTHING
    assert it.speech_started(1.8, may_interrupt=True, began=None, turn="a") is NOTHING
    voice.begin(2.6)
    assert it.listen(2.65, may_interrupt=True) is HOLD


def test_a_models_signal_holds_where_no_voice_was_measured():
    it, _ = measured()
    assert it.speech_started(1.0, may_interrupt=True, began=None, turn="a") is HOLD
    assert it.poll(1.5, may_interrupt=True) is NOTHING
    assert it.poll(1.6, may_interrupt=True) is RESUME


@pytest.mark.parametrize("known", ["words", "none", "too short"])
def test_a_turn_that_ended_undecided_is_open_until_its_words_are_known(known):
    it, voice = measured(min_speech_s=0.5 if known == "too short" else 0.1)
    voice.begin(1.0)
    it.listen(1.05, may_interrupt=True)
    it.speech_started(1.1, may_interrupt=True, began=None, turn="a")
    voice.seconds, voice.active = 0.2, False
    it.listen(1.3, may_interrupt=True)
    assert it.poll(1.65, may_interrupt=True) is RESUME
    it.speech_stopped(1.8, may_interrupt=True, ended=None)
    assert not it.is_open("a")
    it.turn_ended(empty=False, may_interrupt=True, turn="a")
    assert it.is_open("a")
    text = "" if known == "none" else "stop"
    decided = INTERRUPT if known == "words" else NOTHING
    assert it.words(text, 2.4, may_interrupt=True, turn="a") is decided
    it.close("a")
    assert not it.is_open("a")


@pytest.mark.parametrize("why", ["interrupted", "words", "empty", "nothing to interrupt"])
def test_a_turn_is_not_open_where_it_is_known_what_it_was(why):
    it, voice = measured()
    voice.begin(1.0)
    it.listen(1.05, may_interrupt=True)
    it.speech_started(1.1, may_interrupt=True, began=None, turn="a")
    if why == "interrupted":
        it.interrupted()
    if why == "words":
        it.words("stop", 1.2, may_interrupt=True, turn="a")
    may = why != "nothing to interrupt"
    it.turn_ended(empty=why == "empty", may_interrupt=may, turn="a")
    assert not it.is_open("a")


def test_open_turns_are_bounded():
    it, _ = measured()
    for turn in range(100):
        it.speech_started(float(turn), may_interrupt=True, began=None, turn=str(turn))
        it.turn_ended(empty=False, may_interrupt=True, turn=str(turn))
    assert it.is_open("99")
    assert not it.is_open("50")


@pytest.mark.parametrize("follows", [True, False])
def test_a_model_that_stops_by_itself_is_followed_or_is_one_more_sign(follows):
    it, _ = measured(follows=follows)
    decided = it.model_stopped(1.0, may_interrupt=True)
    assert decided is (INTERRUPT if follows else HOLD)
    if not follows:
        assert it.poll(1.6, may_interrupt=True) is RESUME
        assert it.words("wait", 2.0, may_interrupt=True, turn="b") is INTERRUPT
