"""The client's sound straight back, as one endless response: to measure what lies between."""

from __future__ import annotations

from duologue.audio import Samples
from duologue.simulator.fields import inside
from duologue.simulator.openai.answer import Answer, Wanted
from duologue.simulator.openai.configuration import Configuration
from duologue.simulator.openai.responses import Responses


class Loopback:
    """Begins its response with the first sound, and never ends it."""

    def __init__(
        self, responses: Responses, configuration: Configuration, conversation_id: str
    ) -> None:
        self._responses = responses
        self._configuration = configuration
        self._conversation_id = conversation_id
        self._answer: Answer | None = None

    def push(self, samples: Samples) -> None:
        """Send it back, at 24 kHz."""
        if self._answer is None:
            output = inside(self._configuration.value, "audio", "output")
            self._answer = self._responses.begin(
                Wanted(
                    conversation_id=self._conversation_id,
                    modality="audio",
                    audio_format=inside(output, "format"),
                    voice=inside(output, "voice"),
                    limit=None,
                )
            )
        self._answer.speak(samples)
