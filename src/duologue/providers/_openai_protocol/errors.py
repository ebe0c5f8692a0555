"""OpenAI's errors, classified by what a session does about them."""

from __future__ import annotations

from enum import Enum

from duologue._net import (
    CLIENT_FAULT_CLOSE_CODES,
    closed_error,
    http_status_kind,
    http_status_text,
    one_line,
)
from duologue._optional import optional
from duologue.errors import ErrorKind, SessionError

with optional("openai"):
    import orjson


class Meaning(Enum):
    """What an error says about an event that we sent, besides that it was refused."""

    BUSY = "busy"
    """A requested response was refused because another one is in progress."""
    USER_SPEAKING = "speaking"
    """A requested response was refused because the person is speaking."""
    REFUSED = "refused"
    """A requested response was refused for another reason."""
    EMPTY_TURN = "empty"
    """The end of a turn was refused because it contained no audio."""
    NOT_ACTIVE = "not active"
    """A response to cancel has already ended."""


_MEANINGS = {
    "conversation_already_has_active_response": Meaning.BUSY,
    "input_audio_buffer_commit_empty": Meaning.EMPTY_TURN,
    "response_cancel_not_active": Meaning.NOT_ACTIVE,
}

_BENIGN = frozenset(
    {
        "response_cancel_not_active",
        "item_truncate_invalid_audio_end_ms",
        "input_audio_buffer_commit_empty",
        "output_audio_buffer_not_active",
    }
)
_RETRY = frozenset(
    {
        "conversation_already_has_active_response",
        "internal_error",
        "overloaded",
        "rate_limit_error",
        "rate_limit_exceeded",
        "server_error",
        "server_overloaded",
        "slow_down",
    }
)
_RECYCLE = frozenset({"session_expired", "session_not_found", "connection_closed"})
_FATAL = frozenset(
    {
        "account_deactivated",
        "billing_hard_limit_reached",
        "billing_not_active",
        "inference_not_allowed",
        "insufficient_quota",
        "invalid_api_key",
        "invalid_model",
        "model_not_found",
        "organization_deactivated",
        "unsupported_country_region_territory",
    }
)
_FATAL_TYPES = frozenset({"authentication_error", "insufficient_quota", "permission_error"})
_RETRY_TYPES = frozenset({"rate_limit_error", "server_error", "tokens", "requests"})

_FATAL_CLOSE_CODES = CLIENT_FAULT_CLOSE_CODES | {3000, 3003}
"""Close codes that blame the client; all others blame the network or the server."""


def kind_of(code: str, error_type: str = "", message: str = "") -> ErrorKind:
    """Classify an ``error`` event by its code, then its type, then its message."""
    if code in _BENIGN or "already shorter" in message:
        return ErrorKind.BENIGN
    if code in _FATAL:
        return ErrorKind.FATAL
    if code in _RECYCLE:
        return ErrorKind.RECYCLE
    if code in _RETRY:
        return ErrorKind.RETRY
    if error_type in _FATAL_TYPES:
        return ErrorKind.FATAL
    if error_type in _RETRY_TYPES:
        return ErrorKind.RETRY
    return ErrorKind.UNKNOWN


def meaning_of(code: str, message: str) -> Meaning | None:
    """Return what an ``error`` event says about our event, by its code."""
    del message
    return _MEANINGS.get(code)


def http_error(status: int, body: bytes) -> SessionError:
    """Return the error of an unsuccessful HTTP response, with the server's own message if any."""
    code, error_type, message = _parse_body(body)
    return status_error(status, code, message, kind_of(code, error_type))


def status_error(status: int, code: str, message: str, kind: ErrorKind) -> SessionError:
    """Return the error of an HTTP status; ``kind`` is the classification of its body."""
    if kind not in (ErrorKind.FATAL, ErrorKind.RETRY):
        kind = http_status_kind(status)
    hint = ": check base_url, which often ends in /v1" if status == 404 else ""
    text = message or f"{http_status_text(status)}{hint}"
    return SessionError(text, code=code or str(status), kind=kind)


def close_error(code: int, reason: str) -> SessionError:
    """Return the error of a closed connection. A clean close is one, too, because it was not
    requested.
    """
    if kind_of(reason) is ErrorKind.FATAL:
        kind = ErrorKind.FATAL
    else:
        kind = ErrorKind.FATAL if code in _FATAL_CLOSE_CODES else ErrorKind.RECYCLE
    return closed_error(code, reason, kind)


def _parse_body(body: bytes) -> tuple[str, str, str]:
    """Return the code, type and message of an error body; missing fields are empty."""
    try:
        decoded = orjson.loads(body)
    except orjson.JSONDecodeError:
        return "", "", ""
    error = decoded.get("error") if isinstance(decoded, dict) else None
    if isinstance(error, str):
        return "", "", one_line(error)
    if not isinstance(error, dict):
        return "", "", ""
    code, error_type, message = (error.get(key) for key in ("code", "type", "message"))
    return (
        code if isinstance(code, str) else "",
        error_type if isinstance(error_type, str) else "",
        one_line(message) if isinstance(message, str) else "",
    )
