import hypothesis.strategies as st
import pytest
from hypothesis import given

from duologue.errors import ConfigError
from duologue.vad.endpointing import Endpointer, Endpointing, EndpointingStep

FRAME = 0.016


def follow(pattern, config=None):
    """Return the steps and their times for a pattern of (loud?, seconds)."""
    taking = Endpointer(config or Endpointing())
    now, out = 0.0, []
    for loud, seconds in pattern:
        for _ in range(round(seconds / FRAME)):
            now += FRAME
            for step in taking.push(1.0 if loud else 0.0, FRAME, now):
                out.append((step, round(now, 3)))
                if step is EndpointingStep.TIMEOUT:
                    taking.end()
    return taking, out


def steps(pattern, config=None):
    return [step for step, _ in follow(pattern, config)[1]]


def test_turn_from_start_to_end():
    taking, out = follow([(False, 0.16), (True, 0.192), (False, 1.6)])
    assert [step for step, _ in out] == [
        EndpointingStep.STARTED,
        EndpointingStep.PAUSED,
        EndpointingStep.VOTE,
        EndpointingStep.TIMEOUT,
    ]
    at = dict(out)
    assert at[EndpointingStep.STARTED] == pytest.approx(0.16 + 0.048, abs=0.001)
    assert at[EndpointingStep.PAUSED] - 0.352 == pytest.approx(0.06, abs=FRAME)
    assert at[EndpointingStep.VOTE] - 0.352 == pytest.approx(0.15, abs=FRAME)
    assert at[EndpointingStep.TIMEOUT] - 0.352 == pytest.approx(0.7, abs=FRAME)
    assert taking.speech_start == pytest.approx(0.16)
    assert taking.speech_end == pytest.approx(0.352)
    assert not taking.in_turn


def test_clicks_start_no_turn():
    assert steps([(True, 0.032), (False, 0.032)] * 20) == []


def test_person_may_continue_after_a_pause():
    assert steps([(True, 0.192), (False, 0.096), (True, 0.032)]) == [
        EndpointingStep.STARTED,
        EndpointingStep.PAUSED,
        EndpointingStep.RESUMED,
    ]


def test_click_in_a_pause_does_not_resume_the_turn():
    pattern = [(True, 0.192), (False, 0.096), (True, 0.016), (False, 1.0)]
    assert steps(pattern) == [
        EndpointingStep.STARTED,
        EndpointingStep.PAUSED,
        EndpointingStep.VOTE,
        EndpointingStep.TIMEOUT,
    ]


def test_short_gap_is_not_a_pause():
    assert steps([(True, 0.192), (False, 0.032), (True, 0.032)]) == [EndpointingStep.STARTED]


def test_partials_come_at_their_interval():
    out = steps([(True, 2.0)])
    assert out[0] is EndpointingStep.STARTED
    assert out[1:] == [EndpointingStep.PARTIAL] * len(out[1:])
    assert 6 <= len(out[1:]) <= 8


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 1.5)), max_size=20))
def test_steps_of_any_audio_are_consistent(pattern):
    state = None
    for step in steps(pattern):
        allowed = {
            None: {EndpointingStep.STARTED},
            "speaking": {EndpointingStep.PARTIAL, EndpointingStep.PAUSED},
            "paused": {EndpointingStep.VOTE, EndpointingStep.RESUMED},
            "voted": {EndpointingStep.TIMEOUT, EndpointingStep.RESUMED},
        }[state]
        assert step in allowed
        state = {
            EndpointingStep.PAUSED: "paused",
            EndpointingStep.VOTE: "voted",
            EndpointingStep.TIMEOUT: None,
        }.get(step, "speaking")


@pytest.mark.parametrize(
    "options",
    [
        {"threshold": 0.0},
        {"threshold": 1.0},
        {"probability": 1.1},
        {"speculate_s": 0.0},
        {"speculate_s": 0.3},
        {"vote_s": 0.9},
        {"max_pause_s": 0.0},
    ],
)
def test_times_out_of_order_are_refused(options):
    with pytest.raises(ConfigError, match=r"must be (between 0 and 1|in order|above 0)"):
        Endpointing(**options)


def test_pause_limit_can_be_raised_during_the_pause():
    taking = Endpointer(Endpointing())
    for _ in range(5):
        taking.push(1.0, 0.1, 0.0)
    steps = [taking.push(0.0, 0.1, 0.0) for _ in range(8)]
    assert steps[6] == [EndpointingStep.TIMEOUT]
    taking.set_pause_limit(1.2)
    steps = [taking.push(0.0, 0.1, 0.0) for _ in range(4)]
    assert steps == [[], [], [], [EndpointingStep.TIMEOUT]]
    for _ in range(2):
        taking.push(1.0, 0.1, 0.0)
    steps = [taking.push(0.0, 0.1, 0.0) for _ in range(7)]
    assert steps[6] == [EndpointingStep.TIMEOUT], "the next pause is as long as any"


def test_timeout_above_the_longest_pause_is_the_longest_pause():
    assert Endpointing(timeout_s=3.0).pause_limit_s(0.0) == 3.0
    assert Endpointing().pause_limit_s(None) == 0.7
