"""One session: handles the client's messages and sends the server's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import orjson

from duologue.clock import Clock
from duologue.errors import SessionClosedError
from duologue.json_types import Json, JsonObject
from duologue.realtime.realtime import Realtime
from duologue.simulators._expectations import Expectations
from duologue.simulators._fields import flag_at, new_id, objects_at, read_json
from duologue.simulators.faults import Error
from duologue.simulators.gemini._conversation import Conversation, backend_items, cost_of
from duologue.simulators.gemini._json_shapes import INTERNAL, RefusedError
from duologue.simulators.gemini._lifetime import Lifetime, Limits
from duologue.simulators.gemini._media import Image
from duologue.simulators.gemini._message_log import MessageLog, without_media
from duologue.simulators.gemini._realtime_input import RealtimeInput
from duologue.simulators.gemini._replies import Replies
from duologue.simulators.gemini._resumption import Handles, Resumption, Snapshot
from duologue.simulators.gemini._schema import MESSAGES, read_message
from duologue.simulators.gemini._setup import INVALID_ARGUMENT, Setup
from duologue.simulators.gemini._turns import UserTurn, UserTurns

INTERNAL_MESSAGE = "Internal error encountered."

MAX_EARLY_MESSAGES = 1000
"""Messages that may wait until the session is ready."""


class Channel(Protocol):
    """Sends a session's messages."""

    def client_event(self, kind: str) -> None:
        """Carry out the faults that an event of the client triggers."""

    def send(self, kind: str, text: str) -> None:
        """Queue a message. Never waits."""

    def close(self, code: int, reason: str) -> None:
        """Close the channel after the queued messages."""


class ClientAccess(Protocol):
    """The way in which a client connected."""

    def accept_setup(self, setup: JsonObject) -> Setup:
        """Return the effective setup of the client. Raises `RefusedError`."""


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """Options of a simulator's sessions; times in seconds of the clock."""

    transcription_delay: float = 0.0
    keep_audio: bool = False
    loopback: bool = False
    paraphrase: bool = False
    audio_pace: float = 4.0
    limits: Limits = Limits()  # noqa: RUF009 - frozen


class GeminiSession:
    """One client's session. Public attributes are for tests to inspect."""

    def __init__(
        self,
        backend: Realtime,
        access: ClientAccess,
        handles: Handles,
        options: SessionOptions,
        channel: Channel,
        clock: Clock,
        setup_accepted: Callable[[GeminiSession], None],
    ) -> None:
        self._access = access
        self._handles = handles
        self._channel = channel
        self._clock = clock
        self._configured = asyncio.Event()
        self._ready = False
        self._early_messages: list[JsonObject] = []
        self._log = MessageLog()
        self._last_message_index = -1
        self._history_complete = False
        self._expectations: Expectations | None = None
        self.id = new_id("session")
        self.resumed = False
        """Whether it continues an earlier session."""
        self.closed = False
        self._setup_accepted = setup_accepted
        self._replies = Replies(
            backend,
            self,
            Conversation(),
            self.emit,
            clock,
            pace=options.audio_pace,
            paraphrase=options.paraphrase,
        )
        self._turns = UserTurns(
            self._replies,
            self.emit,
            clock,
            transcription_delay=options.transcription_delay,
            keep_audio=options.keep_audio,
        )
        self._lifetime = Lifetime(options.limits, clock, self.emit, self.refuse)
        self._realtime_input = RealtimeInput(
            self._turns, self._lifetime, self.emit, loopback=options.loopback
        )
        self._resumption = Resumption(handles, self.emit, self._snapshot)

    @property
    def messages_in(self) -> list[JsonObject]:
        """The client's messages in order, with names in camelCase; of media only the length."""
        return self._log.client_messages.entries

    @property
    def messages_out(self) -> list[str]:
        """The kinds of the server's messages, in order."""
        return self._log.server_messages.entries

    @property
    def conversation(self) -> list[JsonObject]:
        """The contents in order; of the model's turns what was sent."""
        return self._replies.conversation.contents

    @property
    def dropped_records(self) -> int:
        """Number of messages, images and turns that were dropped as too many."""
        log = self._log
        messages = log.client_messages.dropped + log.server_messages.dropped + log.audio_dropped
        return messages + self._realtime_input.images.dropped + self._turns.recorded.dropped

    @property
    def dropped_contents(self) -> int:
        """Number of contents that compression has dropped."""
        return self._replies.conversation.dropped

    @property
    def tokens(self) -> int:
        """Tokens of the conversation."""
        return self._replies.conversation.cost.total

    @property
    def setup(self) -> JsonObject:
        """The setup with names in camelCase, including the changes of ``contextUpdate``."""
        return self._replies.setup.value

    @property
    def system_instruction(self) -> str:
        """The system instruction of the model."""
        return self._replies.setup.system_instruction

    @property
    def tools(self) -> list[JsonObject]:
        """The declarations of the functions that the model may call."""
        return self._replies.setup.declarations

    @property
    def user_turns(self) -> list[UserTurn]:
        """The user turns; with audio if the simulator keeps it."""
        return self._turns.newest

    @property
    def images(self) -> list[Image]:
        """The newest images that the client sent."""
        return self._realtime_input.images.entries

    @property
    def audio_in_samples(self) -> int:
        """Samples of input audio so far, at 16 kHz."""
        return self._realtime_input.audio_samples

    @property
    def backend(self) -> Realtime:
        """The model behind the session."""
        return self._replies.backend_session.backend

    def set_expectations(self, expectations: Expectations | None) -> None:
        """Check the client's messages and turns against these expectations from now on."""
        self._expectations = expectations

    async def begin(self) -> None:
        """Do nothing: the client's setup comes first."""

    async def run_backend(self) -> None:
        """Run the backend from the client's setup on; when it ends, end the session."""
        await self._configured.wait()
        backend_session, setup = self._replies.backend_session, self._replies.setup
        async with asyncio.TaskGroup() as tasks:
            greeting = tasks.create_task(self._complete_setup(), name="simulator greets")
            await backend_session.run(setup.system_instruction, setup.tools)
            greeting.cancel()
        if not self.closed:
            self.refuse(RefusedError(backend_session.error or INTERNAL_MESSAGE, INTERNAL))

    def close(self) -> None:
        """Release everything, because the channel has ended."""
        if self._configured.is_set() and not self.closed:
            self._handles.connection_closed(self.id)
        self.closed = True
        self._replies.close()
        self._turns.close()
        self._lifetime.stop()
        if self._expectations is not None:
            self._expectations.close()

    def emit(self, kind: str, message: JsonObject) -> None:
        """Send a message."""
        if self.closed:
            return
        self._log.record_server_message(kind)
        self._channel.send(kind, orjson.dumps(message).decode())

    def refuse(self, refusal: RefusedError) -> None:
        """End the session, because the protocol has no errors that a session survives."""
        if not self.closed:
            self._channel.close(refusal.code, refusal.reason)
            self.close()

    def inject_error(self, error: Error) -> None:
        """Inject an error: ``go_away`` ends the connection soon, any other code at once."""
        if error.code == "go_away":
            self._lifetime.go_away()
        else:
            self.refuse(RefusedError(error.message, INTERNAL))

    def go_away(self, time_left: float) -> None:
        """Tell the client that the connection ends in ``time_left`` seconds, and end it then."""
        self._lifetime.go_away(time_left)

    def receive(self, text: str | bytes) -> None:
        """Handle a message of the client."""
        if self.closed:
            return
        self._last_message_index += 1
        try:
            self._receive(_parse(text), len(text))
        except RefusedError as refusal:
            self.refuse(refusal)

    def _receive(self, message: JsonObject, size: int) -> None:
        kinds = _named_parts(message)
        self._log.record_client_message(kinds[0][0], message, size)
        for kind, _ in kinds:
            self._channel.client_event(kind)
        if self.closed:
            return
        if not self._configured.is_set():
            if "setup" not in message:
                raise RefusedError("The first message must be setup.")
            self._configure(_object(message["setup"]))
        elif not self._ready:
            if len(self._early_messages) >= MAX_EARLY_MESSAGES:
                raise RefusedError(INVALID_ARGUMENT)
            self._early_messages.append(message)
        else:
            self._handle(message)
        if self._expectations is not None:
            for kind, body in kinds:
                self._expectations.client_event({"type": kind, **body})

    def _configure(self, value: JsonObject) -> None:
        setup = self._access.accept_setup(value)
        if setup.handle:
            snapshot = self._handles.resolve(setup.handle)
            if snapshot.model != setup.model:
                raise RefusedError(INVALID_ARGUMENT)
            self.resumed = True
            self.id = snapshot.session_id
            self._lifetime.session_began_at = snapshot.session_began_at
            self._lifetime.first_image_at = snapshot.first_image_at
            self._replies.conversation = snapshot.conversation.copy()
        self._replies.setup = setup
        self._turns.configure(setup)
        self._handles.connection_opened(self.id)
        self._setup_accepted(self)
        self._configured.set()

    async def _complete_setup(self) -> None:
        try:
            await self.backend.ready()
        except SessionClosedError:
            return  # `run_backend` reports it.
        self._replies.restore_history(self.conversation)
        self._ready = True
        if self._replies.setup.resumable:
            self._resumption.enable(transparent=self._replies.setup.transparent)
        self._lifetime.begin(compressed=self._replies.setup.compression is not None)
        known: JsonObject = {"sessionId": self.id} if self._replies.setup.rules.session_id else {}
        self.emit("setupComplete", {"setupComplete": known})
        self._send_resumption_state()
        for message in self._early_messages:
            if not self.closed:
                try:
                    self._handle(message)
                except RefusedError as refusal:
                    self.refuse(refusal)
        self._early_messages.clear()

    def _handle(self, message: JsonObject) -> None:
        for kind, body in message.items():
            match kind:
                case "realtimeInput":
                    if self._awaits_history:
                        raise RefusedError(INVALID_ARGUMENT)
                    self._realtime_input.accept(_object(body))
                case "clientContent":
                    self._accept_content(_object(body))
                case "toolResponse":
                    self._replies.accept_tool_responses(objects_at(body, "functionResponses"))
                case "contextUpdate":
                    self._update_context(_object(body))
                case _:
                    raise RefusedError(INVALID_ARGUMENT)

    def _accept_content(self, body: JsonObject) -> None:
        setup = self._replies.setup
        complete = flag_at(body, "turnComplete")
        history = self._awaits_history
        if not history and (complete or setup.rules.content_interrupts):
            self._replies.interrupt()
        for turn in objects_at(body, "turns"):
            content: JsonObject = {
                "role": turn.get("role") or "user",
                "parts": turn.get("parts") or [],
            }
            cost = cost_of(content, setup.image_tokens)
            parts = [without_media(part) for part in objects_at(turn, "parts")]
            self._replies.conversation.add(str(content["role"]), parts, cost)
            for item in backend_items(content, {}):
                self._replies.backend_session.add_item(item)
        if complete and history:
            self._history_complete = True
        elif complete:
            self._replies.request_reply()
        self._send_resumption_state()

    def _update_context(self, body: JsonObject) -> None:
        setup = self._replies.setup.with_update(body)
        self._replies.setup = self._turns.setup = setup
        self._replies.backend_session.configure(
            setup.system_instruction if "systemInstruction" in body else None,
            setup.tools if "tools" in body else None,
        )

    @property
    def _awaits_history(self) -> bool:
        return (
            self._replies.setup.begins_with_history
            and not self._history_complete
            and not self.resumed
        )

    # SessionHooks: called by the replies and by the backend session

    def is_user_speaking(self) -> bool:
        """Return whether the user's turn has begun and not ended."""
        return self._turns.speaking

    def turn_transcribed(self, item_id: str, text: str, backend_item_id: str) -> None:
        """Record the transcript of a turn, and send it to the client."""
        del backend_item_id
        self._turns.turn_transcribed(item_id, text)
        if self._expectations is not None:
            self._expectations.turn_ended()

    def partial_transcript(self, text: str) -> None:
        """Do nothing: the service sends the transcript of a turn only after it."""

    def reply_started(self) -> None:
        """Count a reply for the expectations of the script."""
        if self._expectations is not None:
            self._expectations.reply_started()

    def reply_state_changed(self) -> None:
        """Tell the client whether the session can be resumed now."""
        self._send_resumption_state()

    def _send_resumption_state(self) -> None:
        """Tell the client whether the session can be resumed now, and with which handle."""
        self._resumption.send_update(self._last_message_index, resumable=self._replies.is_idle)

    def _snapshot(self) -> Snapshot:
        return Snapshot(
            self.id,
            self._replies.setup.model,
            self._replies.conversation.copy(),
            self._lifetime.session_began_at,
            self._lifetime.first_image_at,
            self._clock.now(),
        )


def _parse(text: str | bytes) -> JsonObject:
    try:
        value = read_json(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise RefusedError("Invalid JSON payload received. Unexpected token.")
    return read_message(value)


def _named_parts(message: JsonObject) -> list[tuple[str, JsonObject]]:
    """Return kind and fields of each part; a ``realtimeInput`` may have several."""
    parts: list[tuple[str, JsonObject]] = []
    for name, body in message.items():
        if name not in MESSAGES:
            continue
        if name == "realtimeInput" and isinstance(body, dict) and body:
            parts += [(f"{name}.{field}", {field: value}) for field, value in body.items()]
        else:
            parts.append((name, _object(body)))
    if not parts:
        raise RefusedError(INVALID_ARGUMENT)
    return parts


def _object(value: Json) -> JsonObject:
    return value if isinstance(value, dict) else {}
