import json

import pytest

from duologue.errors import ErrorKind
from duologue.providers._openai_protocol.errors import close_error, http_error, kind_of


@pytest.mark.parametrize(
    ("code", "error_type", "message", "kind"),
    [
        ("response_cancel_not_active", "invalid_request_error", "", ErrorKind.BENIGN),
        ("", "", "Audio content of 900 ms is already shorter than 1000 ms", ErrorKind.BENIGN),
        ("rate_limit_exceeded", "", "", ErrorKind.RETRY),
        ("", "server_error", "", ErrorKind.RETRY),
        ("session_expired", "invalid_request_error", "", ErrorKind.RECYCLE),
        ("insufficient_quota", "", "", ErrorKind.FATAL),
        ("billing_hard_limit_reached", "", "", ErrorKind.FATAL),
        ("", "authentication_error", "", ErrorKind.FATAL),
        ("brand_new", "invalid_request_error", "", ErrorKind.UNKNOWN),
    ],
)
def test_every_error_has_a_kind(code, error_type, message, kind):
    assert kind_of(code, error_type, message) is kind


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "odd", ErrorKind.FATAL),
        (401, "invalid_api_key", ErrorKind.FATAL),
        (402, "", ErrorKind.FATAL),
        (403, "", ErrorKind.FATAL),
        (404, "model_not_found", ErrorKind.FATAL),
        (408, "", ErrorKind.RETRY),
        (429, "rate_limit_exceeded", ErrorKind.RETRY),
        (429, "insufficient_quota", ErrorKind.FATAL),
        (500, "", ErrorKind.RETRY),
        (503, "", ErrorKind.RETRY),
        (302, "", ErrorKind.UNKNOWN),
    ],
)
def test_http_error_has_a_kind_and_the_servers_message(status, code, kind):
    error = http_error(
        status, json.dumps({"error": {"message": "No.\nNo!", "code": code}}).encode()
    )
    assert error.kind is kind
    assert str(error) == "No. No!"
    assert error.code == (code or str(status))


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"error": 3}', b"\xff"])
def test_empty_http_body_still_gives_a_message(body):
    error = http_error(502, body)
    assert str(error) == "the server answered with HTTP 502"
    assert error.kind is ErrorKind.RETRY


@pytest.mark.parametrize("code", [1000, 1001, 1005, 1006, 1011, 1012, 1013, 1015])
def test_ordinary_close_code_asks_for_a_new_connection(code):
    error = close_error(code, "Your session hit the maximum duration of 60 minutes.")
    assert error.kind is ErrorKind.RECYCLE
    assert str(error).startswith("Your session hit")
    assert error.code == str(code)


def test_close_code_that_blames_the_client_is_fatal():
    assert close_error(1008, "policy").kind is ErrorKind.FATAL
    assert close_error(1000, "insufficient_quota").kind is ErrorKind.FATAL
