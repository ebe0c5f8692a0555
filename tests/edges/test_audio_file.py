import os
import struct
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from duologue.audio import AudioFrame
from duologue.edges import audio_file
from duologue.edges.audio_file import load_audio, read_audio
from duologue.errors import ConfigError


def tone(rate, seconds=0.5, hz=440.0):
    return 0.5 * np.sin(2 * np.pi * hz * np.arange(round(rate * seconds)) / rate)


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 44100, 48000, 96000])
@pytest.mark.parametrize(
    ("suffix", "subtype"),
    [("wav", "PCM_16"), ("wav", "PCM_24"), ("wav", "FLOAT"), ("wav", "ULAW"), ("flac", "PCM_16")],
)
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_files_of_any_rate_format_and_channel_count_are_read(
    tmp_path, rate, suffix, subtype, channels
):
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


def with_size(path, size, more=b""):
    """Write a WAV file of 16000 samples whose header says ``size`` bytes of audio."""
    soundfile.write(path, tone(16000, 1.0), 16000, subtype="PCM_16")
    whole = bytearray(path.read_bytes())
    assert whole[36:40] == b"data"
    whole[40:44] = struct.pack("<I", size)
    path.write_bytes(whole + more)


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0x7FFFF000, 64000])
def test_a_recording_with_an_unfinished_header_is_read_to_its_end(tmp_path, size):
    path = tmp_path / "in.wav"
    with_size(path, size)
    frame = read_audio(path)
    assert np.abs(frame.samples - tone(16000, 1.0) * 32768).max() <= 2
    with_size(path, size, b"\x01")  # ends in the middle of a sample
    assert len(read_audio(path)) == 16000


def test_a_file_with_only_chunks_after_its_header_has_no_audio(tmp_path):
    path = tmp_path / "in.wav"
    soundfile.write(path, np.zeros(0), 16000)
    note = b"LIST" + struct.pack("<I", 10) + b"INFOsome \0"
    path.write_bytes(path.read_bytes() + note)
    with pytest.raises(ConfigError, match="it contains no audio"):
        read_audio(path)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ALAW"])
@pytest.mark.parametrize("form", ["WAV", "WAVEX", "RF64", "W64"])
def test_every_kind_of_wav_file_is_read(tmp_path, form, subtype):
    path = tmp_path / "in.wav"
    soundfile.write(path, tone(16000), 16000, format=form, subtype=subtype)
    error = read_audio(path).samples - tone(16000) * 32768
    assert np.abs(error).max() <= (700 if subtype in ("ALAW", "PCM_U8") else 2)


@pytest.mark.parametrize("form", ["OGG", "MP3", "AIFF"])
def test_other_formats_are_recognised_by_their_content_not_by_their_name(tmp_path, form):
    path = tmp_path / "in.raw"
    soundfile.write(path, tone(16000), 16000, format=form)
    frame = read_audio(path)
    assert frame.rate == 16000
    assert abs(len(frame) - 8000) < 1300
    assert np.abs(frame.samples).max() > 12000


def test_flac_from_a_pipe_without_a_length_is_read(tmp_path):
    path = tmp_path / "in.flac"
    soundfile.write(path, tone(16000), 16000)
    whole = bytearray(path.read_bytes())
    whole[21] &= 0xF0  # 36 bits of STREAMINFO count the samples; 0 means unknown
    whole[22:26] = bytes(4)
    path.write_bytes(whole)
    assert len(read_audio(path)) == 8000


def test_a_file_that_is_too_long_is_refused_without_reading_all_of_it(tmp_path, monkeypatch):
    monkeypatch.setattr("duologue.edges.audio_file.MAX_SECONDS", 0.4)
    path = tmp_path / "in.wav"
    soundfile.write(path, tone(16000), 16000)
    with pytest.raises(ConfigError, match=r"longer than 0\.4 s"):
        read_audio(path)


def test_a_read_error_of_the_disk_is_reported_as_such(tmp_path, monkeypatch):
    path = tmp_path / "in.wav"
    soundfile.write(path, tone(16000), 16000)

    class Failing:
        def __init__(self, file):
            self.file = file

        def read(self, count):
            raise OSError(5, os.strerror(5))

        def __getattr__(self, name):
            return getattr(self.file, name)

    source = audio_file._Source
    monkeypatch.setattr(audio_file, "_Source", lambda file, head: source(Failing(file), head))
    with pytest.raises(ConfigError, match=r"can't read .*: input/output error"):
        read_audio(path)


def broken(path):
    soundfile.write(path, tone(16000), 16000)
    path.write_bytes(path.read_bytes()[:20])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "no such file"),
        (lambda path: path.mkdir(), "not a file"),
        (lambda path: path.write_bytes(b""), "it is empty"),
        (lambda path: path.write_text("hello " * 100), "it is not a readable audio file"),
        (broken, "it is not a readable audio file"),
        (lambda path: soundfile.write(path, np.zeros(0), 16000), "it contains no audio"),
        (lambda path: soundfile.write(path, tone(16000), 100), "its rate is 100 Hz"),
    ],
)
def test_a_file_that_is_not_audio_causes_one_clear_line(tmp_path, make, message):
    path = tmp_path / "in.wav"
    make(path)
    with pytest.raises(ConfigError, match=message) as caught:
        read_audio(path)
    assert "\n" not in str(caught.value)
    assert "in.wav" in str(caught.value)


def test_audio_is_loaded_at_the_given_rate(tmp_path):
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
