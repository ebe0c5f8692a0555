import sys

import numpy as np
import pytest

from duologue.errors import MissingExtraError
from duologue.vad.earshot import EarshotVAD


def test_silence_is_not_speech():
    pytest.importorskip("earshot", reason="no extra with earshot is installed")
    vad = EarshotVAD()
    assert (vad.rate, vad.frame_samples) == (16000, 256)
    stream = vad.stream()
    assert stream is not vad.stream()
    assert all(0.0 <= stream.push(np.zeros(256, np.int16)) < 0.5 for _ in range(10))


def test_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "earshot", None)
    with pytest.raises(MissingExtraError, match="qwen"):
        EarshotVAD("qwen")
