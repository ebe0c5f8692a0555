"""What all carriers have in common, and what each does in its own way."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar
from urllib.parse import parse_qsl, urlencode, urlsplit

from duologue._net import is_loopback, split_address
from duologue.edges.telephone._call_token import MAX_AGE_S, PARAMETER, read_call, sign_call
from duologue.edges.telephone._rest import check_number
from duologue.edges.telephone._stream import CarrierCodec, StreamStarted
from duologue.edges.telephone.calls import PhoneCall, PhoneControl
from duologue.errors import ConfigError

RING_S = 30
"""Default time that an outbound call rings, in seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookRequest:
    """A request of a carrier to the webhook.

    Args:
        method: ``GET`` or ``POST``.
        url: The public address, with the query.
        headers: Headers with names in lower case.
        body: The body.
    """

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = b""

    @property
    def form(self) -> list[tuple[str, str]]:
        """The fields of a form, in order."""
        text = self.body.decode("utf-8", "replace")
        return parse_qsl(text, keep_blank_values=True, max_num_fields=200)

    @property
    def query(self) -> dict[str, str]:
        """The fields of the query; the last one of a name counts."""
        return dict(parse_qsl(urlsplit(self.url).query, keep_blank_values=True))


@dataclass(frozen=True, slots=True)
class AnswerDetected:
    """The carrier has found out who answered an outbound call, in words of its own."""

    call_id: str
    answered_by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookResponse:
    """What the webhook answers."""

    body: str = ""
    media_type: str = "text/plain"
    status: int = 200

    @classmethod
    def xml(cls, body: str) -> WebhookResponse:
        """Return an XML document whose root element is ``body``."""
        head = '<?xml version="1.0" encoding="UTF-8"?>'
        return cls(body=head + body, media_type="text/xml")


class Carrier(ABC):
    """The account at one carrier, and the public address of this server.

    Args:
        public_url: The address under which the carrier reaches the app, such as
            ``https://talk.example.org``. Signatures cover it, so it is given here once, and never
            taken from a request.
        base_url: Address of the carrier's REST interface; by default that of ``TWILIO_BASE_URL``
            (and so on), or else the carrier's own.
        now: Returns the Unix time in seconds.

    Raises:
        ConfigError: The address or a key can't work.
    """

    name: ClassVar[str]
    reorder: ClassVar[int] = 0
    """Most chunks of audio that wait for an earlier one, because the carrier mixes up the order."""
    hangs_up_with_socket: ClassVar[bool] = True
    """Whether the call ends when we close the socket."""

    default_base_url: ClassVar[str]
    """Address of the carrier's REST interface."""

    def __init__(self, public_url: str, base_url: str | None, now: Callable[[], float]) -> None:
        address = split_address(
            "public_url", public_url, ("https", "http"), "https://talk.example.org"
        )
        if address.scheme == "http" and not is_loopback(address.hostname or ""):
            raise ConfigError("public_url must begin with https: carriers stream over TLS only")
        if address.query or address.fragment or address.username:
            raise ConfigError("public_url must have no query, fragment or user name")
        self.public_url = public_url.rstrip("/")
        if base_url is None:
            variable = f"{self.name.upper()}_BASE_URL"
            base_url = os.environ.get(variable) or self.default_base_url
        split_address("base_url", base_url, ("https", "http"), "https://api.example.com")
        self.base_url = base_url.rstrip("/")
        self.now = now

    def __repr__(self) -> str:
        return f"<telephone.{type(self).__name__} {self.public_url}>"

    @property
    def path(self) -> str:
        """Path of the webhook below ``public_url``; the socket has ``/media`` after it."""
        return f"/telephone/{self.name}"

    @property
    def webhook_url(self) -> str:
        """The address to enter at the carrier."""
        return self.public_url + self.path

    @property
    def invitation(self) -> str:
        """What a person must know to call, in one line."""
        return f"Webhook for {type(self).__name__}: {self.webhook_url}"

    @property
    def stream_url(self) -> str:
        """The address of the socket."""
        return f"ws{self.public_url.removeprefix('http')}{self.path}/media"

    @property
    @abstractmethod
    def secret(self) -> str:
        """The key that signs the facts of a call on their way through the carrier."""

    @abstractmethod
    def check_webhook(self, request: WebhookRequest) -> bool:
        """Return whether the carrier signed a webhook."""

    @abstractmethod
    async def answer(self, request: WebhookRequest, *, admitted: bool) -> WebhookResponse:
        """Answer a signed webhook: connect the call with the stream, or refuse it as busy.

        Raises:
            TelephoneError: The carrier refused what the answer needs.
        """

    def answer_detected(self, request: WebhookRequest) -> AnswerDetected | None:
        """Return who answered a running call, if a signed webhook says so; None otherwise."""
        del request
        return None

    @abstractmethod
    def check_socket(self, headers: Mapping[str, str]) -> bool:
        """Return whether the carrier opens a socket, by its headers with names in lower case."""

    @abstractmethod
    def codec(self) -> CarrierCodec:
        """Return the codec of a new stream."""

    def identify(self, started: StreamStarted, headers: Mapping[str, str]) -> PhoneCall | None:
        """Return the call of a stream; None if our webhook did not begin it."""
        del headers
        return self.read_token(started.parameters.get(PARAMETER, ""), started)

    def read_token(self, token: str, started: StreamStarted) -> PhoneCall | None:
        """Return the call of a token that belongs to the stream; None without one."""
        call = read_call(token, self.name, self.secret, self.now())
        if call is None or (call.id and started.call_id and call.id != started.call_id):
            return None
        own = {name: value for name, value in started.parameters.items() if name != PARAMETER}
        return PhoneCall(
            carrier=self.name,
            id=call.id or started.call_id,
            caller=call.caller or started.caller,
            called=call.called or started.called,
            parameters={**own, **call.parameters},
            direction=call.direction,
            answered_by=call.answered_by,
        )

    def sign(self, call: PhoneCall, *, ring_s: float = 0.0) -> str:
        """Return the token that brings the facts of a call to its socket."""
        return sign_call(call, self.secret, self.now(), max_age_s=MAX_AGE_S + ring_s)

    def outbound_url(self, call: PhoneCall, ring_s: float) -> str:
        """Return the webhook's address for a call of ours, with its facts."""
        return f"{self.webhook_url}?{urlencode({PARAMETER: self.sign(call, ring_s=ring_s)})}"

    def merge(self, request: WebhookRequest, call: PhoneCall) -> PhoneCall:
        """Add what `outbound_url` brought back to the facts of a call."""
        known = read_call(request.query.get(PARAMETER, ""), self.name, self.secret, self.now())
        if known is None:
            return call
        return PhoneCall(
            carrier=self.name,
            id=call.id,
            caller=call.caller or known.caller,
            called=call.called or known.called,
            parameters=known.parameters,
            direction="outbound",
            answered_by=call.answered_by,
        )

    @abstractmethod
    def control(self, call: PhoneCall) -> PhoneControl | None:
        """Return the control of a call; None if the keys of the carrier's REST are not known."""

    @abstractmethod
    async def place_call(self, call: PhoneCall, *, ring_s: int, detect_machine: bool) -> str:
        """Place an outbound call; return the carrier's id of the call or of the request."""


async def dial(
    carrier: Carrier,
    to: str,
    *,
    from_: str,
    parameters: Mapping[str, str] | None = None,
    ring_s: int = RING_S,
    detect_machine: bool = False,
) -> str:
    """Call a number; the agent that ``make_agent`` makes talks to the person who answers.

    The app must be running where the carrier reaches it. Know what your law says of automatic
    calls before you use this.

    Args:
        carrier: The account.
        to: Number to call, such as +15551234567.
        from_: A number of yours.
        parameters: Short texts for ``make_agent``, in ``edge.call.parameters``.
        ring_s: Seconds to let it ring.
        detect_machine: Have the carrier find out whether a machine answers; see
            `MediaStream.wait_answered_by`.

    Returns:
        The carrier's id of the call, or of the request with Plivo.

    Raises:
        ConfigError: A number, or the parameters, can't be used.
        TelephoneError: The carrier refused.
        UnsupportedError: The keys of the carrier's REST are missing.
    """
    check_number("to", to)
    check_number("from_", from_)
    if not 1 <= ring_s <= 600:
        raise ConfigError(f"ring_s must be from 1 to 600, not {ring_s}")
    call = PhoneCall(
        carrier=carrier.name,
        id="",
        caller=from_,
        called=to,
        parameters={str(name): str(value) for name, value in (parameters or {}).items()},
        direction="outbound",
    )
    return await carrier.place_call(call, ring_s=ring_s, detect_machine=detect_machine)
