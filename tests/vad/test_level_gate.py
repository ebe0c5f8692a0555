import numpy as np

from duologue.vad.level_gate import LevelGate


def audio(level):
    return (level * np.sin(np.arange(256) * 0.3)).astype(np.int16)


def test_silence_after_speech_is_quiet():
    gate = LevelGate()
    assert not gate.is_quiet(audio(8000), speech=True)
    assert gate.is_quiet(audio(50), speech=True)
    assert not gate.is_quiet(audio(800), speech=True)


def test_nothing_is_quiet_before_speech():
    gate = LevelGate()
    assert not gate.is_quiet(audio(0), speech=False)
    assert not gate.is_quiet(audio(20), speech=False)


def test_loudness_is_learned_from_speech_alone():
    gate = LevelGate()
    gate.is_quiet(audio(20000), speech=False)
    assert not gate.is_quiet(audio(100), speech=True)


def test_gate_never_shuts_in_noise():
    gate = LevelGate()
    dice = np.random.default_rng(1)
    for _ in range(50):
        noise = dice.normal(0, 600, 256).astype(np.int16)
        assert not gate.is_quiet(audio(6000) + noise, speech=True)
        assert not gate.is_quiet(noise, speech=True)


def test_loudness_of_a_shout_decays():
    gate = LevelGate()
    gate.is_quiet(audio(30000), speech=True)
    assert gate.is_quiet(audio(300), speech=True)
    for _ in range(2000):
        gate.is_quiet(audio(1000), speech=True)
    assert not gate.is_quiet(audio(300), speech=True)
