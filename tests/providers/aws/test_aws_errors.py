import pytest

from duologue.errors import ErrorKind
from duologue.providers.aws._errors import exception_error, http_error

RETRY, RECYCLE, FATAL, UNKNOWN = (
    ErrorKind.RETRY,
    ErrorKind.RECYCLE,
    ErrorKind.FATAL,
    ErrorKind.UNKNOWN,
)


@pytest.mark.parametrize(
    ("name", "message", "kind"),
    [
        ("throttlingException", "Too many requests", RETRY),
        ("internalServerException", "", RETRY),
        ("serviceUnavailableException", "", RETRY),
        ("ModelNotReadyException", "", RETRY),
        ("ServiceQuotaExceededException", "", RETRY),
        ("modelStreamErrorException", "System instability detected.", RECYCLE),
        (
            "modelTimeoutException",
            "Model has timed out in processing the request. Try your request again.",
            RECYCLE,
        ),
        (
            "validationException",
            "System instability detected. Please retry your request.",
            RECYCLE,
        ),
        ("validationException", "Timed out waiting for input events", RECYCLE),
        ("validationException", "Tool Response parsing error", FATAL),
        ("validationException", "", FATAL),
        ("AccessDeniedException", "", FATAL),
        ("ResourceNotFoundException", "", FATAL),
        ("UnrecognizedClientException", "", FATAL),
        ("ExpiredTokenException", "", RECYCLE),
        ("somethingNew", "", UNKNOWN),
        ("", "", UNKNOWN),
    ],
)
def test_exceptions_of_the_stream(name, message, kind):
    error = exception_error(name, message)
    assert error.kind is kind
    assert error.code == name[:1].upper() + name[1:]
    assert message in str(error)
    assert str(error)


def test_messages_are_one_line_of_bounded_length():
    error = exception_error("validationException", "a\n b\t" + "x" * 10_000)
    assert str(error).startswith("a b xxx")
    assert len(str(error)) <= 500


@pytest.mark.parametrize(
    ("status", "error_type", "body", "code", "kind", "words"),
    [
        (400, "ValidationException", b'{"message":"Bad."}', "ValidationException", FATAL, "Bad."),
        (400, "", b'{"__type":"com.amazon#ThrottlingException"}', "ThrottlingException", RETRY, ""),
        (
            403,
            "AccessDeniedException:x",
            b'{"Message":"No."}',
            "AccessDeniedException",
            FATAL,
            "No.",
        ),
        (404, "", b"", "404", FATAL, "HTTP 404"),
        (408, "", b"[]", "408", RETRY, "HTTP 408"),
        (429, "", b"\xff", "429", RETRY, "HTTP 429"),
        (500, "", b'{"message":3}', "500", RETRY, "HTTP 500"),
        (418, "TeapotException", b"", "TeapotException", FATAL, "HTTP 418"),
    ],
)
def test_http_errors(status, error_type, body, code, kind, words):
    error = http_error(status, error_type, body)
    assert (error.code, error.kind) == (code, kind)
    assert words in str(error)
