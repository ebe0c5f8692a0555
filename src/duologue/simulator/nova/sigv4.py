"""AWS Signature Version 4, the server's side: the request's, and that of every chunk behind it.

As AWS documents it ("Signature Version 4 signing", "Signing event stream messages"), and as
``aws-sdk-signers`` does it.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl, quote

from duologue.simulator.nova.eventstream import Message, Timestamp, encode_headers

SERVICE = "bedrock"
STREAMING = "STREAMING-AWS4-HMAC-SHA256-EVENTS"
MOST_SKEW = timedelta(minutes=5)
"""How far a client's clock may be off."""

_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<credential>[^,\s]+),\s*"
    r"SignedHeaders=(?P<headers>[^,\s]+),\s*Signature=(?P<signature>[0-9a-f]{64})"
)
_MISMATCH = (
    "The request signature we calculated does not match the signature you provided. Check your "
    "AWS Secret Access Key and signing method. Consult the service documentation for details."
)


class SignatureError(Exception):
    """The service refuses what is signed so; ``kind`` is the name of its error."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message


@dataclass(frozen=True, slots=True)
class Credentials:
    """The keys that are good, and where."""

    access_key: str
    secret_key: str = field(repr=False)
    region: str

    def signing_key(self, day: str) -> bytes:
        """The key for the signatures of one day (``YYYYMMDD``)."""
        key = f"AWS4{self.secret_key}".encode()
        for part in (day, self.region, SERVICE, "aws4_request"):
            key = hmac.digest(key, part.encode(), "sha256")
        return key

    def scope(self, day: str) -> str:
        """What such a key is good for."""
        return f"{day}/{self.region}/{SERVICE}/aws4_request"


def check_request(
    method: str, path: str, headers: Mapping[str, str], credentials: Credentials, now: datetime
) -> ChunkChain:
    """Check the request's signature; what checks the chunks that follow. Raises `SignatureError`.

    ``headers`` have names in lower case, and a ``host``.
    """
    found = _AUTHORIZATION.fullmatch(headers.get("authorization", ""))
    if found is None:
        if "authorization" in headers:
            raise SignatureError(
                "IncompleteSignatureException", "Authorization header is not as it must be."
            )
        raise SignatureError("MissingAuthenticationTokenException", "Missing Authentication Token")
    stamp = headers.get("x-amz-date", "")
    access_key, _, scope = found["credential"].partition("/")
    if not _same(access_key, credentials.access_key):
        raise SignatureError(
            "UnrecognizedClientException", "The security token included in the request is invalid."
        )
    if scope != credentials.scope(stamp[:8]):
        raise SignatureError(
            "InvalidSignatureException",
            f"Credential should be scoped to {credentials.scope(stamp[:8])}, not {scope}.",
        )
    _check_time(stamp, now)
    names = found["headers"].split(";")
    if "host" not in names or names != sorted(names) or any(name not in headers for name in names):
        raise SignatureError("InvalidSignatureException", _MISMATCH)
    payload = headers.get("x-amz-content-sha256", "")
    if payload != STREAMING:
        raise SignatureError(
            "InvalidSignatureException", f"x-amz-content-sha256 must be {STREAMING}."
        )
    where, _, query = path.partition("?")
    canonical = "\n".join(
        (
            method,
            # Twice: the path is encoded as it stands, as for every service but S3.
            quote(where, safe="/-_.~"),
            _canonical_query(query),
            *(f"{name}:{' '.join(headers[name].split())}" for name in names),
            "",
            ";".join(names),
            payload,
        )
    )
    signed = "\n".join(("AWS4-HMAC-SHA256", stamp, scope, _hex(canonical.encode())))
    wanted = hmac.digest(credentials.signing_key(stamp[:8]), signed.encode(), "sha256").hex()
    if not _same(wanted, found["signature"]):
        raise SignatureError("InvalidSignatureException", _MISMATCH)
    return ChunkChain(credentials, wanted)


class ChunkChain:
    """Checks the signed messages of a stream: each is signed with the signature before it."""

    def __init__(self, credentials: Credentials, seed: str) -> None:
        self._credentials = credentials
        self._before = seed
        self._day = ""
        self._key = b""
        self.checked = 0
        """Messages that were good so far."""

    def check(self, message: Message) -> None:
        """Check the next message. Raises `SignatureError`."""
        date = message.headers.get(":date")
        signature = message.headers.get(":chunk-signature")
        if not isinstance(date, Timestamp) or not isinstance(signature, bytes):
            raise SignatureError(
                "InvalidSignatureException",
                "A chunk has a :date and a :chunk-signature among its headers.",
            )
        try:
            stamp = datetime.fromtimestamp(date.ms // 1000, UTC).strftime("%Y%m%dT%H%M%SZ")
        except (OverflowError, ValueError, OSError):
            raise SignatureError("InvalidSignatureException", _MISMATCH) from None
        day = stamp[:8]
        if day != self._day:
            self._day, self._key = day, self._credentials.signing_key(day)
        signed = "\n".join(
            (
                "AWS4-HMAC-SHA256-PAYLOAD",
                stamp,
                self._credentials.scope(day),
                self._before,
                _hex(encode_headers({":date": date})),
                _hex(message.payload),
            )
        )
        wanted = hmac.digest(self._key, signed.encode(), "sha256")
        if not hmac.compare_digest(wanted, signature):
            raise SignatureError("InvalidSignatureException", _MISMATCH)
        self._before = wanted.hex()
        self.checked += 1


def _check_time(stamp: str, now: datetime) -> None:
    try:
        signed_at = datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        raise SignatureError(
            "IncompleteSignatureException", "Date must be in ISO-8601 'basic format' in X-Amz-Date."
        ) from None
    if abs(now - signed_at) > MOST_SKEW:
        word = "expired" if signed_at < now else "not yet current"
        raise SignatureError("InvalidSignatureException", f"Signature {word}: {stamp}")


def _canonical_query(query: str) -> str:
    pairs = [
        (quote(name, safe="-_.~"), quote(value, safe="-_.~"))
        for name, value in parse_qsl(query, keep_blank_values=True)
    ]
    return "&".join(f"{name}={value}" for name, value in sorted(pairs))


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())


def _hex(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
