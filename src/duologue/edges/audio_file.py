"""Sound files as one mono frame, at the file's own rate."""

from __future__ import annotations

import io
import wave
from os import PathLike
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from duologue._optional import import_optional
from duologue.audio import AudioFrame, Samples
from duologue.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _typeshed import WriteableBuffer

MAX_SECONDS = 3600
"""Length that `read_audio` takes, in s."""

_MIN_RATE, _MAX_RATE = 4000, 384000
_BLOCK = 1 << 16
_HEAD = 1 << 20
"""Bytes in which the header of a WAV file is searched."""


def read_audio(path: str | PathLike[str]) -> AudioFrame:
    """Read a WAV, FLAC, Ogg, MP3 or AIFF file of any rate and channel count, as mono int16.

    Channels are averaged; the rate stays the file's own, in Hz. A recording with an unfinished
    header is read to its end. Needs the extra ``wav``. Raises `ConfigError` for a file that is
    missing, unreadable, empty, broken, not audio, without samples or over `MAX_SECONDS`, and
    `MissingExtraError`.
    """
    file = Path(path)
    try:
        if file.exists() and not file.is_file():
            raise ConfigError(f"can't read {file}: it is not a file")
        with file.open("rb") as stream:
            if not file.stat().st_size:
                raise ConfigError(f"can't read {file}: it is empty")
            source = _Source(stream, _finished_header(stream))
            frame = _decode(file, source, import_optional("soundfile", "wav"))
            if source.failure is not None:
                raise source.failure
    except OSError as error:
        raise ConfigError(
            f"can't read {file}: {(error.strerror or 'not possible').lower()}"
        ) from error
    if not len(frame):
        raise ConfigError(f"can't use {file}: there is no sound in it")
    return frame


def _decode(file: Path, source: _Source, soundfile: ModuleType) -> AudioFrame:
    blocks: list[Samples] = []
    count = 0
    try:
        with soundfile.SoundFile(source) as audio:
            # Read without seeking: some files, such as FLAC from a pipe, can't seek.
            audio.seekable = lambda: False
            rate = int(audio.samplerate)
            if not _MIN_RATE <= rate <= _MAX_RATE:
                raise ConfigError(
                    f"can't use {file}: its rate is {rate} Hz, not {_MIN_RATE} to {_MAX_RATE}"
                )
            # Floats, because files of floats are not scaled when they are read as integers.
            while len(block := audio.read(_BLOCK, dtype="float32", always_2d=True)):
                # Count frames, because the header of a file from a pipe does not say its length.
                count += len(block)
                if count > MAX_SECONDS * rate:
                    raise ConfigError(f"can't use {file}: it is longer than {MAX_SECONDS} s")
                mono = np.nan_to_num(block.mean(axis=1)) * 32768.0
                blocks.append(np.clip(np.rint(mono), -32768, 32767).astype(np.int16))
    except soundfile.LibsndfileError as error:
        if source.failure is not None:
            raise source.failure from error
        raise ConfigError(
            f"can't read {file}: not a sound file that can be read: convert it to WAV "
            "(FLAC, Ogg, MP3 and AIFF will do too)"
        ) from error
    return AudioFrame(np.concatenate(blocks) if blocks else np.zeros(0, np.int16), rate)


class _Source(io.RawIOBase):
    """A file whose first bytes are replaced by ``head``.

    Errors are kept in ``failure``, because the C library that reads can't pass them on.
    """

    def __init__(self, file: BinaryIO, head: bytes) -> None:
        self._file = file
        self._head = head
        self.failure: OSError | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        at = self._file.tell()
        try:
            data = self._file.read(len(view))
        except OSError as error:
            self.failure = error
            return 0
        head = self._head[at : at + len(data)]
        view[: len(data)] = head + data[len(head) :]
        return len(data)


def _finished_header(stream: BinaryIO) -> bytes:
    """Return bytes to read in place of the first ones of a WAV file with an unfinished header.

    A recorder that was killed, or wrote into a pipe, leaves a size of 0 in it. Then everything
    after it is audio, unless it is a chain of further chunks: such a file has no audio.
    """
    head = stream.read(_HEAD)
    size = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    if head[:4] != b"RIFF" or head[8:12] != b"WAVE":
        return b""
    for name, at, length in _chunks(head, 12, len(head)):
        if name == b"data":
            start = at + 8
            rest = size - start
            if length or not rest or (rest <= _HEAD and _is_chunks(stream, start, size)):
                return b""
            # Recorders that can't finish the header write this.
            return head[: at + 4] + b"\xff" * 4
    return b""


def _is_chunks(stream: BinaryIO, start: int, size: int) -> bool:
    stream.seek(start)
    rest = stream.read(size - start)
    stream.seek(0)
    end = 0
    for name, at, length in _chunks(rest, 0, len(rest)):
        if not (name.isascii() and name.decode().isprintable()):
            return False
        end = at + 8 + length + length % 2
    return len(rest) in (end, end - 1)


def _chunks(data: bytes, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield the name, position and length of each chunk of a RIFF file."""
    while at + 8 <= end:
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        yield data[at : at + 4], at, length
        at += 8 + length + length % 2


def write_audio(path: str | PathLike[str], frame: AudioFrame) -> None:
    """Write a frame as a WAV file of 16 bits. Raises `ConfigError` if it can't be written."""
    try:
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(frame.rate)
            file.writeframes(frame.to_bytes())
    except OSError as error:
        reason = (error.strerror or "not possible").lower()
        raise ConfigError(f"can't write {path}: {reason}") from error


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
