"""Gemini's errors, sorted into the kinds that a session knows what to do about."""

from __future__ import annotations

from duologue._optional import optional
from duologue.errors import ErrorKind, SessionError

with optional("gemini"):
    import orjson


_FATAL_CLOSES = frozenset({1002, 1003, 1007, 1008, 1009, 1010})
"""Closes that say that we did wrong; all others are the line's or the server's."""
_TRANSPORT_CLOSES = frozenset({1000, 1001, 1005, 1006, 1012, 1013, 1014, 1015})
"""Closes that say nothing about what was asked for."""

# The same code comes for many reasons: 1007 and 1008 also for what passes, 1011 also for what does
# not. The reasons are those of Google's pages on the Live API, and of users' reports.
_PERMANENT_PHRASES = (
    "api key",
    "authentication credentials",
    "billing",
    "credits",
    "exceeded your current quota",
    "permission",
    "used too many times",
)
"""Words of closes that no other connection would change."""
_CONTEXT_FULL_PHRASES = (
    "token count",
    "context window",
    "context length",
    "maximum number of tokens",
)
"""Words of a close because the context is full: a new session with the words alone is shorter."""
_OVERLOAD_PHRASES = ("resource has been exhausted", "resource_exhausted", "unavailable")
"""Words of closes because there is too much to do."""
_TRANSIENT_PHRASES = (*_OVERLOAD_PHRASES, "aborted", "deadline", "goaway", "internal error")
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

_MAX_TEXT = 500


def close_error(code: int, reason: str) -> SessionError:
    """What the end of a connection means; also a clean close is one, for nobody asked for it."""
    words = one_line(reason)
    kind = _kind_from_text(words)
    if kind is None:
        kind = ErrorKind.FATAL if code in _FATAL_CLOSES else ErrorKind.RECYCLE
    text = words or "the server closed the connection"
    return SessionError(f"{text} (close code {code})", code=str(code), kind=kind)


def is_resumption_refused(code: int, reason: str) -> bool:
    """Whether a close instead of a resumed session is about the handle."""
    return code not in _TRANSPORT_CLOSES and not _contains_any(
        reason, (*_PERMANENT_PHRASES, *_OVERLOAD_PHRASES)
    )


def is_permanent(reason: str) -> bool:
    """Whether a close was for what no other connection would change."""
    return _contains_any(reason, _PERMANENT_PHRASES)


def is_context_full(reason: str) -> bool:
    """Whether a connection was closed because the context is full: resumed, it would be again."""
    return _contains_any(reason, _CONTEXT_FULL_PHRASES)


def http_error(status: int, body: bytes) -> SessionError:
    """What an HTTP answer other than success means, in the server's own words where it has any."""
    name, message = _error_body(body)
    if _contains_any(message, _PERMANENT_PHRASES):
        kind = ErrorKind.FATAL
    elif status in (408, 429) or status >= 500:
        kind = ErrorKind.RETRY
    else:
        kind = ErrorKind.FATAL if 400 <= status < 500 else ErrorKind.UNKNOWN
    text = message or f"the server answered with HTTP {status}"
    return SessionError(text, code=name or str(status), kind=kind)


def error_message(code: int | None, status: str, message: str) -> SessionError:
    """An ``error`` that came as a message (google.rpc.Status)."""
    if status in _FATAL_STATUS or _contains_any(message, _PERMANENT_PHRASES):
        kind = ErrorKind.FATAL
    elif status in ("RESOURCE_EXHAUSTED", "UNAVAILABLE"):
        kind = ErrorKind.RETRY
    elif status in ("ABORTED", "CANCELLED", "DEADLINE_EXCEEDED", "INTERNAL"):
        kind = ErrorKind.RECYCLE
    else:
        kind = ErrorKind.UNKNOWN
    text = one_line(message) or status[:_MAX_TEXT] or "the server told an error"
    return SessionError(text, code=status[:_MAX_TEXT] or str(code or ""), kind=kind)


def one_line(text: str) -> str:
    """Somebody else's words as one line, not too long."""
    return " ".join(text.split())[:_MAX_TEXT]


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
        status[:_MAX_TEXT] if isinstance(status, str) else "",
        one_line(message) if isinstance(message, str) else "",
    )
