"""Tell what happened in a recorded call from its events: turns, holds, cuts, tools, reconnects.

Sans-IO: it reads events as JSON (`duologue.events.json`), each with ``t``, its place in the audio
in seconds. Both the session view and `explain` are made of what it returns. Fields that a newer or
an older version writes are ignored, as are events of other types.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from duologue.json_types import Json, JsonObject

LATENCY_PARTS = ("endpoint", "transcript", "first_text", "first_audio", "first_played")


@dataclass(slots=True, eq=False)
class PersonTurn:
    """One turn of the person, in seconds of the audio."""

    id: str
    start: float
    end: float | None = None
    ended_at: float | None = None
    """When the end was decided; later than ``end``."""
    text: str | None = None
    empty: bool = False
    """It was no speech, such as a cough."""
    ended_by: str = ""
    """What decided that it was over; see `UserTurnEndedEvent`."""
    votes: tuple[float, ...] = ()
    """The turn detector's probabilities that it was over."""


@dataclass(slots=True, eq=False)
class AgentTurn:
    """One speech of the agent, in seconds of the audio."""

    id: str
    start: float | None = None
    """When it began to play; None if the person heard nothing of it."""
    end: float | None = None
    generated: str = ""
    """All text that was made."""
    heard: str | None = None
    """The text that was heard; None while that is not known."""
    heard_so_far: str = ""
    """The text that was heard so far; what was heard is known for certain only at the end."""
    interrupted: bool = False
    has_interruption: bool = False
    """Something interrupted it; without that, one that is ``interrupted`` ended with the call."""
    cause: str = ""
    """What interrupted it; see `InterruptionEvent`. Older recordings do not have it."""
    latency_ms: dict[str, float] = field(default_factory=dict)
    """From the end of the person's speech, by `LATENCY_PARTS`; unknown ones are missing."""
    first_at: float = 0.0
    """When its first sign came."""

    @property
    def heard_text(self) -> str:
        """The text that was heard, as far as that is known."""
        if self.heard is not None:
            return self.heard
        known = self.heard_so_far
        return known if self.generated.startswith(known) else self.generated

    @property
    def unheard(self) -> str:
        """The text that was made and not heard, or not yet."""
        heard = self.heard_text
        if not self.generated.startswith(heard):
            return ""
        return self.generated[len(heard) :]


@dataclass(slots=True, eq=False)
class ToolUse:
    """One tool call."""

    id: str
    name: str
    start: float
    end: float | None = None
    arguments: str = ""
    output: str = ""
    status: str = "running"


@dataclass(slots=True, eq=False)
class Hold:
    """A pause of the agent until it was known whether the person spoke."""

    speech_id: str
    start: float
    end: float | None = None
    resumed: bool = False
    reason: str = ""
    """Why it began; see `SpeechHeldEvent`."""
    end_reason: str = ""
    """Why the agent went on; see `SpeechResumedEvent`."""


@dataclass(slots=True, eq=False)
class Reconnect:
    """A replaced connection."""

    reason: str
    start: float
    end: float | None = None
    outcome: str = ""
    lost_ms: float = 0.0
    attempts: int = 1


@dataclass(frozen=True, slots=True)
class Problem:
    """An error that the call survived."""

    at: float
    source: str
    message: str
    code: str


@dataclass(slots=True, eq=False)
class CallStory:
    """What happened in a call, each list in the order of time."""

    person: list[PersonTurn] = field(default_factory=list)
    agent: list[AgentTurn] = field(default_factory=list)
    tools: list[ToolUse] = field(default_factory=list)
    holds: list[Hold] = field(default_factory=list)
    reconnects: list[Reconnect] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    tokens: dict[str, int] = field(default_factory=dict)
    """Sums by ``input`` and ``output``."""
    ended_at: float | None = None
    end_reason: str = ""
    ended_clean: bool = True

    @classmethod
    def read(cls, events: Sequence[JsonObject]) -> CallStory:
        """Read the events of a call, in their order."""
        reader = StoryReader()
        for event in events:
            reader.read(event)
        return reader.story

    @property
    def latencies_ms(self) -> list[float]:
        """From the end of speech to the first audio, of all replies to speech."""
        times = (turn.latency_ms.get("first_played") for turn in self.agent)
        return [time for time in times if time is not None]

    @property
    def interruptions(self) -> int:
        """How often the agent was interrupted."""
        return sum(turn.interrupted for turn in self.agent)


class StoryReader:
    """Fills a story with one event after the other.

    Args:
        max_entries: Most entries of each of its lists; then the oldest is removed. None keeps all.
        max_chars: Most characters of what the agent generates in one speech; None keeps all.
    """

    def __init__(self, max_entries: int | None = None, max_chars: int | None = None) -> None:
        self.story = CallStory()
        self._max_entries = max_entries
        self._max_chars = max_chars
        self._story = self.story
        self._person: dict[str, PersonTurn] = {}
        self._agent: dict[str, AgentTurn] = {}
        self._tools: dict[str, ToolUse] = {}

    def read(self, event: JsonObject) -> None:
        """Read the next event, which has ``t``."""
        self._read(event, _number(event, "t"))
        if self._max_entries is not None:
            self._trim(self._max_entries)

    def _trim(self, limit: int) -> None:
        story = self._story
        while len(story.person) > limit:
            self._person.pop(story.person.pop(0).id, None)
        while len(story.agent) > limit:
            self._agent.pop(story.agent.pop(0).id, None)
        while len(story.tools) > limit:
            self._tools.pop(story.tools.pop(0).id, None)
        for entries in (story.holds, story.reconnects, story.problems):
            del entries[: max(0, len(entries) - limit)]

    def _read(self, event: JsonObject, at: float) -> None:
        match event.get("type"):
            case "UserTurnStartedEvent":
                turn = PersonTurn(_text(event, "turn_id"), at - _number(event, "speech_ms") / 1000)
                self._person[turn.id] = turn
                self._story.person.append(turn)
            case "UserTurnEndedEvent":
                self._person_ended(event, at)
            case "UserTranscriptEvent":
                known = self._person.get(_text(event, "turn_id"))
                if known is not None and event.get("text"):
                    known.text = _text(event, "text")
            case "AgentTurnStartedEvent":
                self._speech(event, at).start = at
            case "AgentTranscriptEvent":
                speech = self._speech(event, at)
                if event.get("final"):
                    speech.heard = _text(event, "text")
                else:
                    both = speech.generated + _text(event, "text")
                    speech.generated = both[: self._max_chars]
            case "AgentHeardEvent":
                speech = self._speech(event, at)
                both = speech.heard_so_far + _text(event, "text")
                speech.heard_so_far = both[: self._max_chars]
            case "AgentTurnEndedEvent":
                speech = self._speech(event, at)
                speech.end = at
                speech.interrupted = speech.interrupted or event.get("interrupted") is True
            case "InterruptionEvent" if event.get("speech_id"):
                speech = self._speech(event, at)
                speech.interrupted, speech.end = True, at
                speech.heard = _text(event, "heard_text")
                speech.has_interruption = True
                speech.cause = _text(event, "cause")
                self._end_hold(speech.id, at, resumed=False)
            case "TurnMetricsEvent":
                speech = self._speech(event, at)
                for part in LATENCY_PARTS:
                    value = event.get(f"{part}_ms")
                    if isinstance(value, int | float) and math.isfinite(value):
                        speech.latency_ms[part] = float(value)
            case "SpeechHeldEvent":
                hold = Hold(_text(event, "speech_id"), at, reason=_text(event, "reason"))
                self._story.holds.append(hold)
            case "SpeechResumedEvent":
                reason = _text(event, "reason")
                self._end_hold(_text(event, "speech_id"), at, resumed=True, reason=reason)
            case "ToolStartEvent" | "ToolEndEvent":
                self._tool(event, at)
            case "RealtimeReconnectingEvent" | "RealtimeReconnectedEvent":
                self._reconnect(event, at)
            case "RealtimeDisconnectedEvent":
                self._story.ended_at = at
                self._story.end_reason = _text(event, "reason")
                self._story.ended_clean = event.get("clean") is not False
            case "ErrorEvent":
                names = ("source", "message", "code")
                self._story.problems.append(Problem(at, *(_text(event, name) for name in names)))
            case "UsageEvent":
                self._usage(event)
            case _:
                pass

    def _person_ended(self, event: JsonObject, at: float) -> None:
        turn = self._person.get(_text(event, "turn_id"))
        if turn is None:
            return
        turn.ended_at = at
        turn.end = max(turn.start, at - _number(event, "silence_ms") / 1000)
        turn.empty = event.get("empty") is True
        turn.ended_by = _text(event, "ended_by")
        votes = event.get("votes")
        if isinstance(votes, list):
            turn.votes = tuple(float(vote) for vote in votes if isinstance(vote, int | float))
        if event.get("text"):
            turn.text = _text(event, "text")

    def _speech(self, event: JsonObject, at: float) -> AgentTurn:
        speech_id = _text(event, "speech_id")
        turn = self._agent.get(speech_id)
        if turn is None:
            turn = self._agent[speech_id] = AgentTurn(speech_id, first_at=at)
            self._story.agent.append(turn)
        return turn

    def _end_hold(self, speech_id: str, at: float, *, resumed: bool, reason: str = "") -> None:
        for hold in self._story.holds:
            if hold.end is None and hold.speech_id == speech_id:
                hold.end, hold.resumed, hold.end_reason = at, resumed, reason

    def _tool(self, event: JsonObject, at: float) -> None:
        call_id = _text(event, "call_id")
        if event.get("type") == "ToolStartEvent":
            tool = ToolUse(call_id, _text(event, "name"), at, arguments=_text(event, "arguments"))
            self._tools[call_id] = tool
            self._story.tools.append(tool)
        elif (known := self._tools.get(call_id)) is not None:
            known.end, known.status = at, _text(event, "status")
            known.output = _text(event, "output")

    def _reconnect(self, event: JsonObject, at: float) -> None:
        reconnects = self._story.reconnects
        is_open = bool(reconnects) and reconnects[-1].end is None
        if event.get("type") == "RealtimeReconnectingEvent":
            if is_open:
                reconnects[-1].attempts += 1
            else:
                reconnects.append(Reconnect(_text(event, "reason"), at))
        elif is_open:
            last = reconnects[-1]
            last.end, last.outcome = at, _text(event, "outcome")
            last.lost_ms = _number(event, "lost_ms")

    def _usage(self, event: JsonObject) -> None:
        for side in ("input", "output"):
            counts = event.get(side)
            if isinstance(counts, dict):
                parts = {k: v for k, v in counts.items() if k not in ("cached", "reasoning")}
                total = sum(v for v in parts.values() if isinstance(v, int))
                self._story.tokens[side] = self._story.tokens.get(side, 0) + total


def _text(event: JsonObject, name: str) -> str:
    value: Json = event.get(name)
    return value if isinstance(value, str) else ""


def _number(event: JsonObject, name: str) -> float:
    value: Json = event.get(name)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else 0.0
