import json

import pytest
from gemini_codec_harness import Harness

from duologue.errors import ErrorKind
from duologue.providers.gemini._errors import (
    close_error,
    error_message,
    http_error,
    is_context_full,
    is_permanent,
    is_resumption_refused,
)
from duologue.realtime.outputs import ProviderError
from duologue.simulators.gemini._auth import BAD_KEY, BAD_TOKEN, TOKEN_SPENT
from duologue.simulators.gemini._lifetime import CONNECTION_EXPIRED, DEADLINE_EXCEEDED

QUOTA = "You exceeded your current quota, please check your plan and billing details."


@pytest.mark.parametrize(
    ("code", "reason", "kind"),
    [
        (1007, BAD_KEY, ErrorKind.FATAL),
        (1007, "Request contains an invalid argument.", ErrorKind.FATAL),
        (1007, "The input token count (200000) exceeds the maximum", ErrorKind.RECYCLE),
        (1007, "", ErrorKind.FATAL),
        (1008, "models/x is not found for API version v1", ErrorKind.FATAL),
        (1008, BAD_TOKEN, ErrorKind.FATAL),
        (1008, CONNECTION_EXPIRED, ErrorKind.RECYCLE),
        (1008, "The operation was aborted.", ErrorKind.RECYCLE),
        (1008, "Policy violation", ErrorKind.FATAL),
        (1009, "too big", ErrorKind.FATAL),
        (1011, DEADLINE_EXCEEDED, ErrorKind.RECYCLE),
        (1011, "Internal error encountered.", ErrorKind.RECYCLE),
        (1011, "Resource has been exhausted (e.g. check quota).", ErrorKind.RECYCLE),
        (1011, QUOTA, ErrorKind.FATAL),
        (1011, "Your prepayment credits are depleted.", ErrorKind.FATAL),
        (1011, TOKEN_SPENT, ErrorKind.FATAL),
        (1011, "", ErrorKind.RECYCLE),
        (1000, "", ErrorKind.RECYCLE),
        (1001, "", ErrorKind.RECYCLE),
        (1005, "", ErrorKind.RECYCLE),
        (1006, "the connection broke", ErrorKind.RECYCLE),
        (1012, "", ErrorKind.RECYCLE),
        (1013, "", ErrorKind.RECYCLE),
        (4000, "brand new", ErrorKind.RECYCLE),
    ],
)  # fmt: skip
def test_every_close_has_a_kind_and_the_servers_reason(code, reason, kind):
    error = close_error(code, reason)
    assert error.kind is kind
    assert str(error) == f"{reason or 'the server closed the connection'} (close code {code})"
    assert error.code == str(code)


def test_a_reason_is_one_line_of_bounded_length():
    error = close_error(1011, "one\n\ttwo " + "x" * 1000)
    assert str(error).startswith("one two xxx")
    assert len(str(error)) < 530
    assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("code", "reason", "refused"),
    [
        (1007, "Invalid session handle", True),
        (1008, "BidiGenerateContent session not found", True),
        (1011, "Internal error encountered.", True),
        (1011, "The service is currently unavailable.", False),
        (1007, BAD_KEY, False),
        (1011, QUOTA, False),
        (1006, "the connection broke", False),
        (1001, "", False),
        (1012, "", False),
    ],
)
def test_which_closes_are_about_the_handle(code, reason, refused):
    assert is_resumption_refused(code, reason) is refused


def test_which_closes_are_permanent():
    assert is_permanent(BAD_KEY)
    assert is_permanent(QUOTA.upper())
    assert not is_permanent("Request contains an invalid argument.")


def test_a_full_context_is_recognised_by_its_phrases():
    assert is_context_full("The input Token Count exceeds")
    assert not is_context_full(DEADLINE_EXCEEDED)


@pytest.mark.parametrize(
    ("status", "name", "message", "kind"),
    [
        (400, "INVALID_ARGUMENT", "No.\nNo!", ErrorKind.FATAL),
        (401, "UNAUTHENTICATED", "No.", ErrorKind.FATAL),
        (403, "PERMISSION_DENIED", "No.", ErrorKind.FATAL),
        (404, "NOT_FOUND", "No.", ErrorKind.FATAL),
        (408, "", "No.", ErrorKind.RETRY),
        (429, "RESOURCE_EXHAUSTED", "Resource has been exhausted", ErrorKind.RETRY),
        (429, "RESOURCE_EXHAUSTED", QUOTA, ErrorKind.FATAL),
        (500, "INTERNAL", "No.", ErrorKind.RETRY),
        (503, "UNAVAILABLE", "No.", ErrorKind.RETRY),
        (302, "", "No.", ErrorKind.UNKNOWN),
    ],
)
@pytest.mark.parametrize("in_list", [False, True])
def test_an_http_status_has_a_kind_and_the_servers_words(status, name, message, kind, in_list):
    body = {"error": {"code": status, "status": name, "message": message}}
    error = http_error(status, json.dumps([body] if in_list else body).encode())
    assert error.kind is kind
    assert str(error) == " ".join(message.split())
    assert error.code == (name or str(status))


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b'{"error": 3}', b'{"error": {}}', b"\xff"]
)
def test_an_empty_body_still_gives_a_message(body):
    error = http_error(502, body)
    assert str(error) == "the server answered with HTTP 502"
    assert error.kind is ErrorKind.RETRY


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("INVALID_ARGUMENT", ErrorKind.FATAL),
        ("FAILED_PRECONDITION", ErrorKind.FATAL),
        ("NOT_FOUND", ErrorKind.FATAL),
        ("PERMISSION_DENIED", ErrorKind.FATAL),
        ("UNAUTHENTICATED", ErrorKind.FATAL),
        ("UNIMPLEMENTED", ErrorKind.FATAL),
        ("RESOURCE_EXHAUSTED", ErrorKind.RETRY),
        ("UNAVAILABLE", ErrorKind.RETRY),
        ("ABORTED", ErrorKind.RECYCLE),
        ("CANCELLED", ErrorKind.RECYCLE),
        ("DEADLINE_EXCEEDED", ErrorKind.RECYCLE),
        ("INTERNAL", ErrorKind.RECYCLE),
        ("BRAND_NEW", ErrorKind.UNKNOWN),
    ],
)
def test_an_error_message_has_a_kind(status, kind):
    error = error_message(3, status, "Some\nwords")
    assert (error.kind, str(error), error.code) == (kind, "Some words", status)
    assert str(error_message(3, status, "")) == status
    assert error_message(3, status, QUOTA).kind is ErrorKind.FATAL
    # While the session is live, it is reported unchanged.
    told = Harness().receive(error={"code": 3, "status": status, "message": "Words"})
    assert told == [ProviderError(kind, status, "Words")]
    # Before the session starts, anything that is not fatal is a reason to reconnect.
    (first,) = Harness(live=False).receive(error={"code": 3, "status": status, "message": "Words"})
    assert first.kind is (ErrorKind.FATAL if kind is ErrorKind.FATAL else ErrorKind.RECYCLE)


def test_an_error_without_a_message_is_reported():
    assert str(error_message(None, "", "")) == "the server reported an error"
    assert error_message(14, "", "x").code == "14"
    assert error_message(None, "", "x").code == ""


def test_an_error_instead_of_a_resumed_session_drops_the_handle():
    first = Harness()
    first.handle("h")
    second = Harness(live=False, resumption=first.resumption)
    (error,) = second.receive(
        error={"code": 5, "status": "NOT_FOUND", "message": "no such session"}
    )
    assert error.kind is ErrorKind.RECYCLE
    assert first.resumption.handle is None
