import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from duologue._companding import expand
from duologue.realtime._session.replay_buffer import InputTurnTracker, ReplayBuffer
from duologue.realtime.commands import EndTurn

SAMPLES = expand(np.random.default_rng(1).integers(30, 128, 40000).astype(np.uint8))
"""Samples that packing does not change, in an order that shows where each belongs."""
LOUD = st.lists(st.tuples(st.integers(1, 900), st.booleans()), max_size=40)


def fill(ring, chunks):
    """Push chunks of known or silent samples; return all of them in a row."""
    whole = np.zeros(0, np.int16)
    for length, loud in chunks:
        at = np.arange(len(whole), len(whole) + length)
        samples = SAMPLES[at] if loud else np.zeros(length, np.int16)
        ring.push(samples)
        whole = np.concatenate((whole, samples))
    return whole


def joined(pieces):
    return np.concatenate([np.zeros(0, np.int16), *pieces])


@given(LOUD, st.integers(0, 20000))
def test_kept_audio_is_returned_to_the_sample(chunks, position):
    ring = ReplayBuffer(1000, 10.0)
    whole = fill(ring, chunks)
    assert ring.end == len(whole)
    assert ring.start <= max(0, len(whole) - 10000 + 900)
    kept = joined(ring.read_from(position))
    first = min(len(whole), max(position, ring.start))
    np.testing.assert_array_equal(kept, whole[first:])


@given(LOUD, st.integers(0, 20000))
def test_only_discarded_audio_is_gone(chunks, position):
    ring = ReplayBuffer(1000, 60.0)
    whole = fill(ring, chunks)
    ring.discard_before(position)
    assert ring.start <= position
    np.testing.assert_array_equal(joined(ring.read_from(position)), whole[position:])


def test_silence_takes_no_memory_and_is_returned():
    ring = ReplayBuffer(24000, 10.0)
    for _ in range(400):
        ring.push(np.full(480, 20, np.int16))
    assert len(ring._pieces) < 30
    kept = joined(ring.read_from(0))
    assert len(kept) == 400 * 480
    assert not kept[:-6000].any()


def test_commands_keep_their_places_in_the_audio():
    ring = ReplayBuffer(1000, 10.0)
    one, two = EndTurn(), EndTurn(reply=False)
    fill(ring, [(300, True)])
    ring.mark(one)
    fill(ring, [(700, True)])
    ring.mark(two)
    shape = [len(p) if isinstance(p, np.ndarray) else p for p in ring.read_from(0)]
    assert shape == [*[100] * 3, one, *[100] * 7, two]
    shape = [len(p) if isinstance(p, np.ndarray) else p for p in ring.read_from(300)]
    assert shape == [*[100] * 7, two]
    ring.discard_before(300)
    assert ring.read_from(0)[-1] is two
    assert one not in [p for p in ring.read_from(0) if not isinstance(p, np.ndarray)]


def test_a_turn_is_settled_when_it_is_over_and_has_its_transcript():
    turns = InputTurnTracker(1000, transcribes=True)
    turns.speech_started("a", 1000)
    assert turns.is_open
    turns.speech_stopped("a", 2000)
    turns.turn_ended("a", None, 2600, empty=False)
    assert turns.settled == 0
    turns.transcript_final("a")
    assert turns.settled == 2000
    assert not turns.is_open


def test_turns_settle_in_order_and_the_others_are_replayed():
    turns = InputTurnTracker(1000, transcribes=True)
    for name, start in (("a", 1000), ("b", 3000), ("c", 5000)):
        turns.speech_started(name, start)
        if name != "c":
            turns.turn_ended(name, start + 1000, start + 1500, empty=False)
    turns.transcript_final("b")
    unsettled = turns.connection_lost()
    assert (unsettled.position, unsettled.replayed, unsettled.speech_start) == (0, ["a", "b"], 1000)
    assert not turns.is_open


def test_an_end_of_unknown_position_is_assumed_earlier():
    turns = InputTurnTracker(1000, transcribes=False)
    turns.turn_ended("a", None, 5000, empty=False)
    assert turns.settled == 4700
    turns.mark_boundary(6000)
    turns.turn_ended("b", None, 7000, empty=False)
    assert turns.settled == 6000
    turns.speech_started("c", 8000)
    turns.turn_ended("c", None, 9000, empty=True)
    assert turns.settled == 8700
    turns.speech_stopped("nobody", 1)


def test_another_transcript_of_a_settled_turn_begins_no_new_turn():
    turns = InputTurnTracker(1000, transcribes=True)
    for name, start in (("a", 1000), ("b", 3000)):
        turns.speech_started(name, start)
        turns.speech_stopped(name, start + 900)
        turns.turn_ended(name, None, start + 1500, empty=False)
        turns.transcript_final(name)
        turns.transcript_final(name)
        assert turns.settled == start + 900
        assert not turns.is_open
    assert turns.connection_lost().replayed == []


def test_turns_that_have_a_reply_are_known_after_a_loss():
    turns = InputTurnTracker(1000, transcribes=True)
    for name in ("a", "b", "c"):
        turns.speech_started(name, 0)
    turns.turn_ended("a", 100, 200, empty=False)
    turns.mark_ended_answered()
    turns.mark_answered("b")
    turns.mark_answered("unknown")
    unsettled = turns.connection_lost()
    assert unsettled.answered == ["a", "b"]
    assert unsettled.open_turns == ["b", "c"]


def test_no_samples_change_nothing_and_discarded_marks_are_gone():
    ring = ReplayBuffer(1000, 5.0)
    ring.push(np.zeros(0, np.int16))
    assert (ring.start, ring.end) == (0, 0)
    fill(ring, [(100, True)])
    ring.mark(EndTurn())
    ring.discard_before(100)
    assert ring.read_from(0) == []


def test_audio_is_packed_once_a_quarter_of_a_second_and_not_while_it_waits_to_be_sent():
    ring = ReplayBuffer(1000, 10.0)
    exact = np.arange(1000, 1600, dtype=np.int16)
    for begin in range(0, 400, 50):
        ring.push(exact[begin : begin + 50], pack=False)
    np.testing.assert_array_equal(joined(ring.read_from(0)), exact[:400])
    for begin in range(400, 600, 50):
        ring.push(exact[begin : begin + 50])
    kept = joined(ring.read_from(0))
    np.testing.assert_array_equal(kept[450:], exact[450:])
    assert (kept[:450] != exact[:450]).any()
    np.testing.assert_allclose(kept[:450], exact[:450], rtol=0.03)


def test_packed_audio_takes_a_byte_a_sample():
    ring = ReplayBuffer(1000, 60.0)
    fill(ring, [(20, True)] * 1000)
    assert sum(piece.packed.nbytes for piece in ring._pieces) == 20000 - ring._recent_length
    assert ring._recent_length < 250


def test_the_limit_is_kept_to_the_sample():
    ring = ReplayBuffer(1000, 1.0)
    whole = fill(ring, [(70, True)] * 30)
    assert ring.start == len(whole) - 1000
    np.testing.assert_array_equal(joined(ring.read_from(0)), whole[-1000:])


def test_discarding_everything_keeps_nothing():
    ring = ReplayBuffer(1000, 10.0)
    fill(ring, [(70, True)] * 30)
    ring.discard_before(2100)
    assert (ring.start, ring.end) == (2100, 2100)
    assert ring.read_from(0) == []
    assert not ring._pieces
    assert not ring._recent
