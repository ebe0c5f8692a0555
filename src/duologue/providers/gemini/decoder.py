"""What Gemini Live's messages mean to a session."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar
from uuid import uuid4

import numpy as np

from duologue.audio import AudioFrame
from duologue.extras import require
from duologue.items import Json
from duologue.providers.fields import MalformedError, inner, is_shallow, objects, some_text, whole
from duologue.providers.gemini.activity import Activity
from duologue.providers.gemini.answers import Answers, Failure
from duologue.providers.gemini.context import Context
from duologue.providers.gemini.errors import error_message
from duologue.providers.gemini.models import Traits
from duologue.providers.gemini.resumption import Resumption
from duologue.providers.gemini.sound import sound_of
from duologue.providers.gemini.usage import usage_of
from duologue.realtime.errors import ErrorKind
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

require("orjson", "gemini")

from duologue.providers.json_text import decode_object, encode_object  # noqa: E402

type JsonObject = dict[str, Json]

_MOST_UNKNOWN = 256
"""Names of messages that are counted each; the rest together."""
_MOST_CALLS = 256
"""Calls in one message, or calls that one cancels; the rest is not taken."""
_SECONDS = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)s")
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
        answers: Answers,
        context: Context,
        activity: Activity | None,
    ) -> None:
        self._traits = traits
        self._resumption = resumption
        self._answers = answers
        self._context = context
        self._activity = activity
        self._pieces = 0
        self.asked: JsonObject = {}
        """The setup that the server was given."""
        self.restored = False
        """By it the server goes on with an older session."""
        self.started = False
        self.unknown: Counter[str] = Counter()
        self.malformed = 0

    def decode(self, message: bytes) -> Sequence[Output]:
        """What a message means; one may carry several things."""
        outputs = self._outputs(message)
        for output in outputs:
            match output:
                case ReplyStarted():
                    self._context.unproven = False  # It answers what came before it.
                    if self._activity is not None:
                        self._activity.answered()
        for item_id in self._answers.unheard():
            self._context.cut(item_id, "")
        return outputs

    def _outputs(self, message: bytes) -> Sequence[Output]:
        try:
            value = decode_object(message)
        except MalformedError:
            self.malformed += 1
            return ()
        outputs: list[Output] = []
        for name, handler in self._handlers.items():
            if isinstance(value.get(name), dict):
                outputs += self._said(handler(self, inner(value, name)))
            else:
                self.malformed += name in value
        for name in value:
            if name not in self._handlers and name not in _IGNORED:
                # Bounded: a server that invents names must not fill the memory.
                known = len(self.unknown) < _MOST_UNKNOWN
                self.unknown[name[:80] if known else "..."] += 1
        return outputs

    def _said(self, outputs: Sequence[Output]) -> Sequence[Output]:
        for output in outputs:
            if isinstance(output, ReplyText):
                self._context.said.add(output.item_id, output.text)
        return outputs

    def _setup_complete(self, _: JsonObject) -> Sequence[Output]:
        if self.started:
            return ()
        self.started = True
        if self.restored:
            self._resumption.taken()
        # By a handle the same session could be taken over: that is nobody's business.
        shown = {key: value for key, value in self.asked.items() if key != "sessionResumption"}
        return (SessionStarted(shown, self._traits.session_s, self.restored),)

    def _server_content(self, content: JsonObject) -> Sequence[Output]:
        outputs: list[Output] = []
        heard = some_text(inner(content, "inputTranscription"), "text")
        if heard:
            self._pieces += 1
            self._answers.heard()
            outputs.append(UserTranscript(f"heard_{self._pieces}", heard, final=False))
        if content.get("interrupted") is True:
            outputs += self._answers.interrupted()
        for part in objects(inner(content, "modelTurn"), "parts"):
            call = part.get("functionCall")
            outputs += self._calls([call]) if isinstance(call, dict) else self._part(part)
        said = some_text(inner(content, "outputTranscription"), "text")
        if said:
            answer, told = self._answers.words(said)
            if answer is not None and answer.cancelled:
                self._context.said.add(answer.item_id, said)  # Told to nobody, and said.
            outputs += told
        if content.get("generationComplete") is True:
            outputs += self._answers.generated()
        if content.get("turnComplete") is True:
            status = some_text(content, "interactionStatus") if self._traits.status else None
            outputs += self._answers.completed(_failure(content), goes_on=status == "IN_PROGRESS")
        return outputs

    def _part(self, part: JsonObject) -> Sequence[Output]:
        if part.get("thought") is True:
            return ()
        try:
            sound = sound_of(part)
        except MalformedError:
            self.malformed += 1
            return ()
        if sound is None:
            return ()  # Words of what is spoken, which come as its transcript.
        answer, begun = self._answers.content()
        if answer.cancelled:
            return begun
        pcm = answer.rest + sound[0]
        even = len(pcm) & ~1
        answer.rest = pcm[even:]
        if not even:
            return begun
        frame = AudioFrame(np.frombuffer(pcm[:even], "<i2"), sound[1])
        return (*begun, ReplyAudio(answer.id, answer.item_id, frame))

    def _tool_call(self, message: JsonObject) -> Sequence[Output]:
        return self._calls(objects(message, "functionCalls")[:_MOST_CALLS])

    def _calls(self, calls: Sequence[JsonObject]) -> Sequence[Output]:
        outputs: list[Output] = []
        waits = False
        for call in calls:
            name = some_text(call, "name")
            if not name:
                self.malformed += 1
                continue
            given = some_text(call, "id")
            if given is not None and self._context.has_call(given):
                continue  # In the model's turn as well as by itself.
            call_id = given or uuid4().hex
            answer, begun = self._answers.content()
            args = inner(call, "args")
            # The tool runner reports to the model what is wrong with its arguments.
            arguments = encode_object(args).decode() if is_shallow(args) else "nested too deep"
            self._context.called(call_id, name, has_id=given is not None)
            waits = waits or self._context.waits_for(name)
            outputs += [*begun, ToolCall(answer.id, call_id, name, arguments)]
        # What the model says after its results, or beside them, is a reply of its own.
        return [*outputs, *self._answers.called(waits=waits)] if outputs else ()

    def _calls_cancelled(self, message: JsonObject) -> Sequence[Output]:
        ids = message.get("ids")
        found = [one for one in ids if isinstance(one, str)] if isinstance(ids, list) else []
        self._context.cancelled(found[:_MOST_CALLS])
        return (ToolCallsCancelled(found[:_MOST_CALLS]),) if found else ()

    def _go_away(self, message: JsonObject) -> Sequence[Output]:
        found = _SECONDS.fullmatch(some_text(message, "timeLeft") or "")
        return (GoAway(float(found[1]) if found else 0.0),)

    def _resumption_update(self, message: JsonObject) -> Sequence[Output]:
        handle = some_text(message, "newHandle")
        resumable = bool(handle) and message.get("resumable") is True
        if handle and resumable and not self._context.unproven:
            context = self._context
            self._resumption.keep(handle, context.said.words, context.cuts, context.knows)
        return (Resumable(resumable),)

    def _error(self, error: JsonObject) -> Sequence[Output]:
        found = error_message(
            whole(error, "code"),
            some_text(error, "status") or "",
            some_text(error, "message") or "",
        )
        kind = found.kind
        if self.restored and not self.started:
            self._resumption.forget()  # It may be about the handle: try without.
            kind = ErrorKind.RECYCLE
        elif not self.started and kind in (ErrorKind.UNKNOWN, ErrorKind.RETRY):
            kind = ErrorKind.RECYCLE  # It has come instead of the session.
        return (ProviderError(kind, found.code, str(found)),)

    _handlers: ClassVar[Mapping[str, Callable[[Decoder, JsonObject], Sequence[Output]]]] = {
        "setupComplete": _setup_complete,
        "toolCallCancellation": _calls_cancelled,
        "serverContent": _server_content,
        "toolCall": _tool_call,
        "usageMetadata": lambda _, message: usage_of(message),
        "sessionResumptionUpdate": _resumption_update,
        "goAway": _go_away,
        "error": _error,
    }
    """In the order in which one message's parts are to be taken."""


def _failure(content: JsonObject) -> Failure | None:
    reason = some_text(content, "turnCompleteReason")
    if not reason or reason in _NO_FAILURE:
        return None
    words = reason[:80].lower().replace("_", " ")
    return Failure(reason[:80], f"the model did not reply: {words}")
