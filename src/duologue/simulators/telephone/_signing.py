"""Sign requests as the carriers do."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
import uuid
from collections.abc import Mapping
from urllib.parse import parse_qsl, urlsplit, urlunsplit

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat


def sign_twilio(token: str, url: str, form: Mapping[str, str]) -> dict[str, str]:
    """Return the headers of a request of Twilio."""
    text = url + "".join(f"{name}{form[name]}" for name in sorted(form))
    mac = hmac.new(token.encode(), text.encode(), hashlib.sha1)
    return {"X-Twilio-Signature": base64.b64encode(mac.digest()).decode()}


def sign_plivo(token: str, method: str, url: str, form: Mapping[str, str]) -> dict[str, str]:
    """Return the headers of a request of Plivo."""
    parts = urlsplit(url)
    query = "&".join(f"{k}={v}" for k, v in sorted(parse_qsl(parts.query)))
    text = urlunsplit((parts.scheme, parts.netloc, parts.path, "", ""))
    if method == "POST" and form:
        text += f"?{query}" + ("." if query else "")
        text += "".join(f"{name}{form[name]}" for name in sorted(form))
    elif query:
        text += f"?{query}"
    nonce = uuid.uuid4().hex
    mac = hmac.new(token.encode(), f"{text}.{nonce}".encode(), hashlib.sha256)
    return {
        "X-Plivo-Signature-V3": base64.b64encode(mac.digest()).decode(),
        "X-Plivo-Signature-V3-Nonce": nonce,
    }


class TelnyxKey:
    """A key pair of a simulated Telnyx.

    Args:
        seed: Makes the same pair each time; by default it is random.
    """

    def __init__(self, seed: str | None = None) -> None:
        if seed is None:
            self._key = Ed25519PrivateKey.generate()
        else:
            digest = hashlib.sha256(seed.encode()).digest()
            self._key = Ed25519PrivateKey.from_private_bytes(digest)

    @property
    def public(self) -> str:
        """The public key in base64, as the portal shows it."""
        raw = self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return base64.b64encode(raw).decode()

    def sign(self, body: bytes) -> dict[str, str]:
        """Return the headers of a webhook."""
        now = str(int(time.time()))
        signature = self._key.sign(now.encode() + b"|" + body)
        return {
            "telnyx-timestamp": now,
            "telnyx-signature-ed25519": base64.b64encode(signature).decode(),
        }


def sign_vonage(secret: str, body: bytes) -> dict[str, str]:
    """Return the headers of a request of Vonage."""
    claims = {"iat": int(time.time()), "jti": uuid.uuid4().hex, "iss": "Vonage"}
    if body:
        claims["payload_hash"] = hashlib.sha256(body).hexdigest()
    return {"Authorization": f"Bearer {jwt.encode(claims, secret, algorithm='HS256')}"}
