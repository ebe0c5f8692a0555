"""Signatures of carriers: what the official SDKs sign or accept, we accept, and nothing else."""

import base64
import json
import time

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from plivo.utils.signature_v3 import validate_v3_signature
from telnyx.lib.webhook_verification import verify_webhook_signature
from twilio.request_validator import RequestValidator
from vonage_jwt import verify_signature

from duologue.edges.telephone._call_token import MAX_CHARS, read_call, sign_call
from duologue.edges.telephone._signatures import (
    check_plivo,
    check_telnyx,
    check_twilio,
    check_vonage,
)
from duologue.edges.telephone.calls import PhoneCall
from duologue.errors import ConfigError
from duologue.simulators.telephone._signing import (
    TelnyxKey,
    sign_plivo,
    sign_twilio,
    sign_vonage,
)

TOKEN = "0123456789abcdef0123456789abcdef"  # noqa: S105
WEBHOOK = "https://talk.example.org/telephone/twilio?duologue=ABC"
SOCKET = "wss://talk.example.org/telephone/twilio/media"
FORM = {"CallSid": "CA1", "From": "+1", "To": "+2", "Empty": ""}


def test_twilio_webhook_and_socket():
    sdk = RequestValidator(TOKEN)
    for url, form in ((WEBHOOK, FORM), (SOCKET, {})):
        signature = sdk.compute_signature(url, form)
        assert check_twilio(TOKEN, url, list(form.items()), signature)
        assert sign_twilio(TOKEN, url, form) == {"X-Twilio-Signature": signature}
        assert not check_twilio("another", url, list(form.items()), signature)
        assert not check_twilio(TOKEN, url, [("CallSid", "CA2")], signature)
    https = sdk.compute_signature(SOCKET.replace("wss", "https"), {})
    assert not check_twilio(TOKEN, SOCKET, [], https)
    assert not check_twilio(TOKEN, SOCKET, [], "")
    assert not check_twilio(TOKEN, SOCKET, [], "ü")


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("https://h.example/t", "https://h.example:443/t"),
        ("http://127.0.0.1/t", "http://127.0.0.1:80/t"),
        ("https://h.example:8443/t", "https://h.example:8443/t"),
        ("https://h.example:8443/t", "https://h.example/t"),
    ],
)
def test_twilio_signs_with_or_without_the_port(ours, theirs):
    assert check_twilio(TOKEN, ours, [], RequestValidator(TOKEN).compute_signature(theirs, {}))


@pytest.mark.parametrize("query", ["", "?a=1&b=2"])
@pytest.mark.parametrize("form", [{}, FORM])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_plivo(method, form, query):
    if method == "GET":
        form = {}
    url = f"https://talk.example.org/telephone/plivo{query}"
    headers = sign_plivo(TOKEN, method, url, form)
    signature = headers["X-Plivo-Signature-V3"]
    nonce = headers["X-Plivo-Signature-V3-Nonce"]
    assert validate_v3_signature(method, url, nonce, TOKEN, signature, dict(form))
    pairs = list(form.items())
    assert check_plivo(TOKEN, method, url, pairs, nonce, signature)
    assert check_plivo(TOKEN, method, url, pairs, nonce, f"other,{signature}")
    assert not check_plivo(TOKEN, method, url, pairs, "another", signature)
    assert not check_plivo("another", method, url, pairs, nonce, signature)
    assert not check_plivo(TOKEN, method, url + "x", pairs, nonce, signature)
    assert not check_plivo(TOKEN, method, url, pairs, nonce, "")


def test_telnyx():
    key, body, now = TelnyxKey(), b'{"data":{}}', time.time()
    headers = key.sign(body)
    verify_webhook_signature(body.decode(), headers, key.public)
    signature, timestamp = headers["telnyx-signature-ed25519"], headers["telnyx-timestamp"]
    assert check_telnyx(key.public, body, signature, timestamp, now)
    assert not check_telnyx(key.public, body + b" ", signature, timestamp, now)
    assert not check_telnyx(key.public, body, signature, timestamp, now + 400)
    assert not check_telnyx(key.public, body, signature, "soon", now)
    assert not check_telnyx(key.public, body, "*", timestamp, now)
    assert not check_telnyx(TelnyxKey().public, body, signature, timestamp, now)
    assert not check_telnyx("AAAA", body, signature, timestamp, now)


def test_vonage():
    now, body = time.time(), b'{"uuid":"u"}'
    header = sign_vonage(TOKEN, body)["Authorization"]
    assert verify_signature(header.partition(" ")[2], TOKEN)
    assert check_vonage(TOKEN, header, body, now)
    assert not check_vonage(TOKEN, header, body + b" ", now)
    assert not check_vonage(TOKEN, header, b"", now)
    assert not check_vonage(TOKEN, header, body, now + 400)
    assert not check_vonage("another" * 5, header, body, now)
    assert not check_vonage(TOKEN, header.replace("Bearer", "Basic"), body, now)
    assert not check_vonage(TOKEN, "", body, now)
    socket = sign_vonage(TOKEN, b"")["Authorization"]
    assert check_vonage(TOKEN, socket, b"", now)
    assert not check_vonage(TOKEN, socket, body, now)


@pytest.mark.parametrize("claims", [{}, {"iat": "x"}, {"iat": 0}, {"iat": None, "exp": 5}])
def test_vonage_tokens_without_a_time_are_refused(claims):
    token = jwt.encode({k: v for k, v in claims.items() if v is not None}, TOKEN, "HS256")
    assert not check_vonage(TOKEN, f"Bearer {token}", b"", time.time())


def test_vonage_tokens_that_have_expired_or_are_unsigned_are_refused():
    now = time.time()
    token = jwt.encode({"iat": now - 60, "exp": now - 30}, TOKEN, "HS256")
    assert not check_vonage(TOKEN, f"Bearer {token}", b"", now)
    unsigned = jwt.encode({"iat": now}, None, "none")
    assert not check_vonage(TOKEN, f"Bearer {unsigned}", b"", now)


CALL = PhoneCall(
    carrier="twilio",
    id="CA" + "0" * 32,
    caller="+15550001111",
    called="+15552223333",
    parameters={"lang": "en"},
    direction="outbound",
    answered_by="human",
)


def test_the_token_of_a_call_brings_its_facts_back():
    token = sign_call(CALL, TOKEN, 1000.0)
    assert token.isalnum()
    assert len(token) <= MAX_CHARS
    assert read_call(token, "twilio", TOKEN, 1000.0) == CALL
    plain = PhoneCall(carrier="plivo", id="1")
    assert read_call(sign_call(plain, TOKEN, 5.0), "plivo", TOKEN, 5.0) == plain


def test_other_tokens_bring_nothing():
    token = sign_call(CALL, TOKEN, 1000.0)
    assert read_call(token, "twilio", TOKEN, 1200.0) is None
    assert read_call(token, "plivo", TOKEN, 1000.0) is None
    assert read_call(token, "twilio", "another", 1000.0) is None
    assert read_call("", "twilio", TOKEN, 1000.0) is None
    assert read_call("A" * 500, "twilio", TOKEN, 1000.0) is None
    assert read_call("1ü", "twilio", TOKEN, 1000.0) is None


@given(st.integers(0, 300), st.sampled_from("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"))
def test_a_changed_token_is_refused(place, letter):
    token = sign_call(CALL, TOKEN, 1000.0)
    place %= len(token) - 1  # the last letter has bits that mean nothing
    changed = token[:place] + letter + token[place + 1 :]
    found = read_call(changed, "twilio", TOKEN, 1000.0)
    assert found is None or changed == token


def test_parameters_that_are_too_long_are_refused():
    long = PhoneCall(carrier="twilio", id="1", parameters={"notes": "x" * 400})
    with pytest.raises(ConfigError, match="too long"):
        sign_call(long, TOKEN, 0.0)


def test_the_token_is_json_behind_its_signature():
    token = sign_call(CALL, TOKEN, 1000.0)
    data = base64.b32decode(token + "=" * (-len(token) % 8))
    assert json.loads(data[16:])["f"] == "+15550001111"
