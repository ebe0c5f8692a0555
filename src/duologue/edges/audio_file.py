"""Sound files as one mono frame, at the file's own rate."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import numpy as np

from duologue.audio import AudioFrame, Samples
from duologue.extras import require
from duologue.realtime.errors import ConfigError

MAX_SECONDS = 3600
"""Length that `read_audio` takes, in s."""

_MIN_RATE, _MAX_RATE = 4000, 384000
_BLOCK = 1 << 16


def read_audio(path: str | PathLike[str]) -> AudioFrame:
    """Read a WAV, FLAC, Ogg or AIFF file of any rate and channel count, as mono int16.

    Channels are averaged; the rate stays the file's own, in Hz. Needs the extra ``wav``. Raises
    `ConfigError` for a file that is missing, empty, broken, not audio, without sound or over
    `MAX_SECONDS`, and `MissingExtraError`.
    """
    file = Path(path)
    try:
        size = file.stat().st_size
    except OSError as error:
        raise ConfigError(
            f"can't read {file}: {(error.strerror or 'no such file').lower()}"
        ) from error
    if not file.is_file():
        raise ConfigError(f"can't read {file}: it is not a file")
    if size == 0:
        raise ConfigError(f"can't read {file}: it is empty")

    soundfile = require("soundfile", "wav")
    blocks: list[Samples] = []
    try:
        with soundfile.SoundFile(file) as sound:
            rate, frames = int(sound.samplerate), int(sound.frames)
            if not _MIN_RATE <= rate <= _MAX_RATE:
                raise ConfigError(
                    f"can't use {file}: its rate is {rate} Hz, not {_MIN_RATE} to {_MAX_RATE}"
                )
            if frames > MAX_SECONDS * rate:
                raise ConfigError(f"can't use {file}: it is longer than {MAX_SECONDS} s")
            # Floats, because files of floats are not scaled when they are read as integers.
            while len(block := sound.read(_BLOCK, dtype="float32", always_2d=True)):
                mono = np.nan_to_num(block.mean(axis=1)) * 32768.0
                blocks.append(np.clip(np.rint(mono), -32768, 32767).astype(np.int16))
    except soundfile.LibsndfileError as error:
        raise ConfigError(
            f"can't read {file}: not a sound file that can be read (WAV or FLAC, for example)"
        ) from error
    samples = np.concatenate(blocks) if blocks else np.zeros(0, np.int16)
    if not len(samples):
        raise ConfigError(f"can't use {file}: there is no sound in it")
    return AudioFrame(samples, rate)


def load_audio(source: str | PathLike[str] | AudioFrame, rate: int | None = None) -> AudioFrame:
    """Take a frame as it is or read it from a file; at ``rate`` Hz when one is given.

    Raises like `read_audio`, and `ConfigError` for a frame without samples.
    """
    frame = source if isinstance(source, AudioFrame) else read_audio(source)
    if not len(frame):
        raise ConfigError("can't use an AudioFrame without samples")
    if rate is None or rate == frame.rate:
        return frame
    import soxr

    return AudioFrame(soxr.resample(frame.samples, frame.rate, rate), rate)
