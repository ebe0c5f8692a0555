"""Late audio of a source at the pace of speech is on time again soon, and what was heard is right.

The original is noise of which any five samples are unique, so the samples that the edge was given
say where they come from: see `places`.
"""

import wave
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from duologue.agent.playout import Playout
from duologue.agent.speech import Speech
from duologue.audio import AudioFrame, Resampler
from duologue.weights import Store

SPEECH = Path(__file__).parents[1] / "data" / "speech"
RATE = 8000
FRAME = RATE // 50
FRAME_MS = 20
MAX_SKIP_MS = 15
FADE = RATE // 100


class ManualClock:
    def __init__(self):
        self.time = 100.0

    def now(self):
        return self.time


class TimelineEdge:
    """Keeps what the person hears: samples on a time line that `clear` cuts."""

    def __init__(self, clock, rate, *, lead_ms=0, quality="estimated", latency_ms=0):
        self.clock = clock
        self.output_rate = rate
        self.lead_ms = lead_ms
        self.quality = quality
        self.latency_ms = latency_ms
        self.begun = clock.now()
        self.heard = np.zeros(60 * rate, np.int16)
        self.frames = []
        self.given = 0
        self.end = 0

    @property
    def now(self):
        return int((self.clock.now() - self.begun) * self.output_rate + 1e-3)

    def play(self, frame):
        if frame is not None:
            self.frames.append(frame.samples)
        samples = np.zeros(self.output_rate // 50, np.int16) if frame is None else frame.samples
        begin = max(self.end, self.now)
        self.heard[begin : begin + len(samples)] = samples
        self.end = begin + len(samples)
        self.given += len(samples)

    def clear(self):
        if self.lead_ms:
            self.heard[self.now :] = 0
            self.end = min(self.end, self.now)


class Observer:
    def speech_started(self, speech):
        pass

    def speech_ended(self, speech):
        pass


class Call:
    """A speech from a source to a gate, with a clock that both share."""

    def __init__(self, original, rate=RATE, **edge):
        self.clock = ManualClock()
        self.edge = TimelineEdge(self.clock, rate, **edge)
        self.playout = Playout(self.edge, self.clock, Observer())
        self.speech = Speech(0)
        self.playout.begin(self.speech)
        self.original = original
        self.sent = 0
        self.next_tick = self.clock.now() + 0.02

    def send(self, samples):
        """Let the next samples arrive."""
        frame = AudioFrame(self.original[self.sent : self.sent + samples], self.edge.output_rate)
        self.sent += len(frame)
        assert self.playout.write(self.speech, "item", frame, 0)

    def run(self, seconds, *, ticking=True):
        """Let time pass, with a tick every 20 ms unless the process stands still."""
        end = self.clock.now() + seconds
        while self.next_tick <= end + 1e-9:
            self.clock.time = self.next_tick
            self.next_tick += 0.02
            if ticking:
                self.playout.tick(self.clock.now())
        self.clock.time = end

    def stream(self, seconds, *, piece_s=0.02, speed=1.0):
        """Let audio arrive in pieces at ``speed`` times real time."""
        for _ in range(round(seconds * speed / piece_s)):
            self.run(piece_s / speed)
            self.send(round(piece_s * self.edge.output_rate))

    def stall(self, seconds, kind, piece_s=0.02):
        """Let the source or this process stand still, and what came late arrive at once."""
        self.run(seconds, ticking=kind == "source")
        for _ in range(round(seconds / piece_s)):
            self.send(round(piece_s * self.edge.output_rate))

    @property
    def waiting_s(self):
        """Seconds from the arrival of a sample to its playing."""
        in_edge = max(0, self.edge.end - self.edge.now) / self.edge.output_rate
        return self.playout.waiting_s + in_edge

    def longest_wait(self, seconds, piece_s=0.02):
        """Stream on; return the longest time from arrival to playing."""
        waits = []
        for _ in range(round(seconds / piece_s)):
            self.stream(piece_s, piece_s=piece_s)
            waits.append(self.waiting_s)
        return max(waits)

    def heard(self):
        """Return what the person has heard so far."""
        return self.edge.heard[: min(self.edge.now, self.edge.end)]


def noise(seconds, seed=0, rate=RATE):
    loud = np.random.default_rng(seed).integers(-9000, 9000, round(seconds * rate))
    return loud.astype(np.int16)


def recorded(rate, seconds=30):
    parts = []
    for name in ("jfk", "austen-0880", "austen-0930"):
        with wave.open(str(SPEECH / f"{name}.wav")) as file:
            resampler = Resampler(file.getframerate(), rate)
            samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        parts += [resampler.push(samples), resampler.flush()]
    return np.tile(np.concatenate(parts), 3)[: seconds * rate]


def places(heard, original):
    """Return where each sample that was heard lies in the original; -1 in silence and fades."""
    where = {}
    for i, five in enumerate(np.lib.stride_tricks.sliding_window_view(original, 5)):
        where[five.tobytes()] = i
    found = np.full(len(heard), -1)
    for i, five in enumerate(np.lib.stride_tricks.sliding_window_view(heard, 5)):
        place = where.get(five.tobytes())
        if place is not None:
            found[i : i + 5] = range(place, place + 5)
    return found


EDGES = [
    {},
    {"lead_ms": 20},
    {"latency_ms": 60},
    {"lead_ms": 20, "latency_ms": 30},
    {"quality": "confirmed"},
    {"quality": "device", "lead_ms": 20},
]


@pytest.mark.parametrize("piece_ms", [10, 20, 50, 100, 250])
@pytest.mark.parametrize("kind", ["source", "process"])
@pytest.mark.parametrize("lead_ms", [0, 20])
def test_delay_is_back_within_five_seconds_of_a_stall(lead_ms, kind, piece_ms):
    call, piece_s = Call(recorded(8000), lead_ms=lead_ms), piece_ms / 1000
    call.run(0.007)  # between two ticks
    call.stream(6.0, piece_s=piece_s)
    before = call.longest_wait(2.0, piece_s)
    call.stall(0.5 + piece_s if kind == "source" else 0.5, kind, piece_s)
    assert call.waiting_s >= 0.5
    call.stream(5.0 - 0.2, piece_s=piece_s)
    assert call.longest_wait(2.0, piece_s) <= before + 0.02
    assert call.playout.caught_up_s == pytest.approx(0.5, abs=0.05)
    assert call.playout.waiting_s < before + 0.02


def test_a_lead_of_the_source_stays():
    call = Call(recorded(8000))
    call.send(RATE // 2)
    call.stream(8.0)
    call.stall(0.3, "process")
    call.stream(6.0)
    assert call.longest_wait(1.0) == pytest.approx(0.52, abs=0.03)


@pytest.mark.parametrize("lead_ms", [0, 20])
@pytest.mark.parametrize("speed", [1.2, 2, 30])
def test_burst_replies_are_played_sample_by_sample(speed, lead_ms):
    original = recorded(8000)
    call = Call(original, lead_ms=lead_ms)
    call.stream(5.0 / speed, speed=speed)
    call.stall(0.5, "process")
    call.stream(5.0 / speed, speed=speed)
    call.playout.hold()
    call.run(0.4)
    call.playout.resume()
    call.stream(10.0 / speed, speed=speed)
    call.playout.end(call.speech)
    call.run(25.0)
    assert call.speech.state == "heard"
    heard = call.heard()
    assert np.array_equal(heard[heard != 0], original[: call.sent][original[: call.sent] != 0])
    assert call.playout.caught_up_s == 0


def test_nothing_is_shortened_while_held():
    call = Call(recorded(8000))
    call.stream(5.0)
    call.stall(0.5, "process")
    call.stream(1.0)
    assert 0 < call.playout.caught_up_s < 0.4
    call.playout.hold()
    saved, sent = call.playout.caught_up_s, call.playout.waiting_s
    call.stream(1.0)
    assert call.playout.caught_up_s == saved
    assert call.playout.waiting_s == pytest.approx(sent + 1.0)
    call.playout.resume()
    call.stream(12.0)  # the hold is made good too
    assert call.longest_wait(1.0) < 0.07
    assert call.playout.caught_up_s == pytest.approx(1.5, abs=0.03)


@settings(deadline=None, max_examples=40)
@given(
    edge=st.sampled_from(EDGES),
    seed=st.integers(0, 9),
    stall=st.sampled_from([0.1, 0.3, 0.5, 1.1]),
    kind=st.sampled_from(["source", "process"]),
    then=st.floats(0, 4),
    held=st.booleans(),
    after=st.floats(0.021, 1),
)
def test_every_sample_is_played_or_counted_as_shortened(edge, seed, stall, kind, then, held, after):
    original = noise(12, seed)
    call = Call(original, **edge)
    call.run(0.003)
    call.stream(2.5)
    call.stall(stall, kind)
    call.stream(then)
    if held:
        call.run(after / 50)
        call.playout.hold()
        call.run(0.2)
        call.playout.resume()
    call.stream(after)
    call.playout.end(call.speech)
    call.run(4.0)
    call.playout.report_played(call.edge.given)
    assert call.speech.state == "heard"
    assert call.speech.played_ms == call.sent * 1000 // RATE
    heard = call.heard()
    found = places(heard, original[: call.sent])
    known = found[found >= 0]
    assert np.all(np.diff(known) > 0)
    steps = np.diff(known)
    # What no sample shows lies in fades, and is at most one fade and one skip each time.
    assert steps.max(initial=1) <= 2 * FADE + MAX_SKIP_MS * RATE // 1000
    played = np.count_nonzero(heard)
    expected = np.count_nonzero(original[: call.sent]) - call.playout.caught_up_samples
    assert played == pytest.approx(expected, abs=12)  # a fade may pass 0


@settings(deadline=None, max_examples=60)
@given(
    edge=st.sampled_from(EDGES),
    seed=st.integers(0, 9),
    stall=st.sampled_from([0.2, 0.5]),
    kind=st.sampled_from(["source", "process"]),
    then=st.floats(0.2, 4),
    held=st.booleans(),
)
def test_what_was_heard_at_an_interruption_is_told_in_samples_of_the_original(
    edge, seed, stall, kind, then, held
):
    original = noise(12, seed)
    call = Call(original, **edge)
    call.run(0.003)
    call.stream(2.5)
    call.stall(stall, kind)
    call.stream(then)
    call.run(then / 200)
    if call.edge.quality != "estimated":
        call.playout.report_played(call.edge.given - max(0, call.edge.end - call.edge.now))
    if held:
        call.playout.hold()
        call.run(0.1)
    at_the_ear = call.edge.now - round(edge.get("latency_ms", 0) / 1000 * RATE)
    (cut,) = call.playout.interrupt(1)
    heard = call.heard()[:at_the_ear]
    heard = heard[: np.flatnonzero(heard)[-1] + 1]
    found = places(heard, original)
    last = np.flatnonzero(found >= 0)[-1]
    in_fade = len(heard) - 1 - last
    least = found[last] + 1
    most = least + in_fade + (MAX_SKIP_MS * RATE // 1000 if in_fade else 0)
    tolerance = FRAME_MS
    if held or call.edge.quality != "estimated":
        tolerance += FRAME_MS  # reported in whole frames
    assert least * 1000 / RATE - tolerance <= cut.speech.played_ms <= most * 1000 / RATE + 1
    assert cut.items[0].played_ms == cut.speech.played_ms
    assert cut.items[0].total_ms == call.sent * 1000 // RATE


@pytest.mark.weights
async def test_words_stay_intact(weights: Store) -> None:
    from duologue.providers.local import engine

    original = recorded(16000, 20)
    call = Call(original, 16000)
    call.stream(2.5)
    for _ in range(2):
        call.stall(0.5, "source")
        call.stream(6.0)
    call.playout.end(call.speech)
    call.run(2.0)
    assert call.playout.caught_up_s > 0.8
    texts = []
    for samples in (original[: call.sent], np.concatenate(call.edge.frames)):
        stream = engine.load_stt().stream()
        stream.push(AudioFrame(samples, 16000))
        texts.append((await stream.text()).lower())
        await stream.close()
    assert texts[0] == texts[1]
