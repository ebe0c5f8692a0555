"""Bedrock's errors, sorted into the kinds that a session knows what to do about.

They come as exceptions of the stream and as HTTP statuses, under the same names
(API reference of InvokeModelWithBidirectionalStream, "Errors").
"""

from __future__ import annotations

import json

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
"""Words of a ValidationException that says nothing about what we sent."""

_RETRY_STATUS = frozenset({408, 424, 429})
_MAX_CHARS = 500


def kind_of(name: str, message: str = "") -> ErrorKind:
    """The kind of an exception, by its name, and by its words where that says too little."""
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
    """What an exception of the stream means, in the service's own words where it has any."""
    name = _bare_name(name)
    text = one_line(message) or f"the service ended the stream: {name}"
    return SessionError(text, code=name, kind=kind_of(name, text))


def http_error(status: int, error_type: str, body: bytes) -> SessionError:
    """What an HTTP answer other than success means; ``error_type`` is ``x-amzn-errortype``."""
    kind_name, message = _type_and_message(body)
    name = _bare_name(error_type or kind_name)
    text = message or f"the service answered with HTTP {status}"
    kind = kind_of(name, text)
    if kind is ErrorKind.UNKNOWN:
        again = status in _RETRY_STATUS or status >= 500
        kind = ErrorKind.RETRY if again else ErrorKind.FATAL
    return SessionError(text, code=name or str(status), kind=kind)


def one_line(text: str) -> str:
    """Somebody else's words as a line of bounded length."""
    return " ".join(text.split())[:_MAX_CHARS]


def _bare_name(error_type: str) -> str:
    """The bare name of an error type, which may have a namespace before and an address behind.

    In the stream it begins with a small letter.
    """
    bare = error_type.partition(":")[0].rpartition("#")[2].strip()[:_MAX_CHARS]
    return bare[:1].upper() + bare[1:]


def _type_and_message(body: bytes) -> tuple[str, str]:
    """Type and message of an error's body; what is not there is empty."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return "", ""
    if not isinstance(found, dict):
        return "", ""
    kind = found.get("__type")
    message = found.get("message") or found.get("Message")
    return (
        kind if isinstance(kind, str) else "",
        one_line(message) if isinstance(message, str) else "",
    )
