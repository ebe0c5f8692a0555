"""Qwen's errors, classified by what a session does about them.

The service's codes are few and often empty, so the message decides. The messages here were reported
by users of the service.
"""

from __future__ import annotations

import re

from duologue._net import CLIENT_FAULT_CLOSE_CODES, closed_error, one_line
from duologue._optional import optional
from duologue.errors import ErrorKind, SessionError

with optional("qwen"):
    import orjson

    from duologue.providers._openai_protocol.errors import Meaning, status_error


_KINDS: dict[ErrorKind, tuple[str, ...]] = {
    ErrorKind.RECYCLE: (
        r"no response was generated for",
        r"session (was|has been) closed",
        r"session.*(expired|time ?out)",
        r"maximum.*(duration|session)",
    ),
    ErrorKind.FATAL: (
        r"invalid\W?api\W?key",
        r"incorrect api key",
        r"unauthori[sz]ed",
        r"authentication fail",
        r"access\W?denied",
        r"arrearage",
        r"good standing",
        r"free ?tier",
        r"allocated quota exceeded",
        r"model\W?not\W?(found|exist)",
        r"voice\b.*not supported",
    ),
    ErrorKind.BENIGN: (
        r"(none|no) active response",
        r"append image before append audio",
    ),
    ErrorKind.RETRY: (
        r"internal ?(service )?error",
        r"response timeout",
        r"throttling",
        r"rate limit",
        r"too many",
        r"overloaded",
        r"busy",
        r"already has an active response",
        r"user is speaking",
    ),
}
_RETRY_TYPES = frozenset({"server_error", "rate_limit_error", "internal_error"})

_MEANINGS: dict[Meaning, tuple[str, ...]] = {
    Meaning.NOT_ACTIVE: (r"(none|no) active response",),
    Meaning.BUSY: (r"already has an active response", r"response.*in progress"),
    Meaning.USER_SPEAKING: (r"user is speaking",),
    Meaning.EMPTY_TURN: (r"committing input audio buffer",),
    Meaning.REFUSED: (r"response\.create", r"create (a )?response"),
}


def _patterns[T](table: dict[T, tuple[str, ...]]) -> list[tuple[T, re.Pattern[str]]]:
    return [(key, re.compile("|".join(parts), re.IGNORECASE)) for key, parts in table.items()]


_KIND_OF = _patterns(_KINDS)
_MEANING_OF = _patterns(_MEANINGS)

_KEY_ERROR = re.compile(r"api\W?key|unauthori[sz]ed|authentication", re.IGNORECASE)
"""Words in errors about the key, which may belong to another region."""


def kind_of(code: str, error_type: str = "", message: str = "") -> ErrorKind:
    """Classify an ``error`` event by its code and message, then its type."""
    kind = next((k for k, words in _KIND_OF if words.search(f"{code} {message}")), None)
    if kind is not None:
        return kind
    return ErrorKind.RETRY if error_type in _RETRY_TYPES else ErrorKind.UNKNOWN


def meaning_of(code: str, message: str) -> Meaning | None:
    """Return what an ``error`` event says about our event, by its message."""
    meanings = (meaning for meaning, words in _MEANING_OF if words.search(f"{code} {message}"))
    return next(meanings, None)


def http_error(status: int, body: bytes, *, where: str = "") -> SessionError:
    """Return the error of an unsuccessful HTTP response, with the server's own message if any.

    ``where`` is the region and host, for errors about a key of another region.
    """
    code, message = _parse_body(body)
    error = status_error(status, code, message, kind_of(code, "", message))
    return (
        _with_region_hint(error, where)
        if status == 401 or _KEY_ERROR.search(f"{code} {message}")
        else error
    )


def close_error(code: int, reason: str, *, where: str = "") -> SessionError:
    """Return the error of a closed connection. A clean close is one, too, because it was not
    requested.

    The service closes both an idle session and an account without money with 1007: the reason
    decides.
    """
    words = one_line(reason)
    kind = kind_of("", "", words)
    if kind is ErrorKind.UNKNOWN and code in CLIENT_FAULT_CLOSE_CODES:
        kind = ErrorKind.FATAL
    elif kind is not ErrorKind.FATAL:
        kind = ErrorKind.RECYCLE
    error = closed_error(code, reason, kind)
    return _with_region_hint(error, where) if _KEY_ERROR.search(words) else error


def _with_region_hint(error: SessionError, where: str) -> SessionError:
    if not where:
        return error
    hint = "A key is good in its own region only: set region, or DASHSCOPE_REGION."
    message = f"{str(error).rstrip('.!')}. {hint} This was {where}."
    return SessionError(message, code=error.code, kind=error.kind)


def _parse_body(body: bytes) -> tuple[str, str]:
    """Return the code and message of an error body; missing fields are empty."""
    try:
        decoded = orjson.loads(body)
    except orjson.JSONDecodeError:
        return "", ""
    if not isinstance(decoded, dict):
        return "", ""
    error = decoded.get("error")
    holder = error if isinstance(error, dict) else decoded
    code, message = holder.get("code"), holder.get("message")
    if isinstance(error, str):
        message = error
    return (
        code if isinstance(code, str) else "",
        one_line(message) if isinstance(message, str) else "",
    )
