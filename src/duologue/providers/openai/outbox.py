"""Events on their way to the server: their ids, and what an error about one of them means."""

from __future__ import annotations

import re
from collections.abc import Sequence

from duologue.extras import require
from duologue.items import Json
from duologue.providers.openai.errors import kind_of
from duologue.providers.openai.fields import inner, some_text
from duologue.providers.openai.server_items import ServerItems
from duologue.realtime.errors import ErrorKind
from duologue.realtime.outputs import Output, ProviderError, ReplyRefused, UserTurnEnded

require("orjson", "openai")

import orjson  # noqa: E402

type JsonObject = dict[str, Json]

_MOST = 256
"""Sent events that are remembered; the oldest is forgotten beyond it."""
_LENGTH = re.compile(r"\bof (\d+) ?ms")
_BUSY = "conversation_already_has_active_response"
_EMPTY = "input_audio_buffer_commit_empty"


class Outbox:
    """Gives events their ids, and heals what the server did not take."""

    __slots__ = ("_count", "_items", "_pending", "_requests", "_sent", "started")

    def __init__(self, items: ServerItems) -> None:
        self._items = items
        self._count = 0
        self._sent: dict[str, JsonObject] = {}
        self._requests: dict[str, str] = {}
        self._pending: list[bytes] = []
        self.started = False
        """The server has taken the session."""

    def message(self, event: JsonObject) -> bytes:
        """An event as it is sent, with an id of its own."""
        name = str(event["type"])
        request_id = None
        if name == "response.create":
            request_id = some_text(inner(inner(event, "response"), "metadata"), "request_id")
        if request_id is not None:
            event_id = f"request_{request_id}"
            self._requests[event_id] = request_id
        else:
            self._count += 1
            event_id = f"{name.rpartition('.')[2]}_{self._count}"
            if name != "conversation.item.create" or "previous_item_id" in event:
                # Of a session only that it was one: it is long.
                self._sent[event_id] = {"type": name} if name == "session.update" else event
        for sent in (self._sent, self._requests):
            if len(sent) > _MOST:
                del sent[next(iter(sent))]
        return orjson.dumps({"event_id": event_id, **event})

    def send(self, events: Sequence[JsonObject]) -> None:
        """Send these by `pending`."""
        self._pending += [self.message(event) for event in events]

    def pending(self) -> list[bytes]:
        """What is to be sent, each once."""
        pending, self._pending = self._pending, []
        return pending

    def answered(self, request_id: str | None) -> None:
        """The response to a request has begun: an error can't mean it any more."""
        self._requests.pop(f"request_{request_id}", None)

    def refused(self, event: JsonObject) -> Sequence[Output]:
        """An ``error`` event."""
        error = inner(event, "error")
        error_type = some_text(error, "type") or ""
        code = some_text(error, "code") or error_type or "error"
        message = some_text(error, "message") or code
        kind = kind_of(code, error_type, message)
        event_id = some_text(error, "event_id")
        request_id = self._request_of(event_id, code)
        if request_id is not None:
            refusal = ReplyRefused(request_id, code, message, busy=code == _BUSY)
            if kind is ErrorKind.FATAL:
                return (refusal, ProviderError(kind, code, message))
            return (refusal,)
        sent = self._sent.pop(event_id, None) if event_id else None
        if sent is None:
            return (ProviderError(kind, code, message),)
        match sent["type"]:
            case "session.update" if not self.started:
                # Nothing that follows would be as it was asked for.
                kind = ErrorKind.FATAL
            case "input_audio_buffer.commit" if code == _EMPTY and event_id is not None:
                ended = UserTurnEnded(event_id, reply_follows=False, empty=True)
                return (ended, ProviderError(ErrorKind.BENIGN, code, message))
            case "conversation.item.delete":
                self._items.gone(str(sent["item_id"]))
                kind = ErrorKind.BENIGN
            case "output_audio_buffer.clear":
                kind = ErrorKind.BENIGN
            case "conversation.item.create":
                # Its place is gone: the end is the next best one.
                self.send([{key: sent[key] for key in ("type", "item")}])
                kind = ErrorKind.BENIGN
            case "conversation.item.truncate":
                kind = self._heal_cut(sent, message, kind)
        return (ProviderError(kind, code, message),)

    def _request_of(self, event_id: str | None, code: str) -> str | None:
        """The request that an error refuses."""
        if event_id is not None:
            return self._requests.pop(event_id, None)
        if code == _BUSY and self._requests:
            return self._requests.pop(next(iter(self._requests)))
        return None

    def _heal_cut(self, sent: JsonObject, message: str, kind: ErrorKind) -> ErrorKind:
        """Cut at the length that the server names, if it is a shorter one."""
        found = _LENGTH.search(message)
        asked = sent["audio_end_ms"]
        if found is None or not isinstance(asked, int):
            return kind
        if 0 < int(found[1]) < asked:
            self.send([{**sent, "audio_end_ms": int(found[1])}])
        return ErrorKind.BENIGN
