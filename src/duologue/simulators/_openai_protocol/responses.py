"""The replies of one session, of which at most one is in the conversation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from duologue.audio import Samples
from duologue.clock import Clock
from duologue.json_types import Json, JsonObject
from duologue.realtime.commands import Truncate
from duologue.realtime.realtime import Realtime
from duologue.simulators._backend_session import BackendObserver, BackendSession
from duologue.simulators._fields import objects_at, text_at, value_at
from duologue.simulators._openai_protocol.conversation import Conversation, text_of
from duologue.simulators._openai_protocol.dialect import Emit
from duologue.simulators._openai_protocol.refusals import RefusedError
from duologue.simulators._openai_protocol.reply import AudioSink, OutgoingReply, ReplySpec
from duologue.simulators._openai_protocol.schema import RATE
from duologue.simulators._openai_protocol.session_object import SessionObject, check_modalities
from duologue.simulators._verbatim import quoted_verbatim

MAX_OUT_OF_BAND = 16
"""Concurrent replies outside the conversation."""

_TOKENS_A_MINUTE = 15_000_000


class Responses:
    """Makes the ``response`` events of a session from what the backend replies."""

    reply_type: type[OutgoingReply] = OutgoingReply
    """The class of the replies; set by a dialect."""

    def __init__(
        self,
        backend: Realtime,
        observer: BackendObserver,
        configuration: SessionObject,
        conversation: Conversation,
        emit: Emit,
        audio_sink: AudioSink,
        clock: Clock,
        *,
        reply_ended: Callable[[OutgoingReply], None],
        paraphrase: bool,
        rate: int = RATE,
    ) -> None:
        self._configuration = configuration
        self._conversation = conversation
        self._emit = emit
        self._audio_sink = audio_sink
        self._reply_ended = reply_ended
        self._paraphrase = paraphrase
        self._running: dict[str, OutgoingReply] = {}
        self._used_tokens = 0
        """Tokens of all replies so far."""
        self.backend_session = BackendSession(backend, self, observer, clock, rate=rate)
        self.has_spoken = False
        """Whether the model has spoken in this session."""

    @property
    def active(self) -> OutgoingReply | None:
        """The reply in progress in the conversation."""
        return next((reply for reply in self._running.values() if reply.in_band), None)

    @property
    def pending(self) -> bool:
        """Whether any reply is in progress."""
        return bool(self._running)

    def create(self, params: Json) -> None:
        """Start a reply.

        Args:
            params: The ``response`` field of ``response.create``; None if the service itself starts
                it.

        Raises:
            RefusedError: A reply is in progress, or the fields are wrong.
        """
        spec = self.reply_spec(params)
        active = self.active
        if spec.conversation_id is not None and active is not None:
            raise self.already_active(active)
        if len(self._running) > MAX_OUT_OF_BAND:
            raise RefusedError("rate_limit_exceeded", "Too many responses at once.")
        reply = self.begin(spec)
        text = None
        if spec.instructions and not self._paraphrase:
            text = quoted_verbatim(spec.instructions)
        self.backend_session.request_reply(reply.id, _with_input(spec.instructions, params), text)

    def begin(self, spec: ReplySpec) -> OutgoingReply:
        """Start a reply that the backend does not know of."""
        reply = self.reply_type(
            spec,
            self._emit,
            self._conversation,
            self._audio_sink,
            self.count_input_tokens(),
            input_rate=self.backend_session.backend.capabilities.output_rate,
        )
        reasoning = self._configuration.reasoning_tokens
        if reasoning is not None:
            reply.reasoning_tokens = reasoning
            reply.text_tokens += reasoning
        self._running[reply.id] = reply
        reply.begin()
        return reply

    def cancel(
        self, reason: Literal["turn_detected", "client_cancelled"], response_id: str | None = None
    ) -> None:
        """Cancel a reply.

        Raises:
            RefusedError: There is none in progress.
        """
        reply = self.active if response_id is None else self._running.get(response_id)
        if reply is None:
            raise self.none_active()
        self._end(reply, "cancelled", {"type": "cancelled", "reason": reason})
        self.backend_session.cancel_reply(reply.id)

    def close(self) -> None:
        """Stop all replies."""
        self._running.clear()
        self._audio_sink.close()

    def fail_all(self, code: str, message: str) -> None:
        """End all replies in progress, because the backend has ended."""
        for reply in [*self._running.values()]:
            self.reply_finished(reply.id, code, message)

    # ReplySink: what the backend does

    def reply_text(self, reply_id: str, text: str, backend_item_id: str) -> None:
        """Add text to a reply."""
        reply = self._running.get(reply_id)
        if reply is not None and text:
            if self._configuration.reasoning_tokens is not None:
                reply.phase = (
                    "commentary" if self.backend_session.tool_calls_follow else "final_answer"
                )
            reply.add_text(text)
            self._conversation.backend_ids[reply.item_id] = backend_item_id
            self._enforce_limit(reply)

    def reply_audio(self, reply_id: str, samples: Samples) -> None:
        """Add audio to a reply."""
        reply = self._running.get(reply_id)
        if reply is not None:
            reply.add_audio(samples)
            self.has_spoken = self.has_spoken or reply.samples > 0
            self._enforce_limit(reply)

    def reply_tool_call(self, reply_id: str, call_id: str, name: str, arguments: str) -> None:
        """Add a tool call to a reply."""
        reply = self._running.get(reply_id)
        if reply is not None:
            reply.add_tool_call(call_id, name, arguments)

    def reply_finished(self, reply_id: str, code: str, message: str | None) -> None:
        """End a reply, as completed or failed."""
        reply = self._running.get(reply_id)
        if reply is None:
            return
        if message is None:
            self._end(reply, "completed", None)
        else:
            error: JsonObject = {"type": "server_error", "code": code, "message": message}
            self._end(reply, "failed", {"type": "failed", "error": error})

    def truncate(self, item_id: str, end_ms: int, text: str) -> None:
        """Truncate an item in the backend's history."""
        backend_item_id = self._conversation.backend_ids.get(item_id, item_id)
        self.backend_session.edit_item(Truncate(backend_item_id, end_ms, text))

    def _enforce_limit(self, reply: OutgoingReply) -> None:
        limit = reply.spec.limit
        if limit is not None and reply.tokens > limit and not reply.ended:
            details: JsonObject = {"type": "incomplete", "reason": "max_output_tokens"}
            self._end(reply, "incomplete", details)
            self.backend_session.cancel_reply(reply.id)

    def _end(
        self,
        reply: OutgoingReply,
        status: Literal["completed", "cancelled", "failed", "incomplete"],
        details: Json,
    ) -> None:
        self._running.pop(reply.id, None)
        reply.end(status, details)
        self._used_tokens += reply.tokens + sum_counts(reply.input_tokens)
        self.send_rate_limits()
        self._reply_ended(reply)

    def already_active(self, active: OutgoingReply) -> RefusedError:
        """Return the refusal of a second reply beside the active one."""
        return RefusedError(
            "conversation_already_has_active_response",
            "Conversation already has an active response in progress: "
            f"{active.id}. Wait until the response is finished before creating a new one.",
        )

    def none_active(self) -> RefusedError:
        """Return the refusal to cancel when no reply is in progress."""
        return RefusedError(
            "response_cancel_not_active", "Cancellation failed: no active response found"
        )

    def reply_spec(self, params: Json) -> ReplySpec:
        """Return what a reply is to be, from the fields of ``response.create``.

        Raises:
            RefusedError: The fields are wrong.
        """
        check_modalities(value_at(params, "output_modalities"), "response.output_modalities")
        configured = self._configuration.value
        modalities = value_at(params, "output_modalities") or configured["output_modalities"]
        output = value_at(configured, "audio", "output")
        own = value_at(params, "audio", "output")
        voice = value_at(own, "voice")
        if self.has_spoken and voice is not None and voice != value_at(output, "voice"):
            raise RefusedError(
                "cannot_update_voice",
                "Cannot update a conversation's voice if assistant audio is present.",
                "response.audio.output.voice",
            )
        limit = value_at(params, "max_output_tokens") or configured["max_output_tokens"]
        band = text_at(params, "conversation") != "none"
        return ReplySpec(
            conversation_id=self._conversation.id if band else None,
            modality="text" if modalities == ["text"] else "audio",
            audio_format=value_at(own, "format") or value_at(output, "format"),
            voice=voice or value_at(output, "voice"),
            limit=limit if isinstance(limit, int) else None,
            metadata=value_at(params, "metadata"),
            instructions=text_at(params, "instructions") or None,
        )

    def send_rate_limits(self) -> None:
        """Send what is left of the account's rate limits, where the protocol has that."""
        # The minute starts with the session.
        used = min(self._used_tokens, _TOKENS_A_MINUTE)
        tokens: JsonObject = {
            "name": "tokens",
            "limit": _TOKENS_A_MINUTE,
            "remaining": _TOKENS_A_MINUTE - used,
            "reset_seconds": round(60.0 * used / _TOKENS_A_MINUTE, 3),
        }
        self._emit("rate_limits.updated", {"rate_limits": [tokens]})

    def count_input_tokens(self) -> JsonObject:
        """Count the input tokens: one for 4 letters or 100 ms of audio, 765 for an image."""
        conversation = self._conversation
        text, audio, images = len(self._configuration.instructions) // 4, 0, 0
        for item in conversation.items:
            text += (len(text_at(item, "arguments")) + len(text_at(item, "output"))) // 4
            for part in objects_at(item, "content"):
                match part["type"]:
                    case "input_audio" | self.reply_type.dialect.audio:
                        audio += conversation.audio_ms.get(text_at(item, "id"), 0) // 100
                    case "input_image":
                        images += 765
                    case _:
                        text += len(text_at(part, "text")) // 4
        return {"text_tokens": text, "audio_tokens": audio, "image_tokens": images}


def sum_counts(counts: JsonObject) -> int:
    """Return the sum of the numbers in an object."""
    return sum(count for count in counts.values() if isinstance(count, int))


def _with_input(instructions: str | None, params: Json) -> str | None:
    """Return the instructions, followed by the other input of the reply."""
    lines = [
        f"{text_at(item, 'role') or text_at(item, 'type')}: {text_of(item)}"
        for item in objects_at(params, "input")
        if text_of(item)
    ]
    return "\n".join([*([instructions] if instructions else []), *lines]) or None
