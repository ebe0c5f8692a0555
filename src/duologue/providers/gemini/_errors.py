"""Sort Gemini's errors into the kinds that a session can react to."""

from __future__ import annotations

from duologue._net import (
    CLIENT_FAULT_CLOSE_CODES,
    MAX_MESSAGE_CHARS,
    closed_error,
    http_status_text,
    one_line,
)
from duologue._optional import optional
from duologue.errors import ErrorKind, SessionError

with optional("gemini"):
    import orjson


_TRANSPORT_CLOSES = frozenset({1000, 1001, 1005, 1006, 1012, 1013, 1014, 1015})
"""Close codes that say nothing about what the client sent."""

# Codes are ambiguous: 1007 and 1008 are also sent for transient errors, 1011 also for permanent
# ones. The phrases are from Google's pages on the Live API, and from users' reports.
_PERMANENT_PHRASES = (
    "api key",
    "authentication credentials",
    "billing",
    "credits",
    "exceeded your current quota",
    "permission",
    "used too many times",
)
"""Phrases in the reasons of closes that would happen again on any other connection."""
_CONTEXT_FULL_PHRASES = (
    "token count",
    "context window",
    "context length",
    "maximum number of tokens",
)
"""Phrases for a full context: a new session that is given the text only has a shorter one."""
_OVERLOAD_PHRASES = ("resource has been exhausted", "resource_exhausted", "unavailable")
"""Phrases for an overloaded service."""
_TRANSIENT_PHRASES = (*_OVERLOAD_PHRASES, "aborted", "deadline", "goaway", "internal error")
"""Phrases for transient errors, which come with various codes."""

_FATAL_STATUS = frozenset(
    {
        "FAILED_PRECONDITION",
        "INVALID_ARGUMENT",
        "NOT_FOUND",
        "PERMISSION_DENIED",
        "UNAUTHENTICATED",
        "UNIMPLEMENTED",
    }
)
"""Names of google.rpc.Code for errors that would happen again on any other connection."""


def close_error(code: int, reason: str) -> SessionError:
    """Return the error for the end of a connection; a clean close, never requested, is one too."""
    kind = _kind_from_text(one_line(reason))
    if kind is None:
        kind = ErrorKind.FATAL if code in CLIENT_FAULT_CLOSE_CODES else ErrorKind.RECYCLE
    return closed_error(code, reason, kind)


def is_resumption_refused(code: int, reason: str) -> bool:
    """Return whether a close instead of a resumed session is about the handle."""
    return code not in _TRANSPORT_CLOSES and not _contains_any(
        reason, (*_PERMANENT_PHRASES, *_OVERLOAD_PHRASES)
    )


def is_permanent(reason: str) -> bool:
    """Return whether the reason of a close would apply to any other connection too."""
    return _contains_any(reason, _PERMANENT_PHRASES)


def is_context_full(reason: str) -> bool:
    """Return whether the context is full, so that the session cannot be resumed."""
    return _contains_any(reason, _CONTEXT_FULL_PHRASES)


def http_error(status: int, body: bytes) -> SessionError:
    """Return the error for a failed HTTP request, in the server's own words if it has any."""
    name, message = _error_body(body)
    if _contains_any(message, _PERMANENT_PHRASES):
        kind = ErrorKind.FATAL
    elif status in (408, 429) or status >= 500:
        kind = ErrorKind.RETRY
    else:
        kind = ErrorKind.FATAL if 400 <= status < 500 else ErrorKind.UNKNOWN
    text = message or http_status_text(status)
    return SessionError(text, code=name or str(status), kind=kind)


def error_message(code: int | None, status: str, message: str) -> SessionError:
    """Return the error for an ``error`` message (google.rpc.Status)."""
    if status in _FATAL_STATUS or _contains_any(message, _PERMANENT_PHRASES):
        kind = ErrorKind.FATAL
    elif status in ("RESOURCE_EXHAUSTED", "UNAVAILABLE"):
        kind = ErrorKind.RETRY
    elif status in ("ABORTED", "CANCELLED", "DEADLINE_EXCEEDED", "INTERNAL"):
        kind = ErrorKind.RECYCLE
    else:
        kind = ErrorKind.UNKNOWN
    text = one_line(message) or status[:MAX_MESSAGE_CHARS] or "the server reported an error"
    return SessionError(text, code=status[:MAX_MESSAGE_CHARS] or str(code or ""), kind=kind)


def _kind_from_text(words: str) -> ErrorKind | None:
    if _contains_any(words, _PERMANENT_PHRASES):
        return ErrorKind.FATAL
    return (
        ErrorKind.RECYCLE
        if _contains_any(words, (*_CONTEXT_FULL_PHRASES, *_TRANSIENT_PHRASES))
        else None
    )


def _contains_any(words: str, parts: tuple[str, ...]) -> bool:
    lower = words.lower()
    return any(part in lower for part in parts)


def _error_body(body: bytes) -> tuple[str, str]:
    """Return status and message of an error body; a missing one is empty."""
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        return "", ""
    if isinstance(found, list) and found:
        found = found[0]
    error = found.get("error") if isinstance(found, dict) else None
    if not isinstance(error, dict):
        return "", ""
    status, message = error.get("status"), error.get("message")
    return (
        status[:MAX_MESSAGE_CHARS] if isinstance(status, str) else "",
        one_line(message) if isinstance(message, str) else "",
    )
