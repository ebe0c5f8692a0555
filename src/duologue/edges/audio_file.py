"""Read and write audio files as one mono frame."""

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
"""Longest file that `read_audio` reads, in seconds."""

_MIN_RATE, _MAX_RATE = 4000, 384000
_BLOCK = 1 << 16
_HEAD = 1 << 20
"""The header of a WAV file is searched in its first 1 MiB."""


def read_audio(path: str | PathLike[str]) -> AudioFrame:
    """Read a WAV, FLAC, Ogg, MP3 or AIFF file as mono int16 at the file's own rate.

    Channels are averaged. A recording with an unfinished header is read to its end. Needs the extra
    ``wav``.

    Args:
        path: A file of any sample rate and channel count.

    Returns:
        The whole file as one frame.

    Raises:
        ConfigError: The file is missing, unreadable, empty, broken, not audio, without samples, or
            longer than `MAX_SECONDS`.
        MissingExtraError: The extra ``wav`` is not installed.
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
        raise ConfigError(f"can't use {file}: it contains no audio")
    return frame


def _decode(file: Path, source: _Source, soundfile: ModuleType) -> AudioFrame:
    blocks: list[Samples] = []
    count = 0
    try:
        with soundfile.SoundFile(source) as audio:
            # Read without seeking, because some files, such as FLAC written to a pipe, can't seek.
            audio.seekable = lambda: False
            rate = int(audio.samplerate)
            if not _MIN_RATE <= rate <= _MAX_RATE:
                raise ConfigError(
                    f"can't use {file}: its rate is {rate} Hz, not {_MIN_RATE} to {_MAX_RATE}"
                )
            # Read floats, because files of floats are not scaled when they are read as integers.
            while len(block := audio.read(_BLOCK, dtype="float32", always_2d=True)):
                # Count frames, because the header of a file written to a pipe does not contain its
                # length.
                count += len(block)
                if count > MAX_SECONDS * rate:
                    raise ConfigError(f"can't use {file}: it is longer than {MAX_SECONDS} s")
                mono = np.nan_to_num(block.mean(axis=1)) * 32768.0
                blocks.append(np.clip(np.rint(mono), -32768, 32767).astype(np.int16))
    except soundfile.LibsndfileError as error:
        if source.failure is not None:
            raise source.failure from error
        raise ConfigError(
            f"can't read {file}: it is not a readable audio file: convert it to WAV "
            "(or FLAC, Ogg, MP3 or AIFF)"
        ) from error
    return AudioFrame(np.concatenate(blocks) if blocks else np.zeros(0, np.int16), rate)


class _Source(io.RawIOBase):
    """A file whose first bytes are replaced by ``head``.

    Read errors are kept in ``failure``, because the C library that calls `readinto` can't raise
    them.
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
    """Return bytes that replace the start of a WAV file whose header was never finished.

    A recorder that was killed, or that wrote to a pipe, leaves a data size of 0. In that case
    everything after the header is audio, unless it is a chain of further chunks, which means that
    the file has no audio. Return no bytes for all other files.
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
            # This is the size that recorders write when they can't finish the header.
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
    """Write a frame as a 16-bit WAV file.

    Args:
        path: The file to create or replace.
        frame: Mono audio; its rate becomes the file's.

    Raises:
        ConfigError: The file can't be written.
    """
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
    """Return a frame unchanged, or read it from a file, and resample it if a rate is given.

    Args:
        source: A frame, or the path of a file for `read_audio`.
        rate: Wanted rate in Hz; None keeps the source's rate.

    Raises:
        ConfigError: The frame has no samples, or `read_audio` can't read the file.
        MissingExtraError: The extra ``wav`` is not installed.
    """
    frame = source if isinstance(source, AudioFrame) else read_audio(source)
    if not len(frame):
        raise ConfigError("can't use an AudioFrame without samples")
    if rate is None or rate == frame.rate:
        return frame
    import soxr

    return AudioFrame(soxr.resample(frame.samples, frame.rate, rate), rate)
