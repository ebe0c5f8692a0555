"""Events on their way to the server: their ids, and what an error about one of them means."""

from __future__ import annotations

import re
from collections.abc import Sequence

from duologue.extras import require
from duologue.items import Json
from duologue.providers.fields import inner, some_text
from duologue.providers.openai.asked import Asked
from duologue.providers.openai.dialect import Dialect, ServerHistory
from duologue.providers.openai.errors import Meaning
from duologue.realtime.errors import ErrorKind
from duologue.realtime.outputs import (
    Alive,
    Output,
    ProviderError,
    ReplyRefused,
    UserTurnEnded,
)

require("orjson", "openai")

from duologue.providers.json_text import encode_object  # noqa: E402

type JsonObject = dict[str, Json]

PING_ID = "ping"
"""Id of every event that requests a sign of life."""

_ABOUT_REQUESTS = frozenset({Meaning.BUSY, Meaning.SPEAKING, Meaning.REFUSED})

_REMEMBERED = frozenset(
    {
        "conversation.item.delete",
        "conversation.item.truncate",
        "input_audio_buffer.commit",
        "output_audio_buffer.clear",
        "session.update",
    }
)
"""Events for which something is done when they are refused; of others nothing is kept."""
_MOST = 256
"""Sent events that are remembered; the oldest is forgotten beyond it."""
_LENGTH = re.compile(r"\bof (\d+) ?ms")


class Outbox:
    """Gives events their ids, and heals what the server did not take."""

    __slots__ = ("_asked", "_count", "_dialect", "_items", "_pending", "_sent", "started")

    def __init__(self, dialect: Dialect, items: ServerHistory, asked: Asked) -> None:
        self._dialect = dialect
        self._items = items
        self._asked = asked
        self._count = 0
        self._sent: dict[str, JsonObject] = {}
        self._pending: list[bytes] = []
        self.started = False
        """The server has taken the session."""

    def message(self, event: JsonObject, request_id: str | None = None) -> bytes:
        """An event as it is sent, with an id of its own; ``request_id`` if it is that request."""
        name = str(event["type"])
        if request_id is not None:
            event_id = self._asked.sent(request_id)
        else:
            event_id = self.next_id(name.rpartition(".")[2])
            if name in _REMEMBERED or "previous_item_id" in event:
                # Of a session only that it was one: it is long.
                self._sent[event_id] = {"type": name} if name == "session.update" else event
                if len(self._sent) > _MOST:
                    del self._sent[next(iter(self._sent))]
        return encode_object({"event_id": event_id, **event})

    def next_id(self, name: str) -> str:
        """An id for one more event."""
        self._count += 1
        return f"{name}_{self._count}"

    def send(self, events: Sequence[JsonObject]) -> None:
        """Send these by `pending`."""
        self._pending += [self.message(event) for event in events]

    def pending(self) -> list[bytes]:
        """What is to be sent, each once."""
        pending, self._pending = self._pending, []
        return pending

    def refused(self, event: JsonObject) -> Sequence[Output]:
        """An ``error`` event."""
        error = inner(event, "error")
        error_type = some_text(error, "type") or ""
        code = some_text(error, "code") or error_type or "error"
        message = some_text(error, "message") or code
        kind = self._dialect.kind_of(code, error_type, message)
        meaning = self._dialect.meaning_of(code, message)
        event_id = some_text(error, "event_id")
        if event_id is None and meaning is Meaning.BUSY and self._asked.automatic_refused():
            # No request has this id, so the refused reply is the automatic one to a user turn.
            return (ReplyRefused("", code, message, busy=True),)
        if event_id == PING_ID:
            return (Alive(),)  # It was not taken, and it was answered.
        request_id = self._request_of(event_id, kind, meaning)
        if request_id is not None:
            busy = meaning in (Meaning.BUSY, Meaning.SPEAKING)
            refusal = ReplyRefused(request_id, code, message, busy=busy)
            if meaning is Meaning.SPEAKING:
                self._asked.hold(refusal)
                return ()
            if kind is ErrorKind.FATAL:
                return (refusal, ProviderError(kind, code, message))
            return (refusal,)
        event_id = event_id or self._guess(kind, meaning)
        sent = self._sent.pop(event_id, None) if event_id is not None else None
        if event_id is None or sent is None:
            return (ProviderError(kind, code, message),)
        match sent["type"]:
            case "session.update" if not self.started:
                # Nothing that follows would be as it was asked for.
                kind = ErrorKind.FATAL
            case "input_audio_buffer.commit" if meaning is Meaning.EMPTY:
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

    def _request_of(
        self, event_id: str | None, kind: ErrorKind, meaning: Meaning | None
    ) -> str | None:
        """The request that an error refuses."""
        if event_id is not None:
            return self._asked.refused(event_id)
        if meaning in _ABOUT_REQUESTS:
            return self._asked.oldest()
        return self._asked.failed() if meaning is None and kind is ErrorKind.RETRY else None

    def _guess(self, kind: ErrorKind, meaning: Meaning | None) -> str | None:
        """The event that an error is about, from a server that does not tell which."""
        if self._dialect.tells_which:
            return None
        if not self.started and kind is ErrorKind.UNKNOWN:
            name = "session.update"
        elif meaning is Meaning.EMPTY:
            name = "input_audio_buffer.commit"
        else:
            return None
        return next((key for key, sent in self._sent.items() if sent["type"] == name), None)

    def _heal_cut(self, sent: JsonObject, message: str, kind: ErrorKind) -> ErrorKind:
        """Cut at the length that the server names, if it is a shorter one."""
        found = _LENGTH.search(message)
        asked = sent["audio_end_ms"]
        if found is None or not isinstance(asked, int):
            return kind
        if 0 < int(found[1]) < asked:
            self.send([{**sent, "audio_end_ms": int(found[1])}])
        return ErrorKind.BENIGN
