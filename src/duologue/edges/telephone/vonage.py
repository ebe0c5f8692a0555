"""Vonage: the WebSocket endpoint of its Voice API."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from duologue._optional import optional
from duologue.edges.telephone._call_token import PARAMETER
from duologue.edges.telephone._rest import RestRequest, check_number, read_key, require_key, send
from duologue.edges.telephone._signatures import check_vonage
from duologue.edges.telephone._stream import CarrierCodec, parse_object, text
from duologue.edges.telephone._vonage_codec import VonageCodec
from duologue.edges.telephone.calls import PhoneCall, PhoneControl
from duologue.edges.telephone.carrier import (
    AnswerDetected,
    Carrier,
    WebhookRequest,
    WebhookResponse,
)
from duologue.errors import ConfigError, UnsupportedError
from duologue.json_types import JsonObject

_TOKEN_S = 300
"""Lifetime of our tokens, in seconds."""


class Vonage(Carrier):
    """An application at Vonage.

    Args:
        public_url: See `Carrier`.
        signature_secret: Checks webhooks and sockets; by default ``VONAGE_SIGNATURE_SECRET``.
        application_id: For calls by REST, and to hang up; by default ``VONAGE_APPLICATION_ID``.
        private_key: Key of the application: PEM, or the `Path` of a file; by default the file that
            ``VONAGE_PRIVATE_KEY_FILE`` names.
        rate: Rate in Hz of the audio both ways.
        base_url: See `Carrier`.
        now: Returns the Unix time in seconds.

    Raises:
        ConfigError: The address or the rate can't work, or the secret is missing.
    """

    name = "vonage"
    default_base_url = "https://api.nexmo.com"
    hangs_up_with_socket = False

    def __init__(
        self,
        public_url: str,
        *,
        signature_secret: str | None = None,
        application_id: str | None = None,
        private_key: str | Path | None = None,
        rate: Literal[8000, 16000, 24000] = 16000,
        base_url: str | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(public_url, base_url, now)
        if rate not in (8000, 16000, 24000):
            raise ConfigError(f"rate must be 8000, 16000 or 24000, not {rate}")
        self._rate = rate
        self._secret = require_key("signature_secret", signature_secret, "VONAGE_SIGNATURE_SECRET")
        self._application_id = read_key("application_id", application_id, "VONAGE_APPLICATION_ID")
        if private_key is None:
            file = read_key("private_key", None, "VONAGE_PRIVATE_KEY_FILE")
            private_key = None if file is None else Path(file)
        if isinstance(private_key, Path):
            try:
                private_key = private_key.read_text()
            except OSError as error:
                reason = (error.strerror or str(error)).lower()
                raise ConfigError(f"{private_key}: {reason}") from None
        self._private_key = private_key

    @property
    def secret(self) -> str:
        """The key that signs the facts of a call on their way through the carrier."""
        return self._secret

    def check_webhook(self, request: WebhookRequest) -> bool:
        """Return whether Vonage signed a webhook."""
        authorization = request.headers.get("authorization", "")
        return check_vonage(self._secret, authorization, request.body, self.now())

    def check_socket(self, headers: Mapping[str, str]) -> bool:
        """Return whether Vonage signed the upgrade."""
        return check_vonage(self._secret, headers.get("authorization", ""), b"", self.now())

    async def answer(self, request: WebhookRequest, *, admitted: bool) -> WebhookResponse:
        """Answer with an NCCO; events of a call need nothing."""
        fields = _fields(request)
        if "status" in fields:
            return WebhookResponse(status=204)
        if not text(fields.get("uuid")):
            return WebhookResponse(body="no uuid\n", status=400)
        if not admitted:
            return _ncco({"action": "talk", "text": "All lines are busy. Please call again."})
        call = self.merge(
            request,
            PhoneCall(
                carrier=self.name,
                id=text(fields.get("uuid")),
                caller=text(fields.get("from")),
                called=text(fields.get("to")),
            ),
        )
        # Nothing after it: the next action would begin at once, and not after the stream.
        endpoint: JsonObject = {
            "type": "websocket",
            "uri": self.stream_url,
            "content-type": f"audio/l16;rate={self._rate}",
            "headers": {PARAMETER: self.sign(call)},
        }
        return _ncco({"action": "connect", "endpoint": [endpoint]})

    def answer_detected(self, request: WebhookRequest) -> AnswerDetected | None:
        """Return who answered a running call, if a signed webhook says so; None otherwise."""
        match _fields(request):
            case {"uuid": str(call_id), "status": "human" | "machine" as status, **rest}:
                beep = ":beep" if str(rest.get("sub_state", "")).startswith("beep") else ""
                return AnswerDetected(call_id, f"{status}{beep}")
            case _:
                return None

    def codec(self) -> CarrierCodec:
        """Return the codec of a new stream."""
        return VonageCodec(self._rate)

    def control(self, call: PhoneCall) -> PhoneControl | None:
        """Return the control of a call; None without ``application_id`` and ``private_key``."""
        if self._application_id is None or self._private_key is None:
            return None
        return _VonageControl(self, call.id)

    async def place_call(self, call: PhoneCall, *, ring_s: int, detect_machine: bool) -> str:
        """Place an outbound call; return its UUID."""
        body: JsonObject = {
            "to": [{"type": "phone", "number": call.called.removeprefix("+")}],
            "from": {"type": "phone", "number": call.caller.removeprefix("+")},
            "answer_url": [self.outbound_url(call, ring_s)],
            "answer_method": "POST",
            "ringing_timer": min(ring_s, 120),
        }
        if detect_machine:
            body["machine_detection"] = "continue"
            body["event_url"] = [self.webhook_url]
            body["event_method"] = "POST"
        return text((await send(self.request("POST", "", body))).get("uuid"))

    def request(self, method: Literal["POST", "PUT"], path: str, body: JsonObject) -> RestRequest:
        """Return a request of the application.

        Raises:
            UnsupportedError: ``application_id`` or ``private_key`` is missing.
            ConfigError: The private key can't be used.
        """
        if self._application_id is None or self._private_key is None:
            raise UnsupportedError(
                "Vonage's REST needs application_id and private_key: Vonage(..., private_key=...)"
            )
        with optional("telephone"):
            import jwt

        now = int(self.now())
        claims = {
            "application_id": self._application_id,
            "iat": now,
            "exp": now + _TOKEN_S,
            "jti": str(uuid.uuid4()),
        }
        try:
            token = jwt.encode(claims, self._private_key, algorithm="RS256")
        except (jwt.PyJWTError, ValueError, TypeError):
            raise ConfigError("private_key must be an RSA key in PEM") from None
        return RestRequest(
            method,
            f"{self.base_url}/v1/calls{path}",
            {"authorization": f"Bearer {token}"},
            json=body,
        )


class _VonageControl:
    def __init__(self, account: Vonage, call_id: str) -> None:
        self._account = account
        self._path = f"/{quote(call_id, safe='')}"

    async def hang_up(self) -> None:
        body: JsonObject = {"action": "hangup"}
        await send(self._account.request("PUT", self._path, body), gone=(404,))

    async def transfer(self, to: str) -> None:
        number = check_number("to", to)
        endpoint: JsonObject = (
            {"type": "sip", "uri": number}
            if number.startswith("sip")
            else {"type": "phone", "number": number.removeprefix("+")}
        )
        body: JsonObject = {
            "action": "transfer",
            "destination": {
                "type": "ncco",
                "ncco": [{"action": "connect", "endpoint": [endpoint]}],
            },
        }
        await send(self._account.request("PUT", self._path, body))

    async def send_digits(self, digits: str) -> None:
        # Vonage's pause is the letter p, of half a second.
        keys = digits.replace("w", "p").replace("W", "p")
        await send(self._account.request("PUT", f"{self._path}/dtmf", {"digits": keys}))


def _fields(request: WebhookRequest) -> Mapping[str, object]:
    fields: Mapping[str, object] = request.query
    if request.method == "POST":
        return {**fields, **(parse_object(request.body) or {})}
    return fields


def _ncco(action: JsonObject) -> WebhookResponse:
    return WebhookResponse(body=json.dumps([action]), media_type="application/json")
