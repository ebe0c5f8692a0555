"""A VAD whose errors are reported and count as silence, so that they never end a session."""

from __future__ import annotations

from duologue._user_code import FailureReports
from duologue.audio import Samples
from duologue.vad.vad import VAD, VADStream


class _Stream:
    __slots__ = ("_failures", "_stream")

    def __init__(self, stream: VADStream, failures: FailureReports) -> None:
        self._stream = stream
        self._failures = failures

    def push(self, samples: Samples) -> float:
        """Return the probability of speech; 0 when the VAD raises."""
        try:
            return float(self._stream.push(samples))
        except BaseException as error:  # noqa: BLE001 - reported; Ctrl-C is raised again
            self._failures.report("voice activity detection", error)
            return 0.0


class ContainedVAD:
    """Wraps a user's `VAD` and reports to ``failures`` whatever its streams raise."""

    def __init__(self, vad: VAD, failures: FailureReports) -> None:
        self.rate = vad.rate
        self.frame_samples = vad.frame_samples
        self._vad = vad
        self._failures = failures

    def stream(self) -> VADStream:
        """Return a new stream."""
        return _Stream(self._vad.stream(), self._failures)
