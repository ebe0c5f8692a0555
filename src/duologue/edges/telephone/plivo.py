"""Plivo: audio streams, and calls by its REST interface."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Literal
from urllib.parse import quote, urlencode
from xml.sax.saxutils import escape

from duologue.edges.telephone._call_token import PARAMETER
from duologue.edges.telephone._formats import MULAW, AudioFormat
from duologue.edges.telephone._plivo_codec import PlivoCodec
from duologue.edges.telephone._rest import (
    RestRequest,
    basic_auth,
    check_number,
    read_key,
    require_key,
    send,
)
from duologue.edges.telephone._signatures import check_plivo
from duologue.edges.telephone._stream import CarrierCodec, text
from duologue.edges.telephone.calls import PhoneCall, PhoneControl
from duologue.edges.telephone.carrier import (
    Carrier,
    WebhookRequest,
    WebhookResponse,
)
from duologue.errors import ConfigError, UnsupportedError
from duologue.json_types import JsonObject

_TRANSFER = "transfer"


class Plivo(Carrier):
    """An account at Plivo.

    Args:
        public_url: See `Carrier`.
        auth_token: Checks signatures; by default ``PLIVO_AUTH_TOKEN``.
        auth_id: For calls by REST; by default ``PLIVO_AUTH_ID``.
        rate: 8000 is mu-law; 16000 is 16-bit PCM, which sounds better where the line carries it.
        base_url: See `Carrier`.
        now: Returns the Unix time in seconds.

    Raises:
        ConfigError: The address or the rate can't work, or the token is missing.
    """

    name = "plivo"
    default_base_url = "https://api.plivo.com"

    def __init__(
        self,
        public_url: str,
        *,
        auth_token: str | None = None,
        auth_id: str | None = None,
        rate: Literal[8000, 16000] = 8000,
        base_url: str | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(public_url, base_url, now)
        if rate not in (8000, 16000):
            raise ConfigError(f"rate must be 8000 or 16000, not {rate}")
        self._format = MULAW if rate == 8000 else AudioFormat("l16", rate)
        self._auth_token = require_key("auth_token", auth_token, "PLIVO_AUTH_TOKEN")
        self._auth_id = read_key("auth_id", auth_id, "PLIVO_AUTH_ID")

    @property
    def secret(self) -> str:
        """The key that signs the facts of a call on their way through the carrier."""
        return self._auth_token

    def check_webhook(self, request: WebhookRequest) -> bool:
        """Return whether Plivo signed a webhook."""
        form = request.form if request.method == "POST" else []
        return self._check(request.headers, request.method, request.url, form)

    def check_socket(self, headers: Mapping[str, str]) -> bool:
        """Return whether Plivo signed the address of the socket."""
        return self._check(headers, "GET", self.stream_url, [])

    def _check(
        self, headers: Mapping[str, str], method: str, url: str, form: list[tuple[str, str]]
    ) -> bool:
        nonce = headers.get("x-plivo-signature-v3-nonce", "")
        signatures = headers.get("x-plivo-signature-v3", "")
        return check_plivo(self._auth_token, method, url, form, nonce, signatures)

    async def answer(self, request: WebhookRequest, *, admitted: bool) -> WebhookResponse:
        """Answer with Plivo's XML."""
        if _TRANSFER in request.query:
            number = check_number("to", request.query[_TRANSFER])
            kind = "User" if number.startswith("sip") else "Number"
            return WebhookResponse.xml(
                f"<Response><Dial><{kind}>{escape(number)}</{kind}></Dial></Response>"
            )
        fields = dict(request.form) if request.method == "POST" else request.query
        if not fields.get("CallUUID"):
            return WebhookResponse(body="no CallUUID\n", status=400)
        if not admitted:
            return WebhookResponse.xml('<Response><Hangup reason="busy"/></Response>')
        machine = {"true": "machine", "false": "human"}.get(fields.get("Machine", "").lower(), "")
        call = self.merge(
            request,
            PhoneCall(
                carrier=self.name,
                id=fields["CallUUID"],
                caller=fields.get("From", ""),
                called=fields.get("To", ""),
                answered_by=machine,
            ),
        )
        mulaw = self._format.encoding == "mulaw"
        content = f"audio/{'x-mulaw' if mulaw else 'x-l16'};rate={self._format.rate}"
        return WebhookResponse.xml(
            '<Response><Stream bidirectional="true" keepCallAlive="true" audioTrack="inbound" '
            f'contentType="{content}" extraHeaders="{PARAMETER}={self.sign(call)}">'
            f"{escape(self.stream_url)}</Stream></Response>"
        )

    def codec(self) -> CarrierCodec:
        """Return the codec of a new stream."""
        return PlivoCodec(self._format)

    def control(self, call: PhoneCall) -> PhoneControl | None:
        """Return the control of a call; None without ``auth_id``."""
        return None if self._auth_id is None else _PlivoControl(self, call.id)

    async def place_call(self, call: PhoneCall, *, ring_s: int, detect_machine: bool) -> str:
        """Place an outbound call; return the id of the request."""
        body: JsonObject = {
            "from": call.caller,
            "to": call.called,
            "answer_url": self.outbound_url(call, ring_s),
            "answer_method": "POST",
            "ring_timeout": ring_s,
        }
        if detect_machine:
            body["machine_detection"] = "true"
        return text((await send(self.request("POST", "Call/", body))).get("request_uuid"))

    def request(
        self, method: Literal["POST", "DELETE"], path: str, body: JsonObject | None
    ) -> RestRequest:
        """Return a request of the account.

        Raises:
            UnsupportedError: ``auth_id`` is missing.
        """
        if self._auth_id is None:
            raise UnsupportedError("Plivo's REST needs auth_id: Plivo(..., auth_id=...)")
        return RestRequest(
            method,
            f"{self.base_url}/v1/Account/{self._auth_id}/{path}",
            basic_auth(self._auth_id, self._auth_token),
            json=body,
        )


class _PlivoControl:
    def __init__(self, account: Plivo, call_id: str) -> None:
        self._account = account
        self._path = f"Call/{quote(call_id, safe='')}/"

    async def hang_up(self) -> None:
        await send(self._account.request("DELETE", self._path, None), gone=(404,))

    async def transfer(self, to: str) -> None:
        query = urlencode({_TRANSFER: check_number("to", to)})
        body: JsonObject = {
            "legs": "aleg",
            "aleg_url": f"{self._account.webhook_url}?{query}",
            "aleg_method": "POST",
        }
        await send(self._account.request("POST", self._path, body))

    async def send_digits(self, digits: str) -> None:
        body: JsonObject = {"digits": digits, "leg": "aleg"}
        await send(self._account.request("POST", f"{self._path}DTMF/", body))
