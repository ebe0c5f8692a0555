"""Signatures of the official SDK are valid, and others are not."""

from __future__ import annotations

import asyncio
from binascii import unhexlify
from datetime import UTC, datetime, timedelta

import pytest

pytest.importorskip("aws_sdk_bedrock_runtime", reason="the aws extra is not installed")
pytest.importorskip("h2", reason="the simulate extra is not installed")

from aws_sdk_signers import (
    URI,
    AsyncEventSigner,
    AsyncSigV4Signer,
    AWSCredentialIdentity,
    AWSRequest,
    Field,
    Fields,
)
from smithy_aws_event_stream.events import EventHeaderEncoder, EventMessage

from duologue.simulators.nova._eventstream import Decoder, Message, Timestamp
from duologue.simulators.nova._sigv4 import Credentials, SignatureError, check_request

KEYS = Credentials("AKID", "secret", "eu-north-1")
PATH = "/model/amazon.nova-2-sonic-v1%3A0/invoke-with-bidirectional-stream"
SCOPE = {"region": "eu-north-1", "service": "bedrock"}


def signed(path=PATH, query=None, keys=KEYS, when=None, more=(), **scope):
    """Return a request as the SDK signs it: its path, its headers, and the signer's identity."""
    identity = AWSCredentialIdentity(
        access_key_id=keys.access_key, secret_access_key=keys.secret_key
    )
    request = AWSRequest(
        destination=URI(scheme="https", host="localhost", port=8443, path=path, query=query),
        method="POST",
        body=None,
        fields=Fields(
            [
                Field(name="Content-Type", values=["application/vnd.amazon.eventstream"]),
                *(Field(name=name, values=[value]) for name, value in more),
            ]
        ),
    )
    properties = SCOPE | scope
    if when is not None:
        properties["date"] = when.strftime("%Y%m%dT%H%M%SZ")
    done = asyncio.run(
        AsyncSigV4Signer().sign(request=request, identity=identity, properties=properties)
    )
    headers = {field.name.lower(): field.as_string() for field in done.fields}
    headers.setdefault("host", "localhost:8443")
    return path + ("" if query is None else f"?{query}"), headers, identity


def check(path, headers, now=None):
    return check_request("POST", path, headers, KEYS, now or datetime.now(UTC))


def refusal(path, headers, now=None):
    with pytest.raises(SignatureError) as error:
        check(path, headers, now)
    return error.value


def test_request_of_the_sdk_is_valid():
    path, headers, _ = signed(more=[("x-spaces", "  a   b ")], query="b=2&a=1 1&c")
    check(path, headers)


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"host": "127.0.0.1:8443"}, "InvalidSignatureException"),
        ({"content-type": "application/json"}, "InvalidSignatureException"),
        ({"x-amz-content-sha256": "UNSIGNED-PAYLOAD"}, "InvalidSignatureException"),
        ({"x-amz-date": "yesterday"}, "InvalidSignatureException"),
        ({"authorization": "Bearer x"}, "IncompleteSignatureException"),
    ],
)
def test_changed_request_is_not_valid(change, kind):
    path, headers, _ = signed()
    assert refusal(path, headers | change).kind == kind


def test_request_without_signed_chunks_is_not_valid():
    path, headers, _ = signed(more=[("X-Amz-Content-SHA256", "UNSIGNED-PAYLOAD")])
    assert "STREAMING-AWS4-HMAC-SHA256-EVENTS" in refusal(path, headers).message


def test_unsigned_request_is_not_valid():
    assert refusal(PATH, {"host": "x"}).kind == "MissingAuthenticationTokenException"


def test_other_path_is_not_valid():
    _, headers, _ = signed()
    assert refusal(PATH.replace("2-sonic", "sonic"), headers).kind == "InvalidSignatureException"
    assert refusal(f"{PATH}?a=1", headers).kind == "InvalidSignatureException"


@pytest.mark.parametrize(
    ("keys", "scope", "kind"),
    [
        (Credentials("OTHER", "secret", "x"), {}, "UnrecognizedClientException"),
        (Credentials("AKID", "other", "x"), {}, "InvalidSignatureException"),
        (KEYS, {"region": "us-east-1"}, "InvalidSignatureException"),
        (KEYS, {"service": "bedrock-runtime"}, "InvalidSignatureException"),
    ],
)
def test_other_keys_and_regions_are_not_valid(keys, scope, kind):
    path, headers, _ = signed(keys=keys, **scope)
    assert refusal(path, headers).kind == kind


@pytest.mark.parametrize("minutes", [-6, 6])
def test_clock_that_is_off_is_reported(minutes):
    now = datetime.now(UTC)
    path, headers, _ = signed(when=now + timedelta(minutes=minutes))
    word = "expired" if minutes < 0 else "not yet current"
    assert word in refusal(path, headers, now).message
    path, headers, _ = signed(when=now + timedelta(minutes=minutes * 0.7))
    check(path, headers, now)


def chunks(count=3):
    """Return the check of chunks, and chunks as the SDK signs them; the last one is empty."""
    path, headers, identity = signed()
    chain = check(path, headers)
    signature = headers["authorization"].rpartition("=")[2]
    signer = AsyncEventSigner(
        initial_signature=signature.encode(), event_encoder_cls=EventHeaderEncoder
    )

    async def sign():
        for number in range(count):
            event = EventMessage(headers={":message-type": "event"}, payload=b"%d" % number)
            done = await signer.sign(event=event, identity=identity, properties=SCOPE)
            yield done.encode()
        done = await signer.sign_empty(event=EventMessage(), identity=identity, properties=SCOPE)
        yield done.encode()

    async def collect():
        return [Decoder().push(data)[0] async for data in sign()]

    return chain, asyncio.run(collect())


def test_chunks_of_the_sdk_are_valid():
    chain, messages = chunks()
    for message in messages:
        chain.check(message)
    assert chain.checked == 4


@pytest.mark.parametrize("order", [[1], [0, 0], [0, 2], [0, 1, 1], [0, 1, 3]])
def test_missing_or_repeated_chunks_are_not_valid(order):
    chain, messages = chunks()
    for number in order[:-1]:
        chain.check(messages[number])
    with pytest.raises(SignatureError):
        chain.check(messages[order[-1]])


@pytest.mark.parametrize(
    "change",
    [
        lambda m: Message(m.headers, m.payload + b"x"),
        lambda m: Message({**m.headers, ":date": Timestamp(m.headers[":date"].ms + 1)}, m.payload),
        lambda m: Message({**m.headers, ":date": Timestamp(1 << 62)}, m.payload),
        lambda m: Message({":date": m.headers[":date"]}, m.payload),
        lambda m: Message({":chunk-signature": m.headers[":chunk-signature"]}, m.payload),
        lambda m: Message({**m.headers, ":chunk-signature": "text"}, m.payload),
        lambda m: Message({**m.headers, ":chunk-signature": unhexlify("00" * 32)}, m.payload),
    ],
)
def test_changed_chunks_are_not_valid(change):
    chain, messages = chunks()
    chain.check(messages[0])
    with pytest.raises(SignatureError) as error:
        chain.check(change(messages[1]))
    assert error.value.kind == "InvalidSignatureException"


def test_keys_are_not_in_the_repr():
    assert "secret" not in repr(Credentials("AKID", "very-secret", "x"))
