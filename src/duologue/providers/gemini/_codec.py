"""Translate between Gemini Live messages and the session's commands and outputs, without I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import assert_never

from duologue._optional import optional
from duologue.json_types import Json, JsonObject
from duologue.providers._verbatim import verbatim_instructions
from duologue.providers.gemini._audio import audio_message
from duologue.providers.gemini._capabilities import INPUT_RATE
from duologue.providers.gemini._config import LiveConfig
from duologue.providers.gemini._contents import instruction_note
from duologue.providers.gemini._decoder import Decoder
from duologue.providers.gemini._manual_turns import UserActivity
from duologue.providers.gemini._models import model_traits
from duologue.providers.gemini._pending_context import (
    PendingContext,
    image_message,
    interrupts_turn,
)
from duologue.providers.gemini._reply_tracker import ReplyRequest, ReplyTracker
from duologue.providers.gemini._resumption import Resumption, ServerTranscript
from duologue.providers.gemini._setup_json import setup_message, update_message
from duologue.realtime.codec import SessionSetup
from duologue.realtime.commands import (
    AddItem,
    CancelReply,
    ClearInput,
    Command,
    DeleteItem,
    EndTurn,
    Ping,
    RequestReply,
    Say,
    SendAudio,
    SendToolResult,
    SendVideo,
    Truncate,
    UpdateSession,
)
from duologue.realtime.options import ManualTurns
from duologue.realtime.outputs import Output

with optional("gemini"):
    from duologue.providers._json_text import encode_object


class Codec:
    """A `duologue.realtime.Codec` for one connection; each connection needs a new one.

    Args:
        config: The options of the session.
        resumption: The session's handle, shared by its connections.
        model: Full resource name of the model.
        report_truncation: Tell the model in text what the person did not hear.
        transparent: Ask for transparent resumption, which only Vertex AI has.
    """

    def __init__(
        self,
        config: LiveConfig,
        resumption: Resumption,
        *,
        model: str,
        report_truncation: bool = True,
        transparent: bool = False,
    ) -> None:
        self._config = config
        self._traits = model_traits(config.model)
        self._resumption = resumption
        self._model = model
        self._report_truncation = report_truncation
        self._transparent = transparent
        manual = isinstance(config.turn_detection, ManualTurns)
        self._activity = UserActivity(INPUT_RATE) if manual else None
        self._replies = ReplyTracker(has_transcript=config.output_transcription is not None)
        self._context = PendingContext(
            self._traits, ServerTranscript(), report_truncation=report_truncation
        )
        self._decoder = Decoder(
            self._traits, resumption, self._replies, self._context, self._activity
        )
        self._seed_turns: list[JsonObject] = []
        self._pending: list[bytes] = []

    @property
    def awaits_resumption(self) -> bool:
        """Whether the server was asked to resume a session and has not replied yet."""
        return self._decoder.resumes_session and not self._decoder.is_started

    @property
    def is_started(self) -> bool:
        """Whether the server has accepted the setup."""
        return self._decoder.is_started

    @property
    def awaits_reply(self) -> bool:
        """Whether the program has ended a turn that the model has not replied to yet."""
        return self._activity is not None and self._activity.awaits_reply

    @property
    def resumes_session(self) -> bool:
        """Whether the setup asked to resume a session."""
        return self._decoder.resumes_session

    @property
    def unknown(self) -> Counter[str]:
        """Messages outside the protocol, counted by name."""
        return self._decoder.unknown

    @property
    def malformed(self) -> int:
        """Number of messages, or parts of them, that do not fit the protocol."""
        return self._decoder.malformed

    def open(self, setup: SessionSetup) -> Sequence[bytes]:
        """Return the setup only: the server takes nothing else before it has accepted that."""
        handle = self._resumption.next_handle()
        since: Sequence[AddItem | DeleteItem | Truncate] = ()
        if handle is not None:
            since = handle.changes_since(setup.history, report_truncation=self._report_truncation)
            if not self._traits.free_context and any(isinstance(one, AddItem) for one in since):
                handle = None  # This model takes no items later, so they would be lost.
        self._decoder.resumes_session = handle is not None
        if handle is None:
            self._seed_turns = self._context.seed(setup.history)
        else:
            self._context.transcript = ServerTranscript(handle.server_texts)
            for change in since:
                self._edit_history(change)
        self._context.set_tools(setup.tools)
        message = setup_message(
            self._config,
            setup,
            model=self._model,
            handle=None if handle is None else handle.value,
            transparent=self._transparent,
            seeded=bool(self._seed_turns),
        )
        self._decoder.sent_setup = message["setup"]
        return [encode_object(message)]

    def encode(self, command: Command) -> Sequence[bytes]:
        """Return the messages for a command, after those that have to precede it."""
        before, self._pending = self._pending, []
        match command:
            case SendAudio(frame=frame):
                self._replies.audio_sent(frame)
                return [*before, *self.pending(), *self._encode_audio(frame.to_bytes(), len(frame))]
            case SendVideo(jpeg=jpeg, in_order=now):
                messages = []
                if jpeg is not None:
                    messages = self._context.add_image(jpeg) if now else [image_message(jpeg)]
            case EndTurn():
                return [*before, *self._end_turn()]
            case ClearInput():
                if self._activity is not None:
                    self._activity.clear()
                return before
            case AddItem() | DeleteItem() | Truncate():
                self._edit_history(command)
                return before
            case RequestReply(request_id=request_id, instructions=instructions):
                note = None if instructions is None else instruction_note(instructions)
                return [*before, *self._request(ReplyRequest(request_id), note)]
            case Say(request_id=request_id, text=text):
                note = verbatim_instructions(text)
                return [*before, *self._request(ReplyRequest(request_id, text), note)]
            case CancelReply(reply_id=reply_id):
                self._replies.cancel(reply_id)
                return [*before, *self._begin_activity()]
            case SendToolResult(more=more):
                messages = self._context.encode_result(command)
                if not more:
                    self._replies.tool_result_sent()
            case UpdateSession():
                messages = self._update(command)
            case Ping():
                messages = []  # The capabilities do not include ``answers_pings``.
            case _:
                assert_never(command)
        return [*before, *self._encode_messages(messages)]

    def decode(self, message: bytes) -> Sequence[Output]:
        """Return what a message means; one message may carry several outputs."""
        outputs = self._decoder.decode(message)
        if self._decoder.is_started and self._seed_turns:
            turns: list[Json] = [*self._seed_turns]
            content: JsonObject = {"turns": turns, "turnComplete": self._traits.seeds}
            self._pending.append(encode_object({"clientContent": content}))
            self._seed_turns = []
        return outputs

    def pending(self) -> Sequence[bytes]:
        """Return the messages that the codec itself has to send, each once."""
        pending, self._pending = self._pending, []
        if (
            self._decoder.is_started
            and self._context.has_pending
            and not self._replies.model_has_turn
        ):
            pending += self._encode_messages(self._context.flush())
        return pending

    def _encode_messages(self, messages: Sequence[JsonObject]) -> list[bytes]:
        if any(map(interrupts_turn, messages)):
            self._replies.context_sent()
        return [encode_object(message) for message in messages]

    def _encode_audio(self, pcm: bytes, samples: int) -> Sequence[bytes]:
        message = audio_message(pcm)
        if self._activity is None:
            return (message,)
        was_open = self._activity.is_open
        messages = self._activity.accept(message, samples, busy=self._replies.turn_open)
        if self._activity.is_open and not was_open:
            self._replies.context_sent()
        return messages

    def _begin_activity(self) -> Sequence[bytes]:
        """Begin a user turn if the program marks turns; this interrupts the model."""
        if self._activity is None or self._activity.is_open:
            return ()
        self._replies.context_sent()
        return self._activity.begin()

    def _end_turn(self, *, force: bool = False) -> Sequence[bytes]:
        if self._activity is None:
            return ()
        messages = self._activity.end(force=force)
        if len(messages) > 1:
            self._replies.context_sent()
        return messages

    def _edit_history(self, change: AddItem | DeleteItem | Truncate) -> None:
        match change:
            case AddItem(item=item):
                self._context.add_item(item)
            case DeleteItem(item_id=item_id):
                self._replies.mark_truncated(item_id)
                self._context.truncate(item_id, "")
            case Truncate(item_id=item_id, heard_text=heard):
                self._replies.mark_truncated(item_id)
                self._context.truncate(item_id, heard)

    def _request(self, request: ReplyRequest, text: str | None) -> Sequence[bytes]:
        messages = self._encode_messages(self._context.request_reply(text))
        self._replies.expect_reply(request)
        if self._activity is None or self._traits.free_context:
            return messages
        # With such a model, text is part of the turn that the program ends.
        return [*self._begin_activity(), *messages, *self._end_turn(force=True)]

    def _update(self, change: UpdateSession) -> list[JsonObject]:
        if change.tools is not None:
            self._context.set_tools(change.tools)
        if not self._traits.context_update:
            return []
        message = update_message(self._config, change, extra=self._config.extra or {})
        return [] if message is None else [message]
