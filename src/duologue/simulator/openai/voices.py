"""The sound of a response on a WebSocket: events, as fast as it is made."""

from __future__ import annotations

from duologue.audio import Samples
from duologue.simulator.openai.answer import Answer
from duologue.simulator.openai.dialect import Emit
from duologue.simulator.openai.formats import AudioEncoder
from duologue.simulator.openai.schema import RATE


class EventVoice:
    """Sends sound as ``response.*.delta``; the client plays it when it likes."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._encoders: dict[str, AudioEncoder] = {}

    def speak(self, answer: Answer, samples: Samples) -> None:
        """Send the next sound."""
        encoder = self._encoders.get(answer.id)
        if encoder is None:
            encoder = AudioEncoder(answer.wanted.audio_format, RATE)
            self._encoders[answer.id] = encoder
        self._delta(answer, encoder.encode(samples))

    def pause(self, answer: Answer) -> None:
        """Send what the encoder has held back."""
        encoder = self._encoders.pop(answer.id, None)
        if encoder is not None:
            self._delta(answer, encoder.flush())

    def end(self, answer: Answer) -> None:
        """Nothing is kept here beyond a message."""

    def close(self) -> None:
        """Drop the audio that the encoders hold back."""
        self._encoders.clear()

    def _delta(self, answer: Answer, text: str) -> None:
        if text:
            self._emit(f"response.{answer.dialect.audio}.delta", {**answer.place, "delta": text})
