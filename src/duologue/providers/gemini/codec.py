"""Gemini Live messages to and from the session's commands and outputs, without a socket."""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, assert_never
from uuid import uuid4

import numpy as np

from duologue.audio import AudioFrame
from duologue.extras import require
from duologue.items import Json
from duologue.providers.gemini.answers import Answers, Asked
from duologue.providers.gemini.config import LiveConfig, ManualTurns
from duologue.providers.gemini.contents import instruction_note
from duologue.providers.gemini.context import Context, picture_message
from duologue.providers.gemini.errors import error_message
from duologue.providers.gemini.models import traits_of
from duologue.providers.gemini.profile import INPUT_RATE, OUTPUT_RATE
from duologue.providers.gemini.resumption import Resumption
from duologue.providers.gemini.setup_json import setup_message, system_content, tool_list
from duologue.providers.openai.fields import (
    MalformedError,
    inner,
    number,
    objects,
    some_text,
    whole,
)
from duologue.providers.openai.spoken import instructions_to_say
from duologue.realtime.codec import SessionSetup
from duologue.realtime.commands import (
    AddItem,
    CancelReply,
    ClearInput,
    Command,
    DeleteItem,
    EndTurn,
    RequestReply,
    Say,
    SendAudio,
    SendToolResult,
    SendVideo,
    Truncate,
    UpdateSession,
)
from duologue.realtime.errors import ErrorKind
from duologue.realtime.outputs import (
    GoAway,
    Output,
    ProviderError,
    ReplyAudio,
    Resumable,
    SessionStarted,
    ToolCall,
    ToolCallsCancelled,
    Usage,
    UserTranscript,
)

require("orjson", "gemini")
require("pybase64", "gemini")

import orjson  # noqa: E402
import pybase64  # noqa: E402

type JsonObject = dict[str, Json]

_AUDIO = f'{{"realtimeInput":{{"audio":{{"mimeType":"audio/pcm;rate={INPUT_RATE}","data":"'.encode()
_END = b'"}}}'
_BEGIN_ACTIVITY = b'{"realtimeInput":{"activityStart":{}}}'
_END_ACTIVITY = b'{"realtimeInput":{"activityEnd":{}}}'
_PREROLL = INPUT_RATE // 2
"""Sound from before a turn that belongs to it where the program begins turns, in samples."""

_MOST_UNKNOWN = 256
"""Names of messages that are counted each; the rest together."""
_RATE = re.compile(r"rate=(\d+)")
_SECONDS = re.compile(r"(\d+(?:\.\d+)?)s")
_FAILED = frozenset({"MALFORMED_FUNCTION_CALL", "RESPONSE_REJECTED", "BLOCKLIST"})
_FAILED_PARTS = ("PROHIBITED", "SAFETY", "INPUT_", "OUTPUT_", "BLOCKLIST", "GENERATED_")

_IGNORED = frozenset({"voiceActivity", "voiceActivityDetectionSignal"})
"""Where the server tells of speech it does so for allow-listed users only: it is found here."""


class Codec:
    """A `duologue.realtime.codec.Codec` for one connection; a new connection takes a new one.

    ``model`` is its full name; ``resumption`` is the session's, ``transparent`` is for Vertex AI.
    ``unknown`` counts messages by name that are not of the protocol, ``malformed`` what is not
    built as it says.
    """

    def __init__(
        self,
        config: LiveConfig,
        resumption: Resumption,
        *,
        model: str,
        told_cuts: bool = True,
        transparent: bool = False,
        extra: Mapping[str, Json] | None = None,
    ) -> None:
        self._config = config
        self._traits = traits_of(config.model)
        self._resumption = resumption
        self._model = model
        self._transparent = transparent
        self._extra = extra
        self._manual = isinstance(config.turn_detection, ManualTurns)
        self._activity = False
        self._preroll: deque[bytes] = deque()
        self._preroll_samples = 0
        self._answers = Answers()
        self._context = Context(self._traits, resumption, told_cuts=told_cuts)
        self._shown: JsonObject = {}
        self._seed: list[JsonObject] = []
        self._pending: list[bytes] = []
        self._pieces = 0
        self.resuming = False
        """It asks the server to go on with an older session, which has not answered yet."""
        self.started = False
        self._restored = False
        self.unknown: Counter[str] = Counter()
        self.malformed = 0

    def open(self, setup: SessionSetup) -> Sequence[bytes]:
        """The setup alone: the server takes nothing else before it has answered that."""
        handle = self._resumption.handle
        since = self._resumption.since(setup.history)
        if handle is not None and since and not self._traits.free_context:
            handle = None  # What was said since could not be told any more.
        self.resuming = self._restored = handle is not None
        self._context.tools(setup.tools)
        message = setup_message(
            self._config,
            setup,
            model=self._model,
            handle=None if handle is None else handle.value,
            transparent=self._transparent,
            extra=self._extra,
        )
        shown = message["setup"]
        self._shown = dict(shown) if isinstance(shown, dict) else {}
        self._shown.pop("sessionResumption", None)
        if handle is None:
            self._seed = self._context.seed(setup.history)
        else:
            for change in since:
                self._edit(change)
        return [orjson.dumps(message)]

    def encode(self, command: Command) -> Sequence[bytes]:
        """The messages that carry a command, behind what is to be told before them."""
        before, self._pending = self._pending, []
        match command:
            case SendAudio(frame=frame):
                return [*before, *self.pending(), *self._sound(frame.to_bytes(), len(frame))]
            case SendVideo(jpeg=jpeg, now=now):
                messages = []
                if jpeg is not None:
                    messages = self._context.look(jpeg) if now else [picture_message(jpeg)]
            case EndTurn():
                return [*before, *self._end_turn()]
            case ClearInput():
                return before
            case AddItem() | DeleteItem() | Truncate():
                self._edit(command)
                return before
            case RequestReply(request_id=request_id, instructions=instructions):
                told = None if instructions is None else instruction_note(instructions)
                messages = self._request(Asked(request_id), told)
            case Say(request_id=request_id, text=text):
                messages = self._request(Asked(request_id, text), instructions_to_say(text))
            case CancelReply(reply_id=reply_id):
                self._answers.cancel(reply_id)
                return [*before, *self._begin_activity()]
            case SendToolResult():
                messages = self._context.result(command)
            case UpdateSession():
                messages = self._update(command)
            case _:
                assert_never(command)
        return [*before, *map(orjson.dumps, messages)]

    def decode(self, message: bytes) -> Sequence[Output]:
        """What a message means; one may carry several things."""
        outputs = self._outputs(message)
        for item_id in self._answers.unheard():
            self._context.cut(item_id, "")
        return outputs

    def _outputs(self, message: bytes) -> Sequence[Output]:
        try:
            value = orjson.loads(message)
        except orjson.JSONDecodeError:
            value = None
        if not isinstance(value, dict):
            self.malformed += 1
            return ()
        outputs: list[Output] = []
        for name, handler in self._handlers.items():
            if name in value:
                try:
                    outputs += handler(self, inner(value, name))
                except MalformedError:
                    self.malformed += 1
        for name in value:
            if name not in self._handlers and name not in _IGNORED:
                # Bounded: a server that invents names must not fill the memory.
                known = len(self.unknown) < _MOST_UNKNOWN
                self.unknown[name[:80] if known else "..."] += 1
        return outputs

    def pending(self) -> Sequence[bytes]:
        """What the codec itself has to send, each once."""
        pending, self._pending = self._pending, []
        if self.started and self._context.waiting and not self._answers.turn_open:
            pending += map(orjson.dumps, self._context.flush())
        return pending

    def _sound(self, pcm: bytes, samples: int) -> Sequence[bytes]:
        message = b"".join((_AUDIO, pybase64.b64encode(pcm), _END))
        if not self._manual or self._activity:
            return (message,)
        self._preroll.append(message)
        self._preroll_samples += samples
        if self._answers.current is None:
            return self._begin_activity()
        while len(self._preroll) > 1 and self._preroll_samples > _PREROLL:
            self._preroll.popleft()
            self._preroll_samples -= samples
        return ()

    def _begin_activity(self) -> Sequence[bytes]:
        """Begin a turn of the person, where the program does that; it interrupts the model."""
        if not self._manual or self._activity:
            return ()
        self._activity = True
        self._answers.sent_context()
        before, self._preroll = self._preroll, deque()
        self._preroll_samples = 0
        return (_BEGIN_ACTIVITY, *before)

    def _end_turn(self) -> Sequence[bytes]:
        if not self._activity:
            return ()
        self._activity = False
        return (_END_ACTIVITY,)

    def _edit(self, change: AddItem | DeleteItem | Truncate) -> None:
        match change:
            case AddItem(item=item):
                self._context.add(item)
            case DeleteItem(item_id=item_id):
                self._answers.cut(item_id)
                self._context.cut(item_id, "")
            case Truncate(item_id=item_id, heard_text=heard):
                self._answers.cut(item_id)
                self._context.cut(item_id, heard)

    def _request(self, asked: Asked, text: str | None) -> list[JsonObject]:
        messages = self._context.request(text)
        self._answers.sent_context()
        self._answers.ask(asked)
        return messages

    def _update(self, change: UpdateSession) -> list[JsonObject]:
        update: JsonObject = {}
        if change.instructions is not None:
            update["systemInstruction"] = system_content(change.instructions)
        if change.tools is not None:
            self._context.tools(change.tools)
            asynchronous = self._traits.async_tools != "none"
            update["tools"] = {"tools": tool_list(change.tools, asynchronous)}
        return [{"contextUpdate": update}] if update and self._traits.context_update else []

    def _setup_complete(self, _: JsonObject) -> Sequence[Output]:
        if self.started:
            return ()
        self.started, self.resuming = True, False
        if self._seed:
            turns: list[Json] = [*self._seed]
            content: JsonObject = {"turns": turns, "turnComplete": self._traits.seeds}
            self._pending.append(orjson.dumps({"clientContent": content}))
            self._seed = []
        return (SessionStarted(self._shown, self._traits.session_s, self._restored),)

    def _server_content(self, content: JsonObject) -> Sequence[Output]:
        outputs: list[Output] = []
        heard = some_text(inner(content, "inputTranscription"), "text")
        if heard:
            self._pieces += 1
            outputs.append(UserTranscript(f"heard_{self._pieces}", heard, final=False))
        if content.get("interrupted") is True:
            outputs += self._answers.interrupted()
        for part in objects(inner(content, "modelTurn"), "parts"):
            outputs += self._part(part)
        said = some_text(inner(content, "outputTranscription"), "text")
        if said:
            answer, told = self._answers.words(said)
            self._resumption.say(answer.item_id, said)
            outputs += told
        if content.get("generationComplete") is True:
            outputs += self._answers.generated()
        if content.get("turnComplete") is True:
            outputs += self._answers.completed(_failure(content))
        return outputs

    def _part(self, part: JsonObject) -> Sequence[Output]:
        blob = inner(part, "inlineData")
        kind, data = some_text(blob, "mimeType"), some_text(blob, "data")
        if kind is None or data is None or not kind.startswith("audio/pcm"):
            return ()  # Thoughts, or words of what is spoken, which come as its transcript.
        answer, begun = self._answers.content()
        if answer.cancelled:
            return begun
        try:
            pcm = answer.rest + pybase64.b64decode(data)
        except ValueError as error:
            raise MalformedError("data") from error
        even = len(pcm) & ~1
        answer.rest = pcm[even:]
        if not even:
            return begun
        found = _RATE.search(kind)
        rate = OUTPUT_RATE if found is None else int(found[1])
        frame = AudioFrame(np.frombuffer(pcm[:even], "<i2"), rate)
        return (*begun, ReplyAudio(answer.id, answer.item_id, frame))

    def _tool_call(self, message: JsonObject) -> Sequence[Output]:
        outputs: list[Output] = []
        for call in objects(message, "functionCalls"):
            name = some_text(call, "name")
            if name is None:
                raise MalformedError("name")
            call_id = some_text(call, "id") or uuid4().hex
            answer, begun = self._answers.content()
            arguments = orjson.dumps(inner(call, "args")).decode()
            self._context.called(call_id, name)
            outputs += [*begun, ToolCall(answer.id, call_id, name, arguments)]
        # What the model says after its results, or beside them, is a reply of its own.
        return [*outputs, *self._answers.called()]

    def _calls_cancelled(self, message: JsonObject) -> Sequence[Output]:
        ids = message.get("ids")
        call_ids = [one for one in ids if isinstance(one, str)] if isinstance(ids, list) else []
        self._context.cancelled(call_ids)
        return (ToolCallsCancelled(call_ids),)

    def _go_away(self, message: JsonObject) -> Sequence[Output]:
        found = _SECONDS.fullmatch(some_text(message, "timeLeft") or "")
        return (GoAway(float(found[1]) if found else 0.0),)

    def _resumption_update(self, message: JsonObject) -> Sequence[Output]:
        handle = some_text(message, "newHandle")
        resumable = bool(handle) and message.get("resumable") is True
        if handle and resumable and not self._context.waiting:
            self._resumption.keep(handle)
        return (Resumable(resumable),)

    def _error(self, error: JsonObject) -> Sequence[Output]:
        found = error_message(
            whole(error, "code"),
            some_text(error, "status") or "",
            some_text(error, "message") or "",
        )
        kind = found.kind
        if not self.started and kind in (ErrorKind.UNKNOWN, ErrorKind.RETRY):
            kind = ErrorKind.RECYCLE  # It has come instead of the session.
        return (ProviderError(kind, found.code, str(found)),)

    _handlers: ClassVar[Mapping[str, Callable[[Codec, JsonObject], Sequence[Output]]]] = {
        "setupComplete": _setup_complete,
        "toolCallCancellation": _calls_cancelled,
        "serverContent": _server_content,
        "toolCall": _tool_call,
        "usageMetadata": lambda _, m: _usage(m),
        "sessionResumptionUpdate": _resumption_update,
        "goAway": _go_away,
        "error": _error,
    }
    """In the order in which one message's parts are to be taken."""


def _failure(content: JsonObject) -> str | None:
    reason = some_text(content, "turnCompleteReason")
    if reason is None:
        return None
    if reason in _FAILED or any(part in reason for part in _FAILED_PARTS):
        return f"the model did not reply: {reason.lower().replace('_', ' ')}"
    return None


def _usage(usage: JsonObject) -> Sequence[Output]:
    given = _by_modality(usage, "promptTokensDetails", "promptTokenCount")
    made = _by_modality(usage, "responseTokensDetails", "responseTokenCount")
    for counts, key, name in (
        (given, "toolUsePromptTokenCount", "tool_use"),
        (given, "cachedContentTokenCount", "cached"),
        (made, "thoughtsTokenCount", "thoughts"),
    ):
        count = number(usage, key)
        if count:
            counts[name] = int(count)
    return (Usage(given, made),) if given or made else ()


def _by_modality(usage: JsonObject, details: str, total: str) -> dict[str, int]:
    counts: dict[str, int] = {}
    for one in objects(usage, details):
        name = (some_text(one, "modality") or "other").lower()
        counts[name] = counts.get(name, 0) + int(number(one, "tokenCount") or 0)
    count = number(usage, total)
    if not counts and count:
        counts["tokens"] = int(count)
    return counts
