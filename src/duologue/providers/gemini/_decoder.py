"""Decode Gemini Live messages into session outputs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar
from uuid import uuid4

from duologue._optional import optional
from duologue.audio import AudioFrame
from duologue.errors import ErrorKind
from duologue.json_types import JsonObject
from duologue.providers._json_fields import (
    MalformedError,
    int_field,
    is_shallow,
    object_field,
    object_list,
    optional_str,
)
from duologue.providers.gemini._audio import AudioShape, decode_audio
from duologue.providers.gemini._errors import error_message
from duologue.providers.gemini._manual_turns import UserActivity
from duologue.providers.gemini._models import Traits
from duologue.providers.gemini._pending_context import PendingContext
from duologue.providers.gemini._reply_tracker import ReplyTracker, TurnFailure
from duologue.providers.gemini._resumption import Resumption
from duologue.providers.gemini._usage import parse_usage
from duologue.realtime.outputs import (
    GoAway,
    Output,
    ProviderError,
    ReplyAudio,
    ReplyStarted,
    ReplyText,
    Resumable,
    SessionStarted,
    ToolCall,
    ToolCallsCancelled,
    UserTranscript,
)

with optional("gemini"):
    from duologue.providers._json_text import decode_object, encode_object


_MAX_UNKNOWN_NAMES = 256
"""Unknown message names that are counted separately; any further ones are counted together."""
_MAX_CALLS = 256
"""Calls in one message, or in one cancellation; the rest is ignored."""
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)s")
_NO_FAILURE = frozenset({"TURN_COMPLETE_REASON_UNSPECIFIED", "NEED_MORE_INPUT"})
"""Reasons of `turnComplete` that are no failures; all others are refusals and faults."""

_IGNORED = frozenset({"voiceActivity", "voiceActivityDetectionSignal"})
"""Ignored, because the server reports speech to allow-listed users only; it is detected locally."""


class Decoder:
    """Decodes the messages of one connection; no content of a message is fatal.

    ``unknown`` counts messages outside the protocol by name, ``malformed`` those that do not have
    the form that the protocol says.
    """

    def __init__(
        self,
        traits: Traits,
        resumption: Resumption,
        replies: ReplyTracker,
        context: PendingContext,
        activity: UserActivity | None,
    ) -> None:
        self._traits = traits
        self._resumption = resumption
        self._replies = replies
        self._context = context
        self._activity = activity
        self._audio_shape = AudioShape()
        self._transcript_count = 0
        self.sent_setup: JsonObject = {}
        """The setup that was sent to the server."""
        self.resumes_session = False
        """Whether that setup asked to resume a session."""
        self.is_started = False
        self.unknown: Counter[str] = Counter()
        self.malformed = 0

    def decode(self, message: bytes) -> Sequence[Output]:
        """Return what a message means; one message may carry several outputs."""
        outputs = self._decode_message(message)
        for output in outputs:
            match output:
                case ReplyStarted():
                    # The reply shows that everything before it has arrived.
                    self._context.unconfirmed = False
                    if self._activity is not None:
                        self._activity.mark_answered()
        for item_id in self._replies.take_unheard():
            self._context.truncate(item_id, "")
        return outputs

    def _decode_message(self, message: bytes) -> Sequence[Output]:
        audio = self._audio_shape.read(message)
        if audio is not None:
            return self._audio_received(*audio)
        try:
            value = decode_object(message)
        except MalformedError:
            self.malformed += 1
            return ()
        if len(value) > 1:
            # Names that are not known keep their places, at the end.
            value = dict(sorted(value.items(), key=lambda item: _ORDER.get(item[0], len(_ORDER))))
        self._audio_shape.learn(message, value)
        outputs: list[Output] = []
        for name, content in value.items():
            handler = self._handlers.get(name)
            if handler is None:
                self._count_unknown(name)
            elif isinstance(content, dict):
                outputs += self._record_transcript(handler(self, content))
            else:
                self.malformed += 1
        return outputs

    def _count_unknown(self, name: str) -> None:
        if name not in _IGNORED:
            # Bounded, so that a server that invents names cannot fill the memory.
            known = len(self.unknown) < _MAX_UNKNOWN_NAMES
            self.unknown[name[:80] if known else "..."] += 1

    def _record_transcript(self, outputs: Sequence[Output]) -> Sequence[Output]:
        for output in outputs:
            if isinstance(output, ReplyText):
                self._context.transcript.append(output.item_id, output.text)
        return outputs

    def _setup_complete(self, _: JsonObject) -> Sequence[Output]:
        if self.is_started:
            return ()
        self.is_started = True
        if self.resumes_session:
            self._resumption.mark_resumed()
        # Leave out the handle: anyone who has it could take over the session.
        shown = {key: value for key, value in self.sent_setup.items() if key != "sessionResumption"}
        return (SessionStarted(shown, self._traits.session_s, self.resumes_session),)

    def _server_content(self, content: JsonObject) -> Sequence[Output]:
        if len(content) == 1 and "modelTurn" in content:  # Nearly always: audio only.
            return self._model_turn(content)
        outputs: list[Output] = []
        user_text = optional_str(object_field(content, "inputTranscription"), "text")
        if user_text:
            self._transcript_count += 1
            self._replies.user_transcribed()
            item_id = f"heard_{self._transcript_count}"
            outputs.append(UserTranscript(item_id, user_text, final=False))
        if content.get("interrupted") is True:
            outputs += self._replies.turn_interrupted()
        outputs += self._model_turn(content)
        text = optional_str(object_field(content, "outputTranscription"), "text")
        if text:
            reply, text_outputs = self._replies.text_received(text)
            if reply is not None and reply.cancelled:
                # No output reports this text, but the model did say it.
                self._context.transcript.append(reply.item_id, text)
            outputs += text_outputs
        if content.get("generationComplete") is True:
            outputs += self._replies.generation_completed()
        if content.get("turnComplete") is True:
            status = optional_str(content, "interactionStatus") if self._traits.status else None
            outputs += self._replies.turn_completed(
                _turn_failure(content), turn_follows=status == "IN_PROGRESS"
            )
        return outputs

    def _model_turn(self, content: JsonObject) -> Sequence[Output]:
        outputs: list[Output] = []
        for part in object_list(object_field(content, "modelTurn"), "parts"):
            call = part.get("functionCall")
            outputs += (
                self._decode_calls([call]) if isinstance(call, dict) else self._decode_part(part)
            )
        return outputs

    def _decode_part(self, part: JsonObject) -> Sequence[Output]:
        if part.get("thought") is True:
            return ()
        try:
            audio = decode_audio(part)
        except MalformedError:
            self.malformed += 1
            return ()
        if audio is None:
            return ()  # Text of the spoken words, which also comes as the transcript.
        return self._audio_received(*audio)

    def _audio_received(self, pcm: bytes, rate: int) -> Sequence[Output]:
        reply, begun = self._replies.content_received()
        if reply.cancelled:
            return begun
        samples = reply.pcm_decoder.push(pcm)
        if not len(samples):
            return begun
        return (*begun, ReplyAudio(reply.id, reply.item_id, AudioFrame(samples, rate)))

    def _tool_call(self, message: JsonObject) -> Sequence[Output]:
        return self._decode_calls(object_list(message, "functionCalls")[:_MAX_CALLS])

    def _decode_calls(self, calls: Sequence[JsonObject]) -> Sequence[Output]:
        outputs: list[Output] = []
        waits = False
        for call in calls:
            name = optional_str(call, "name")
            if not name:
                self.malformed += 1
                continue
            server_id = optional_str(call, "id")
            if server_id is not None and self._context.has_call(server_id):
                continue  # The call is in the model's turn and also in a message of its own.
            call_id = server_id or uuid4().hex
            reply, begun = self._replies.content_received()
            args = object_field(call, "args")
            # The tool runner tells the model what is wrong with its arguments.
            arguments = encode_object(args).decode() if is_shallow(args) else "nested too deep"
            self._context.record_call(call_id, name, has_id=server_id is not None)
            waits = waits or self._context.model_waits_for(name)
            outputs += [*begun, ToolCall(reply.id, call_id, name, arguments)]
        # What the model says after the results, or beside them, is a reply of its own.
        return [*outputs, *self._replies.tool_called(model_waits=waits)] if outputs else ()

    def _calls_cancelled(self, message: JsonObject) -> Sequence[Output]:
        ids = message.get("ids")
        valid = [one for one in ids if isinstance(one, str)] if isinstance(ids, list) else []
        call_ids = valid[:_MAX_CALLS]
        self._context.cancel_calls(call_ids)
        return (ToolCallsCancelled(call_ids),) if call_ids else ()

    def _go_away(self, message: JsonObject) -> Sequence[Output]:
        found = _DURATION.fullmatch(optional_str(message, "timeLeft") or "")
        return (GoAway(float(found[1]) if found else 0.0),)

    def _resumption_update(self, message: JsonObject) -> Sequence[Output]:
        handle = optional_str(message, "newHandle")
        resumable = bool(handle) and message.get("resumable") is True
        if handle and resumable and not self._context.unconfirmed:
            context = self._context
            self._resumption.save_handle(
                handle, context.transcript.texts, context.pending_truncations, context.server_knows
            )
        return (Resumable(resumable),)

    def _error(self, error: JsonObject) -> Sequence[Output]:
        found = error_message(
            int_field(error, "code"),
            optional_str(error, "status") or "",
            optional_str(error, "message") or "",
        )
        kind = found.kind
        if self.resumes_session and not self.is_started:
            self._resumption.forget()  # It may be about the handle: connect without it.
            kind = ErrorKind.RECYCLE
        elif not self.is_started and kind in (ErrorKind.UNKNOWN, ErrorKind.RETRY):
            kind = ErrorKind.RECYCLE  # It came instead of the session.
        return (ProviderError(kind, found.code, str(found)),)

    _handlers: ClassVar[Mapping[str, Callable[[Decoder, JsonObject], Sequence[Output]]]] = {
        "setupComplete": _setup_complete,
        "toolCallCancellation": _calls_cancelled,
        "serverContent": _server_content,
        "toolCall": _tool_call,
        "usageMetadata": lambda _, message: parse_usage(message),
        "sessionResumptionUpdate": _resumption_update,
        "goAway": _go_away,
        "error": _error,
    }
    """In the order in which the parts of one message are handled."""


_ORDER = {name: place for place, name in enumerate(Decoder._handlers)}


def _turn_failure(content: JsonObject) -> TurnFailure | None:
    reason = optional_str(content, "turnCompleteReason")
    if not reason or reason in _NO_FAILURE:
        return None
    words = reason[:80].lower().replace("_", " ")
    return TurnFailure(reason[:80], f"the model did not reply: {words}")
