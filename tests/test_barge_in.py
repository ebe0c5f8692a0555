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
    assert it.speech_stopped(1.3, may_interrupt=True, ended=1.1) is NOTHING
    assert it.words("yes", 1.4, may_interrupt=True) is NOTHING
    assert it.poll(1.6, may_interrupt=True) is RESUME
    it.turn_ended(empty=False)
    assert it.words("left over", 5.0, may_interrupt=True) is NOTHING


def test_without_words_duration_alone_interrupts():
    it = barge_in(needs_words=False)
    assert it.speech_started(1.0, may_interrupt=True, began=0.9) is HOLD
    assert it.deadline == pytest.approx(1.1)
    assert it.poll(1.1, may_interrupt=True) is INTERRUPT


def test_speech_again_after_a_stop_counts_anew():
    it = barge_in(needs_words=False)
    it.speech_started(1.0, may_interrupt=True, began=None)
    it.speech_stopped(1.2, may_interrupt=True, ended=1.1)
    it.speech_started(1.3, may_interrupt=True, began=None)
    assert it.poll(1.4, may_interrupt=True) is NOTHING
    assert it.poll(1.5, may_interrupt=True) is INTERRUPT


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
        self.it = barge_in(needs_words=needs_words, min_speech_s=least)
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
            assert (self.ended or self.now) - self.began >= self.least - 1e-6
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
    it = barge_in(min_speech_s=least, needs_words=False)
    it.speech_started(held_at, may_interrupt=True, began=None)
    seen = set()
    while (deadline := it.deadline) is not None:
        assert deadline not in seen
        seen.add(deadline)
        it.poll(deadline, may_interrupt=False)
    assert not it.held
