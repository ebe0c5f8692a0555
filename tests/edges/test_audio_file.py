import subprocess
import sys

import numpy as np
import pytest
import soundfile

from duologue.audio import AudioFrame
from duologue.edges.audio_file import load_audio, read_audio
from duologue.realtime.errors import ConfigError


def tone(rate, seconds=0.5, hz=440.0):
    return 0.5 * np.sin(2 * np.pi * hz * np.arange(round(rate * seconds)) / rate)


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 44100, 48000, 96000])
@pytest.mark.parametrize(
    ("suffix", "subtype"),
    [("wav", "PCM_16"), ("wav", "PCM_24"), ("wav", "FLOAT"), ("wav", "ULAW"), ("flac", "PCM_16")],
)
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_any_rate_format_and_channel_count(tmp_path, rate, suffix, subtype, channels):
    path = tmp_path / f"in.{suffix}"
    wave = tone(rate)
    soundfile.write(path, np.stack([wave] * channels, axis=1), rate, subtype=subtype)
    frame = read_audio(path)
    assert frame.rate == rate
    assert len(frame) == len(wave)
    error = frame.samples - wave * 32768
    assert np.abs(error).max() <= (700 if subtype == "ULAW" else 2)


def test_channels_are_averaged_and_loud_floats_clip(tmp_path):
    path = tmp_path / "in.wav"
    soundfile.write(path, np.array([[0.5, -0.5], [2.0, 2.0], [-3, -1]]), 16000, subtype="FLOAT")
    assert read_audio(path).samples.tolist() == [0, 32767, -32768]


def test_sixteen_bit_mono_is_read_exactly(tmp_path):
    path = tmp_path / "in.flac"
    samples = np.random.default_rng(1).integers(-32768, 32768, 100_000).astype(np.int16)
    soundfile.write(path, samples, 24000)
    assert np.array_equal(read_audio(str(path)).samples, samples)


def broken(path):
    soundfile.write(path, tone(16000), 16000)
    path.write_bytes(path.read_bytes()[:20])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "no such file"),
        (lambda path: path.mkdir(), "not a file"),
        (lambda path: path.write_bytes(b""), "it is empty"),
        (lambda path: path.write_text("hello " * 100), "not a sound file"),
        (broken, "not a sound file"),
        (lambda path: soundfile.write(path, np.zeros(0), 16000), "no sound in it"),
        (lambda path: soundfile.write(path, tone(16000), 100), "its rate is 100 Hz"),
    ],
)
def test_what_is_no_sound_is_one_clear_line(tmp_path, make, message):
    path = tmp_path / "in.wav"
    make(path)
    with pytest.raises(ConfigError, match=message) as caught:
        read_audio(path)
    assert "\n" not in str(caught.value)
    assert "in.wav" in str(caught.value)


def test_load_at_a_rate(tmp_path):
    path = tmp_path / "in.wav"
    soundfile.write(path, tone(48000), 48000)
    frame = load_audio(path, 16000)
    assert (frame.rate, len(frame)) == (16000, 8000)
    assert load_audio(frame, 16000) is frame
    with pytest.raises(ConfigError, match="without samples"):
        load_audio(AudioFrame(np.zeros(0, np.int16), 16000))


def test_soundfile_is_imported_only_when_a_file_is_read():
    code = "import sys, duologue.edges.wav; assert 'soundfile' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
