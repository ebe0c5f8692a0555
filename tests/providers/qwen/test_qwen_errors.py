import json

import pytest

pytest.importorskip("orjson", reason="the qwen extra is not installed")

from duologue.errors import ErrorKind
from duologue.providers._openai_protocol.errors import Meaning
from duologue.providers.qwen._errors import close_error, http_error, kind_of, meaning_of

IDLE = "Your session was closed because no response was generated for 300 seconds."
POOR = "The free tier of the model has been exhausted. If you wish to continue, pay."


@pytest.mark.parametrize(
    ("code", "error_type", "message", "kind"),
    [
        ("", "invalid_request_error", "Conversation has none active response", ErrorKind.BENIGN),
        ("", "invalid_request_error", "Error append image before append audio.", ErrorKind.BENIGN),
        ("", "invalid_request_error", "Internal service error: null", ErrorKind.RETRY),
        ("InternalError", "", "", ErrorKind.RETRY),
        ("Throttling.RateQuota", "", "Requests rate limit exceeded.", ErrorKind.RETRY),
        ("", "server_error", "odd", ErrorKind.RETRY),
        ("", "", "Response timeout.", ErrorKind.RETRY),
        ("", "", IDLE, ErrorKind.RECYCLE),
        ("InvalidApiKey", "", "Invalid API-key provided.", ErrorKind.FATAL),
        ("", "", "Voice 'Siri' is not supported.", ErrorKind.FATAL),
        ("Arrearage", "", "Access denied, please make sure your account is in good standing.",
         ErrorKind.FATAL),
        ("AllocationQuota.FreeTierOnly", "insufficient_quota", POOR, ErrorKind.FATAL),
        ("Model.AccessDenied", "", "", ErrorKind.FATAL),
        ("invalid_value", "invalid_request_error", "brand new", ErrorKind.UNKNOWN),
    ],
)  # fmt: skip
def test_every_error_has_a_kind(code, error_type, message, kind):
    assert kind_of(code, error_type, message) is kind


@pytest.mark.parametrize(
    ("message", "meaning"),
    [
        ("Conversation has none active response", Meaning.NOT_ACTIVE),
        ("Conversation already has an active response", Meaning.BUSY),
        ("Cannot create response while another response is in progress.", Meaning.BUSY),
        ("Cannot create response while user is speaking.", Meaning.USER_SPEAKING),
        ("Error committing input audio buffer, maybe no invalid audio stream.", Meaning.EMPTY_TURN),
        ("Cannot create a response of nothing", Meaning.REFUSED),
        ("Response timeout.", None),
        ("", None),
    ],
)
def test_error_is_matched_to_the_sent_event(message, meaning):
    assert meaning_of("", message) is meaning


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "InvalidParameter", ErrorKind.FATAL),
        (401, "InvalidApiKey", ErrorKind.FATAL),
        (403, "Model.AccessDenied", ErrorKind.FATAL),
        (404, "ModelNotFound", ErrorKind.FATAL),
        (429, "Throttling.RateQuota", ErrorKind.RETRY),
        (429, "AllocationQuota.FreeTierOnly", ErrorKind.FATAL),
        (500, "InternalError", ErrorKind.RETRY),
        (503, "", ErrorKind.RETRY),
        (302, "", ErrorKind.UNKNOWN),
    ],
)
def test_http_error_has_a_kind_and_the_services_message(status, code, kind):
    body = {"code": code, "message": "No.\nNo!", "request_id": "1"}
    error = http_error(status, json.dumps(body).encode())
    assert error.kind is kind
    assert str(error) == "No. No!"
    assert error.code == (code or str(status))


def test_http_body_may_have_openais_shape():
    body = {"error": {"code": "invalid_api_key", "message": "Wrong."}}
    error = http_error(401, json.dumps(body).encode())
    assert (str(error), error.code) == ("Wrong.", "invalid_api_key")
    assert str(http_error(401, b'{"error": "Wrong."}')) == "Wrong."


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"error": 3}', b"\xff"])
def test_empty_http_body_still_gives_a_message(body):
    error = http_error(502, body)
    assert str(error) == "the server answered with HTTP 502"
    assert error.kind is ErrorKind.RETRY


@pytest.mark.parametrize("code", [1000, 1001, 1005, 1006, 1011, 1012, 1013, 1014])
def test_ordinary_close_code_asks_for_a_new_connection(code):
    error = close_error(code, "")
    assert error.kind is ErrorKind.RECYCLE
    assert error.code == str(code)


def test_same_close_code_means_idle_or_unpaid_by_its_reason():
    idle = close_error(1007, IDLE)
    assert idle.kind is ErrorKind.RECYCLE
    assert str(idle).startswith("Your session was closed")
    assert close_error(1007, POOR).kind is ErrorKind.FATAL
    assert close_error(1007, "who knows").kind is ErrorKind.FATAL
    assert close_error(1000, POOR).kind is ErrorKind.FATAL
    assert close_error(1011, "Internal service error: null").kind is ErrorKind.RECYCLE


@pytest.mark.parametrize(
    "error",
    [
        http_error(401, b"", where="cn-beijing (host)"),
        http_error(403, b'{"code":"InvalidApiKey","message":"No."}', where="cn-beijing (host)"),
        close_error(1007, "Incorrect API key provided.", where="cn-beijing (host)"),
    ],
)
def test_wrong_key_error_mentions_the_region(error):
    assert error.kind is ErrorKind.FATAL
    assert "set region, or DASHSCOPE_REGION. This was cn-beijing (host)." in str(error)
    assert "\n" not in str(error)


def test_other_errors_do_not_mention_regions():
    for error in (http_error(400, b'{"message":"No money."}'), close_error(1011, "Internal.")):
        assert "region" not in str(error)
