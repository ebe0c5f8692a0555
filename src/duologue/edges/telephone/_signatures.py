"""Check that a request comes from the carrier: each has a way of its own."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from duologue._optional import optional

MAX_AGE_S = 300.0
"""Largest difference between a signed time and ours, in seconds."""

type Pairs = Sequence[tuple[str, str]]
"""The fields of a form, in the order in which they came."""


def check_twilio(token: str, url: str, form: Pairs, signature: str) -> bool:
    """Return whether Twilio signed a request.

    Args:
        token: The auth token.
        url: The public address with its query; of a socket, the one that begins with ``wss``.
        form: Fields of the body; none for a socket.
        signature: The header ``X-Twilio-Signature``.
    """
    fields = "".join(name + value for name, value in sorted(set(form)))
    # Twilio includes the port in some cases and not in others.
    return any(
        hmac.compare_digest(
            base64.b64encode(hmac.digest(token.encode(), (spelling + fields).encode(), "sha1")),
            signature.encode("utf-8", "replace"),
        )
        for spelling in _with_and_without_port(url)
    )


def _with_and_without_port(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    name = parts.netloc.rpartition("@")[2]
    host = name if parts.port is None else name.rpartition(":")[0]
    port = parts.port or (443 if parts.scheme in ("https", "wss") else 80)
    return (
        urlunsplit(parts._replace(netloc=host)),
        urlunsplit(parts._replace(netloc=f"{host}:{port}")),
    )


def check_plivo(
    token: str, method: str, url: str, form: Pairs, nonce: str, signatures: str
) -> bool:
    """Return whether Plivo signed a request (version 3).

    Args:
        token: The auth token.
        method: ``GET`` or ``POST``.
        url: The public address with its query.
        form: Fields of the body; none for GET and for a socket.
        nonce: The header ``X-Plivo-Signature-V3-Nonce``.
        signatures: The header ``X-Plivo-Signature-V3``: one signature, or several with commas.
    """
    parts = urlsplit(url)
    query = _plivo_pairs(parse_qsl(parts.query, keep_blank_values=True), "=", "&")
    text = urlunsplit(parts._replace(query="", fragment=""))
    if query or (method == "POST" and form):
        text += f"?{query}"
    if method == "POST" and form:
        text += ("." if query else "") + _plivo_pairs(form, "", "")
    expected = base64.b64encode(hmac.digest(token.encode(), f"{text}.{nonce}".encode(), "sha256"))
    return any(
        hmac.compare_digest(expected, signature.strip().encode("utf-8", "replace"))
        for signature in signatures.split(",")
    )


def _plivo_pairs(pairs: Pairs, equals: str, between: str) -> str:
    return between.join(f"{name}{equals}{value}" for name, value in sorted(pairs))


def check_telnyx(public_key: str, body: bytes, signature: str, timestamp: str, now: float) -> bool:
    """Return whether Telnyx signed a webhook (Ed25519).

    Args:
        public_key: The public key of the account, in base64.
        body: The body of the request.
        signature: The header ``telnyx-signature-ed25519``.
        timestamp: The header ``telnyx-timestamp``.
        now: Unix time in seconds.
    """
    with optional("telephone"):
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) < 19):
        return False
    if abs(now - int(timestamp)) > MAX_AGE_S:
        return False
    try:
        key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public_key))
        key.verify(base64.b64decode(signature), timestamp.encode() + b"|" + body)
    except (InvalidSignature, binascii.Error, ValueError):
        return False
    return True


def check_vonage(secret: str, authorization: str, body: bytes, now: float) -> bool:
    """Return whether Vonage signed a request (a JWT, HS256).

    Args:
        secret: The signature secret of the account.
        authorization: The header ``Authorization``.
        body: The body of the request; empty for GET and for a socket.
        now: Unix time in seconds.
    """
    with optional("telephone"):
        import jwt

    kind, _, token = authorization.partition(" ")
    if kind.lower() != "bearer":
        return False
    try:
        # The times are checked below, against the clock that the caller gives.
        claims: Mapping[str, object] = jwt.decode(
            token, secret, algorithms=["HS256"], options={"verify_exp": False, "verify_iat": False}
        )
    except jwt.PyJWTError:
        return False
    issued, expires = claims.get("iat"), claims.get("exp")
    if not isinstance(issued, int | float) or abs(now - issued) > MAX_AGE_S:
        return False
    if isinstance(expires, int | float) and now > expires:
        return False
    payload_hash = claims.get("payload_hash")
    if not body and payload_hash is None:
        return True
    return isinstance(payload_hash, str) and hmac.compare_digest(
        payload_hash.lower().encode("utf-8", "replace"), hashlib.sha256(body).hexdigest().encode()
    )
