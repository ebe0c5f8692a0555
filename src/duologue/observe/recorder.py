"""Record a conversation as it goes: stereo Ogg Opus, events, history and counters.

The event loop only puts audio and lines aside. Twice a second it hands both to a thread that
encodes and writes them, so that neither a slow disk nor the encoder holds up audio; nothing older
than `_DELAY_S` is in memory unless the disk is slow. What is on the disk is whole at any time: Ogg
pages and lines of JSON can be read up to the last one after a crash.

All times are of one clock: a line's ``t`` is the position in the audio at which the event happened.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING
from uuid import uuid4

from duologue import events
from duologue._optional import optional
from duologue._user_code import FailureReports
from duologue.agent.agent import Agent
from duologue.audio import AudioFrame, Samples
from duologue.clock import Clock, LoopClock, Timer
from duologue.errors import ConfigError
from duologue.events.events import (
    Event,
    InterruptionEvent,
    RealtimeConnectedEvent,
    ToolEndEvent,
    ToolStartEvent,
)
from duologue.events.json import event_without_setup
from duologue.items import item_to_dict
from duologue.json_types import Json, JsonObject
from duologue.observe._stereo_timeline import StereoTimeline
from duologue.observe._wire_file import WIRE_FILE

if TYPE_CHECKING:
    import soundfile

    from duologue.observe.wire_journal import WireJournal

log = logging.getLogger(__name__)

RATE = 24000
"""Samples a second of both sides of a recording."""

AUDIO_FILE = "audio.ogg"
EVENTS_FILE = "events.jsonl"
CALL_FILE = "call.json"

VERSION = 1
"""Version of the files' format."""

_FLUSH_S = 0.5
_DELAY_S = 1.0
"""Seconds after which audio is written; until then agent audio may still be taken back."""

_MAX_WAITING_S = 120.0
"""Seconds of audio that may wait for the disk; what comes then is dropped, and counted."""

_MAX_WAITING_LINES = 50_000
"""Events that may wait for the disk."""

_MAX_WAITING_RECORDS = 20_000
"""Records of the wire journal that may wait for the disk; with more it ends."""

_END_S = 3.0
"""Seconds that writing the rest may take at the end of a conversation."""

_WORDS = frozenset({"text", "heard_text", "arguments", "output", "wanted", "said", "message"})
"""Fields of events with words of either side, which a pause leaves out."""

type Redact = Callable[[JsonObject], JsonObject | None]
"""Gets each event and each item of the history as JSON; returns what may be written, or None."""

type Upload = str | Callable[[Path], object]
"""An address of a folder for fsspec, such as ``s3://calls``, or a function of the call's folder."""


class Recorder:
    """Records one conversation into a folder of its own: ``Agent(recorder=Recorder("calls"))``.

    The folder ``NAME`` has ``audio.ogg`` (left the person, right the agent, about 0.5 MB a minute),
    ``events.jsonl`` (one public event a line, ``t`` in seconds from the first sample), and
    ``call.json`` (model, times, and at the end the history and the counters of `Agent.stats`).

    A full disk ends the recording with an `ErrorEvent`, and the conversation continues.

    Args:
        folder: Where the folders of calls are made; it is created if it is missing.
        name: Name of this call's folder, which is made when the call begins; by default the time
            and a random end.
        announcement: What the agent says first, word for word and without being interrupted.
        redact: Changes or drops each event and each item of the history before it is written. If
            it raises, the entry is dropped.
        wire: Also keep the model's messages, both ways, in ``wire.jsonl``, without secrets, for
            ``duologue replay``. A pause ends this journal.
        wire_audio: Keep the person's audio in it, too; otherwise only its length and hash.
        upload: Copies the call's folder at the end: an address for fsspec, or a function, which
            runs in a thread. The local files stay.

    Raises:
        ConfigError: The folder can't be made, or a call of that name is there already; or
            ``redact`` is given together with ``wire``, whose messages it can't change.
        MissingExtraError: soundfile is not installed (the extra ``wav``).
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        name: str | None = None,
        announcement: str = "",
        redact: Redact | None = None,
        wire: bool = False,
        wire_audio: bool = False,
        upload: Upload | None = None,
    ) -> None:
        with optional("wav"):
            import soundfile  # noqa: F401 - now, because a call should not fail for it
        if isinstance(upload, str):
            with optional("upload"):
                import fsspec  # noqa: F401
        if wire and redact is not None:
            raise ConfigError(
                "wire=True keeps what both sides say as it is, and redact can't change that: leave "
                "out one of the two"
            )
        stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
        self.path = Path(folder) / (name or f"{stamp}-{uuid4().hex[:6]}")
        # The call's own folder is made when it begins: a call that never does leaves none.
        parent = self.path.parent
        try:
            parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _not_recorded(self.path, error) from error
        if not os.access(parent, os.W_OK | os.X_OK):
            raise ConfigError(f"can't record into {self.path}: permission denied")
        if self.path.exists():
            raise _taken(self.path)
        self._announcement = announcement
        self._redact = redact
        self._upload = upload
        self._wire = wire
        self._wire_audio = wire_audio
        self._journal: WireJournal | None = None
        self._agent: Agent | None = None
        self._clock: Clock = LoopClock()
        self._timeline: StereoTimeline | None = None
        self._writer: _Writer | None = None
        self._timer: Timer | None = None
        self._zero_unix = 0.0
        self._zero = 0.0
        self._facts: dict[str, Json] = {}
        self._paused_ids: set[str] = set()
        self._known_ids: set[str] = set()
        self._failures: FailureReports | None = None
        self.uploaded = asyncio.Event()
        """Set at the end of the upload, whether it succeeded or not."""
        self.dropped_s = 0.0
        """Seconds of audio that were dropped because the disk was too slow."""

    @property
    def announcement(self) -> str:
        """What the agent says first."""
        return self._announcement

    @property
    def failure(self) -> str | None:
        """Why the recording ended before the conversation; None if it did not."""
        return self._writer.failure if self._writer is not None else None

    @property
    def paused(self) -> bool:
        """Whether nothing is recorded now."""
        return self._timeline is not None and self._timeline.muted

    def pause(self) -> None:
        """Record silence, and events and history without words, until `resume`.

        For a card number or a doctor's question. Words that were said before and are transcribed
        later are left out too.
        """
        if self._timeline is not None and self._agent is not None and not self._timeline.muted:
            self._timeline.muted = True
            if self._journal is not None:
                self._journal.stop("the recording was paused")
            self._known_ids = {item.id for item in self._agent.conversation.items}

    def resume(self) -> None:
        """Record again."""
        if self._timeline is not None and self._agent is not None and self._timeline.muted:
            now = {item.id for item in self._agent.conversation.items}
            self._paused_ids |= now - self._known_ids
            self._timeline.muted = False

    # CallRecorder: called by the agent

    def begin(self, agent: Agent, clock: Clock, unix_time: float) -> None:
        """Make the call's folder and begin; called by the agent, once.

        Raises:
            ConfigError: It has begun before, or the folder can't be made. The agent reports the
                error, and goes on unrecorded.
        """
        if self._agent is not None:
            raise ConfigError("a Recorder records one conversation: make a new one for the next")
        try:
            self.path.mkdir(parents=True)
        except FileExistsError as error:
            raise _taken(self.path) from error
        except OSError as error:
            raise _not_recorded(self.path, error) from error
        self._agent, self._clock = agent, clock
        now = clock.now()
        self._zero, self._zero_unix = now, unix_time
        self._timeline = StereoTimeline(RATE, now)
        self._failures = FailureReports(clock.now, self._report)
        self._facts = {
            "version": VERSION,
            "started_at": datetime.fromtimestamp(self._zero_unix, UTC).isoformat(),
            "started_at_unix": self._zero_unix,
            "agent": agent.agent_user.name,
            "person": agent.person.id,
            "provider": agent.llm.capabilities.provider,
            "model": agent.llm.capabilities.model,
        }
        loop = asyncio.get_running_loop()

        def failed(reason: str) -> None:
            loop.call_soon_threadsafe(
                self._report,
                "recorder",
                f"can't write {self.path}: {reason}; the conversation goes on unrecorded",
            )

        self._writer = _Writer(self.path, failed)
        self._writer.put(_Lines(CALL_FILE, _pretty(self._facts), replace=True))
        if self._wire:
            from duologue.observe.wire_journal import WireJournal

            self._journal = agent.llm.borders = WireJournal(
                self._writer.put_record,
                clock,
                zero=now,
                unix_time=unix_time,
                keep_audio=self._wire_audio,
            )
        agent.events.tap(self._event)
        self._timer = clock.call_at(now + _FLUSH_S, self._flush)

    def person_audio(self, frame: AudioFrame, now: float) -> None:
        """Record audio of the person that arrived at ``now``."""
        if self._timeline is not None:
            self._timeline.add_person(frame, now)

    def agent_audio(self, frame: AudioFrame, at: float) -> None:
        """Record audio that is played ``at`` that time."""
        if self._timeline is not None:
            self._timeline.add_agent(frame, at)

    def agent_cleared(self, now: float) -> None:
        """Forget agent audio that was to be played after ``now``."""
        if self._timeline is not None:
            self._timeline.clear_agent(now)

    async def end(self) -> None:
        """Write the rest, then upload."""
        agent, writer, timeline = self._agent, self._writer, self._timeline
        if agent is None or writer is None or timeline is None:
            return
        if self._timer is not None:
            self._timer.cancel()
        now = self._clock.now()
        self.resume()
        self._put_audio(timeline.take(now))
        facts = {
            **self._facts,
            "seconds": round(now - self._zero, 3),
            "history": self._history(agent),
            "stats": asdict(agent.stats()),
            "failure": writer.failure,
            "dropped_s": round(self.dropped_s, 3),
            "dropped_events": writer.dropped_lines,
        }
        writer.put(_Lines(CALL_FILE, _pretty(facts), replace=True))
        self._timeline = None
        if not await writer.finish(_END_S):
            log.error("the recording %s was not written within %g s", self.path, _END_S)
        elif self._upload is not None:
            # Not awaited, because it may take long; the program does not end before it.
            upload = self._upload
            done = asyncio.get_running_loop().call_soon_threadsafe
            threading.Thread(
                target=self._copy, args=(upload, done), name="upload of a recording"
            ).start()

    def _history(self, agent: Agent) -> list[Json]:
        found: list[Json] = []
        for item in agent.conversation.items:
            value: JsonObject | None = dict(item_to_dict(item))
            if item.id in self._paused_ids and value is not None:
                value = _without_words(value)
            value = self._redacted(value)
            if value is not None:
                found.append(dict(value))
        return found

    def _copy(self, upload: Upload, done: Callable[..., object]) -> None:
        """Upload the folder; runs in a thread."""
        path = self.path
        try:
            if callable(upload):
                upload(path)
            else:
                import fsspec

                system, where = fsspec.core.url_to_fs(f"{upload.rstrip('/')}/{path.name}")
                system.makedirs(where, exist_ok=True)
                for file in sorted(path.iterdir()):
                    system.put_file(str(file), f"{where}/{file.name}")
        except Exception:
            log.exception("the recording %s was not uploaded; its files are still there", path)
        with contextlib.suppress(RuntimeError):  # the event loop is closed
            done(self.uploaded.set)

    def _event(self, event: Event) -> None:
        if self._writer is None or self._timeline is None:
            return
        value: JsonObject | None = event_without_setup(event)
        if self._timeline.muted and value is not None:
            value = _without_words(value)
            self._note_paused(event)
        elif getattr(event, "turn_id", "") in self._paused_ids and value is not None:
            value = _without_words(value)
        value = self._redacted(value)
        if value is not None:
            line = {"t": round(event.at - self._zero_unix, 4), **value}
            self._writer.put(_Lines(EVENTS_FILE, json.dumps(line, ensure_ascii=False) + "\n"))

    def _note_paused(self, event: Event) -> None:
        """Keep the ids of turns in a pause, whose words may be transcribed after it."""
        if isinstance(event, RealtimeConnectedEvent | InterruptionEvent):
            return
        if isinstance(event, ToolStartEvent | ToolEndEvent):
            self._paused_ids.add(event.call_id)
            return
        turn_id = getattr(event, "turn_id", "")
        if turn_id:
            self._paused_ids.add(turn_id)

    def _redacted(self, value: JsonObject | None) -> JsonObject | None:
        if value is None or self._redact is None:
            return value
        try:
            return self._redact(value)
        except Exception as error:  # noqa: BLE001 - reported
            if self._failures is not None:
                self._failures.report("redact", error)
            return None

    def _flush(self) -> None:
        if self._timeline is None:
            return
        now = self._clock.now()
        self._put_audio(self._timeline.take(now - _DELAY_S))
        self._timer = self._clock.call_at(now + _FLUSH_S, self._flush)

    def _put_audio(self, audio: Samples) -> None:
        if self._writer is not None and len(audio):
            self.dropped_s += self._writer.put(audio)

    def _report(self, source: str, message: str) -> None:
        if self._agent is not None:
            self._agent.events.emit(events.ErrorEvent(source, message))


class _Lines:
    """Text for a file, or what makes it in the thread: appended, or in place of all of it."""

    __slots__ = ("file", "replace", "text")

    def __init__(self, file: str, text: str | Callable[[], str], *, replace: bool = False) -> None:
        self.file = file
        self.text = text
        self.replace = replace


class _Writer:
    """A thread that encodes and writes, in order, until `finish`; the first error ends it."""

    def __init__(self, path: Path, failed: Callable[[str], None]) -> None:
        self._path = path
        self._failed = failed
        self._queue: queue.SimpleQueue[Samples | _Lines | None] = queue.SimpleQueue()
        self._waiting_s = 0.0
        self._waiting_lines = 0
        self._waiting_records = 0
        self._lock = threading.Lock()
        self.failure: str | None = None
        self.dropped_lines = 0
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    def put(self, work: Samples | _Lines) -> float:
        """Queue work; return the seconds of audio that were dropped because too much waits."""
        if isinstance(work, _Lines):
            with self._lock:
                if self._waiting_lines >= _MAX_WAITING_LINES and not work.replace:
                    self.dropped_lines += 1
                    return 0.0
                self._waiting_lines += 1
            self._queue.put(work)
            return 0.0
        seconds = len(work) / RATE
        with self._lock:
            if self._waiting_s + seconds > _MAX_WAITING_S:
                return seconds
            self._waiting_s += seconds
        self._queue.put(work)
        return 0.0

    def put_record(self, make: Callable[[], str]) -> bool:
        """Queue a line of the wire journal; return False if no more than one may follow."""
        with self._lock:
            self._waiting_records += 1
            may_follow = self._waiting_records < _MAX_WAITING_RECORDS
        self._queue.put(_Lines(WIRE_FILE, make))
        return may_follow

    async def finish(self, timeout_s: float) -> bool:
        """Wait until all is written; return False if that took too long."""
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join, timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        import soundfile

        audio: soundfile.SoundFile | None = None
        try:
            audio = soundfile.SoundFile(
                self._path / AUDIO_FILE, "w", RATE, 2, format="OGG", subtype="OPUS"
            )
            with (
                (self._path / EVENTS_FILE).open("a", encoding="utf-8") as lines,
                contextlib.ExitStack() as wire_file,
            ):
                wire: IO[str] | None = None
                while (work := self._queue.get()) is not None:
                    with self._lock:
                        if isinstance(work, _Lines) and work.file == WIRE_FILE:
                            self._waiting_records -= 1
                        elif isinstance(work, _Lines):
                            self._waiting_lines -= 1
                        else:
                            self._waiting_s -= len(work) / RATE
                    if not isinstance(work, _Lines):
                        audio.write(work)
                    elif callable(work.text):
                        if wire is None:
                            path = self._path / WIRE_FILE
                            # Writes a lone surrogate as JSON escapes it.
                            wire = wire_file.enter_context(
                                path.open("a", encoding="utf-8", errors="backslashreplace")
                            )
                        wire.write(work.text())
                    elif work.replace:
                        _replace(self._path / work.file, work.text)
                    else:
                        lines.write(work.text)
                    if self._queue.empty():
                        for file in (lines, wire):
                            if file is not None:
                                file.flush()
        except Exception as error:  # noqa: BLE001 - reported
            self.failure = _reason(error)
            log.warning("the recording %s ends early: %s", self._path, self.failure)
            self._failed(self.failure)
            while self._queue.get() is not None:
                pass
        finally:
            if audio is not None:
                try:
                    audio.close()
                except RuntimeError as error:
                    self.failure = self.failure or _reason(error)


def _replace(path: Path, text: str) -> None:
    """Write a file so that at any time either the old or the new text is there."""
    part = path.with_suffix(".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def _taken(path: Path) -> ConfigError:
    return ConfigError(f"there is a recording in {path} already: choose another name")


def _not_recorded(path: Path, error: OSError) -> ConfigError:
    return ConfigError(f"can't record into {path}: {(error.strerror or 'not possible').lower()}")


def _reason(error: BaseException) -> str:
    strerror: str | None = getattr(error, "strerror", None)
    return (strerror or str(error) or type(error).__name__).lower().rstrip(".")


def _pretty(value: Mapping[str, Json] | Mapping[str, object]) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1) + "\n"


def _without_words(value: JsonObject) -> JsonObject:
    return {key: None if key in _WORDS else item for key, item in value.items()}


def read_events(folder: str | Path) -> Sequence[JsonObject]:
    """Return the events of a recorded call; lines that are damaged or cut short are left out."""
    found: list[JsonObject] = []
    text = (Path(folder) / EVENTS_FILE).read_text(encoding="utf-8", errors="replace")
    for line in text.split("\n"):
        try:
            value: Json = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            found.append(value)
    return found
