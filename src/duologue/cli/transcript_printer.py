"""Print a conversation while it runs, keep its events, and write them as JSON lines."""

from __future__ import annotations

import json
import shutil
import statistics
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from os import PathLike
from typing import IO, TYPE_CHECKING

import click

from duologue.errors import ConfigError
from duologue.events.events import (
    AgentTranscriptEvent,
    ErrorEvent,
    Event,
    InterruptionEvent,
    RealtimeConnectedEvent,
    RealtimeDisconnectedEvent,
    RealtimeReconnectedEvent,
    RealtimeReconnectingEvent,
    ToolEndEvent,
    TurnMetricsEvent,
    UserTranscriptEvent,
)
from duologue.events.json import event_to_json

if TYPE_CHECKING:
    from duologue.events.bus import EventBus

_NAMES = {"person": "you", "agent": "agent", "note": ""}
_COLOURS = {"person": "cyan", "agent": "green", "note": "yellow"}


class TranscriptPrinter:
    """Follows one agent's events; times are in seconds since the session began.

    If the file or the terminal can no longer be written, stderr gets one line, and the conversation
    continues without it.

    Args:
        now: Returns the current time in seconds.
        echo: Print each finished line.
        live: Show the person's words while they are spoken; for terminals only.
        measured: Whether the times of `TurnMetricsEvent` mean anything; they become None if not, as
            in virtual time.
    """

    def __init__(
        self,
        now: Callable[[], float],
        *,
        echo: bool = True,
        live: bool = False,
        measured: bool = True,
    ) -> None:
        self._now = now
        self._measured = measured
        self._started_at: float | None = None
        self._echo = echo
        self._live = live and echo
        self._partial_chars = 0
        self._path: str | PathLike[str] | None = None
        self._file: IO[str] | None = None
        self.failure: str | None = None
        """Why the file ends before the conversation; None if it does not."""
        self._metrics: dict[str, TurnMetricsEvent] = {}
        self._interrupted: set[str] = set()
        self._replies = 0
        self.events: list[tuple[float, Event]] = []
        self.disconnected_event: RealtimeDisconnectedEvent | None = None
        self.warning: str | None = None
        """A warning about the latencies, if there is one."""

    def write_to(self, path: str | PathLike[str]) -> None:
        """Also write each event to a JSON lines file.

        Raises:
            ConfigError: The file can't be written.
        """
        try:
            self._file = open(path, "w", encoding="utf-8", buffering=1)  # noqa: SIM115
        except OSError as error:
            reason = (error.strerror or "not possible").lower()
            raise ConfigError(f"can't write {path}: {reason}") from error
        self._path = path

    def subscribe(self, bus: EventBus) -> None:
        """Follow the events of an agent."""
        bus.tap(self.handle)

    def close(self) -> None:
        """Finish the line on the terminal, and the file."""
        with suppress(OSError):
            self._erase_partial()
        if self._file is not None:
            file, self._file = self._file, None
            try:
                file.close()
            except OSError as error:
                self._stop_writing(error)

    @property
    def latencies(self) -> list[float]:
        """Milliseconds from the end of the person's speech to the first audio of each reply."""
        return [
            event.first_played_ms
            for _, event in self.events
            if isinstance(event, TurnMetricsEvent) and event.first_played_ms is not None
        ]

    def summary(self) -> str:
        """Return the number of replies and, if it was measured, their median latency."""
        latencies = self.latencies
        count = len(latencies) if self._measured else self._replies
        if not count:
            return "The agent did not reply."
        replies = "1 reply" if count == 1 else f"{count} replies"
        if not self._measured:
            return f"{replies}; no latencies, because virtual time stopped while it computed."
        median = statistics.median(latencies)
        summary = f"{replies}; first sound {median:.0f} ms after the end of speech (median)."
        return summary if self.warning is None else f"{summary}\n{self.warning}"

    def handle(self, event: Event) -> None:
        """Print and keep one event."""
        now = self._now()
        if self._started_at is None and isinstance(event, RealtimeConnectedEvent):
            self._started_at = now
        at = 0.0 if self._started_at is None else now - self._started_at
        if isinstance(event, TurnMetricsEvent) and not self._measured:
            self._replies += event.first_played_ms is not None
            event = replace(
                event,
                endpoint_ms=None,
                transcript_ms=None,
                first_text_ms=None,
                first_audio_ms=None,
                first_played_ms=None,
            )
        self.events.append((at, event))
        if self._file is not None:
            line = {"t": round(at, 4), **event_to_json(event)}
            try:
                self._file.write(json.dumps(line, ensure_ascii=False) + "\n")
            except OSError as error:
                self._stop_writing(error)
        if isinstance(event, RealtimeDisconnectedEvent):
            self.disconnected_event = event
        try:
            self._print_event(at, event)
        except OSError:  # a closed terminal, or a pipe without a reader
            self._echo = self._live = False

    def _stop_writing(self, error: OSError) -> None:
        """Stop writing the file, and print one line about it."""
        file, self._file = self._file, None
        with suppress(OSError):
            if file is not None:
                file.close()
        self.failure = (error.strerror or "not possible").lower()
        with suppress(OSError):
            click.echo(
                f"duologue: can't write {self._path}: {self.failure}; the conversation continues "
                "without it",
                err=True,
            )

    def _print_event(self, at: float, event: Event) -> None:
        match event:
            case UserTranscriptEvent(text=text, final=False):
                self._print_partial(at, text)
            case UserTranscriptEvent(text=text) if text:
                self._print_line(at, "person", text)
            case TurnMetricsEvent():
                self._metrics[event.speech_id] = event
            case InterruptionEvent(speech_id=str(speech_id)):
                self._interrupted.add(speech_id)
            case AgentTranscriptEvent(text=text, final=True, speech_id=speech_id):
                cut = speech_id in self._interrupted
                if text or cut:
                    self._print_line(
                        at, "agent", f"{text} -- (interrupted)".strip() if cut else text
                    )
                    self._print_latencies(speech_id)
            case ToolEndEvent():
                self._print_line(at, "note", f"tool {event.name}: {event.status}")
            case ErrorEvent():
                self._print_line(at, "note", f"{event.source}: {event.message}")
            case RealtimeReconnectingEvent():
                self._print_line(at, "note", f"reconnecting: {event.reason}")
            case RealtimeReconnectedEvent():
                self._print_line(at, "note", f"connected again ({event.outcome})")
            case RealtimeDisconnectedEvent(clean=False):
                self._print_line(at, "note", f"the session ended: {event.reason}")

    def _print_latencies(self, speech_id: str) -> None:
        metrics = self._metrics.get(speech_id)
        if metrics is None or metrics.first_played_ms is None:
            return
        steps = [
            f"{name} {value:.0f}"
            for name, value in (
                ("turn over", metrics.endpoint_ms),
                ("first word", metrics.first_text_ms),
                ("first sound", metrics.first_played_ms),
            )
            if value is not None
        ]
        self._print_line(None, "note", f"{' · '.join(steps)} ms after the end of speech", dim=True)

    def _print_line(self, at: float | None, who: str, text: str, *, dim: bool = False) -> None:
        if not self._echo:
            return
        self._erase_partial()
        time = " " * 9 if at is None else f"{at:7.2f} s"
        name = click.style(f"{_NAMES[who]:>6}", fg=_COLOURS[who], bold=True)
        click.echo(f"{click.style(time, dim=True)} {name}  {click.style(text, dim=dim)}")

    def _print_partial(self, at: float, text: str) -> None:
        if not self._live:
            return
        self._erase_partial()
        width = shutil.get_terminal_size()[0]
        shown = f"{at:7.2f} s {_NAMES['person']:>6}  {text} ..."[-(width - 1) :]
        self._partial_chars = len(shown)
        click.echo(click.style(shown, dim=True), nl=False)

    def _erase_partial(self) -> None:
        if self._partial_chars:
            click.echo("\r" + " " * self._partial_chars + "\r", nl=False)
            self._partial_chars = 0
