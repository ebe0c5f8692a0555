"""One session: handles the client's events and sends the service's."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol
from uuid import uuid4

import orjson

from duologue.audio import Samples
from duologue.clock import Clock, Timer
from duologue.errors import SessionClosedError
from duologue.items import AgentItem, UserItem
from duologue.json_types import Json, JsonObject
from duologue.realtime.commands import ToolSpec
from duologue.realtime.realtime import Realtime
from duologue.simulators._bounded_log import BoundedLog
from duologue.simulators._expectations import Expectations
from duologue.simulators._fields import read_json
from duologue.simulators.faults import Error
from duologue.simulators.nova._blocks import Blocks
from duologue.simulators.nova._event_log import EventLog
from duologue.simulators.nova._input_events import (
    PromptStart,
    RefusedError,
    Sensitivity,
    ToolSpecification,
    parse,
    split_event,
)
from duologue.simulators.nova._input_state_machine import (
    AudioEnded,
    AudioReceived,
    AudioStarted,
    HistoryMessageReceived,
    InputStateMachine,
    PromptConfigured,
    PromptEnded,
    SessionConfigured,
    SessionEnded,
    Step,
    SystemPromptReceived,
    TextReceived,
    ToolResultReceived,
)
from duologue.simulators.nova._loopback import Loopback
from duologue.simulators.nova._playback_model import ConversationEntry
from duologue.simulators.nova._replies import Replies
from duologue.simulators.nova._turns import ENDPOINTING_MS, TurnDetection, UserTurn, UserTurns
from duologue.simulators.nova.faults import INTERNAL, TIMED_OUT

IDLE_TIMED_OUT = "Timed out waiting for input events"
"""Message with which a stream ends on which the client sent nothing for too long."""

EXCEPTIONS = frozenset(
    {
        "internalServerException",
        "modelStreamErrorException",
        "modelTimeoutException",
        "serviceUnavailableException",
        "throttlingException",
        "validationException",
    }
)
"""Exceptions with which a stream may end, from the SDK's types."""

MAX_ENTRIES = 10_000
"""Number of newest conversation entries that are kept for inspection."""
MAX_ENTRY_CHARS = 4 * 1024 * 1024
"""Characters of these entries; beyond it the oldest are dropped."""


class Channel(Protocol):
    """Sends a session's events."""

    def client_event(self, kind: str) -> None:
        """Carry out the faults that an event of the client triggers."""

    def send(self, kind: str, text: str) -> None:
        """Queue an event. Never waits."""

    def fail(self, kind: str, message: str) -> None:
        """Queue an exception that ends the stream."""

    def close(self, code: int, reason: str) -> None:
        """End the stream after the queued events."""


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """Options of a simulator's sessions; times in seconds of the clock."""

    endpointing_ms: Mapping[Sensitivity, int] = field(default_factory=lambda: ENDPOINTING_MS)
    paraphrase: bool = False
    double_encoded_tools: bool = False
    max_stream_s: float = 480.0
    idle_s: float = 55.0
    keep_audio: bool = False
    loopback: bool = False


class NovaSession:
    """One client's stream. Public attributes are for tests to inspect."""

    def __init__(
        self,
        backend: Realtime,
        model: str,
        options: SessionOptions,
        channel: Channel,
        clock: Clock,
        *,
        expectations: Expectations | None = None,
    ) -> None:
        self.model = model
        self.backend = backend
        """The model behind the session."""
        self._options = options
        self._channel = channel
        self._clock = clock
        self._expectations = expectations
        self._input = InputStateMachine(model)
        self._log = EventLog()
        self._backend_needed = asyncio.Event()
        self._sensitivity: Sensitivity = "MEDIUM"
        self._tools: Sequence[ToolSpec] = ()
        self._output: Blocks | None = None
        self._replies: Replies | None = None
        self._turns: UserTurns | None = None
        self._loopback: Loopback | None = None
        self._turn_replies: dict[str, tuple[str, float]] = {}
        self._last_input_at = clock.now()
        self._age_timer: Timer | None = None
        self._idle_timer: Timer | None = None
        self.system_prompt = ""
        """The system prompt."""
        self._entries: BoundedLog[ConversationEntry] = BoundedLog(MAX_ENTRIES, MAX_ENTRY_CHARS)
        self.audio_in_samples = 0
        """Samples of input audio so far, at the client's rate."""
        self.configuration: JsonObject = {}
        """The fields of ``sessionStart`` and ``promptStart``."""
        self.closed = False

    @property
    def events_in(self) -> list[JsonObject]:
        """The client's events in order, as ``{name: fields}``; of audio only the length."""
        return self._log.client_events.entries

    @property
    def events_out(self) -> list[str]:
        """The names of the service's events, in order."""
        return self._log.server_events.entries

    @property
    def conversation(self) -> list[ConversationEntry]:
        """The newest entries of the conversation as the model knows it, in order."""
        return self._entries.entries

    @property
    def dropped_records(self) -> int:
        """Number of events, turns and conversation entries that were dropped as too many."""
        turns = self._turns.recorded.dropped if self._turns is not None else 0
        events = self._log.client_events.dropped + self._log.server_events.dropped
        return events + turns + self._entries.dropped

    @property
    def user_turns(self) -> list[UserTurn]:
        """The user turns; with audio if the simulator keeps it."""
        return self._turns.newest if self._turns is not None else []

    @property
    def tools(self) -> list[str]:
        """The names of the tools that the model may call."""
        return [tool.name for tool in self._tools]

    @property
    def ended_cleanly(self) -> bool:
        """Whether the client has ended its contents, its prompt and its session."""
        return self._input.has_ended

    async def run_backend(self) -> None:
        """Run the backend once it is needed; when it ends, end the stream."""
        await self._backend_needed.wait()
        backend_session = self._prompt_replies.backend_session
        await backend_session.run(self.system_prompt, self._tools)
        self.fail("internalServerException", backend_session.error or INTERNAL)

    def begin(self) -> None:
        """Start the timers that limit the stream's life."""
        self._age_timer = self._clock.call_at(
            self._clock.now() + self._options.max_stream_s,
            lambda: self.fail("modelTimeoutException", TIMED_OUT),
        )
        self._check_idle()

    def close(self) -> None:
        """Release everything, because the stream has ended."""
        self.closed = True
        for timer in (self._age_timer, self._idle_timer):
            if timer is not None:
                timer.cancel()
        if self._replies is not None:
            self._replies.close()
        if self._turns is not None:
            self._turns.close()
        if self._expectations is not None:
            self._expectations.close()
            self._expectations = None

    def finish(self) -> None:
        """End the stream, because the client sends no more."""
        if self.closed:
            return
        if self._output is not None:
            self._output.end_completion()
        self._channel.close(0, "")
        self.close()

    def fail(self, kind: str, message: str) -> None:
        """End the stream with an exception."""
        if not self.closed:
            self._log.record_server_event(kind)
            self._channel.fail(kind, message)
            self.close()

    def emit(self, name: str, fields: JsonObject) -> None:
        """Send an event."""
        if self.closed:
            return
        self._log.record_server_event(name)
        self._channel.send(name, orjson.dumps({"event": {name: fields}}).decode())

    async def receive(self, data: bytes) -> None:
        """Handle an event of the client."""
        if self.closed:
            return
        self._last_input_at = self._clock.now()
        try:
            name, fields = split_event(_parse(data))
            self._log.record_client_event(name, fields, len(data))
            self._channel.client_event(name)
            if self._expectations is not None:
                self._expectations.client_event({"type": name, **fields})
            step = self._input.accept(parse(name, fields))
            if step is not None:
                await self._apply(step, fields)
        except RefusedError as refusal:
            self.fail("validationException", str(refusal))

    async def _apply(self, step: Step, fields: JsonObject) -> None:
        match step:
            case SessionConfigured(event):
                self.configuration["sessionStart"] = fields
                detection = event.turn_detection_configuration
                if detection is not None:
                    self._sensitivity = detection.endpointing_sensitivity
                elif event.endpointing_sensitivity is not None:
                    self._sensitivity = event.endpointing_sensitivity
            case PromptConfigured(event):
                self.configuration["promptStart"] = fields
                self._prepare_prompt(event)
            case SystemPromptReceived(text):
                self.system_prompt = text
                await self._start_backend()
            case HistoryMessageReceived(role, text):
                await self._start_backend()
                user = role == "USER"
                self._prompt_replies.backend_session.add_item(
                    UserItem(uuid4().hex, text) if user else AgentItem(uuid4().hex, text)
                )
                self._remember(ConversationEntry(role, text))
            case AudioStarted(rate):
                await self._start_backend()
                self._start_audio(rate)
            case AudioReceived(samples):
                self.audio_in_samples += len(samples)
                if self._loopback is not None:
                    self._loopback.push(samples)
                elif self._turns is not None:
                    self._turns.add_audio(samples)
            case TextReceived(text):
                await self._start_backend()
                self._accept_text(text)
            case ToolResultReceived(tool_use_id, content):
                self._prompt_replies.add_tool_result(tool_use_id, content)
            case AudioEnded():
                if self._turns is not None:
                    self._turns.end_audio()
            case PromptEnded():
                self._prompt_replies.call_when_played(self._end_prompt)
            case SessionEnded():
                self.finish()

    @property
    def _prompt_replies(self) -> Replies:
        """The replies of the prompt, which has started."""
        assert self._replies is not None  # noqa: S101 - the order of events ensures it
        return self._replies

    def _prepare_prompt(self, prompt: PromptStart) -> None:
        """Create what the prompt needs."""
        configuration = prompt.tool_configuration
        self._tools = [
            ToolSpec(one.tool_spec.name, one.tool_spec.description, _parameters(one.tool_spec))
            for one in (configuration.tools if configuration is not None else ())
        ]
        rate = prompt.audio_output_configuration.sample_rate_hertz
        self._output = Blocks(self.emit, prompt.prompt_name, rate)
        self._replies = Replies(
            self.backend,
            self,
            self._output,
            self._clock,
            paraphrase=self._options.paraphrase,
            double_encoded=self._options.double_encoded_tools,
        )

    async def _start_backend(self) -> None:
        """Start the backend and wait until it is ready."""
        self._backend_needed.set()
        try:
            await self.backend.ready()
        except SessionClosedError:
            return  # `run_backend` reports it.

    def _start_audio(self, rate: int) -> None:
        """Prepare for input audio at ``rate`` Hz."""
        if self._options.loopback and self._output is not None:
            self._loopback = Loopback(self._output, rate)
            return
        self._prompt_replies.backend_session.rate = rate
        self._turns = UserTurns(
            self,
            TurnDetection(self._options.endpointing_ms[self._sensitivity]),
            rate=rate,
            keep_audio=self._options.keep_audio,
        )

    # UserTurnSink: called by the user turns

    def user_started(self) -> None:
        """Interrupt the model, because the person has begun to speak."""
        self._prompt_replies.interrupt()

    def user_audio(self, samples: Samples) -> None:
        """Send the next audio of a turn to the backend."""
        self._prompt_replies.backend_session.send_audio(samples)

    def user_turn_ended(self, item_id: str, seconds: float) -> None:
        """Request a reply to a turn of ``seconds``."""
        replies = self._prompt_replies
        replies.interrupt()
        replies.backend_session.end_turn(item_id)
        self._turn_replies[item_id] = (replies.request_reply(), seconds)

    def _send_transcript(self, item_id: str, text: str) -> None:
        """Send the transcript of a turn, or discard its reply if the turn has no words."""
        reply_id, seconds = self._turn_replies.pop(item_id, ("", 0.0))
        replies = self._prompt_replies
        if not text and not replies.reply_owed:
            replies.discard(reply_id)
            return
        replies.reply_owed = False
        if text and self._output is not None:
            self._remember(ConversationEntry("USER", text))
            self._output.send_user_transcript(text)
            self._output.send_usage("input", speech_s=seconds, text=text)

    def _accept_text(self, text: str) -> None:
        """Handle a message that the person wrote."""
        if self._options.loopback:
            return
        replies = self._prompt_replies
        verbatim = replies.verbatim_text(text) if self._input.nova_2 else None
        if verbatim is None:
            replies.backend_session.add_item(UserItem(uuid4().hex, text, spoken=False))
            self._remember(ConversationEntry("USER", text))
        if self._input.nova_2:
            replies.interrupt()
            replies.request_reply(verbatim)

    # SessionHooks: called by the replies and by the backend session

    def turn_transcribed(self, item_id: str, text: str, backend_item_id: str) -> None:
        """Send the transcript of a turn, or discard its reply if the turn has no words."""
        del backend_item_id
        self._send_transcript(item_id, text)
        if self._expectations is not None:
            self._expectations.turn_ended()

    def partial_transcript(self, text: str) -> None:
        """Do nothing: the service sends the transcript of a turn only after it."""

    def reply_started(self) -> None:
        """Count a reply for the expectations of the script."""
        if self._expectations is not None:
            self._expectations.reply_started()

    def is_user_speaking(self) -> bool:
        """Return whether the person is speaking."""
        return self._turns is not None and self._turns.speaking

    def tool_called(self, tool_use_id: str) -> None:
        """Accept a result of this tool call from now on."""
        self._input.add_call(tool_use_id)

    def entry_spoken(self, entry: ConversationEntry) -> None:
        """Record a reply in the conversation, because its first sentence has been spoken."""
        self._remember(entry)

    def backend_failed(self, code: str, message: str) -> None:
        """End the stream, because the model failed."""
        known = code in EXCEPTIONS
        self.fail(code if known else "modelStreamErrorException", message)

    def inject_error(self, error: Error) -> None:
        """End the stream with an injected error."""
        self.backend_failed(error.code, error.message)

    def _end_prompt(self) -> None:
        if self._output is not None:
            self._output.end_completion()

    def _remember(self, entry: ConversationEntry) -> None:
        self._entries.add(entry, len(entry.text))

    def _check_idle(self) -> None:
        due = self._last_input_at + self._options.idle_s
        if self._clock.now() >= due:
            self.fail("validationException", IDLE_TIMED_OUT)
        else:
            self._idle_timer = self._clock.call_at(due, self._check_idle)


def _parse(data: bytes) -> Json:
    try:
        return read_json(data)
    except ValueError:
        raise RefusedError("Invalid input request: an event is not JSON.") from None


def _parameters(tool: ToolSpecification) -> JsonObject:
    found: Json = orjson.loads(tool.input_schema.json_schema)
    return found if isinstance(found, dict) else {}
