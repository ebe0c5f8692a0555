"""The client's sound straight back, as one endless response: to measure what lies between."""

from __future__ import annotations

from dataclasses import replace

from duologue.audio import Samples
from duologue.simulator.openai.answer import Answer
from duologue.simulator.openai.responses import Responses


class Loopback:
    """Begins its response with the first sound, and never ends it."""

    def __init__(self, responses: Responses) -> None:
        self._responses = responses
        self._answer: Answer | None = None

    def push(self, samples: Samples) -> None:
        """Send it back; ``samples`` at the rate of the brain's answers."""
        if self._answer is None:
            wanted = self._responses.wanted(None)
            self._answer = self._responses.begin(replace(wanted, modality="audio", limit=None))
        self._answer.speak(samples)
