"""Telnyx: media streams of Call Control."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Literal
from urllib.parse import quote

from duologue.edges.telephone._formats import MULAW, AudioFormat
from duologue.edges.telephone._rest import RestRequest, check_number, read_key, require_key, send
from duologue.edges.telephone._signatures import check_telnyx
from duologue.edges.telephone._stream import CarrierCodec, StreamStarted, parse_object, text
from duologue.edges.telephone._telnyx_codec import TelnyxCodec
from duologue.edges.telephone.calls import PhoneCall, PhoneControl, TelephoneError
from duologue.edges.telephone.carrier import (
    AnswerDetected,
    Carrier,
    WebhookRequest,
    WebhookResponse,
)
from duologue.errors import ConfigError, UnsupportedError
from duologue.json_types import JsonObject

logger = logging.getLogger(__name__)

type TelnyxCodecName = Literal["PCMU", "PCMA", "L16"]

_TOKEN_HEADER = "x-telnyx-streaming-auth-token"  # noqa: S105 - a header's name


class Telnyx(Carrier):
    """An account at Telnyx, and a Call Control application of it.

    A socket is let in by the token that each stream gets from our webhook.

    Args:
        public_url: See `Carrier`.
        api_key: Answers calls, and signs the tokens of streams; by default ``TELNYX_API_KEY``.
        public_key: Checks webhooks, in base64; by default ``TELNYX_PUBLIC_KEY``.
        connection_id: The application, for `dial`; by default ``TELNYX_CONNECTION_ID``.
        codec: Audio to Telnyx: PCMU and PCMA have 8 kHz, L16 has 16 kHz.
        byte_order: Byte order of L16, which Telnyx does not document.
        base_url: See `Carrier`.
        now: Returns the Unix time in seconds.

    Raises:
        ConfigError: The address can't work, or a key is missing.
    """

    name = "telnyx"
    default_base_url = "https://api.telnyx.com"
    reorder = 3
    hangs_up_with_socket = False

    def __init__(
        self,
        public_url: str,
        *,
        api_key: str | None = None,
        public_key: str | None = None,
        connection_id: str | None = None,
        codec: TelnyxCodecName = "PCMU",
        byte_order: Literal["big", "little"] = "big",
        base_url: str | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(public_url, base_url, now)
        self._api_key = require_key("api_key", api_key, "TELNYX_API_KEY")
        self._public_key = require_key("public_key", public_key, "TELNYX_PUBLIC_KEY")
        self._connection_id = read_key("connection_id", connection_id, "TELNYX_CONNECTION_ID")
        self._codec_name = codec
        match codec:
            case "PCMU":
                self._format = MULAW
            case "PCMA":
                self._format = AudioFormat("alaw", 8000)
            case "L16":
                self._format = AudioFormat("l16be" if byte_order == "big" else "l16", 16000)
            case _:
                raise ConfigError(f"codec must be PCMU, PCMA or L16, not {codec!r}")

    @property
    def secret(self) -> str:
        """The key that signs the facts of a call on their way through the carrier."""
        return self._api_key

    def check_webhook(self, request: WebhookRequest) -> bool:
        """Return whether Telnyx signed a webhook."""
        return check_telnyx(
            self._public_key,
            request.body,
            request.headers.get("telnyx-signature-ed25519", ""),
            request.headers.get("telnyx-timestamp", ""),
            self.now(),
        )

    def check_socket(self, headers: Mapping[str, str]) -> bool:
        """Return whether the socket has the token of a stream that our webhook began."""
        return (
            self.read_token(headers.get(_TOKEN_HEADER, ""), StreamStarted(call_id="")) is not None
        )

    def identify(self, started: StreamStarted, headers: Mapping[str, str]) -> PhoneCall | None:
        """Return the call of a stream; None if our webhook did not begin it."""
        return self.read_token(headers.get(_TOKEN_HEADER, ""), started)

    async def answer(self, request: WebhookRequest, *, admitted: bool) -> WebhookResponse:
        """Answer an incoming call by REST; other events need nothing."""
        match _event(request.body):
            case {
                "event_type": "call.initiated",
                "payload": {
                    "call_control_id": str(call_id),
                    "direction": "incoming" | "inbound",
                    **payload,
                },
            }:
                call = PhoneCall(
                    carrier=self.name,
                    id=call_id,
                    caller=text(payload.get("from")),
                    called=text(payload.get("to")),
                )
                if admitted:
                    await send(self.action(call_id, "answer", self._stream(self.sign(call))))
                else:
                    await send(self.action(call_id, "reject", {"cause": "USER_BUSY"}))
            case _:
                pass
        return WebhookResponse()

    def answer_detected(self, request: WebhookRequest) -> AnswerDetected | None:
        """Return who answered a running call, if a signed webhook says so; None otherwise."""
        match _event(request.body):
            case {
                "event_type": "call.machine.detection.ended"
                | "call.machine.premium.detection.ended",
                "payload": {"call_control_id": str(call_id), "result": str(result)},
            }:
                return AnswerDetected(call_id, result)
            case _:
                return None

    def _stream(self, token: str) -> JsonObject:
        # Without the mode "rtp" what we send would have to be MP3, one file a second.
        return {
            "stream_url": self.stream_url,
            "stream_track": "inbound_track",
            "stream_bidirectional_mode": "rtp",
            "stream_bidirectional_codec": self._codec_name,
            "stream_bidirectional_sampling_rate": self._format.rate,
            "stream_bidirectional_target_legs": "self",
            "stream_auth_token": token,
        }

    def codec(self) -> CarrierCodec:
        """Return the codec of a new stream."""
        return TelnyxCodec(self._format)

    def control(self, call: PhoneCall) -> PhoneControl | None:
        """Return the control of a call."""
        return _TelnyxControl(self, call.id)

    async def place_call(self, call: PhoneCall, *, ring_s: int, detect_machine: bool) -> str:
        """Place an outbound call; return its ``call_control_id``."""
        if self._connection_id is None:
            raise UnsupportedError("dialling needs the application: Telnyx(..., connection_id=...)")
        body: JsonObject = {
            "connection_id": self._connection_id,
            "to": call.called,
            "from": call.caller,
            "timeout_secs": ring_s,
            **self._stream(self.sign(call, ring_s=ring_s)),
        }
        if detect_machine:
            body["answering_machine_detection"] = "detect"
        match (await send(self.request("calls", body))).get("data"):
            case {"call_control_id": str(call_id)}:
                return call_id
            case _:
                return ""

    def action(self, call_id: str, action: str, body: JsonObject) -> RestRequest:
        """Return a request for an action on a call."""
        return self.request(f"calls/{quote(call_id, safe='')}/actions/{action}", body)

    def request(self, path: str, body: JsonObject) -> RestRequest:
        """Return a request of the account."""
        headers = {"authorization": f"Bearer {self._api_key}"}
        return RestRequest("POST", f"{self.base_url}/v2/{path}", headers, json=body)


class _TelnyxControl:
    def __init__(self, account: Telnyx, call_id: str) -> None:
        self._account = account
        self._call_id = call_id

    async def hang_up(self) -> None:
        # 422 with the code 90018: it is over already.
        await send(self._account.action(self._call_id, "hangup", {}), gone=(404, 422))

    async def transfer(self, to: str) -> None:
        body: JsonObject = {"to": check_number("to", to)}
        await send(self._account.action(self._call_id, "transfer", body))
        # The call goes on, and its stream would, too.
        try:
            await send(self._account.action(self._call_id, "streaming_stop", {}), gone=(404, 422))
        except TelephoneError as error:
            # An error here would say that the caller was not transferred, and end the call.
            logger.warning("a stream was not stopped after a transfer: %s", error)

    async def send_digits(self, digits: str) -> None:
        await send(self._account.action(self._call_id, "send_dtmf", {"digits": digits}))


def _event(body: bytes) -> object:
    event = parse_object(body)
    return event.get("data") if event is not None else None
