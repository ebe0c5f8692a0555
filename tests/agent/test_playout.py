from itertools import pairwise

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from duologue.agent.playout import Playout
from duologue.agent.speech import Speech
from duologue.audio import AudioFrame

RATE = 8000
MS = RATE // 1000


class ManualClock:
    def __init__(self):
        self.ms = 0

    def now(self):
        return self.ms / 1000


class FakeEdge:
    """Records what was really played: a sample on the timeline for each moment."""

    def __init__(self, clock, *, lead_ms=0, quality="estimated", latency_ms=0):
        self.clock = clock
        self.output_rate = RATE
        self.lead_ms = lead_ms
        self.quality = quality
        self.latency_ms = latency_ms
        self.timeline = []  # (when in samples, value), in order
        self.given = 0
        self.positions = {}  # of each value among all that was given
        self.cleared = 0
        self.end = 0  # when the last sample given will have been played

    @property
    def now(self):
        return self.clock.ms * MS

    def play(self, frame):
        samples = np.zeros(RATE // 50, np.int16) if frame is None else frame.samples
        begin = max(self.end, self.now) if self.lead_ms else self.now
        self.timeline += [(begin + i, int(v), self.given + i) for i, v in enumerate(samples)]
        self.positions.update((int(v), self.given + i) for i, v in enumerate(samples))
        self.given += len(samples)
        self.end = begin + len(samples)

    def clear(self):
        self.cleared += 1
        if self.lead_ms:
            self.timeline = [entry for entry in self.timeline if entry[0] < self.now]
            self.end = min(self.end, self.now)

    def at_the_ear(self):
        latency = round(self.latency_ms * MS)
        return [value for when, value, _ in self.timeline if when + latency < self.now]

    def position(self):
        """Return how many of the samples given were really played."""
        played = [position for when, _, position in self.timeline if when < self.now]
        return played[-1] + 1 if played else 0


class RecordingObserver:
    def __init__(self):
        self.started, self.ended = [], []
        self.current = None

    def speech_started(self, speech):
        assert self.current is None or self.current.done
        assert speech.state == "playing"
        self.current = speech
        self.started.append(speech)

    def speech_ended(self, speech):
        assert speech is self.current or not speech.played_ms
        self.ended.append(speech)


def gate(limit_s=600.0, **edge):
    clock = ManualClock()
    edge = FakeEdge(clock, **edge)
    listener = RecordingObserver()
    return Playout(edge, clock, listener, limit_s=limit_s), edge, listener, clock


def values(first, count):
    return AudioFrame(np.arange(first, first + count).astype(np.int16), RATE)


def run(playout, clock, ms):
    for _ in range(ms // 20):
        clock.ms += 20
        playout.tick(clock.now())


EDGES = [
    {},
    {"latency_ms": 50},
    {"lead_ms": 20},
    {"lead_ms": 20, "latency_ms": 30},
    {"quality": "confirmed", "latency_ms": 60},
    {"quality": "device", "lead_ms": 20},
]


class Gate(RuleBasedStateMachine):
    """Random interleavings, checked against the edge's own record of what was played (C1, C2)."""

    @initialize(edge=st.sampled_from(EDGES))
    def open(self, edge):
        self.playout, self.edge, self.listener, self.clock = gate(limit_s=3.0, **edge)
        self.epoch = 0
        self.open_speeches, self.all, self.cuts = [], [], []
        self.written = {}
        self.text = {}
        self.next_value = 1
        self.most_confirmed = 0
        self.over_reported = False
        self.suspensions = 0

    @rule(old=st.booleans())
    def begin(self, old):
        speech = Speech(self.epoch - old)
        self.playout.begin(speech)
        self.playout.begin(speech)  # a second end does nothing
        if not old:
            self.open_speeches.append(speech)
            self.all.append(speech)
            self.written[speech.id] = []

    @precondition(lambda self: self.open_speeches)
    @rule(
        which=st.integers(0, 5),
        count=st.integers(0, 1200),
        other_rate=st.sampled_from([None, None, 16000, 24000]),
        stale=st.booleans(),
        item=st.sampled_from(["a", "b"]),
        timed=st.booleans(),
    )
    def write(self, which, count, other_rate, stale, item, timed):
        speech = self.open_speeches[which % len(self.open_speeches)]
        used = self.written[speech.id]
        if used and used[-1] < 0:
            other_rate = other_rate or 16000  # A speech whose values are ambiguous stays so.
        if self.next_value + count > 32000:
            return
        if other_rate is None:
            frame = values(self.next_value, count)
        else:
            frame = AudioFrame(np.full(count, -1, np.int16), other_rate)
        speech.add_text("word and more ", speech.seconds if timed else None, item)
        before = self.playout.overflowed_samples + self.playout.stale_samples
        epoch = self.epoch - 1 if stale else self.epoch
        if self.playout.write(speech, f"{speech.id}{item}", frame, epoch):
            assert not stale
            used += [-1] * count if other_rate else frame.samples.tolist()
        else:
            assert self.playout.overflowed_samples + self.playout.stale_samples == before + count
        self.next_value += count

    @precondition(lambda self: self.open_speeches)
    @rule(which=st.integers(0, 5), late=st.booleans())
    def end(self, which, late):
        speech = self.open_speeches.pop(which % len(self.open_speeches))
        self.playout.end(speech)
        self.playout.end(speech)
        if late:
            assert not self.playout.write(speech, "late", values(1, 10), self.epoch)

    @rule(ms=st.integers(1, 300))
    def wait(self, ms):
        for _ in range(ms):
            self.clock.ms += 1
            if self.clock.ms % 20 == 0:
                self.playout.tick(self.clock.now())

    @rule()
    def hold(self):
        self.playout.hold()
        assert self.playout.held
        given = self.edge.given
        self.playout.hold()
        assert self.edge.given == given

    @rule()
    def resume(self):
        assert self.playout.resume() >= 0
        assert not self.playout.held

    @rule()
    def suspend(self):
        self.suspensions += 1
        self.playout.suspend()
        given = self.edge.given
        self.playout.hold()
        self.playout.resume()
        assert self.edge.given == given

    @rule()
    def unsuspend(self):
        self.playout.unsuspend()

    @rule()
    def interrupt(self):
        self.epoch += 1
        cleared = self.edge.cleared
        for cut in self.playout.interrupt(self.epoch):
            self.cuts.append(cut.speech)
            assert cut.speech.state == "cut"
            for heard in cut.items:
                assert 0 <= heard.played_ms <= heard.total_ms
            assert sum(h.played_ms for h in cut.items) <= cut.speech.played_ms
            self.check_heard(cut.speech)
        assert self.edge.cleared == cleared + 1
        assert not self.playout.active
        self.open_speeches.clear()
        self.given_before = self.edge.given
        self.forbidden = {v for s in self.all for v in self.written[s.id] if v > 0}

    @precondition(lambda self: self.edge.quality != "estimated")
    @rule(kind=st.sampled_from(["true", "late", "lie", "negative"]), by=st.integers(1, 4000))
    def confirm(self, kind, by):
        position = self.edge.position()
        reported = {"true": position, "late": position - by, "lie": position + by, "negative": -by}
        self.over_reported = self.over_reported or kind == "lie"
        self.most_confirmed = max(self.most_confirmed, min(reported[kind], self.edge.given))
        self.playout.report_played(reported[kind])

    def check_heard(self, speech):
        assert speech.text.startswith(speech.heard_text)
        received = len(self.written[speech.id])
        numbers = [v for v in self.written[speech.id] if v > 0]
        if numbers and len(numbers) == received:
            assert speech.played_ms * MS <= received
            # What was really heard of it, by the edge's own record.
            heard = len(set(self.edge.at_the_ear()) & set(numbers))
            if self.edge.quality == "estimated":
                assert speech.played_ms * MS <= heard
            elif speech.quality != "estimated":
                sent = self.edge.positions
                confirmed = sum(sent[v] < self.most_confirmed for v in numbers if v in sent)
                assert speech.played_ms * MS <= confirmed

    @invariant()
    def no_old_sound_reaches_the_edge(self):
        if getattr(self, "forbidden", None):
            new = {v for _, v, position in self.edge.timeline if position >= self.given_before}
            assert not new & self.forbidden

    @invariant()
    def what_is_played_is_a_prefix_in_order(self):
        if not hasattr(self, "edge"):
            return
        played = [value for _, value, _ in self.edge.timeline if value > 0]
        begun = [n for s in self.all for n in [v for v in self.written[s.id] if v > 0]]
        assert self.suspensions or len(set(played)) == len(played)
        # What a dead connection swallowed is played again.
        played = list(dict.fromkeys(reversed(played)))[::-1]
        mine = set(played)
        assert played == [value for value in begun if value in mine]
        for speech in self.all:
            numbers = [v for v in self.written[speech.id] if v > 0]
            count = len(mine.intersection(numbers))
            assert mine.issuperset(numbers[:count])

    @invariant()
    def every_speech_ends_once(self):
        if not hasattr(self, "edge"):
            return
        ended = [s.id for s in (*self.listener.ended, *self.cuts)]
        assert len(set(ended)) == len(ended)
        assert {s.id for s in self.all if s.done} == set(ended)
        for speech in self.listener.ended:
            silent = speech.text and not self.written[speech.id]
            assert speech.state == ("silent" if silent else "heard")
            self.check_heard(speech)

    def teardown(self):
        if not hasattr(self, "edge"):
            return
        for speech in self.open_speeches:
            self.playout.end(speech)
        self.playout.resume()
        self.playout.unsuspend()
        run(self.playout, self.clock, 5600)
        self.playout.report_played(self.edge.given)
        self.every_speech_ends_once()
        self.what_is_played_is_a_prefix_in_order()
        assert all(s.done for s in self.all)
        assert not self.playout.active
        played = {v for _, v, _ in self.edge.timeline}
        for speech in [] if self.over_reported else self.listener.ended:
            assert set(self.written[speech.id]) - {-1} <= played


TestGate = Gate.TestCase
TestGate.settings = settings(max_examples=80, stateful_step_count=25, deadline=None)


@pytest.mark.parametrize("edge", EDGES)
def test_speech_is_heard_to_its_end(edge):
    playout, edge, listener, clock = gate(**edge)
    speech = Speech(0)
    playout.begin(speech)
    speech.add_text("hello there")
    playout.write(speech, "item", values(1, 500), 0)
    assert playout.current is speech
    playout.end(speech)
    run(playout, clock, 100)
    if edge.quality != "estimated":
        assert not speech.done
        playout.report_played(edge.given)
    run(playout, clock, 100)
    assert listener.started == [speech]
    assert listener.ended == [speech]
    assert (speech.state, speech.played_ms, speech.heard_text) == ("heard", 62, "hello there")
    assert speech.quality == edge.quality
    assert playout.current is None


def test_audio_waits_for_the_speech_before_it():
    playout, edge, _, clock = gate()
    first, second = Speech(0), Speech(0)
    playout.begin(first)
    playout.begin(second)
    playout.write(second, "2", values(1000, 160), 0)
    playout.write(first, "1", values(1, 160), 0)
    run(playout, clock, 60)
    playout.end(first)
    run(playout, clock, 60)
    played = [v for _, v, _ in edge.timeline if v]
    assert played == [*range(1, 161), *range(1000, 1160)]
    assert playout.starved_ticks > 0


def test_client_that_stops_confirming_is_estimated():
    playout, _, _, clock = gate(quality="confirmed")
    speech = Speech(0)
    playout.begin(speech)
    playout.write(speech, "item", values(1, 800), 0)
    playout.end(speech)
    run(playout, clock, 1900)
    assert not speech.done
    run(playout, clock, 400)
    assert speech.state == "heard"
    assert speech.quality == "estimated"


def test_full_playout_rejects_new_audio_and_counts_it():
    playout, _, _, clock = gate(limit_s=0.1)
    speech = Speech(0)
    playout.begin(speech)
    assert playout.write(speech, "item", values(1, 800), 0)
    assert not playout.write(speech, "item", values(801, 10), 0)
    assert playout.overflowed_samples == 10
    run(playout, clock, 20)
    assert playout.write(speech, "item", values(801, 160), 0)


def test_truncated_speech_says_how_much_of_each_item_was_played():
    playout, _, _, clock = gate(lead_ms=20)
    speech = Speech(0)
    playout.begin(speech)
    for item, count in (("a", 400), ("b", 800), ("c", 80)):
        speech.begin_item(item)
        speech.add_text(f"{item} words ", speech.seconds, item)
        playout.write(speech, item, values(1, count), 0)
    run(playout, clock, 20)
    run(playout, clock, 80)
    (cut,) = playout.interrupt(1)
    assert [(h.item_id, h.played_ms, h.total_ms) for h in cut.items] == [
        ("a", 50, 50),
        ("b", 50, 100),
        ("c", 0, 10),
    ]
    assert speech.played_ms == 100
    assert speech.quality == "estimated"


def test_held_audio_resumes_at_the_exact_sample():
    playout, edge, _, clock = gate(lead_ms=20)
    speech = Speech(0)
    playout.begin(speech)
    playout.write(speech, "item", values(1, 1600), 0)
    playout.end(speech)
    run(playout, clock, 60)
    clock.ms += 7
    playout.hold()
    clock.ms += 333
    assert playout.resume() == 333
    run(playout, clock, 200)
    whens = [when for when, v, _ in edge.timeline if v]
    assert [v for _, v, _ in edge.timeline if v] == [*range(1, 1601)]
    assert max(b - a for a, b in pairwise(whens)) == 333 * MS + 1
    assert speech.state == "heard"
    assert playout.resume() == 0


def test_what_a_dead_connection_swallowed_is_not_heard_and_plays_again():
    playout, edge, listener, clock = gate(quality="confirmed")
    speech = Speech(0)
    playout.begin(speech)
    playout.write(speech, "a", values(1, 1600), 0)
    playout.end(speech)
    run(playout, clock, 100)
    playout.report_played(200)
    playout.suspend()
    run(playout, clock, 5000)
    playout.count_played()
    assert playout.played_s == 200 / RATE
    playout.hold()
    playout.unsuspend()
    run(playout, clock, 100)
    assert not any(value for _, value, at in edge.timeline if at >= 800)
    playout.resume()
    given = edge.given
    run(playout, clock, 180)
    again = [value for _, value, at in edge.timeline if at >= given and value]
    assert again == list(range(201, 1601))
    playout.report_played(edge.given)
    assert listener.ended == [speech]
    assert (speech.state, speech.quality, speech.played_ms) == ("heard", "confirmed", 200)


def test_speech_interrupted_while_the_connection_is_dead_is_cut_where_it_was_heard_last():
    playout, _, _, clock = gate(quality="confirmed")
    speech = Speech(0)
    playout.begin(speech)
    playout.write(speech, "a", values(1, 1600), 0)
    run(playout, clock, 100)
    playout.report_played(320)
    playout.suspend()
    run(playout, clock, 3000)
    [cut] = playout.interrupt(1)
    assert cut.items[0].played_ms == 40
    assert speech.quality == "confirmed"


def test_speech_without_audio_is_silent():
    playout, _, listener, _ = gate()
    speech = Speech(0)
    speech.add_text("never spoken")
    playout.begin(speech)
    playout.end(speech)
    assert listener.ended == [speech]
    assert (speech.played_ms, speech.heard_text) == (0, "")


def test_new_sample_rate_within_a_speech_loses_nothing():
    playout, edge, _, clock = gate()
    speech = Speech(0)
    playout.begin(speech)
    playout.write(speech, "item", AudioFrame(np.full(1600, 1000, np.int16), 16000), 0)
    playout.write(speech, "item", AudioFrame(np.full(2400, 1000, np.int16), 24000), 0)
    playout.end(speech)
    run(playout, clock, 300)
    assert sum(v > 100 for _, v, _ in edge.timeline) == pytest.approx(1600, abs=4)
    assert speech.played_ms == 200


def test_speech_without_audio_can_be_removed_and_queued_again():
    playout, edge, _, clock = gate()
    first, second = Speech(0), Speech(0, interruptible=False)
    playout.begin(first)
    playout.begin(second)
    assert not playout.interruptible
    playout.remove(first)
    assert playout.speeches == (second,)
    playout.begin(first)
    playout.write(second, "2", values(1000, 160), 0)
    playout.remove(second)  # it has audio, so it stays
    assert playout.speeches == (second, first)
    playout.remove(Speech(0))  # it was never queued
    playout.end(second)
    run(playout, clock, 60)
    assert playout.interruptible
    assert playout.played_s == 0
    assert [v for _, v, _ in edge.timeline if v] == [*range(1000, 1160)]


def test_renamed_items_are_one_item():
    playout, _, _, clock = gate()
    speech = Speech(0)
    playout.rename_items(speech, "x")  # it was never queued
    playout.begin(speech)
    playout.rename_items(speech, "x")  # it has no audio yet
    playout.write(speech, "a", values(1, 160), 0)
    playout.write(speech, "b", values(1000, 160), 0)
    playout.rename_items(speech, "both")
    playout.write(speech, "c", values(2000, 160), 0)
    run(playout, clock, 60)
    (cut,) = playout.interrupt(1)
    assert [(item.item_id, item.total_ms) for item in cut.items] == [("both", 40), ("c", 20)]


def test_audio_of_two_speeches_is_taken_back_from_an_edge_that_buffers():
    playout, edge, observer, clock = gate(lead_ms=20)
    first, second = Speech(0), Speech(0)
    for speech, start in ((first, 1), (second, 1000)):
        playout.begin(speech)
        playout.write(speech, "item", values(start, 200), 0)
        playout.end(speech)
    clock.ms += 5
    playout.hold()
    playout.hold()  # a second hold does nothing
    assert playout.held
    assert playout.played_s == 0.0
    run(playout, clock, 100)
    assert playout.resume() > 0
    assert playout.resume() == 0
    run(playout, clock, 200)
    assert observer.ended == [first, second]
    played = [v for _, v, _ in edge.timeline if v]
    assert played == [*range(1, 201), *range(1000, 1200)]
