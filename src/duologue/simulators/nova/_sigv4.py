"""The server side of AWS Signature Version 4: of the request, and of every chunk after it.

Source: AWS' documentation ("Signature Version 4 signing", "Signing event stream messages"), and the
behavior of ``aws-sdk-signers``.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl, quote

from duologue.simulators.nova._eventstream import Message, Timestamp, encode_headers

SERVICE = "bedrock"
STREAMING = "STREAMING-AWS4-HMAC-SHA256-EVENTS"
MAX_SKEW = timedelta(minutes=5)
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
    """A signature is refused; ``kind`` is the name of the service's error."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message


@dataclass(frozen=True, slots=True)
class Credentials:
    """The valid keys and their region."""

    access_key: str
    secret_key: str = field(repr=False)
    region: str

    def signing_key(self, day: str) -> bytes:
        """Return the signing key of one day (``YYYYMMDD``)."""
        key = f"AWS4{self.secret_key}".encode()
        for part in (day, self.region, SERVICE, "aws4_request"):
            key = hmac.digest(key, part.encode(), "sha256")
        return key

    def scope(self, day: str) -> str:
        """Return the credential scope of one day."""
        return f"{day}/{self.region}/{SERVICE}/aws4_request"


def check_request(
    method: str, path: str, headers: Mapping[str, str], credentials: Credentials, now: datetime
) -> ChunkChain:
    """Check a request's signature and return the check of the chunks that follow.

    Args:
        method: The HTTP method.
        path: The path and query as sent.
        headers: Header fields with names in lower case, including ``host``.
        credentials: The valid keys.
        now: The current time in UTC.

    Raises:
        SignatureError: The signature is missing, malformed, expired or wrong.
    """
    authorization = _AUTHORIZATION.fullmatch(headers.get("authorization", ""))
    if authorization is None:
        if "authorization" in headers:
            raise SignatureError(
                "IncompleteSignatureException", "The Authorization header is malformed."
            )
        raise SignatureError("MissingAuthenticationTokenException", "Missing Authentication Token")
    stamp = headers.get("x-amz-date", "")
    access_key, _, scope = authorization["credential"].partition("/")
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
    names = authorization["headers"].split(";")
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
            # The path is encoded twice, as for every service but S3.
            quote(where, safe="/-_.~"),
            _canonical_query(query),
            *(f"{name}:{' '.join(headers[name].split())}" for name in names),
            "",
            ";".join(names),
            payload,
        )
    )
    signed = "\n".join(("AWS4-HMAC-SHA256", stamp, scope, _hex(canonical.encode())))
    expected = hmac.digest(credentials.signing_key(stamp[:8]), signed.encode(), "sha256").hex()
    if not _same(expected, authorization["signature"]):
        raise SignatureError("InvalidSignatureException", _MISMATCH)
    return ChunkChain(credentials, expected)


class ChunkChain:
    """Checks the signed messages of a stream, each of which signs the signature before it."""

    def __init__(self, credentials: Credentials, seed: str) -> None:
        self._credentials = credentials
        self._previous = seed
        self._key_day = ""
        self._key = b""
        self.checked = 0
        """Number of valid messages so far."""

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
        if day != self._key_day:
            self._key_day, self._key = day, self._credentials.signing_key(day)
        signed = "\n".join(
            (
                "AWS4-HMAC-SHA256-PAYLOAD",
                stamp,
                self._credentials.scope(day),
                self._previous,
                _hex(encode_headers({":date": date})),
                _hex(message.payload),
            )
        )
        expected = hmac.digest(self._key, signed.encode(), "sha256")
        if not hmac.compare_digest(expected, signature):
            raise SignatureError("InvalidSignatureException", _MISMATCH)
        self._previous = expected.hex()
        self.checked += 1


def _check_time(stamp: str, now: datetime) -> None:
    try:
        signed_at = datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        raise SignatureError(
            "IncompleteSignatureException", "Date must be in ISO-8601 'basic format' in X-Amz-Date."
        ) from None
    if abs(now - signed_at) > MAX_SKEW:
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
