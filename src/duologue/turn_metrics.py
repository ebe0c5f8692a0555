"""Where the time of a turn went, from the end of the person's speech."""

from __future__ import annotations

from dataclasses import dataclass

from duologue.events import TurnMetricsEvent


@dataclass(slots=True)
class _Turn:
    speech_end: float | None = None
    endpoint: float | None = None
    transcript: float | None = None
    first_text: float | None = None
    first_audio: float | None = None


class TurnMetrics:
    """Collects the steps of the turn that is being answered; all times in clock seconds."""

    def __init__(self) -> None:
        self._turn = _Turn()
        self._open = False

    def transcript(self, now: float) -> None:
        """The final transcript is there (it may come before or after the turn's end)."""
        self._turn.transcript = now

    def turn_ended(self, now: float, speech_end: float | None) -> None:
        """The person's turn has ended; ``speech_end`` is when their sound did, if known."""
        transcript = self._turn.transcript
        if transcript is not None and speech_end is not None and transcript < speech_end:
            transcript = None  # Of a turn before, which nobody answered.
        self._turn = _Turn(speech_end, now, transcript)
        self._open = True

    def text(self, now: float) -> None:
        """Words of the reply have come."""
        if self._turn.first_text is None:
            self._turn.first_text = now

    def audio(self, now: float) -> None:
        """Sound of the reply has come."""
        if self._turn.first_audio is None:
            self._turn.first_audio = now

    def played(self, speech_id: str, now: float) -> TurnMetricsEvent | None:
        """The reply's first sound is on its way; the event, if this answers a person's turn."""
        if not self._open:
            return None
        turn, self._turn, self._open = self._turn, _Turn(), False

        def since(time: float | None) -> float | None:
            if time is None or turn.speech_end is None:
                return None
            return round((time - turn.speech_end) * 1000, 1)

        return TurnMetricsEvent(
            speech_id,
            endpoint_ms=since(turn.endpoint),
            transcript_ms=since(turn.transcript),
            first_text_ms=since(turn.first_text),
            first_audio_ms=since(turn.first_audio),
            first_played_ms=since(now),
        )

    def interrupted(self) -> None:
        """The turn's reply was cut before it was played."""
        self._turn = _Turn()
        self._open = False
