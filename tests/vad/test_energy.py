import numpy as np
import pytest

from duologue.errors import ConfigError
from duologue.vad.energy import EnergyVAD


def test_loud_audio_is_voice():
    vad = EnergyVAD(rate=8000, level=300)
    assert vad.frame_samples == 128
    stream = vad.stream()
    assert stream.push(np.full(128, 400, np.int16)) == 1.0
    assert stream.push(np.full(128, -200, np.int16)) == 0.0
    with pytest.raises(ConfigError, match="level"):
        EnergyVAD(level=0)
