"""Measure where the time of a turn goes, from the end of the person's speech."""

from __future__ import annotations

from dataclasses import dataclass

from duologue.events.events import TurnMetricsEvent


@dataclass(slots=True)
class _TurnTimes:
    speech_end: float | None = None
    endpoint: float | None = None
    transcript: float | None = None
    first_text: float | None = None
    first_audio: float | None = None


class TurnMetrics:
    """Collects the times of the turn that is being replied to; all times in clock seconds.

    Attributes:
        awaits_audio: Whether the time of the reply's first audio is not known yet.
    """

    def __init__(self) -> None:
        self._times = _TurnTimes()
        self._awaiting_reply = False
        self.awaits_audio = True

    def transcript_received(self, now: float) -> None:
        """Record the time of the final transcript, which may come before the turn's end."""
        self._times.transcript = now

    def turn_ended(self, now: float, speech_end: float | None) -> None:
        """Record the end of the person's turn, and when their speech ended, if known."""
        transcript = self._times.transcript
        if transcript is not None and speech_end is not None and transcript < speech_end:
            transcript = None  # It belongs to an earlier turn that got no reply.
        self._times = _TurnTimes(speech_end, now, transcript)
        self._awaiting_reply = self.awaits_audio = True

    def text_received(self, now: float) -> None:
        """Record the time of the reply's first text."""
        if self._times.first_text is None:
            self._times.first_text = now

    def audio_received(self, now: float) -> None:
        """Record the time of the reply's first audio."""
        if self.awaits_audio:
            self._times.first_audio = now
            self.awaits_audio = False

    def reply_played(self, speech_id: str, now: float | None) -> TurnMetricsEvent | None:
        """Return the event of the turn when its reply starts to play; None if no turn is open.

        ``now`` is None for a reply that is shown as text.
        """
        if not self._awaiting_reply:
            return None
        turn, self._times, self._awaiting_reply = self._times, _TurnTimes(), False
        self.awaits_audio = True

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

    def reply_interrupted(self) -> None:
        """Forget the turn, because its reply was cut before it was played."""
        self._times = _TurnTimes()
        self._awaiting_reply = False
        self.awaits_audio = True
