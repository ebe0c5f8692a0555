"""What Gemini Live's messages mean to a session."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar
from uuid import uuid4

import numpy as np

from duologue._optional import optional
from duologue.audio import AudioFrame
from duologue.errors import ErrorKind
from duologue.json_types import Json
from duologue.providers._json_fields import (
    MalformedError,
    int_field,
    is_shallow,
    object_field,
    object_list,
    optional_str,
)
from duologue.providers.gemini._audio import decode_audio
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


type JsonObject = dict[str, Json]

_MAX_UNKNOWN_NAMES = 256
"""Names of messages that are counted each; the rest together."""
_MAX_CALLS = 256
"""Calls in one message, or calls that one cancels; the rest is not taken."""
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)s")
_NO_FAILURE = frozenset({"TURN_COMPLETE_REASON_UNSPECIFIED", "NEED_MORE_INPUT"})
"""Reasons of `turnComplete` that are none: all others are refusals and faults."""

_IGNORED = frozenset({"voiceActivity", "voiceActivityDetectionSignal"})
"""Where the server tells of speech it does so for allow-listed users only: it is found here."""


class Decoder:
    """Reads the messages of one connection; they may be anything, and none is fatal.

    ``unknown`` counts messages by name that are not of the protocol, ``malformed`` what is not
    built as it says.
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
        self._transcript_count = 0
        self.sent_setup: JsonObject = {}
        """The setup that the server was given."""
        self.resumes_session = False
        """By it the server goes on with an older session."""
        self.is_started = False
        self.unknown: Counter[str] = Counter()
        self.malformed = 0

    def decode(self, message: bytes) -> Sequence[Output]:
        """What a message means; one may carry several things."""
        outputs = self._decode_message(message)
        for output in outputs:
            match output:
                case ReplyStarted():
                    self._context.unconfirmed = False  # It answers what came before it.
                    if self._activity is not None:
                        self._activity.mark_answered()
        for item_id in self._replies.take_unheard():
            self._context.truncate(item_id, "")
        return outputs

    def _decode_message(self, message: bytes) -> Sequence[Output]:
        try:
            value = decode_object(message)
        except MalformedError:
            self.malformed += 1
            return ()
        outputs: list[Output] = []
        for name, handler in self._handlers.items():
            if isinstance(value.get(name), dict):
                outputs += self._record_transcript(handler(self, object_field(value, name)))
            else:
                self.malformed += name in value
        for name in value:
            if name not in self._handlers and name not in _IGNORED:
                # Bounded: a server that invents names must not fill the memory.
                known = len(self.unknown) < _MAX_UNKNOWN_NAMES
                self.unknown[name[:80] if known else "..."] += 1
        return outputs

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
        # By a handle the same session could be taken over: that is nobody's business.
        shown = {key: value for key, value in self.sent_setup.items() if key != "sessionResumption"}
        return (SessionStarted(shown, self._traits.session_s, self.resumes_session),)

    def _server_content(self, content: JsonObject) -> Sequence[Output]:
        outputs: list[Output] = []
        heard = optional_str(object_field(content, "inputTranscription"), "text")
        if heard:
            self._transcript_count += 1
            self._replies.user_transcribed()
            outputs.append(UserTranscript(f"heard_{self._transcript_count}", heard, final=False))
        if content.get("interrupted") is True:
            outputs += self._replies.turn_interrupted()
        for part in object_list(object_field(content, "modelTurn"), "parts"):
            call = part.get("functionCall")
            outputs += (
                self._decode_calls([call]) if isinstance(call, dict) else self._decode_part(part)
            )
        said = optional_str(object_field(content, "outputTranscription"), "text")
        if said:
            answer, told = self._replies.text_received(said)
            if answer is not None and answer.cancelled:
                self._context.transcript.append(answer.item_id, said)  # Told to nobody, and said.
            outputs += told
        if content.get("generationComplete") is True:
            outputs += self._replies.generation_completed()
        if content.get("turnComplete") is True:
            status = optional_str(content, "interactionStatus") if self._traits.status else None
            outputs += self._replies.turn_completed(
                _turn_failure(content), turn_follows=status == "IN_PROGRESS"
            )
        return outputs

    def _decode_part(self, part: JsonObject) -> Sequence[Output]:
        if part.get("thought") is True:
            return ()
        try:
            sound = decode_audio(part)
        except MalformedError:
            self.malformed += 1
            return ()
        if sound is None:
            return ()  # Words of what is spoken, which come as its transcript.
        answer, begun = self._replies.content_received()
        if answer.cancelled:
            return begun
        pcm = answer.half_sample + sound[0]
        even = len(pcm) & ~1
        answer.half_sample = pcm[even:]
        if not even:
            return begun
        frame = AudioFrame(np.frombuffer(pcm[:even], "<i2"), sound[1])
        return (*begun, ReplyAudio(answer.id, answer.item_id, frame))

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
            given = optional_str(call, "id")
            if given is not None and self._context.has_call(given):
                continue  # In the model's turn as well as by itself.
            call_id = given or uuid4().hex
            answer, begun = self._replies.content_received()
            args = object_field(call, "args")
            # The tool runner reports to the model what is wrong with its arguments.
            arguments = encode_object(args).decode() if is_shallow(args) else "nested too deep"
            self._context.record_call(call_id, name, has_id=given is not None)
            waits = waits or self._context.model_waits_for(name)
            outputs += [*begun, ToolCall(answer.id, call_id, name, arguments)]
        # What the model says after its results, or beside them, is a reply of its own.
        return [*outputs, *self._replies.tool_called(model_waits=waits)] if outputs else ()

    def _calls_cancelled(self, message: JsonObject) -> Sequence[Output]:
        ids = message.get("ids")
        found = [one for one in ids if isinstance(one, str)] if isinstance(ids, list) else []
        self._context.cancel_calls(found[:_MAX_CALLS])
        return (ToolCallsCancelled(found[:_MAX_CALLS]),) if found else ()

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
            self._resumption.forget()  # It may be about the handle: try without.
            kind = ErrorKind.RECYCLE
        elif not self.is_started and kind in (ErrorKind.UNKNOWN, ErrorKind.RETRY):
            kind = ErrorKind.RECYCLE  # It has come instead of the session.
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
    """In the order in which one message's parts are to be taken."""


def _turn_failure(content: JsonObject) -> TurnFailure | None:
    reason = optional_str(content, "turnCompleteReason")
    if not reason or reason in _NO_FAILURE:
        return None
    words = reason[:80].lower().replace("_", " ")
    return TurnFailure(reason[:80], f"the model did not reply: {words}")
