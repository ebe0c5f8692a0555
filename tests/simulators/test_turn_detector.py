"""The turn detector finds the same turns in the same audio, however it is split into chunks."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("aiohttp", reason="the simulate extra is not installed")

from hypothesis import given, settings
from hypothesis import strategies as st

from duologue.simulators._openai_protocol.session_object import TurnDetection
from duologue.simulators._turn_detector import TurnDetector

DETECTION = TurnDetection(
    threshold=0.5,
    prefix_ms=100,
    silence_ms=150,
    idle_ms=None,
    create_response=True,
    interrupt_response=True,
)


class Sink:
    def __init__(self):
        self.told = []
        self.received = []
        self.turns = []

    def speech_started(self, turn, at_ms):
        self.told.append(("started", at_ms))
        self.received = []

    def speech_audio(self, samples):
        self.received.append(samples)

    def speech_stopped(self, turn, at_ms):
        self.told.append(("stopped", at_ms))

    def turn_committed(self, turn, *, streamed):
        assert streamed
        assert np.array_equal(np.concatenate(self.received), turn.samples)
        self.turns.append((turn.start, turn.end))


@given(
    st.lists(st.tuples(st.booleans(), st.integers(10, 400)), min_size=1, max_size=12),
    st.lists(st.integers(1, 3000), min_size=1, max_size=8),
)
@settings(max_examples=100, deadline=None)
def test_turns_do_not_depend_on_chunks(stretches, sizes):
    loudness = np.concatenate([np.full(ms * 24, 3000 * loud) for loud, ms in stretches])
    audio = loudness.astype(np.int16)
    whole, pieces = Sink(), Sink()
    detector = TurnDetector(whole)
    detector.configure(DETECTION)
    detector.push(audio)
    chunked = TurnDetector(pieces)
    chunked.configure(DETECTION)
    at, index = 0, 0
    while at < len(audio):
        size = sizes[index % len(sizes)]
        chunked.push(audio[at : at + size])
        at, index = at + size, index + 1
    assert whole.told == pieces.told
    assert whole.turns == pieces.turns
    assert chunked.samples_received == len(audio)
    # Turns follow each other, and each contains its speech and its silence.
    ends = [0, *(end for _, end in whole.turns)]
    for (start, end), before in zip(whole.turns, ends, strict=False):
        assert before <= start < end
        assert not audio[end - 150 * 24 : end].any()
