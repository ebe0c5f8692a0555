import numpy as np
import pytest

from duologue._user_code import FailureReports
from duologue.vad.contained import ContainedVAD

FRAME = np.zeros(160, np.int16)


class FailingVAD:
    """A VAD whose stream returns or raises the next of ``results``."""

    rate = 8000
    frame_samples = 160

    def __init__(self, *results):
        self.results = list(results)

    def stream(self):
        return self

    def push(self, samples):
        result = self.results.pop(0)
        if isinstance(result, BaseException):
            raise result
        return result


def test_errors_are_reported_and_count_as_silence():
    reports = []
    failures = FailureReports(lambda: 0.0, lambda source, message: reports.append(source))
    vad = ContainedVAD(FailingVAD(0.9, ValueError("broken"), "loud", 1), failures)
    assert (vad.rate, vad.frame_samples) == (8000, 160)
    stream = vad.stream()
    assert [stream.push(FRAME) for _ in range(4)] == [0.9, 0.0, 0.0, 1.0]
    # The third call returned no number, and that error has the class of the second.
    assert reports == ["voice activity detection"]


def test_ctrl_c_is_raised():
    stream = ContainedVAD(FailingVAD(KeyboardInterrupt()), FailureReports(lambda: 0.0)).stream()
    with pytest.raises(KeyboardInterrupt):
        stream.push(FRAME)
