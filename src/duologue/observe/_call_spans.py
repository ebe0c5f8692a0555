"""Turn the events of one conversation into spans, without knowing OpenTelemetry (sans-IO).

A span is a stretch of time with a name, a parent and attributes. Events come in order, each with
its time; `CallSpans.receive` returns what to start, annotate and end. Times may lie before the
event that tells them: speech began before it was detected, and a reply is complete before its
usage is known. Names and attributes follow the open proposals for realtime models in the GenAI
conventions of OpenTelemetry (one table each: `_PROVIDERS`, `_USAGE`); ours begin with `duologue.`.

    invoke_agent support                     one turn: from the person's first word to the last
    |-- user_speech                          sample that they heard, or to the interruption
    |-- realtime_inference gpt-realtime      one reply of the model, with its usage
    |-- execute_tool look_up                 between two replies, beside them
    `-- realtime_inference gpt-realtime
    realtime_reconnect                       in no turn: a connection was replaced

A pipeline has `speech_to_text`, `chat` and `text_to_speech` instead of `realtime_inference`; they
come from the times in `TurnMetricsEvent`. A session is no span, because it may last for hours and
a span is exported only at its end: its beginning and end are spans without length. Every span
carries the ids of the session and of the conversation.

The person may speak again while a turn is still played. Then two turns are open: replies and
tools belong to the newer one, and the older ends with its speech. A cough opens a turn and ends it
as `empty`; the one before goes on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from duologue.events.events import (
    USAGE_PARTS,
    AgentTranscriptEvent,
    AgentTurnEndedEvent,
    AgentTurnStartedEvent,
    ErrorEvent,
    Event,
    InterruptionEvent,
    RateLimitsEvent,
    RealtimeConnectedEvent,
    RealtimeDisconnectedEvent,
    RealtimeReconnectedEvent,
    RealtimeReconnectingEvent,
    ReplyDoneEvent,
    ReplyStartedEvent,
    SpeechHeldEvent,
    SpeechResumedEvent,
    ToolEndEvent,
    ToolStartEvent,
    TurnMetricsEvent,
    UsageEvent,
    UserTranscriptEvent,
    UserTurnEndedEvent,
    UserTurnStartedEvent,
)

type Attribute = str | bool | int | float | tuple[str, ...]
type Attributes = Mapping[str, Attribute]
type Kind = Literal["internal", "client"]

_PROVIDERS = {
    "aws": "aws.bedrock",
    "gemini": "gcp.gemini",
    "local": "duologue",
    "openai": "openai",
    "pipeline": "duologue",
    "qwen": "qwen",
}
"""`Capabilities.provider` as a value of ``gen_ai.provider.name``."""

_CASCADES = frozenset({"local", "pipeline"})
"""Providers whose model hears and speaks text: a reply is a `chat`."""

_USAGE = {
    "cached": "cache_read",
    "tokens": "",
}
"""Kinds of usage that the conventions call otherwise; others keep their name."""


@dataclass(frozen=True, slots=True)
class StartSpan:
    """Start a span at ``at``, in seconds since 1970; ``parent`` is the key of another, or None."""

    key: int
    parent: int | None
    name: str
    kind: Kind
    at: float
    attributes: Attributes


@dataclass(frozen=True, slots=True)
class AddSpanEvent:
    """Add something that happened at one moment of an open span."""

    key: int
    name: str
    at: float
    attributes: Attributes


@dataclass(frozen=True, slots=True)
class EndSpan:
    """End a span with more attributes; ``error`` is its ``error.type``, None if all went well."""

    key: int
    at: float
    attributes: Attributes
    error: str | None = None


type Step = StartSpan | AddSpanEvent | EndSpan


@dataclass(slots=True, eq=False)
class _Turn:
    """One open turn."""

    key: int
    last_at: float
    """When the newest thing in it happened."""
    cause_at: float | None = None
    """When the model got what its next reply answers: the end of speech, or a tool's result."""
    id: str = ""
    """Id of the person's turn that opened it."""
    user_speech: int | None = None
    """Key of the span of the person's speech, while they speak."""
    speeches: set[str] = field(default_factory=set)
    """Ids of speeches that have begun and not ended."""
    replies: set[str] = field(default_factory=set)
    tools: set[str] = field(default_factory=set)
    has_replied: bool = False
    attributes: dict[str, Attribute] = field(default_factory=dict)
    heard: list[str] = field(default_factory=list)

    @property
    def is_busy(self) -> bool:
        return bool(self.speeches or self.replies or self.tools or self.user_speech is not None)


@dataclass(slots=True, eq=False)
class _Reply:
    """One reply that is open, or that ended just now and may still get its usage."""

    id: str
    key: int
    turn: _Turn
    attributes: dict[str, Attribute] = field(default_factory=dict)
    done_at: float | None = None
    error: str | None = None


class CallSpans:
    """The spans of one conversation; see the head of the file.

    Args:
        conversation_id: An id of the whole conversation, which may have several sessions.
        agent_name: What the turns are called after.
        capture_content: Whether attributes may contain what was said, and arguments and results of
            tools. Without it no attribute has a word of either side.
    """

    def __init__(
        self, conversation_id: str, *, agent_name: str = "agent", capture_content: bool = False
    ) -> None:
        self._agent_name = agent_name
        self._capture = capture_content
        self._common: dict[str, Attribute] = {"gen_ai.conversation.id": conversation_id}
        self._model = ""
        self._provider = ""
        self._next_key = 0
        self._steps: list[Step] = []
        self._turns: list[_Turn] = []
        self._turns_by_speech: dict[str, _Turn] = {}
        self._replies: dict[str, _Reply] = {}
        self._done: _Reply | None = None
        """The newest reply that is done; its span ends with the next event that is no usage."""
        self._tools: dict[str, tuple[int, _Turn]] = {}
        self._reconnect: tuple[int, int] | None = None
        """Key of the open span, and the attempts so far."""
        self._early_usage: dict[str, Attribute] = {}

    def receive(self, event: Event) -> list[Step]:
        """Return what the event starts, adds and ends, in order."""
        if not isinstance(event, UsageEvent | RateLimitsEvent):
            self._flush_reply()
        match event:
            case RealtimeConnectedEvent():
                self._connected(event)
            case RealtimeDisconnectedEvent():
                self._disconnected(event)
            case RealtimeReconnectingEvent() | RealtimeReconnectedEvent():
                self._reconnects(event)
            case UserTurnStartedEvent() | UserTurnEndedEvent() | UserTranscriptEvent():
                self._person(event)
            case ReplyStartedEvent() | ReplyDoneEvent() | UsageEvent():
                self._model_replies(event)
            case AgentTurnStartedEvent() | AgentTurnEndedEvent() | AgentTranscriptEvent():
                self._agent_speaks(event)
            case ToolStartEvent() | ToolEndEvent():
                self._tool(event)
            case TurnMetricsEvent():
                self._metrics(event)
            case InterruptionEvent():
                self._interruption(event)
            case SpeechHeldEvent(speech_id=speech_id):
                self._note(speech_id, "duologue.held", event.at, {})
            case SpeechResumedEvent(speech_id=speech_id, held_ms=held_ms):
                self._note(speech_id, "duologue.resumed", event.at, {"duologue.held_ms": held_ms})
            case ErrorEvent(source=source, code=code, message=message):
                self._error(event.at, source, code, message)
            case _:
                pass  # Word times, limits and word-for-word checks are no spans.
        steps, self._steps = self._steps, []
        return steps

    # The session

    def _connected(self, event: RealtimeConnectedEvent) -> None:
        self._model = str(event.capabilities.get("model", ""))
        self._provider = str(event.capabilities.get("provider", ""))
        self._common["gen_ai.realtime_session.id"] = event.session_id
        self._common["gen_ai.provider.name"] = _PROVIDERS.get(self._provider, self._provider)
        self._moment("gen_ai.client.realtime_session.started", event.at, {})

    def _disconnected(self, event: RealtimeDisconnectedEvent) -> None:
        at = event.at
        if self._reconnect is not None:
            self._end(self._reconnect[0], at, {}, error="disconnected")
            self._reconnect = None
        for reply in list(self._replies.values()):
            self._end_reply(reply, at, error="session_closed")
        self._replies.clear()
        for key, _ in self._tools.values():
            self._end(key, at, {}, error="session_closed")
        self._tools.clear()
        # Audio that was made before may still be heard: turns with a speech end with it.
        for turn in list(self._turns):
            was_busy = turn.is_busy
            if turn.user_speech is not None:
                self._end(turn.user_speech, at, {})
                turn.user_speech = None
            turn.tools.clear()
            turn.replies.clear()
            if not turn.speeches:
                self._end_idle(turn, at if was_busy else turn.last_at, "session_closed")
        attributes = {"duologue.clean": event.clean}
        error = None if event.clean else "disconnected"
        self._moment("gen_ai.client.realtime_session.ended", at, attributes, error=error)

    def _reconnects(self, event: RealtimeReconnectingEvent | RealtimeReconnectedEvent) -> None:
        match event, self._reconnect:
            case RealtimeReconnectingEvent(), None:
                key = self._start(None, "realtime_reconnect", "client", event.at)
                self._reconnect = key, 1
            case RealtimeReconnectingEvent(attempt=attempt), (key, _):
                self._reconnect = key, max(1, attempt)
            case RealtimeReconnectedEvent(), (key, attempts):
                self._reconnect = None
                attributes: dict[str, Attribute] = {
                    "duologue.outcome": event.outcome,
                    "duologue.lost_ms": event.lost_ms,
                    "duologue.gap_ms": event.gap_ms,
                    "duologue.attempts": attempts,
                }
                self._end(key, event.at, attributes)
            case _:
                pass

    # The person

    def _person(
        self, event: UserTurnStartedEvent | UserTurnEndedEvent | UserTranscriptEvent
    ) -> None:
        match event:
            case UserTurnStartedEvent(at=at, speech_ms=speech_ms):
                began = at - (speech_ms or 0.0) / 1000
                for idle in [turn for turn in self._turns if not turn.is_busy]:
                    self._end_idle(idle, idle.last_at, "interrupted")
                turn = self._open_turn(began)
                turn.id = event.turn_id
                speech: dict[str, Attribute] = {"openinference.span.kind": "CHAIN"}
                turn.user_speech = self._start(turn.key, "user_speech", "internal", began, speech)
            case UserTurnEndedEvent(at=at, silence_ms=silence_ms, empty=empty):
                turn_or_none = self._speaking_turn()
                if turn_or_none is None or turn_or_none.user_speech is None:
                    return
                turn = turn_or_none
                key, turn.user_speech = turn_or_none.user_speech, None
                content = self._words("gen_ai.input.messages", "user", event.text or "")
                self._end(key, max(turn.last_at, at - (silence_ms or 0.0) / 1000), content)
                turn.attributes.update(content)
                turn.cause_at = turn.last_at = at
                if empty and not turn.is_busy:
                    self._end_turn(turn, at, "empty")
            case UserTranscriptEvent(text=text, final=final, turn_id=turn_id):
                content = self._words("gen_ai.input.messages", "user", text if final else "")
                for turn in self._turns:
                    if turn.id == turn_id:
                        turn.attributes.update(content)

    def _speaking_turn(self) -> _Turn | None:
        return next((turn for turn in self._turns if turn.user_speech is not None), None)

    # The model

    def _model_replies(self, event: ReplyStartedEvent | ReplyDoneEvent | UsageEvent) -> None:
        match event:
            case ReplyStartedEvent(reply_id=reply_id) if reply_id in self._replies:
                pass
            case ReplyStartedEvent(reply_id=reply_id, at=at):
                turn = self._current_turn(at)
                began = min(at, turn.cause_at) if turn.cause_at is not None else at
                turn.cause_at = None
                if self._provider in _CASCADES:
                    name, operation = "chat", "chat"
                else:
                    name = operation = "realtime_inference"
                attributes: dict[str, Attribute] = {
                    "gen_ai.operation.name": operation,
                    "gen_ai.request.model": self._model,
                    "openinference.span.kind": "LLM",
                }
                key = self._start(turn.key, f"{name} {self._model}", "client", began, attributes)
                turn.replies.add(reply_id)
                self._replies[reply_id] = _Reply(reply_id, key, turn)
            case ReplyDoneEvent(reply_id=reply_id, status=status, at=at):
                reply = self._replies.pop(reply_id, None)
                if reply is None:
                    return
                reply.done_at = at
                reply.attributes["gen_ai.response.id"] = reply_id
                reason = {"completed": "stop", "cancelled": "cancelled", "failed": "error"}[status]
                reply.attributes["gen_ai.response.finish_reasons"] = (reason,)
                reply.attributes.update(self._early_usage)
                self._early_usage = {}
                reply.error = "failed" if status == "failed" else None
                reply.turn.has_replied = True
                self._done = reply
            case UsageEvent():
                usage = usage_attributes(event)
                if self._done is not None:
                    self._done.attributes.update(usage)
                else:
                    # Some services report it just before the end of the reply.
                    self._early_usage = usage

    def _flush_reply(self) -> None:
        reply, self._done = self._done, None
        if reply is not None and reply.done_at is not None:
            self._end_reply(reply, reply.done_at, error=reply.error)

    def _end_reply(self, reply: _Reply, at: float, *, error: str | None) -> None:
        reply.turn.replies.discard(reply.id)
        reply.turn.last_at = at
        self._end(reply.key, at, reply.attributes, error=error)

    def _metrics(self, event: TurnMetricsEvent) -> None:
        turn = self._turns_by_speech.get(event.speech_id)
        if turn is None:
            return
        # The event is sent when the first audio is played; its times count from the speech's end.
        zero = event.at - (event.first_played_ms or 0.0) / 1000
        for name in ("endpoint", "transcript", "first_text", "first_audio", "first_played"):
            value: float | None = getattr(event, f"{name}_ms")
            if value is not None:
                turn.attributes[f"duologue.{name}_ms"] = value
        if self._provider not in _CASCADES or event.first_played_ms is None:
            return
        parts = (
            ("speech_to_text", 0.0, event.transcript_ms),
            ("text_to_speech", event.first_text_ms, event.first_audio_ms),
        )
        for name, begin, end in parts:
            if begin is not None and end is not None and end >= begin:
                attributes: dict[str, Attribute] = {"gen_ai.operation.name": name}
                at = zero + begin / 1000
                key = self._start(turn.key, name, "client", at, attributes)
                self._end(key, zero + end / 1000, {})

    # The agent's audio and tools

    def _agent_speaks(
        self, event: AgentTurnStartedEvent | AgentTurnEndedEvent | AgentTranscriptEvent
    ) -> None:
        match event:
            case AgentTurnStartedEvent(speech_id=speech_id) if speech_id in self._turns_by_speech:
                pass
            case AgentTurnStartedEvent(speech_id=speech_id, at=at):
                turn = self._current_turn(at)
                turn.speeches.add(speech_id)
                self._turns_by_speech[speech_id] = turn
            case AgentTranscriptEvent(final=True, speech_id=speech_id, text=text):
                speaking = self._turns_by_speech.get(speech_id)
                if speaking is not None and text:
                    speaking.heard.append(text)
            case AgentTranscriptEvent():
                pass
            case AgentTurnEndedEvent(speech_id=speech_id, interrupted=interrupted, at=at):
                ended = self._turns_by_speech.pop(speech_id, None)
                if ended is None:
                    return
                ended.speeches.discard(speech_id)
                ended.last_at = at
                if not ended.is_busy:
                    self._end_turn(ended, at, "interrupted" if interrupted else "completed")

    def _interruption(self, event: InterruptionEvent) -> None:
        turn = self._turns_by_speech.get(event.speech_id or "")
        if turn is None:
            return
        newest = self._turns[-1]
        by = "person" if newest is not turn or turn.user_speech is not None else "program"
        turn.attributes.update(
            {
                "duologue.epoch": event.epoch,
                "duologue.heard_ms": event.played_ms,
                "duologue.quality": event.quality,
                "duologue.interrupted_by": by,
            }
        )

    def _tool(self, event: ToolStartEvent | ToolEndEvent) -> None:
        match event:
            case ToolStartEvent(call_id=call_id) if call_id in self._tools:
                pass
            case ToolStartEvent(call_id=call_id, name=name, arguments=arguments, at=at):
                turn = self._current_turn(at)
                attributes: dict[str, Attribute] = {
                    "gen_ai.operation.name": "execute_tool",
                    "gen_ai.tool.name": name,
                    "gen_ai.tool.call.id": call_id,
                    "openinference.span.kind": "TOOL",
                }
                if self._capture:
                    attributes["gen_ai.tool.call.arguments"] = arguments
                key = self._start(turn.key, f"execute_tool {name}", "internal", at, attributes)
                turn.tools.add(call_id)
                self._tools[call_id] = key, turn
            case ToolEndEvent(call_id=call_id, status=status, output=output, at=at):
                known = self._tools.pop(call_id, None)
                if known is None:
                    return
                key, turn = known
                content: dict[str, Attribute] = (
                    {"gen_ai.tool.call.result": output} if self._capture else {}
                )
                self._end(key, at, content, error=None if status == "done" else status)
                turn.tools.discard(call_id)
                turn.last_at = turn.cause_at = at

    def _error(self, at: float, source: str, code: str, message: str) -> None:
        attributes: dict[str, Attribute] = {"duologue.source": source, "error.type": code or source}
        if self._capture:
            # A message of a service or of a user's code may quote what was said.
            attributes["exception.message"] = message
        if self._turns:
            self._steps.append(AddSpanEvent(self._turns[-1].key, "duologue.error", at, attributes))
        else:
            self._moment("duologue.error", at, attributes, error=code or source)

    def _note(self, speech_id: str, name: str, at: float, attributes: Attributes) -> None:
        turn = self._turns_by_speech.get(speech_id)
        if turn is not None:
            self._steps.append(AddSpanEvent(turn.key, name, at, attributes))

    # Turns and spans

    def _current_turn(self, at: float) -> _Turn:
        """Return the turn that a reply, a tool or a speech belongs to; open one for a greeting."""
        return self._turns[-1] if self._turns else self._open_turn(at)

    def _open_turn(self, at: float) -> _Turn:
        attributes: dict[str, Attribute] = {
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.agent.name": self._agent_name,
            "openinference.span.kind": "AGENT",
        }
        key = self._start(None, f"invoke_agent {self._agent_name}", "internal", at, attributes)
        turn = _Turn(key, at)
        self._turns.append(turn)
        return turn

    def _end_turn(self, turn: _Turn, at: float, reason: str) -> None:
        if turn.user_speech is not None:
            self._end(turn.user_speech, at, {})
        self._turns.remove(turn)
        turn.attributes["gen_ai.agent.invocation.end_reason"] = reason
        turn.attributes.update(
            self._words("gen_ai.output.messages", "assistant", " ".join(turn.heard))
        )
        self._end(turn.key, at, turn.attributes)

    def _end_idle(self, turn: _Turn, at: float, reason: str) -> None:
        """End a turn in which nothing goes on: for ``reason`` if it got no reply."""
        self._end_turn(turn, at, "completed" if turn.has_replied else reason)

    def _words(self, name: str, role: str, text: str) -> dict[str, Attribute]:
        if not self._capture or not text:
            return {}
        message = {"role": role, "parts": [{"type": "text", "content": text}]}
        return {name: json.dumps([message], ensure_ascii=False)}

    def _start(
        self,
        parent: int | None,
        name: str,
        kind: Kind,
        at: float,
        attributes: Attributes | None = None,
    ) -> int:
        self._next_key += 1
        both = {**self._common, **(attributes or {})}
        self._steps.append(StartSpan(self._next_key, parent, name, kind, at, both))
        return self._next_key

    def _end(
        self, key: int, at: float, attributes: Attributes, *, error: str | None = None
    ) -> None:
        self._steps.append(EndSpan(key, at, attributes, error))

    def _moment(
        self, name: str, at: float, attributes: Attributes, *, error: str | None = None
    ) -> None:
        self._end(self._start(None, name, "internal", at, attributes), at, {}, error=error)


def usage_attributes(usage: UsageEvent) -> dict[str, Attribute]:
    """Return the tokens of a reply as attributes: totals, and their parts by modality."""
    found: dict[str, Attribute] = {}
    for side, counts in (("input", usage.input), ("output", usage.output)):
        total = sum(count for kind, count in counts.items() if kind not in USAGE_PARTS)
        if total:
            found[f"gen_ai.usage.{side}_tokens"] = total
        for kind, count in counts.items():
            name = _USAGE.get(kind, kind)
            if name and count:
                found[f"gen_ai.usage.{name}.{side}_tokens"] = count
    return found
