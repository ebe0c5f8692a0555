"""Gemini's errors, sorted into the kinds that a session knows what to do about."""

from __future__ import annotations

from duologue.extras import require
from duologue.realtime.errors import ErrorKind, SessionError

require("orjson", "gemini")

import orjson  # noqa: E402

_FATAL_CLOSES = frozenset({1002, 1003, 1007, 1008, 1009, 1010})
"""Closes that say that we did wrong; all others are the line's or the server's."""

_FULL = ("token count", "context window", "context length", "maximum number of tokens")
"""Words of a close because the context is full: a new session with the words alone is shorter."""
_PASSING = ("deadline", "resource_exhausted", "resource has been exhausted", "internal error")
"""Words of closes that come with codes of their own, and pass."""

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
"""Names of google.rpc.Code that no other connection would change."""

_LONGEST = 500


def close_error(code: int, reason: str) -> SessionError:
    """What the end of a connection means; also a clean close is one, for nobody asked for it."""
    words = _one_line(reason)
    lower = words.lower()
    if any(part in lower for part in (*_FULL, *_PASSING)):
        kind = ErrorKind.RECYCLE
    else:
        kind = ErrorKind.FATAL if code in _FATAL_CLOSES else ErrorKind.RECYCLE
    text = words or "the server closed the connection"
    return SessionError(f"{text} (close code {code})", code=str(code), kind=kind)


def http_error(status: int, body: bytes) -> SessionError:
    """What an HTTP answer other than success means, in the server's own words where it has any."""
    name, message = _words(body)
    if status in (408, 429) or status >= 500:
        kind = ErrorKind.RETRY
    else:
        kind = ErrorKind.FATAL if 400 <= status < 500 else ErrorKind.UNKNOWN
    text = message or f"the server answered with HTTP {status}"
    return SessionError(text, code=name or str(status), kind=kind)


def error_message(code: int | None, status: str, message: str) -> SessionError:
    """An ``error`` that came as a message (google.rpc.Status)."""
    if status in _FATAL_STATUS:
        kind = ErrorKind.FATAL
    elif status in ("RESOURCE_EXHAUSTED", "UNAVAILABLE"):
        kind = ErrorKind.RETRY
    elif status in ("ABORTED", "CANCELLED", "DEADLINE_EXCEEDED", "INTERNAL"):
        kind = ErrorKind.RECYCLE
    else:
        kind = ErrorKind.UNKNOWN
    text = _one_line(message) or status or "the server told an error"
    return SessionError(text, code=status or str(code or ""), kind=kind)


def _words(body: bytes) -> tuple[str, str]:
    """Status and message of an error body; what is not there is empty."""
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
        status if isinstance(status, str) else "",
        _one_line(message) if isinstance(message, str) else "",
    )


def _one_line(text: str) -> str:
    return " ".join(text.split())[:_LONGEST]
