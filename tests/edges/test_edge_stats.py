"""What every edge has for a person at the keyboard: a readable repr, and its counters."""

import numpy as np
import pytest

from duologue.audio import AudioFrame
from duologue.edges import browser, microphone, wav
from duologue.edges.protocol import EdgeStats, MeasuredEdge
from duologue.edges.webrtc import CallEdge

CLIP = AudioFrame(np.zeros(480, np.int16), 24000)


@pytest.mark.parametrize(
    ("edge", "shown"),
    [
        (wav.Edge(CLIP, rate=16000), "<wav.Edge not started clips=1 16000 Hz>"),
        (microphone.Edge(device=object()), "<microphone.Edge closed 48000 Hz>"),
        (browser.Edge(port=8123), "<browser.Edge 127.0.0.1:8123 waiting>"),
        (CallEdge(object()), "<CallEdge new 24000 Hz>"),
    ],
)
def test_repr_shows_kind_state_and_rate(edge, shown):
    assert repr(edge) == shown


@pytest.mark.parametrize(
    "edge", [microphone.Edge(device=object()), browser.Edge(), CallEdge(object())]
)
def test_counters_are_zero_before_the_conversation(edge):
    assert isinstance(edge, MeasuredEdge)
    assert edge.stats() == EdgeStats()
