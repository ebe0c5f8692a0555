"""Sorts Bedrock's errors into the kinds that a session can act on.

They come as exceptions in the stream and as HTTP statuses, under the same names
(API reference of InvokeModelWithBidirectionalStream, "Errors").
"""

from __future__ import annotations

import json

from duologue._net import MAX_MESSAGE_CHARS, http_status_text, one_line
from duologue.errors import ErrorKind, SessionError

_RETRY = frozenset(
    {
        "InternalServerException",
        "ModelNotReadyException",
        "ServiceQuotaExceededException",
        "ServiceUnavailableException",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)
_RECYCLE = frozenset(
    {
        "ExpiredTokenException",
        "ModelErrorException",
        "ModelStreamErrorException",
        "ModelTimeoutException",
        "RequestTimeoutException",
    }
)
_FATAL = frozenset(
    {
        "AccessDeniedException",
        "IncompleteSignatureException",
        "InvalidSignatureException",
        "MissingAuthenticationTokenException",
        "NotAuthorizedException",
        "OptInRequiredException",
        "ResourceNotFoundException",
        "UnrecognizedClientException",
        "ValidationException",
    }
)

_TRANSIENT_PHRASES = (
    "system instability",
    "timed out",
    "try your request again",
    "retry your request",
)
"""Phrases of a ValidationException that is not about what was sent."""

_RETRY_STATUS = frozenset({408, 424, 429})


def kind_of(name: str, message: str = "") -> ErrorKind:
    """Return the kind of an exception, by its name and, if that is ambiguous, by its message."""
    if name in _RETRY:
        return ErrorKind.RETRY
    if name in _RECYCLE:
        return ErrorKind.RECYCLE
    if name in _FATAL:
        lower = message.lower()
        passing = name == "ValidationException" and any(
            words in lower for words in _TRANSIENT_PHRASES
        )
        return ErrorKind.RECYCLE if passing else ErrorKind.FATAL
    return ErrorKind.UNKNOWN


def exception_error(name: str, message: str) -> SessionError:
    """Return the error for an exception in the stream, in the service's own words if possible."""
    name = _bare_name(name)
    text = one_line(message) or f"the service ended the stream: {name}"
    return SessionError(text, code=name, kind=kind_of(name, text))


def http_error(status: int, error_type: str, body: bytes) -> SessionError:
    """Return the error for an HTTP failure; ``error_type`` is the header ``x-amzn-errortype``."""
    kind_name, message = _type_and_message(body)
    name = _bare_name(error_type or kind_name)
    text = message or http_status_text(status)
    kind = kind_of(name, text)
    if kind is ErrorKind.UNKNOWN:
        again = status in _RETRY_STATUS or status >= 500
        kind = ErrorKind.RETRY if again else ErrorKind.FATAL
    return SessionError(text, code=name or str(status), kind=kind)


def _bare_name(error_type: str) -> str:
    """Return the bare name of an error type, without the namespace before it and the URL after it.

    In the stream it begins with a lower-case letter.
    """
    bare = error_type.partition(":")[0].rpartition("#")[2].strip()[:MAX_MESSAGE_CHARS]
    return bare[:1].upper() + bare[1:]


def _type_and_message(body: bytes) -> tuple[str, str]:
    """Return the type and message of an error body; each is empty if it is missing."""
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        return "", ""
    if not isinstance(fields, dict):
        return "", ""
    kind = fields.get("__type")
    message = fields.get("message") or fields.get("Message")
    return (
        kind if isinstance(kind, str) else "",
        one_line(message) if isinstance(message, str) else "",
    )
