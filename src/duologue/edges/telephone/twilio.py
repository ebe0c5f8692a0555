"""Twilio: media streams, and calls by its REST interface."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from xml.sax.saxutils import escape, quoteattr

from duologue.edges.telephone._call_token import PARAMETER
from duologue.edges.telephone._rest import (
    RestRequest,
    basic_auth,
    check_number,
    read_key,
    require_key,
    send,
)
from duologue.edges.telephone._signatures import check_twilio
from duologue.edges.telephone._stream import CarrierCodec, text
from duologue.edges.telephone._twilio_codec import TwilioCodec
from duologue.edges.telephone.calls import PhoneCall, PhoneControl, TelephoneError
from duologue.edges.telephone.carrier import (
    Carrier,
    WebhookRequest,
    WebhookResponse,
)
from duologue.errors import UnsupportedError


class Twilio(Carrier):
    """An account at Twilio.

    Args:
        public_url: See `Carrier`.
        auth_token: Checks signatures; by default ``TWILIO_AUTH_TOKEN``.
        account_sid: For calls by REST: dialling, transfer; by default ``TWILIO_ACCOUNT_SID``.
        base_url: See `Carrier`.
        now: Returns the Unix time in seconds.

    Raises:
        ConfigError: The address can't work, or the token is missing.
    """

    name = "twilio"
    default_base_url = "https://api.twilio.com"

    def __init__(
        self,
        public_url: str,
        *,
        auth_token: str | None = None,
        account_sid: str | None = None,
        base_url: str | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(public_url, base_url, now)
        self._auth_token = require_key("auth_token", auth_token, "TWILIO_AUTH_TOKEN")
        self._account_sid = read_key("account_sid", account_sid, "TWILIO_ACCOUNT_SID")

    @property
    def secret(self) -> str:
        """The key that signs the facts of a call on their way through the carrier."""
        return self._auth_token

    def check_webhook(self, request: WebhookRequest) -> bool:
        """Return whether Twilio signed a webhook."""
        form = request.form if request.method == "POST" else []
        signature = request.headers.get("x-twilio-signature", "")
        return check_twilio(self._auth_token, request.url, form, signature)

    def check_socket(self, headers: Mapping[str, str]) -> bool:
        """Return whether Twilio signed the ``wss`` address of the socket."""
        signature = headers.get("x-twilio-signature", "")
        return check_twilio(self._auth_token, self.stream_url, [], signature)

    async def answer(self, request: WebhookRequest, *, admitted: bool) -> WebhookResponse:
        """Answer with TwiML."""
        form = dict(request.form)
        if not form.get("CallSid"):
            return WebhookResponse(body="no CallSid\n", status=400)
        if not admitted:
            return WebhookResponse.xml('<Response><Reject reason="busy"/></Response>')
        call = self.merge(
            request,
            PhoneCall(
                carrier=self.name,
                id=form["CallSid"],
                caller=form.get("From", ""),
                called=form.get("To", ""),
                answered_by=form.get("AnsweredBy", ""),
            ),
        )
        return WebhookResponse.xml(
            f"<Response><Connect><Stream url={quoteattr(self.stream_url)}>"
            f'<Parameter name="{PARAMETER}" value="{self.sign(call)}"/>'
            "</Stream></Connect></Response>"
        )

    def codec(self) -> CarrierCodec:
        """Return the codec of a new stream."""
        return TwilioCodec()

    def control(self, call: PhoneCall) -> PhoneControl | None:
        """Return the control of a call; None without ``account_sid``."""
        return None if self._account_sid is None else _TwilioControl(self, call.id)

    async def place_call(self, call: PhoneCall, *, ring_s: int, detect_machine: bool) -> str:
        """Place an outbound call; return its SID."""
        form = {
            "To": call.called,
            "From": call.caller,
            "Url": self.outbound_url(call, ring_s),
            "Timeout": str(ring_s),
        }
        if detect_machine:
            form["MachineDetection"] = "Enable"
        return text((await send(self.request("Calls.json", form))).get("sid"))

    def request(self, path: str, form: Mapping[str, str]) -> RestRequest:
        """Return a request of the account.

        Raises:
            UnsupportedError: ``account_sid`` is missing.
        """
        if self._account_sid is None:
            raise UnsupportedError("Twilio's REST needs account_sid: Twilio(..., account_sid=...)")
        return RestRequest(
            "POST",
            f"{self.base_url}/2010-04-01/Accounts/{self._account_sid}/{path}",
            basic_auth(self._account_sid, self._auth_token),
            form=list(form.items()),
        )


class _TwilioControl:
    def __init__(self, account: Twilio, call_id: str) -> None:
        self._account = account
        self._path = f"Calls/{call_id}.json"

    async def hang_up(self) -> None:
        try:
            await send(self._account.request(self._path, {"Status": "completed"}))
        except TelephoneError as error:
            if error.status != 404:  # It is over already.
                raise

    async def transfer(self, to: str) -> None:
        twiml = f"<Response><Dial>{escape(check_number('to', to))}</Dial></Response>"
        await send(self._account.request(self._path, {"Twiml": twiml}))

    async def send_digits(self, digits: str) -> None:
        raise UnsupportedError(
            "Twilio sends no digits while it streams: give them to the call that you dial"
        )
