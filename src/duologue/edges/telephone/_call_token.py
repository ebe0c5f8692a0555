"""Carry the facts of a call from the webhook to the socket, signed, through the carrier.

The webhook, which the carrier signs in full, gives the stream a token as a parameter; the socket
brings it back. So the processes of a server need no common memory, and a socket is worth nothing
without a webhook before it. The token is base32 without padding, because Plivo allows letters and
digits only: sixteen bytes of HMAC-SHA256, then JSON.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Mapping

from duologue.edges.telephone.calls import PhoneCall
from duologue.errors import ConfigError

PARAMETER = "duologue"
"""Name of the stream parameter that holds the token."""

MAX_CHARS = 480
"""Longest token; Twilio allows 500 characters with the name, Plivo 512 for all headers."""

MAX_AGE_S = 120.0
"""Seconds from the webhook to the socket."""

_MAC_BYTES = 16


def sign_call(call: PhoneCall, secret: str, now: float, *, max_age_s: float = MAX_AGE_S) -> str:
    """Return the token of a call that expires ``max_age_s`` after ``now`` (Unix seconds).

    Raises:
        ConfigError: The parameters are too long.
    """
    facts: dict[str, object] = {
        "i": call.id,
        "f": call.caller,
        "t": call.called,
        "e": int(now + max_age_s),
        "o": int(call.direction == "outbound"),
        "a": call.answered_by,
        "p": dict(call.parameters),
    }
    body = json.dumps(
        {key: value for key, value in facts.items() if value}, separators=(",", ":")
    ).encode()
    token = base64.b32encode(_mac(secret, call.carrier, body) + body).decode().rstrip("=")
    if len(token) > MAX_CHARS:
        raise ConfigError(
            f"the parameters of a call are too long: about {(len(token) - MAX_CHARS) * 5 // 8} "
            "characters less fit; pass a key, and look the rest up in make_agent"
        )
    return token


def read_call(token: str, carrier: str, secret: str, now: float) -> PhoneCall | None:
    """Return the call of a token; None if it is not ours, was changed, or has expired."""
    if not 0 < len(token) <= MAX_CHARS:
        return None
    try:
        data = base64.b32decode(token + "=" * (-len(token) % 8))
    except (binascii.Error, ValueError):
        return None
    mac, body = data[:_MAC_BYTES], data[_MAC_BYTES:]
    if not hmac.compare_digest(mac, _mac(secret, carrier, body)):
        return None
    facts: Mapping[str, object] = json.loads(body)
    expires, parameters = facts.get("e"), facts.get("p", {})
    if not isinstance(expires, int) or now > expires or not isinstance(parameters, dict):
        return None
    return PhoneCall(
        carrier=carrier,
        id=str(facts.get("i", "")),
        caller=str(facts.get("f", "")),
        called=str(facts.get("t", "")),
        parameters=parameters,
        direction="outbound" if facts.get("o") else "inbound",
        answered_by=str(facts.get("a", "")),
    )


def _mac(secret: str, carrier: str, body: bytes) -> bytes:
    key = hmac.digest(secret.encode(), b"duologue call token", hashlib.sha256)
    return hmac.digest(key, carrier.encode() + b"\0" + body, hashlib.sha256)[:_MAC_BYTES]
