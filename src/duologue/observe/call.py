"""Read recorded calls back."""

from __future__ import annotations

import contextlib
import json
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from duologue._optional import optional
from duologue.errors import ConfigError
from duologue.json_types import Json, JsonObject
from duologue.observe._call_story import CallStory
from duologue.observe.recorder import AUDIO_FILE, CALL_FILE, EVENTS_FILE, read_events

log = logging.getLogger(__name__)

PEAKS_PER_S = 50
"""Values a second of `RecordedCall.peaks`."""


@dataclass(frozen=True, slots=True)
class RecordedCall:
    """One call that a `Recorder` has written.

    Args:
        path: Its folder.
        facts: What ``call.json`` has.
        events: The events, each with ``t``, in seconds of the audio.
        story: What happened, made of the events.
    """

    path: Path
    facts: JsonObject
    events: Sequence[JsonObject]
    story: CallStory

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.path.name

    @property
    def seconds(self) -> float:
        """Its length; of a call whose end was not written, up to the last event."""
        length: Json = self.facts.get("seconds")
        if isinstance(length, int | float) and math.isfinite(length):
            return float(length)
        times = [t for event in self.events if isinstance(t := event.get("t"), int | float)]
        return float(max(filter(math.isfinite, times), default=0.0))

    def peaks(self) -> tuple[list[int], list[int]]:
        """Return how loud the person and the agent are, `PEAKS_PER_S` values a second of 0 to 100.

        Damaged audio is read up to the damage; both are empty if nothing of it can be read.

        Raises:
            MissingExtraError: soundfile is not installed (the extra ``wav``).
        """
        with optional("wav"):
            import soundfile
        from duologue._numpy import np

        person: list[int] = []
        agent: list[int] = []
        audio = self.path / AUDIO_FILE
        if not audio.is_file() or not audio.stat().st_size:
            return person, agent
        # The errors of soundfile are RuntimeErrors.
        with contextlib.suppress(RuntimeError, OSError), soundfile.SoundFile(audio) as file:
            size = file.samplerate // PEAKS_PER_S
            for block in file.blocks(size * 500, dtype="int16", always_2d=True, fill_value=0):
                loud = np.abs(block.astype(np.int32)).reshape(-1, size, block.shape[1])
                # A square root, because quiet speech should be seen too.
                levels = np.sqrt(loud.max(axis=1) / 32768) * 100
                person += [int(value) for value in levels[:, 0]]
                agent += [int(value) for value in levels[:, -1]]
        return person, agent


def read_call(path: str | Path) -> RecordedCall:
    """Read one recorded call: its folder, or a file in it.

    Raises:
        ConfigError: There is no recorded call, or its events can't be read.
    """
    folder = Path(path)
    if folder.is_file():
        folder = folder.parent
    if not is_call(folder):
        raise ConfigError(
            f"{path} is no recorded call: a folder with {EVENTS_FILE} and {AUDIO_FILE}, "
            "as Agent(recorder=Recorder(...)) makes it"
        )
    facts: JsonObject = {}
    try:
        read: Json = json.loads((folder / CALL_FILE).read_text(encoding="utf-8"))
        facts = read if isinstance(read, dict) else {}
    except (OSError, ValueError):
        pass  # The program died before it was written; the events are still there.
    try:
        events = read_events(folder)
    except OSError as error:
        raise ConfigError(
            f"can't read {folder / EVENTS_FILE}: {(error.strerror or str(error)).lower()}"
        ) from error
    return RecordedCall(folder, facts, events, CallStory.read(events))


def read_calls(folder: str | Path) -> list[RecordedCall]:
    """Read all recorded calls in a folder, newest first; or the one call that it is.

    Calls of a folder whose events can't be read are left out, with a log line.

    Raises:
        ConfigError: There is none.
    """
    where = Path(folder)
    if where.is_file() or is_call(where):
        return [read_call(where)]
    if not where.is_dir():
        raise ConfigError(f"there is no folder {folder}")
    calls: list[RecordedCall] = []
    for path in sorted(where.iterdir(), reverse=True):
        if is_call(path):
            try:
                calls.append(read_call(path))
            except ConfigError as error:
                log.warning("a recorded call is left out: %s", error)
    if not calls:
        raise ConfigError(f"there is no recorded call in {folder}")
    return calls


def is_call(folder: Path) -> bool:
    """Return whether a folder is that of a recorded call."""
    return (folder / EVENTS_FILE).is_file()
