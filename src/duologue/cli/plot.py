"""Draw a recorded conversation: two waveforms, turns, transcripts and latencies."""

from __future__ import annotations

import wave
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from os import PathLike
from types import ModuleType

import numpy as np

from duologue._optional import import_optional
from duologue.audio import Samples
from duologue.errors import ConfigError
from duologue.events.events import (
    AgentTranscriptEvent,
    AgentTurnStartedEvent,
    Event,
    InterruptionEvent,
    UserTranscriptEvent,
)

_SCALE = 2
"""Pixels per unit of the layout, so that the image is sharp on any screen."""

_WIDTH_MIN, _WIDTH_MAX, _PER_SECOND = 900, 2200, 70
_MARGIN = 36
_LANE = 120
_TOP = 112
_BETWEEN = 56
_TEXT = 62

_PAPER = "#fbfaf8"
_INK = "#22242a"
_FAINT = "#8b8e96"
_GRID = "#e7e4de"
_PERSON, _PERSON_PALE = "#2f6fb5", "#e4edf7"
_AGENT, _AGENT_PALE = "#c2622d", "#f9eadf"
_CUT = "#b3261e"

_SILENCE_LEVEL = 180
_MAX_PAUSE_S = 0.7
_MIN_SEGMENT_S = 0.08


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of voice, in seconds since the beginning of the recording."""

    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Latency:
    """From the end of the person's speech to the beginning of the agent's, in seconds."""

    start: float
    end: float

    @property
    def ms(self) -> int:
        """The latency in milliseconds."""
        return round((self.end - self.start) * 1000)


def find_segments(samples: Samples, rate: int) -> list[Segment]:
    """Return where there is a voice, including pauses under 0.7 s."""
    size = rate // 100
    count = len(samples) // size
    loud = np.abs(samples[: count * size].reshape(count, size).astype(np.int32)).max(axis=1)
    spans: list[list[float]] = []
    for index in np.flatnonzero(loud > _SILENCE_LEVEL):
        start = float(index) / 100
        if spans and start - spans[-1][1] <= _MAX_PAUSE_S:
            spans[-1][1] = start + 0.01
        else:
            spans.append([start, start + 0.01])
    return [Segment(start, end) for start, end in spans if end - start >= _MIN_SEGMENT_S]


def find_latencies(person: Sequence[Segment], agent: Sequence[Segment]) -> list[Latency]:
    """Return a latency for each start of the agent after the person, with no speech in between."""
    found = []
    for reply in agent:
        before = [s.end for s in person if s.start < reply.start]
        last = max(before, default=None)
        if last is None or last >= reply.start:
            continue
        if any(last <= other.start < reply.start for other in agent if other is not reply):
            continue
        found.append(Latency(last, reply.start))
    return found


def read_recording(path: str | PathLike[str]) -> tuple[Samples, Samples, int]:
    """Return both sides of a stereo recording and its rate in Hz."""
    with wave.open(str(path), "rb") as file:
        if file.getnchannels() != 2 or file.getsampwidth() != 2:
            raise ConfigError(f"{path} is not a stereo recording of 16 bits")
        rate = file.getframerate()
        both = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2)
    return both[:, 0], both[:, 1], rate


def draw_conversation(
    recording: str | PathLike[str],
    events: Sequence[tuple[float, Event]],
    out: str | PathLike[str],
    title: str = "",
    *,
    measured: bool = True,
) -> None:
    """Draw a recording and its transcript as a PNG file. Needs the extra ``local`` (Pillow).

    Args:
        recording: The stereo recording: left the person, right the agent.
        events: Events with their time in seconds since the beginning of the recording.
        out: The file to write.
        title: Title of the image.
        measured: Whether the conversation ran in real time; latencies are left out if not.

    Raises:
        ConfigError: The file can't be written.
        MissingExtraError: The extra ``local`` is not installed.
    """
    import_optional("PIL.ImageDraw", "local")
    left, right, rate = read_recording(recording)
    plot = _Plot(max(len(left) / rate, 1.0))
    person, agent = find_segments(left, rate), find_segments(right, rate)
    gaps = find_latencies(person, agent) if measured else []
    plot.draw_frame(title, gaps)
    plot.draw_lane(0, "person", left, rate, person, _PERSON, _PERSON_PALE)
    plot.draw_lane(1, "agent", right, rate, agent, _AGENT, _AGENT_PALE)
    plot.draw_latencies(gaps)
    plot.draw_transcripts(0, _person_transcripts(events), person, _PERSON)
    plot.draw_transcripts(1, _agent_transcripts(events), agent, _AGENT)
    for at, event in events:
        if isinstance(event, InterruptionEvent) and event.played_ms:
            plot.mark_interruption(at)
    try:
        plot.save(out)
    except OSError as error:
        reason = (error.strerror or "not possible").lower()
        raise ConfigError(f"can't write {out}: {reason}") from error


def _person_transcripts(events: Sequence[tuple[float, Event]]) -> list[tuple[float, str]]:
    """Return each text of the person with a time at which its audio had ended."""
    return [
        (at, event.text)
        for at, event in events
        if isinstance(event, UserTranscriptEvent) and event.final and event.text
    ]


def _agent_transcripts(events: Sequence[tuple[float, Event]]) -> list[tuple[float, str]]:
    """Return each text of the agent with a time at which its audio had just begun."""
    began = {
        event.speech_id: at for at, event in events if isinstance(event, AgentTurnStartedEvent)
    }
    return [
        (began.get(event.speech_id, at) + 0.15, event.text)
        for at, event in events
        if isinstance(event, AgentTranscriptEvent) and event.final and event.text
    ]


class _Plot:
    """The canvas and the positions on it; lengths are in units of the layout."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        width = min(_WIDTH_MAX, max(_WIDTH_MIN, round(seconds * _PER_SECOND)))
        self._width = width
        self._height = _TOP + 2 * (_LANE + _TEXT) + _BETWEEN + 40
        image = import_optional("PIL.Image", "local")
        self._image = image.new("RGB", (width * _SCALE, self._height * _SCALE), _PAPER)
        self._draw = import_optional("PIL.ImageDraw", "local").Draw(self._image)
        self._fonts: ModuleType = import_optional("PIL.ImageFont", "local")

    def x(self, seconds: float) -> float:
        return _MARGIN + (self._width - 2 * _MARGIN) * min(seconds, self._seconds) / self._seconds

    def top(self, lane: int) -> int:
        return _TOP + _TEXT + lane * (_LANE + _BETWEEN)

    def draw_frame(self, title: str, gaps: Sequence[Latency]) -> None:
        self._text(_MARGIN, 24, title or "Conversation", 22, _INK)
        if gaps:
            median = round(float(np.median([gap.ms for gap in gaps])))
            count = "1 reply" if len(gaps) == 1 else f"{len(gaps)} replies"
            self._text(
                _MARGIN, 56, f"{count}, {median} ms of silence before each (median)", 14, _FAINT
            )
        bottom = self.top(1) + _LANE + _TEXT
        step = next((s for s in (1, 2, 5, 10, 30, 60, 300) if self._seconds / s <= 24), 3600)
        for second in range(0, int(self._seconds) + 1, step):
            at = self.x(second)
            self._line([(at, self.top(0) - 8), (at, bottom)], _GRID, 1)
            self._text(at, bottom + 8, f"{second} s", 12, _FAINT, anchor="ma")

    def draw_lane(
        self,
        lane: int,
        name: str,
        samples: Samples,
        rate: int,
        spans: Sequence[Segment],
        colour: str,
        pale: str,
    ) -> None:
        top, bottom = self.top(lane), self.top(lane) + _LANE
        middle = (top + bottom) / 2
        for span in spans:
            self._draw.rounded_rectangle(
                self._pixels(self.x(span.start) - 3, top, self.x(span.end) + 3, bottom),
                radius=8 * _SCALE,
                fill=pale,
            )
        columns = int((self.x(self._seconds) - self.x(0)) * _SCALE)
        edges = np.linspace(0, self._seconds * rate, columns + 1).astype(int)
        loudest = max(int(np.abs(samples.astype(np.int32)).max(initial=0)), 3000)
        for column, (start, end) in enumerate(pairwise(edges.tolist())):
            part = samples[start:end]
            if not len(part):
                continue
            at = self.x(0) + column / _SCALE
            high = max(int(part.max()) / loudest * (_LANE / 2 - 10), 0.4)
            low = min(int(part.min()) / loudest * (_LANE / 2 - 10), -0.4)
            self._line([(at, middle - high), (at, middle - low)], colour, 0.5)
        self._text(_MARGIN - 14, middle, name, 13, colour, anchor="mm", upright=True)

    def draw_latencies(self, gaps: Sequence[Latency]) -> None:
        y = self.top(1) - _BETWEEN / 2
        for gap in gaps:
            start, end = self.x(gap.start), self.x(gap.end)
            for at, lane in ((start, 0), (end, 1)):
                edge = self.top(0) + _LANE if lane == 0 else self.top(1)
                self._line([(at, edge), (at, y)], _INK, 1)
            self._line([(start, y), (end, y)], _INK, 2)
            self._text(
                end + 6,
                y,
                f"{gap.ms} ms" if gap.ms < 10000 else f"{gap.ms / 1000:.0f} s",
                13,
                _INK,
                anchor="lm",
            )

    def draw_transcripts(
        self,
        lane: int,
        transcripts: Sequence[tuple[float, str]],
        spans: Sequence[Segment],
        colour: str,
    ) -> None:
        """Write each text at the last voice segment that began before it."""
        room: dict[int, list[str]] = {}
        for at, text in transcripts:
            begun = [index for index, span in enumerate(spans) if span.start < at]
            room.setdefault(begun[-1] if begun else 0, []).append(text)
        y = self.top(0) - _TEXT + 4 if lane == 0 else self.top(1) + _LANE + 8
        begins = [self.x(spans[index].start) if spans else _MARGIN for index in sorted(room)]
        ends = [*(begin - 12 for begin in begins[1:]), self._width - _MARGIN / 2]
        for index, left, right in zip(sorted(room), begins, ends, strict=True):
            left = min(left, self._width - _MARGIN - 150)
            self._paragraph(left, y, min(max(right - left, 60), 420), " ".join(room[index]), colour)

    def mark_interruption(self, at: float) -> None:
        x, top = self.x(at), self.top(1)
        self._line([(x, top - 4), (x, top + _LANE + 4)], _CUT, 1.5)
        self._text(x + 5, top + 4, "cut", 12, _CUT)

    def save(self, out: str | PathLike[str]) -> None:
        self._image.save(out, format="PNG", optimize=True)

    def _paragraph(self, x: float, y: float, width: float, text: str, colour: str) -> None:
        size, lines = 14, [""]
        for word in text.split():
            longer = f"{lines[-1]} {word}".strip()
            if self._draw.textlength(longer, self._font(size)) / _SCALE <= width or not lines[-1]:
                lines[-1] = longer
            else:
                lines.append(word)
        if len(lines) > 3:
            lines = [*lines[:2], f"{lines[2].rpartition(' ')[0] or lines[2]} ..."]
        for index, line in enumerate(lines):
            self._text(x, y + index * 18, line, size, colour)

    def _font(self, size: float) -> object:
        return self._fonts.load_default(size * _SCALE)

    def _text(
        self,
        x: float,
        y: float,
        text: str,
        size: float,
        colour: str,
        anchor: str = "la",
        upright: bool = False,
    ) -> None:
        font = self._font(size)
        if not upright:
            place = (x * _SCALE, y * _SCALE)
            self._draw.text(place, text, font=font, fill=colour, anchor=anchor)
            return
        image = import_optional("PIL.Image", "local")
        box = self._draw.textbbox((0, 0), text, font=font)
        tile = image.new("RGB", (int(box[2]) + 4, int(box[3]) + 4), _PAPER)
        import_optional("PIL.ImageDraw", "local").Draw(tile).text(
            (2, 2), text, font=font, fill=colour
        )
        tile = tile.rotate(90, expand=True)
        corner = (int(x * _SCALE - tile.width / 2), int(y * _SCALE - tile.height / 2))
        self._image.paste(tile, corner)

    def _line(self, points: Sequence[tuple[float, float]], colour: str, width: float) -> None:
        scaled = [(x * _SCALE, y * _SCALE) for x, y in points]
        self._draw.line(scaled, fill=colour, width=max(1, round(width * _SCALE)))

    def _pixels(self, *numbers: float) -> list[float]:
        return [number * _SCALE for number in numbers]
