"""Events that were sent: their ids, and what an error about one of them means."""

from __future__ import annotations

import re
from collections.abc import Sequence

from duologue._bounded_dict import BoundedDict
from duologue._optional import optional
from duologue.errors import ErrorKind
from duologue.json_types import JsonObject
from duologue.providers._json_fields import object_field, optional_str
from duologue.providers._openai_protocol.dialect import Dialect, ServerHistory
from duologue.providers._openai_protocol.errors import Meaning
from duologue.providers._openai_protocol.pending_requests import PendingRequests
from duologue.realtime.outputs import Alive, Output, ProviderError, ReplyRefused, UserTurnEnded

with optional("openai"):
    from duologue.providers._json_text import encode_object


PING_ID = "ping"
"""Id of every event that is sent as a ping."""

_REQUEST_MEANINGS = frozenset({Meaning.BUSY, Meaning.USER_SPEAKING, Meaning.REFUSED})

_TRACKED_EVENTS = frozenset(
    {
        "conversation.item.delete",
        "conversation.item.truncate",
        "input_audio_buffer.commit",
        "output_audio_buffer.clear",
        "session.update",
    }
)
"""Events whose refusal is handled; no others are stored."""
_MAX_SENT = 256
"""Maximum number of stored events; the oldest is dropped beyond it."""
_AUDIO_LENGTH = re.compile(r"\bof (\d+) ?ms")


class SentEvents:
    """Assigns ids to events, and repairs what the server refused."""

    __slots__ = (
        "_conversation",
        "_dialect",
        "_event_count",
        "_pending_requests",
        "_queued",
        "_sent",
        "session_started",
    )

    def __init__(
        self, dialect: Dialect, conversation: ServerHistory, pending_requests: PendingRequests
    ) -> None:
        self._dialect = dialect
        self._conversation = conversation
        self._pending_requests = pending_requests
        self._event_count = 0
        self._sent: BoundedDict[str, JsonObject] = BoundedDict(_MAX_SENT)
        self._queued: list[bytes] = []
        self.session_started = False
        """Whether the server has accepted the session."""

    def encode(self, event: JsonObject, request_id: str | None = None) -> bytes:
        """Encode an event with a new id; ``request_id`` if it requests a response."""
        name = str(event["type"])
        if request_id is not None:
            event_id = self._pending_requests.add(request_id)
        else:
            event_id = self.next_id(name.rpartition(".")[2])
            if name in _TRACKED_EVENTS or "previous_item_id" in event:
                # Store only the type of a session update, because it is long.
                self._sent[event_id] = {"type": name} if name == "session.update" else event
        return encode_object({"event_id": event_id, **event})

    def next_id(self, name: str) -> str:
        """Return the id of the next event."""
        self._event_count += 1
        return f"{name}_{self._event_count}"

    def queue(self, events: Sequence[JsonObject]) -> None:
        """Queue events, which `take_queued` returns."""
        self._queued += [self.encode(event) for event in events]

    def take_queued(self) -> list[bytes]:
        """Return the queued events, each once."""
        pending, self._queued = self._queued, []
        return pending

    def error_received(self, event: JsonObject) -> Sequence[Output]:
        """Handle an ``error`` event."""
        error = object_field(event, "error")
        error_type = optional_str(error, "type") or ""
        code = optional_str(error, "code") or error_type or "error"
        message = optional_str(error, "message") or code
        kind = self._dialect.kind_of(code, error_type, message)
        meaning = self._dialect.meaning_of(code, message)
        event_id = optional_str(error, "event_id")
        if (
            event_id is None
            and meaning is Meaning.BUSY
            and self._pending_requests.drop_automatic_reply()
        ):
            # No request has this id, so the refused reply is the automatic one to a user turn.
            return (ReplyRefused("", code, message, busy=True),)
        if event_id == PING_ID:
            return (Alive(),)  # The ping was refused, which is an answer.
        request_id = self._refused_request(event_id, kind, meaning)
        if request_id is not None:
            busy = meaning in (Meaning.BUSY, Meaning.USER_SPEAKING)
            refusal = ReplyRefused(request_id, code, message, busy=busy)
            if meaning is Meaning.USER_SPEAKING:
                self._pending_requests.hold_refusal(refusal)
                return ()
            if kind is ErrorKind.FATAL:
                return (refusal, ProviderError(kind, code, message))
            return (refusal,)
        event_id = event_id or self._guess_event(kind, meaning)
        sent = self._sent.pop(event_id, None) if event_id is not None else None
        if event_id is None or sent is None:
            return (ProviderError(kind, code, message),)
        match sent["type"]:
            case "session.update" if not self.session_started:
                # Nothing that follows would be as configured.
                kind = ErrorKind.FATAL
            case "input_audio_buffer.commit" if meaning is Meaning.EMPTY_TURN:
                ended = UserTurnEnded(event_id, reply_follows=False, empty=True)
                return (ended, ProviderError(ErrorKind.BENIGN, code, message))
            case "conversation.item.delete":
                self._conversation.item_deleted(str(sent["item_id"]))
                kind = ErrorKind.BENIGN
            case "output_audio_buffer.clear":
                kind = ErrorKind.BENIGN
            case "conversation.item.create":
                # The predecessor no longer exists: append the item instead.
                self.queue([{key: sent[key] for key in ("type", "item")}])
                kind = ErrorKind.BENIGN
            case "conversation.item.truncate":
                kind = self._retry_truncate(sent, message, kind)
        return (ProviderError(kind, code, message),)

    def _refused_request(
        self, event_id: str | None, kind: ErrorKind, meaning: Meaning | None
    ) -> str | None:
        """Return the request that an error refuses."""
        if event_id is not None:
            return self._pending_requests.pop_refused(event_id)
        if meaning in _REQUEST_MEANINGS:
            return self._pending_requests.pop_oldest()
        return (
            self._pending_requests.pop_failed()
            if meaning is None and kind is ErrorKind.RETRY
            else None
        )

    def _guess_event(self, kind: ErrorKind, meaning: Meaning | None) -> str | None:
        """Guess the event that an error is about, for a server that does not name it."""
        if self._dialect.correlates_errors:
            return None
        if not self.session_started and kind is ErrorKind.UNKNOWN:
            name = "session.update"
        elif meaning is Meaning.EMPTY_TURN:
            name = "input_audio_buffer.commit"
        else:
            return None
        return next((key for key, sent in self._sent.items() if sent["type"] == name), None)

    def _retry_truncate(self, sent: JsonObject, message: str, kind: ErrorKind) -> ErrorKind:
        """Truncate at the length that the server names if it is shorter."""
        match = _AUDIO_LENGTH.search(message)
        requested_ms = sent["audio_end_ms"]
        if match is None or not isinstance(requested_ms, int):
            return kind
        if 0 < int(match[1]) < requested_ms:
            self.queue([{**sent, "audio_end_ms": int(match[1])}])
        return ErrorKind.BENIGN
