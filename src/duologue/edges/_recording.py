"""Record both sides of a conversation as a stereo file: left the person, right the agent."""

from __future__ import annotations

import logging
import os
import stat
import struct
import tempfile
from os import PathLike
from pathlib import Path

import numpy as np

from duologue._audio_track import AudioTrack
from duologue.audio import Samples
from duologue.errors import ConfigError

logger = logging.getLogger(__name__)

_HEADER = struct.Struct("<4sI8sIHHIIHH4sI")
_MAX_BYTES = 0xFFFFFFFF - _HEADER.size
"""Most bytes of audio in one WAV file: 12 hours at 24 kHz."""


def check_writable(path: str | PathLike[str]) -> None:
    """Raise `ConfigError` if no file can be created at ``path``."""
    target = Path(path)
    if target.is_dir():
        raise ConfigError(f"can't write {target}: it is a folder")
    if target.exists() and not target.is_file():
        raise ConfigError(f"can't write {target}: it is a device, not a file")
    if not target.parent.is_dir():
        raise ConfigError(f"can't write {target}: there is no folder {target.parent}")
    if not os.access(target.parent, os.W_OK):
        raise ConfigError(f"can't write {target}: {target.parent} is not writable")


class RecordingTimeline:
    """Writes a 16-bit stereo WAV file during the conversation, in bounded memory.

    Positions count samples at ``rate`` Hz since the recording began. `close` moves the complete
    file to ``path``. If the disk is full, the recording ends early and the conversation continues:
    one warning is logged, `failure` holds the reason, and the audio written so far is kept.

    Args:
        path: Where the file appears when the recording is closed.
        rate: Sample rate of both sides in Hz.

    Raises:
        ConfigError: The file can't be created.
    """

    def __init__(self, path: str | PathLike[str], rate: int) -> None:
        self.path = Path(path)
        self.rate = rate
        self.failure: str | None = None
        """Why the recording ended before the conversation; None if it did not."""
        self._person_track = AudioTrack()
        self._agent_track = AudioTrack()
        self._written = 0
        self._bytes = 0
        check_writable(path)
        # Replace the file that a symbolic link points to, not the link.
        self._target = self.path.resolve()
        try:
            self._file, self._temporary_path = tempfile.mkstemp(
                dir=self._target.parent, prefix=f".{self._target.name}.", suffix=".part"
            )
        except OSError as error:
            raise self._error(error) from error
        try:
            os.fchmod(self._file, _mode(self._target))
            # If the file is never finished, readers take a size of 0 to mean "up to the end of the
            # file".
            self._write(self._header(None))
        except OSError as error:
            os.close(self._file)
            self._remove()
            raise self._error(error) from error
        self._open = True

    @property
    def person_end(self) -> int:
        """Position after the person's last sample."""
        return self._person_track.end

    @property
    def agent_end(self) -> int:
        """Position after the agent's last sample."""
        return self._agent_track.end

    @property
    def seconds(self) -> float:
        """Seconds of audio written so far."""
        return self._bytes / 4 / self.rate

    def add_person(self, samples: Samples) -> None:
        """Append audio to the person's side."""
        self._person_track.put(self._person_track.end, samples)

    def add_agent(self, at: int, samples: Samples) -> None:
        """Add audio to the agent's side at position ``at``, or after its last sample if that is
        later.
        """
        self._agent_track.put(max(at, self._written), samples)

    def clear_agent(self, at: int) -> None:
        """Delete the agent's audio from position ``at`` on, because it was not played."""
        self._agent_track.truncate(max(at, self._written))

    def commit(self, upto: int) -> None:
        """Write everything before position ``upto`` to the file; it can't be changed afterwards."""
        if self._open and upto > self._written:
            self._append(upto)

    def close(self) -> None:
        """Write the remaining audio and move the file into place; do nothing on a second call.

        Raises:
            ConfigError: The file can't be moved into place.
        """
        if not self._open:
            return
        self._open = False
        try:
            try:
                self._append(max(self._person_track.end, self._agent_track.end, self._written))
                os.pwrite(self._file, self._header(self._bytes), 0)
            finally:
                os.close(self._file)
            os.replace(self._temporary_path, self._target)
        except OSError as error:
            self._remove()
            raise self._error(error) from error

    def discard(self) -> None:
        """Delete the unfinished file."""
        if self._open:
            self._open = False
            os.close(self._file)
            self._remove()

    def _remove(self) -> None:
        Path(self._temporary_path).unlink(missing_ok=True)

    def _append(self, upto: int) -> None:
        start = self._written
        self._written = upto
        both = np.stack(
            (self._person_track.take(start, upto), self._agent_track.take(start, upto)), axis=1
        )
        if self.failure is not None:
            return
        data = both.astype("<i2", copy=False).tobytes()
        try:
            if self._bytes + len(data) > _MAX_BYTES:
                raise OSError(0, "a WAV file holds no more than 4 GB")
            self._write(data)
        except OSError as error:
            self.failure = (error.strerror or "not possible").lower()
            # Remove a partial sample from the end.
            os.ftruncate(self._file, _HEADER.size + self._bytes)
            logger.warning(
                "can't write %s: %s; the recording ends after %.1f s, the conversation continues",
                self.path,
                self.failure,
                self.seconds,
            )
            return
        self._bytes += len(data)

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._file, rest) :]

    def _header(self, size: int | None) -> bytes:
        """Return a WAV header for ``size`` bytes of audio; None if the size is not known yet."""
        rate = self.rate
        riff = 0 if size is None else _HEADER.size - 8 + size
        return _HEADER.pack(
            *(b"RIFF", riff, b"WAVEfmt ", 16, 1, 2, rate, 4 * rate, 4, 16, b"data", size or 0)
        )

    def _error(self, error: OSError) -> ConfigError:
        reason = (error.strerror or "not possible").lower()
        return ConfigError(f"can't write {self.path}: {reason}")


def _mode(target: Path) -> int:
    """Return the permissions of the file that will be replaced, or those of a new file."""
    return stat.S_IMODE(target.stat().st_mode) if target.exists() else 0o644
