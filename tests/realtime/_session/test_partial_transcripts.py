from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from duologue.realtime._session.partial_transcripts import MAX_UNFILTERED, PartialsFilter
from duologue.realtime.outputs import UserTranscript


def test_every_transcript_of_a_short_turn_is_passed_on():
    partials = PartialsFilter()
    assert all(
        partials.is_due(UserTranscript("a", "x" * n, False)) for n in range(MAX_UNFILTERED + 1)
    )


def test_transcripts_of_a_long_turn_cost_a_multiple_of_its_length():
    partials = PartialsFilter()
    reported = [
        length
        for length in range(0, 500_000, 5)
        if partials.is_due(UserTranscript("a", "x" * length, False))
    ]
    assert sum(reported) < 25 * 500_000
    # No text is held back for long.
    assert all(b <= max(a, MAX_UNFILTERED) * 1.06 for a, b in pairwise(reported))
    assert partials.is_due(UserTranscript("a", "x" * 500_000, True))


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 9000), st.booleans())))
def test_a_final_a_shorter_and_another_turns_transcript_are_always_passed_on(words):
    partials, last = PartialsFilter(), ("", 0)
    for item_id, length, final in words:
        due = partials.is_due(UserTranscript(item_id, "x" * length, final))
        if final or length <= MAX_UNFILTERED or item_id != last[0] or length < last[1]:
            assert due
        if due:
            last = item_id, length
