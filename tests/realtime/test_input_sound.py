import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from duologue.realtime.commands import EndTurn
from duologue.realtime.input_sound import InputRing, InputTurns

LOUD = st.lists(st.tuples(st.integers(1, 900), st.booleans()), max_size=40)


def fill(ring, chunks):
    """Push chunks of numbered or silent samples; returns all of them in a row."""
    whole = np.zeros(0, np.int16)
    for length, loud in chunks:
        at = np.arange(len(whole), len(whole) + length)
        samples = (100 + at % 30000).astype(np.int16) if loud else np.zeros(length, np.int16)
        ring.push(samples)
        whole = np.concatenate((whole, samples))
    return whole


def joined(pieces):
    return np.concatenate([np.zeros(0, np.int16), *pieces])


@given(LOUD, st.integers(0, 20000))
def test_what_is_kept_comes_back_to_the_sample(chunks, position):
    ring = InputRing(1000, 10.0)
    whole = fill(ring, chunks)
    assert ring.end == len(whole)
    assert ring.start <= max(0, len(whole) - 10000 + 900)
    kept = joined(ring.since(position))
    first = min(len(whole), max(position, ring.start))
    np.testing.assert_array_equal(kept, whole[first:])


@given(LOUD, st.integers(0, 20000))
def test_what_is_forgotten_is_gone_and_the_rest_is_not(chunks, position):
    ring = InputRing(1000, 60.0)
    whole = fill(ring, chunks)
    ring.forget(position)
    assert ring.start <= position
    np.testing.assert_array_equal(joined(ring.since(position)), whole[position:])


def test_silence_takes_no_memory_and_comes_back():
    ring = InputRing(24000, 10.0)
    for _ in range(400):
        ring.push(np.full(480, 20, np.int16))
    assert len(ring._pieces) < 30
    assert len(joined(ring.since(0))) == 400 * 480
    assert not joined(ring.since(0)).any()


def test_commands_keep_their_places_between_the_sound():
    ring = InputRing(1000, 10.0)
    one, two = EndTurn(), EndTurn(reply=False)
    fill(ring, [(300, True)])
    ring.mark(one)
    fill(ring, [(700, True)])
    ring.mark(two)
    shape = [len(p) if isinstance(p, np.ndarray) else p for p in ring.since(0)]
    assert shape == [*[100] * 3, one, *[100] * 7, two]
    shape = [len(p) if isinstance(p, np.ndarray) else p for p in ring.since(300)]
    assert shape == [*[100] * 7, two]
    ring.forget(300)
    assert ring.since(0)[-1] is two
    assert one not in [p for p in ring.since(0) if not isinstance(p, np.ndarray)]


def test_a_turn_is_settled_when_it_is_over_and_its_words_are_known():
    turns = InputTurns(1000, words=True)
    turns.started("a", 1000)
    assert turns.open
    turns.stopped("a", 2000)
    turns.ended("a", None, 2600, empty=False)
    assert turns.settled == 0
    turns.worded("a")
    assert turns.settled == 2000
    assert not turns.open


def test_turns_settle_in_order_and_what_is_not_settled_is_heard_again():
    turns = InputTurns(1000, words=True)
    for name, start in (("a", 1000), ("b", 3000), ("c", 5000)):
        turns.started(name, start)
        if name != "c":
            turns.ended(name, start + 1000, start + 1500, empty=False)
    turns.worded("b")
    unsettled = turns.lost()
    assert (unsettled.position, unsettled.reheard, unsettled.needed) == (0, ["a", "b"], 1000)
    assert not turns.open


def test_ends_that_nobody_tells_exactly_are_taken_to_be_earlier():
    turns = InputTurns(1000, words=False)
    turns.ended("a", None, 5000, empty=False)
    assert turns.settled == 4700
    turns.marked(6000)
    turns.ended("b", None, 7000, empty=False)
    assert turns.settled == 6000
    turns.started("c", 8000)
    turns.ended("c", None, 9000, empty=True)
    assert turns.settled == 8700
    turns.stopped("nobody", 1)


def test_more_words_of_a_settled_turn_begin_no_new_one():
    turns = InputTurns(1000, words=True)
    for name, start in (("a", 1000), ("b", 3000)):
        turns.started(name, start)
        turns.stopped(name, start + 900)
        turns.ended(name, None, start + 1500, empty=False)
        turns.worded(name)
        turns.worded(name)
        assert turns.settled == start + 900
        assert not turns.open
    assert turns.lost().reheard == []
