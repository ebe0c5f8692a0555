"""The messages of RTVI 2.1 on a data channel, sans-IO: docs/edges/rtvi.md describes them."""

# A client is `@pipecat-ai/client-js`, or its sisters for React, React Native, iOS and Android, with
# the transport SmallWebRTC. All its messages and ours are texts on one data channel:
#
#     {"label": "rtvi-ai", "type", "id", "data"}       RTVI, both ways
#     {"type": "signalling", "message": {"type"}}      of the transport, both ways
#     "ping: 1700000000000"                            of the transport, each second, to us
#
# `read_message` decodes what comes. `EventTranslator` turns the events of a conversation into what
# a client shows. RTVI reports a reply by sentences ("segments"), and how far each was spoken; our
# events have the text as it is made (`AgentTranscriptEvent`) and as it is heard
# (`AgentHeardEvent`), which begins with the same characters.

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final
from uuid import uuid4

from duologue._bounded_dict import BoundedDict
from duologue.events.events import USAGE_PARTS
from duologue.json_types import Json, JsonObject

CHANNEL: Final = "chat"
"""Label of the data channel."""

VERSION: Final = "2.1.0"
"""The version of RTVI that is spoken here."""

LEGACY_VERSION: Final = "1.4.0"
"""The version that `bot_ready` names to a client of version 1."""

MAX_TEXT_CHARS = 4000
"""Longest text of a person, in characters."""

MAX_MESSAGE_CHARS = 64 * 1024
"""Longest message of a client, in characters."""

MAX_DIGITS = 32
"""Most keys in one message."""

_LABEL = "rtvi-ai"

_MAX_NAME_CHARS = 200
"""Longest id of a message, and longest name of an application's message."""

_MAX_SPEECHES = 8
"""Most speeches whose text is followed at once."""

_SENTENCE = re.compile(r".+?(?:[.!?…]+[\"'”\u2019)\]]*\s+|[。\uff01\uff1f]+[」』”]?\s*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class ClientReady:
    """The client can receive messages; ``major`` is its major version of RTVI, 0 if unknown."""

    id: str
    major: int


@dataclass(frozen=True, slots=True)
class SendText:
    """The person wrote something, to which the agent replies."""

    id: str
    text: str


@dataclass(frozen=True, slots=True)
class AppMessage:
    """A message of the application; ``name`` says which."""

    id: str
    name: str
    data: Json


@dataclass(frozen=True, slots=True)
class Digits:
    """The person pressed keys."""

    keys: str


@dataclass(frozen=True, slots=True)
class FunctionResult:
    """The client's result of a function that it was asked to call."""

    call_id: str
    result: Json


@dataclass(frozen=True, slots=True)
class MicrophoneStatus:
    """The client has switched its microphone on or off."""

    enabled: bool


@dataclass(frozen=True, slots=True)
class DisconnectBot:
    """The client asks the agent to leave."""


@dataclass(frozen=True, slots=True)
class Ignored:
    """Nothing that matters here: a sign of life, or the state of a camera."""


type ClientMessage = (
    ClientReady
    | SendText
    | AppMessage
    | Digits
    | FunctionResult
    | MicrophoneStatus
    | DisconnectBot
    | Ignored
)


class RtviError(Exception):
    """A message can't be used; ``id`` is that of the message, "" if it has none."""

    def __init__(self, reason: str, id: str = "") -> None:  # noqa: A002 - its name on the wire
        super().__init__(reason)
        self.id = id


def read_message(text: str) -> ClientMessage:
    """Return what a text on the data channel means.

    Raises:
        RtviError: It is not one of the protocol, or is not supported, or a value is out of bounds.
    """
    if text.startswith("ping"):
        return Ignored()
    if len(text) > MAX_MESSAGE_CHARS:
        raise RtviError(f"a message has up to {MAX_MESSAGE_CHARS} characters")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise RtviError("a message must be a JSON object") from None
    match value:
        case {"type": "signalling", "message": {"type": "trackStatus", **status}}:
            enabled = status.get("enabled")
            if status.get("receiver_index") == 0 and isinstance(enabled, bool):
                return MicrophoneStatus(enabled)
            return Ignored()
        case {"type": "signalling"}:
            return Ignored()
        case {"label": "rtvi-ai", "type": str(kind), **fields}:
            name = fields.get("id")
            known = name if isinstance(name, str) and len(name) <= _MAX_NAME_CHARS else ""
            data = fields.get("data")
            return _read_rtvi(kind, known, data if isinstance(data, dict) else {})
        case _:
            raise RtviError("a message must have the label rtvi-ai and a type")


def _read_rtvi(kind: str, name: str, data: Mapping[str, Json]) -> ClientMessage:
    match kind, data:
        case "client-ready", _:
            return ClientReady(name, _major(data.get("version")))
        case "send-text", {"content": str(text), **rest}:
            return SendText(name, _checked_text(text, rest.get("options"), name))
        case "append-to-context", {"role": "user", "content": str(text)}:
            return SendText(name, _checked_text(text, data, name))
        case "client-message", {"t": str(message), **rest} if len(message) <= _MAX_NAME_CHARS:
            return AppMessage(name, message, rest.get("d"))
        case "dtmf", {"buttons": list(buttons)} if len(buttons) <= MAX_DIGITS:
            return Digits("".join(_checked_key(button, name) for button in buttons))
        case "dtmf", {"button": button}:
            return Digits(_checked_key(button, name))
        case "llm-function-call-result", {"tool_call_id": str(call_id), **rest}:
            return FunctionResult(call_id, rest.get("result"))
        case "disconnect-bot", _:
            return DisconnectBot()
        case (("send-text" | "client-message" | "dtmf" | "llm-function-call-result"), _):
            raise RtviError(f"a {kind} message lacks its value, or it is out of bounds", name)
        case _:
            raise RtviError(f"messages of the type {kind[:40]} are not supported", name)


def _major(version: Json) -> int:
    first = version.split(".", 1)[0] if isinstance(version, str) else ""
    return int(first) if first.isascii() and first.isdecimal() and len(first) < 4 else 0


def _checked_text(text: str, options: object, name: str) -> str:
    if not 0 < len(text) <= MAX_TEXT_CHARS:
        raise RtviError(f"a text has 1 to {MAX_TEXT_CHARS} characters", name)
    if isinstance(options, Mapping) and options.get("run_immediately") is False:
        raise RtviError("run_immediately: false is not supported: a text gets a reply", name)
    return text


def _checked_key(key: Json, name: str) -> str:
    if not isinstance(key, str) or len(key) != 1 or key not in "0123456789*#":
        raise RtviError("a key is 0 to 9, * or #", name)
    return key


def rtvi_message(kind: str, data: Json = None, *, id: str | None = None) -> JsonObject:  # noqa: A002
    """Return a message to a client.

    Args:
        kind: Type of the message.
        data: Its data; None is left out.
        id: The id of the message that it answers; by default a new one.
    """
    message: JsonObject = {"label": _LABEL, "type": kind, "id": id or uuid4().hex[:8]}
    if data is not None:
        message["data"] = data
    return message


def bot_ready(ready: ClientReady, about: JsonObject) -> JsonObject:
    """Return the answer to a client that is ready."""
    version = LEGACY_VERSION if ready.major == 1 else VERSION
    return rtvi_message("bot-ready", {"version": version, "about": about}, id=ready.id)


def server_response(request: AppMessage, data: Json) -> JsonObject:
    """Return the answer to an application's message."""
    return rtvi_message("server-response", {"t": request.name, "d": data}, id=request.id)


def error_response(id: str, reason: str) -> JsonObject:  # noqa: A002 - its name on the wire
    """Return the answer to a message that failed."""
    return rtvi_message("error-response", {"error": reason}, id=id)


def error_message(text: str, *, fatal: bool) -> JsonObject:
    """Return an error; a ``fatal`` one makes the client disconnect."""
    return rtvi_message("error", {"error": text, "message": text, "fatal": fatal})


def function_call(call_id: str, name: str, arguments: Json) -> JsonObject:
    """Return the report of a running function; a client that has registered it calls it."""
    data: JsonObject = {"tool_call_id": call_id, "function_name": name, "arguments": arguments}
    return rtvi_message("llm-function-call-in-progress", data)


def peer_left() -> JsonObject:
    """Return the transport's message that the agent has left, on which a client disconnects."""
    return {"type": "signalling", "message": {"type": "peerLeft"}}


@dataclass(slots=True)
class _Segment:
    """A sentence of a speech."""

    id: int
    text: str
    spoken: int = 0
    """Characters of it that were heard."""


@dataclass(slots=True)
class _SpeechText:
    """The text of one speech."""

    made: str = ""
    heard: str = ""
    started: bool = False
    ended: bool = False
    cut: bool = False
    """Whether it was interrupted, so that nobody hears what comes now."""
    waiting: str = ""
    """The beginning of a sentence whose end has not come."""
    segments: list[_Segment] = field(default_factory=list)


class EventTranslator:
    """Turns the events of one conversation into messages to one client."""

    __slots__ = ("_next_segment", "_speeches", "legacy")

    def __init__(self) -> None:
        self.legacy = False
        """Whether the client speaks RTVI 1, which has no segments."""
        self._speeches: BoundedDict[str, _SpeechText] = BoundedDict(_MAX_SPEECHES)
        self._next_segment = 0

    def translate(self, event: Mapping[str, Json]) -> Sequence[JsonObject]:
        """Return the messages for an event, given as `event_to_json` returns it; often none."""
        match event:
            case {"type": "UserTurnStartedEvent"}:
                return [rtvi_message("user-started-speaking")]
            case {"type": "UserTurnEndedEvent"}:
                return [rtvi_message("user-stopped-speaking")]
            case {"type": "UserTranscriptEvent", "text": str(text), "final": bool(final), **rest}:
                return _transcript(text, rest, final=final)
            case {"type": "ReplyStartedEvent"}:
                return [rtvi_message("bot-llm-started")]
            case {"type": "ReplyDoneEvent", **rest}:
                stopped = rtvi_message("bot-llm-stopped")
                return [*self._finish_sentence(rest.get("speech_id")), stopped]
            case {"type": "AgentTranscriptEvent", "final": False, "text": str(text), **rest}:
                return self._text_made(str(rest.get("speech_id")), text)
            case {"type": "AgentTurnStartedEvent", "speech_id": str(speech_id)}:
                return self._speech_started(speech_id)
            case {"type": "AgentHeardEvent", "text": str(text), "speech_id": str(speech_id)}:
                return self._text_heard(speech_id, text)
            case {"type": "AgentTurnEndedEvent", "speech_id": str(speech_id), **rest}:
                return self._speech_ended(speech_id, interrupted=rest.get("interrupted") is True)
            case {"type": "InterruptionEvent"}:
                return [rtvi_message("bot-interrupted")]
            case {"type": "ToolStartEvent", "call_id": str(call_id), "name": str(name), **rest}:
                started = rtvi_message("llm-function-call-started", {"function_name": name})
                return [started, function_call(call_id, name, _arguments(rest.get("arguments")))]
            case {"type": "ToolEndEvent", "call_id": str(call_id), "name": str(name), **rest}:
                return [_tool_ended(call_id, name, rest)]
            case {"type": "TurnMetricsEvent", **rest}:
                return _metrics(rest)
            case {"type": "UsageEvent", "input": dict(used), "output": dict(made)}:
                return _usage(used, made)
            case {"type": "ErrorEvent", "message": str(text)}:
                return [error_message(text, fatal=False)]
            case _:
                return []

    def _text_made(self, speech_id: str, text: str) -> list[JsonObject]:
        speech = self._speech(speech_id)
        speech.made += text
        speech.waiting += text
        messages = [rtvi_message("bot-llm-text", {"text": text})]
        if speech.cut:
            return messages
        at = 0
        while (sentence := _SENTENCE.match(speech.waiting, at)) is not None:
            messages += self._segment(speech, sentence.group())
            at = sentence.end()
        speech.waiting = speech.waiting[at:]
        # Some models send a transcript after its audio has been played.
        return [*messages, *self._finish_sentence(speech_id)] if speech.ended else messages

    def _finish_sentence(self, speech_id: Json) -> list[JsonObject]:
        """Report text after the last end of a sentence, because no more follows."""
        speech = self._speeches.get(speech_id) if isinstance(speech_id, str) else None
        if speech is None or not speech.waiting:
            return []
        rest, speech.waiting = speech.waiting, ""
        return self._segment(speech, rest)

    def _segment(self, speech: _SpeechText, text: str) -> list[JsonObject]:
        self._next_segment += 1
        segment = _Segment(self._next_segment, text, len(text) if speech.ended else 0)
        speech.segments.append(segment)
        messages = [rtvi_message("bot-transcription", {"text": text.strip()})]
        # Clients make a new bubble when the agent begins to speak, so segments come after that.
        if speech.started:
            messages.append(self._output(segment))
        return messages

    def _output(self, segment: _Segment) -> JsonObject:
        text, spoken = segment.text, segment.spoken
        data: JsonObject = {"text": text, "aggregated_by": "sentence"}
        if self.legacy:
            return rtvi_message("bot-output", data | {"spoken": False})
        status = "new" if not spoken else "completed" if spoken == len(text) else "in-progress"
        return rtvi_message(
            "bot-output",
            data
            | {
                "segment_id": segment.id,
                "will_be_spoken": True,
                "spoken_status": status,
                "spoken_progress": {
                    "accumulated_text": text[:spoken],
                    "remaining_text": text[spoken:],
                },
            },
        )

    def _speech_started(self, speech_id: str) -> list[JsonObject]:
        speech = self._speech(speech_id)
        speech.started = True
        return [
            rtvi_message("bot-tts-started"),
            rtvi_message("bot-started-speaking"),
            *(self._output(segment) for segment in speech.segments),
        ]

    def _text_heard(self, speech_id: str, text: str) -> list[JsonObject]:
        speech = self._speech(speech_id)
        speech.heard += text
        messages = [rtvi_message("bot-tts-text", {"text": text})]
        if self.legacy:
            data: JsonObject = {"text": text, "spoken": True, "aggregated_by": "word"}
            messages.append(rtvi_message("bot-output", data))
        elif speech.made.startswith(speech.heard):
            messages += self._advance(speech, len(speech.heard))
        return messages

    def _advance(self, speech: _SpeechText, heard: int) -> list[JsonObject]:
        """Report the sentences of which more was heard: ``heard`` characters of the speech."""
        messages: list[JsonObject] = []
        start = 0
        for segment in speech.segments:
            spoken = min(max(0, heard - start), len(segment.text))
            start += len(segment.text)
            if not segment.text[spoken:].strip():
                spoken = len(segment.text) if spoken else 0
            if spoken > segment.spoken:
                segment.spoken = spoken
                messages.append(self._output(segment))
        return messages

    def _speech_ended(self, speech_id: str, *, interrupted: bool) -> list[JsonObject]:
        messages: list[JsonObject] = []
        speech = self._speech(speech_id)
        if not interrupted:
            messages += self._finish_sentence(speech_id)
            if not self.legacy:
                messages += self._advance(speech, len(speech.made))
        speech.ended, speech.cut = True, interrupted
        stopped = (rtvi_message(kind) for kind in ("bot-tts-stopped", "bot-stopped-speaking"))
        return [*messages, *stopped]

    def _speech(self, speech_id: str) -> _SpeechText:
        speech = self._speeches.get(speech_id)
        if speech is None:
            speech = self._speeches[speech_id] = _SpeechText()
        return speech


def _transcript(text: str, event: Mapping[str, Json], *, final: bool) -> list[JsonObject]:
    at = event.get("at")
    moment = datetime.fromtimestamp(at if isinstance(at, int | float) else 0.0, UTC)
    data: JsonObject = {
        "text": text,
        "final": final,
        "timestamp": moment.isoformat(timespec="milliseconds"),
        "user_id": event.get("participant"),
    }
    messages = [rtvi_message("user-transcription", data)]
    if final and text:
        messages.append(rtvi_message("user-llm-text", {"text": text}))
    return messages


def _arguments(text: Json) -> Json:
    """Return the arguments of a tool as an object, as RTVI wants them; {} if they are not one."""
    try:
        arguments: Json = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        arguments = None
    return arguments if isinstance(arguments, dict) else {}


def _tool_ended(call_id: str, name: str, event: Mapping[str, Json]) -> JsonObject:
    cancelled = event.get("status") == "cancelled"
    data: JsonObject = {
        "tool_call_id": call_id,
        "function_name": name,
        "cancelled": cancelled,
    }
    if not cancelled:
        data["result"] = event.get("output")
    return rtvi_message("llm-function-call-stopped", data)


def _metrics(event: Mapping[str, Json]) -> list[JsonObject]:
    """Report the times of a turn in seconds after the end of the person's speech."""
    entries: list[Json] = []
    for name in ("endpoint", "transcript", "first_text", "first_audio", "first_played"):
        milliseconds = event.get(f"{name}_ms")
        if isinstance(milliseconds, int | float):
            entries.append({"processor": name, "value": round(milliseconds / 1000, 4)})
    if not entries:
        return []
    data: JsonObject = {"processing": entries}
    audio = event.get("first_audio_ms")
    if isinstance(audio, int | float):
        data["ttfb"] = [{"processor": "agent", "value": round(audio / 1000, 4)}]
    return [rtvi_message("metrics", data)]


def _usage(used: Mapping[str, Json], made: Mapping[str, Json]) -> list[JsonObject]:
    # The parts of a kind are counted in that kind already (`USAGE_PARTS`).
    prompt, completion = _tokens(used), _tokens(made)
    tokens: JsonObject = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }
    return [rtvi_message("metrics", {"tokens": [tokens]})]


def _tokens(counts: Mapping[str, Json]) -> int:
    return sum(
        count
        for kind, count in counts.items()
        if isinstance(count, int) and kind not in USAGE_PARTS
    )
