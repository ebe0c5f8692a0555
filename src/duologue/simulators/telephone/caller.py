"""Call an app as a carrier does, for tests: signed requests, audio in real time, marks, faults."""

# A caller is the carrier and the person in one:
#
#     start:   webhook (signed) ──▶ the stream's address and parameters ──▶ WebSocket (signed)
#     to app:  20 ms of the person, or of silence, at each tick; keys; marks that were reached
#     to ear:  what the app sends waits in a queue, which plays at real time
#
# Faults are what carriers and networks really do: marks after a clear come back at once (Twilio
# documents it) or never; media come late or in another order; frames of a wrong size end a call;
# the stream ends without `stop`; the socket is lost.

from __future__ import annotations

import asyncio
import json
import random
import re
import uuid
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import ClassVar, Literal, Self
from urllib.parse import urlencode, urlsplit, urlunsplit
from xml.etree import ElementTree as ET

import numpy as np

from duologue.audio import AudioFrame, Resampler, Samples
from duologue.clock import Clock, LoopClock
from duologue.errors import ConfigError
from duologue.simulators.telephone._dialects import (
    VONAGE_BUFFER,
    ClearQueue,
    Dialect,
    PlaceMark,
    PlayAudio,
    PlivoDialect,
    TelnyxDialect,
    TwilioDialect,
    Violation,
    VonageDialect,
)
from duologue.simulators.telephone._signing import (
    TelnyxKey as TelnyxKey,
)
from duologue.simulators.telephone._signing import (
    sign_plivo,
    sign_twilio,
    sign_vonage,
)
from duologue.simulators.telephone._transport import (
    AppTransport,
    AsgiApp,
    Channel,
    Message,
    NetworkTransport,
    Transport,
)
from duologue.simulators.telephone._transport import (
    CallRejectedError as CallRejectedError,
)

MAX_LOG = 100_000
"""Most messages of the app that are kept in `PhoneCaller.orders`."""

_FORM = "application/x-www-form-urlencoded"


@dataclass(frozen=True, slots=True, kw_only=True)
class LineFaults:
    """What goes wrong on the way.

    Args:
        delay_ms: Milliseconds that each message takes, both ways.
        jitter_ms: Most milliseconds by which the caller's audio is late, at random and in bursts.
        reorder: Share of the caller's media that changes places with the next one, 0 to 1.
        lost: Share of the caller's media that never comes, 0 to 1.
        marks_after_clear: Whether marks of dropped audio come back at once, or never.
        seed: Seed of the random numbers.
    """

    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    reorder: float = 0.0
    lost: float = 0.0
    marks_after_clear: Literal["returned", "never"] = "returned"
    seed: int = 1

    def __post_init__(self) -> None:
        for name in ("delay_ms", "jitter_ms"):
            if not 0 <= getattr(self, name) <= 10_000:
                raise ConfigError(f"{name} must be from 0 to 10000, not {getattr(self, name):g}")
        for name in ("reorder", "lost"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} must be from 0 to 1, not {getattr(self, name):g}")
        if self.marks_after_clear not in ("returned", "never"):
            raise ConfigError(
                f"marks_after_clear must be returned or never, not {self.marks_after_clear!r:.40}"
            )


@dataclass(slots=True)
class _Queue:
    """What the app has sent and the ear has not heard, in order."""

    entries: deque[Samples | str] = field(default_factory=deque)
    samples: int = 0


class PhoneCaller(ABC):
    """A call to an app; use it as ``async with``: the call is answered when the block begins.

    Args:
        public_url: The public address of the app.
        app: The app itself, if it runs in this process; otherwise it is reached by its address.
        caller: The number that calls.
        called: The number that is called.
        parameters: Further parameters of the stream, as a webhook of one's own would give them.
        faults: What goes wrong on the way.
        clock: Clock of the call; by default that of the event loop.

    Attributes:
        orders: What the app has sent, in order.
        violations: What the app has sent and the carrier does not take.
        played_samples: Samples of the app's audio that were played.
    """

    carrier: ClassVar[str]
    dialect: ClassVar[type[Dialect]]

    def __init__(
        self,
        public_url: str,
        *,
        app: AsgiApp | None = None,
        caller: str = "+15550001111",
        called: str = "+15552223333",
        parameters: Mapping[str, str] | None = None,
        faults: LineFaults | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.public_url = public_url.rstrip("/")
        self.webhook_url = f"{self.public_url}/telephone/{self.carrier}"
        self.caller = caller
        self.called = called
        self.call_id = f"CA{uuid.uuid4().hex}"
        self.parameters = dict(parameters or {})
        self.faults = faults or LineFaults()
        self._transport: Transport = (
            NetworkTransport() if app is None else AppTransport(app, self.public_url)
        )
        self._clock: Clock = clock or LoopClock()
        self._random = random.Random(self.faults.seed)  # noqa: S311 - a network, not a secret
        self._channel: Channel | None = None
        self._dialect: Dialect = self.dialect(self.call_id, {})
        self._tasks: list[asyncio.Task[None]] = []
        self._unsent: deque[Samples] = deque()
        self._all_sent = asyncio.Event()
        self._queue = _Queue()
        self._played: list[Samples] = []
        self._chunk = 0
        self._swapped: Message | None = None
        self._to_app: asyncio.Queue[tuple[float, Message]] = asyncio.Queue()
        self._from_app: asyncio.Queue[tuple[float, Message]] = asyncio.Queue()
        self._last_due = 0.0
        self.orders: deque[PlayAudio | PlaceMark | ClearQueue] = deque(maxlen=MAX_LOG)
        self.violations: list[str] = []
        self.played_samples = 0
        self.ended = asyncio.Event()
        """Set when the app has ended the stream, or the call was lost."""
        self.close_code: int | None = None
        """The code with which the app has closed the stream; 1011 if it has failed."""
        self.hung_up = False
        """Whether the person, or a request of the app, has ended the call."""
        self.detected = ""
        """Who answered, as the carrier tells the webhook while the call runs; empty: nothing."""

    @property
    def rate(self) -> int:
        """Rate in Hz of the carrier's audio."""
        return self._dialect.rate

    @property
    def played(self) -> AudioFrame:
        """All audio of the app that was played, without the silence in between."""
        parts = self._played or [np.zeros(0, np.int16)]
        return AudioFrame(np.concatenate(parts), self.rate)

    @property
    def queued_ms(self) -> float:
        """Milliseconds of the app's audio that wait to be played."""
        return self._queue.samples * 1000 / self.rate

    @property
    def clears(self) -> int:
        """How often the app has cleared the queue."""
        return sum(isinstance(order, ClearQueue) for order in self.orders)

    async def __aenter__(self) -> Self:
        await self.answer_webhook()
        return self

    async def answer_webhook(self) -> None:
        """Announce the call, and open the stream that the app asks for."""
        url, parameters = await self.call_webhook()
        await self.connect(url, parameters)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.hang_up()

    @abstractmethod
    async def call_webhook(self) -> tuple[str, Mapping[str, str]]:
        """Announce the call; return the stream's address and parameters.

        Raises:
            CallRejectedError: The app did not take the call.
        """

    async def _post_webhook(self, headers: Mapping[str, str], body: bytes) -> str:
        """Send a signed request to the webhook; return the body of the response."""
        status, text = await self._transport.request("POST", self.webhook_url, headers, body)
        if status != 200:
            raise CallRejectedError(f"the webhook answered {status}: {text.strip()}", status)
        return text

    async def report_detection(self) -> None:
        """Tell the webhook who has answered (`detected`).

        Raises:
            ConfigError: The carrier does not do so while the call runs.
        """
        raise ConfigError(f"{self.carrier} does not say during a call who has answered")

    async def _post_event(self, headers: Mapping[str, str], body: bytes) -> None:
        """Send a signed event of the running call to the webhook."""
        headers = {"content-type": "application/json", **headers}
        url = f"{self.public_url}/telephone/{self.carrier}"
        status, text = await self._transport.request("POST", url, headers, body)
        if status not in (200, 204):
            raise CallRejectedError(f"the webhook answered {status}: {text.strip()}", status)

    @abstractmethod
    def socket_headers(self, url: str) -> Mapping[str, str]:
        """Return the headers of the upgrade, which sign it."""

    async def connect(self, url: str, parameters: Mapping[str, str]) -> None:
        """Open the stream, and begin to send audio.

        Raises:
            CallRejectedError: The app refused the socket.
        """
        self._dialect = self.make_dialect({**self.parameters, **parameters})
        parts = urlsplit(url)
        # Carriers drop the query of a stream's address.
        bare = urlunsplit((parts.scheme, parts.netloc, parts.path, "", ""))
        self._channel = await self._transport.connect(bare, self.socket_headers(bare))
        for message in self._dialect.start():
            await self._channel.send(message)
        for work in (self._tick, self._deliver, self._receive, self._read_app):
            self._tasks.append(asyncio.ensure_future(work()))

    def make_dialect(self, parameters: Mapping[str, str]) -> Dialect:
        """Return the messages of the call."""
        return self.dialect(self.call_id, parameters)

    async def say(self, frame: AudioFrame) -> None:
        """Speak, and return when it has been sent, or when the call has ended."""
        if self.ended.is_set():
            return
        resampler = Resampler(frame.rate, self.rate)
        samples = np.concatenate((resampler.push(frame.samples), resampler.flush()))
        size = self.rate // 50
        for at in range(0, len(samples), size):
            part = samples[at : at + size]
            self._unsent.append(np.pad(part, (0, size - len(part))))
        self._all_sent.clear()
        if self._unsent:
            await self._all_sent.wait()

    async def listen(self, seconds: float) -> None:
        """Say nothing for a while."""
        await self._clock.sleep(seconds)

    def press(self, digits: str) -> None:
        """Press keys."""
        for digit in digits:
            self._post(self._dialect.digit(digit))

    def lose_connection(self) -> None:
        """Lose the socket, as a network does: nothing more is sent or received."""
        self._stop_tasks()
        self.ended.set()

    async def hang_up(self) -> None:
        """End the call; may be called again."""
        self.hung_up = True
        await self.stop_stream()

    async def stop_stream(self) -> None:
        """End the stream, and not the call."""
        self._stop_tasks()
        channel, self._channel = self._channel, None
        if channel is not None:
            if not self.ended.is_set():
                for message in self._dialect.stop():
                    await channel.send(message)
            await channel.close()
        self.ended.set()

    def _stop_tasks(self) -> None:
        own = asyncio.current_task()
        for task in self._tasks:
            if task is not own:
                task.cancel()
        self._tasks.clear()
        # Nothing sends any more: whoever speaks must not wait for it.
        self._unsent.clear()
        self._all_sent.set()

    async def _tick(self) -> None:
        """Send 20 ms of the person and play 20 ms of the app, at each tick."""
        start, size = self._clock.now(), self.rate // 50
        silence = np.zeros(size, np.int16)
        tick = 0
        while True:
            tick += 1
            await self._clock.sleep(max(0.0, start + tick * 0.02 - self._clock.now()))
            spoken = self._unsent.popleft() if self._unsent else silence
            self._send_media(spoken)
            if not self._unsent:
                self._all_sent.set()
            self._play(size)

    def _send_media(self, samples: Samples) -> None:
        self._chunk += 1
        faults = self.faults
        message = self._dialect.media(self._chunk, samples)
        if faults.lost and self._random.random() < faults.lost:
            return
        if self._swapped is not None:
            self._post(message, media=True)
            self._post(self._swapped, media=True)
            self._swapped = None
        elif faults.reorder and self._random.random() < faults.reorder:
            self._swapped = message
        else:
            self._post(message, media=True)

    def _play(self, count: int) -> None:
        """Play what is due, and return the marks that were reached."""
        queue = self._queue
        while queue.entries:
            entry = queue.entries[0]
            if isinstance(entry, str):
                queue.entries.popleft()
                self._post(self._dialect.mark(entry))
            elif count:
                part = entry[:count]
                count -= len(part)
                self._count_played(part)
                queue.entries.popleft()
                if len(part) < len(entry):
                    queue.entries.appendleft(entry[len(part) :])
            else:
                return

    def _count_played(self, samples: Samples) -> None:
        self._queue.samples -= len(samples)
        self.played_samples += len(samples)
        self._played.append(samples)

    def _post(self, message: Message, *, media: bool = False) -> None:
        """Send a message to the app, after its delay and in order."""
        due = self._clock.now() + self.faults.delay_ms / 1000
        if media and self.faults.jitter_ms:
            due += self._random.random() * self.faults.jitter_ms / 1000
        self._last_due = due = max(due, self._last_due)
        self._to_app.put_nowait((due, message))

    async def _deliver(self) -> None:
        while True:
            due, message = await self._to_app.get()
            if due > self._clock.now():
                await self._clock.sleep(due - self._clock.now())
            if self._channel is not None:
                await self._channel.send(message)

    async def _receive(self) -> None:
        """Read what the app sends, and put it on its way."""
        channel = self._channel
        while channel is not None and (message := await channel.receive()) is not None:
            self._from_app.put_nowait((self._clock.now() + self.faults.delay_ms / 1000, message))
        self.close_code = None if channel is None else channel.close_code
        self.ended.set()
        self._stop_tasks()

    async def _read_app(self) -> None:
        while True:
            due, message = await self._from_app.get()
            if due > self._clock.now():
                await self._clock.sleep(due - self._clock.now())
            await self._handle(message)

    async def _handle(self, message: Message) -> None:
        order = self._dialect.read(message)
        match order:
            case PlayAudio(samples):
                self.orders.append(order)
                if self._queue_is_full():
                    self.violations.append("the buffer is full: audio was lost")
                    return
                self._queue.entries.append(samples)
                self._queue.samples += len(samples)
            case PlaceMark(name):
                self.orders.append(order)
                if self._queue.entries:
                    self._queue.entries.append(name)
                else:
                    self._post(self._dialect.mark(name))
            case ClearQueue():
                self.orders.append(order)
                marks = [entry for entry in self._queue.entries if isinstance(entry, str)]
                self._queue = _Queue()
                if self.faults.marks_after_clear == "returned":
                    for name in marks:
                        self._post(self._dialect.mark(name))
                for answer in self._dialect.cleared():
                    self._post(answer)
            case Violation(text, fatal):
                self.violations.append(text)
                if fatal and self._channel is not None:
                    await self._channel.close(1006 if isinstance(message, bytes) else 1003)

    def _queue_is_full(self) -> bool:
        return self._queue.samples * 50 // self.rate >= VONAGE_BUFFER


def _parameters_of(stream: ET.Element) -> dict[str, str]:
    return {
        str(parameter.get("name")): str(parameter.get("value"))
        for parameter in stream.iter("Parameter")
    }


class TwilioCaller(PhoneCaller):
    """A call over Twilio; see `PhoneCaller`.

    Args:
        public_url: The public address of the app.
        auth_token: Signs the requests.
        **options: See `PhoneCaller`.
    """

    carrier = "twilio"
    dialect = TwilioDialect

    def __init__(self, public_url: str, *, auth_token: str, **options: object) -> None:
        super().__init__(public_url, **options)  # type: ignore[arg-type]
        self.auth_token = auth_token
        self.answered_by = ""

    async def call_webhook(self) -> tuple[str, Mapping[str, str]]:
        """Announce the call by the webhook, and read its TwiML."""
        form = {
            "AccountSid": "AC0123456789",
            "CallSid": self.call_id,
            "From": self.caller,
            "To": self.called,
            "CallStatus": "ringing",
            "Direction": "inbound",
        }
        if self.answered_by:
            form["AnsweredBy"] = self.answered_by
        headers = {"content-type": _FORM, **sign_twilio(self.auth_token, self.webhook_url, form)}
        body = await self._post_webhook(headers, urlencode(form).encode())
        stream = ET.fromstring(body).find("Connect/Stream")  # noqa: S314 - of our own app
        if stream is None:
            raise CallRejectedError(f"the webhook did not connect: {body}")
        for name, value in _parameters_of(stream).items():
            if len(name) + len(value) > 500:
                raise CallRejectedError(f"the parameter {name} is too long")
        return str(stream.get("url")), _parameters_of(stream)

    def socket_headers(self, url: str) -> Mapping[str, str]:
        """Sign the address of the socket."""
        return sign_twilio(self.auth_token, url, {})


class PlivoCaller(PhoneCaller):
    """A call over Plivo; see `PhoneCaller`.

    Args:
        public_url: The public address of the app.
        auth_token: Signs the requests.
        **options: See `PhoneCaller`.
    """

    carrier = "plivo"
    dialect = PlivoDialect

    def __init__(self, public_url: str, *, auth_token: str, **options: object) -> None:
        super().__init__(public_url, **options)  # type: ignore[arg-type]
        self.auth_token = auth_token

    async def call_webhook(self) -> tuple[str, Mapping[str, str]]:
        """Announce the call by the answer URL, and read its XML."""
        form = {
            "CallUUID": self.call_id,
            "From": self.caller,
            "To": self.called,
            "CallStatus": "ringing",
            "Direction": "inbound",
        }
        headers = {
            "content-type": _FORM,
            **sign_plivo(self.auth_token, "POST", self.webhook_url, form),
        }
        body = await self._post_webhook(headers, urlencode(form).encode())
        stream = ET.fromstring(body).find("Stream")  # noqa: S314 - of our own app
        if stream is None or stream.text is None:
            raise CallRejectedError(f"the webhook did not connect: {body}")
        if stream.get("contentType") != "audio/x-mulaw;rate=8000":
            raise CallRejectedError("this simulator streams mu-law at 8 kHz")
        extra = stream.get("extraHeaders", "")
        if len(extra) > 512 or not re.fullmatch(r"[A-Za-z0-9=,]*", extra):
            raise CallRejectedError("extraHeaders are letters and digits, up to 512")
        pairs = (pair.partition("=") for pair in extra.split(",") if pair)
        return stream.text, {name: value for name, _, value in pairs}

    def socket_headers(self, url: str) -> Mapping[str, str]:
        """Sign the address of the socket."""
        return sign_plivo(self.auth_token, "GET", url, {})

    async def fetch(self, url: str) -> str:
        """Return the XML of an address that a request named, as Plivo does for a transfer."""
        form = {"CallUUID": self.call_id}
        headers = {"content-type": _FORM, **sign_plivo(self.auth_token, "POST", url, form)}
        return (await self._transport.request("POST", url, headers, urlencode(form).encode()))[1]


class VonageCaller(PhoneCaller):
    """A call over Vonage; see `PhoneCaller`.

    Args:
        public_url: The public address of the app.
        signature_secret: Signs the requests.
        **options: See `PhoneCaller`.
    """

    carrier = "vonage"
    dialect = VonageDialect

    def __init__(self, public_url: str, *, signature_secret: str, **options: object) -> None:
        super().__init__(public_url, **options)  # type: ignore[arg-type]
        self.signature_secret = signature_secret

    async def call_webhook(self) -> tuple[str, Mapping[str, str]]:
        """Announce the call by the answer URL, and read its NCCO."""
        body = json.dumps({"uuid": self.call_id, "from": self.caller, "to": self.called}).encode()
        headers = {
            "content-type": "application/json",
            **sign_vonage(self.signature_secret, body),
        }
        text = await self._post_webhook(headers, body)
        match json.loads(text):
            case [
                {
                    "action": "connect",
                    "endpoint": [
                        {
                            "type": "websocket",
                            "uri": str(uri),
                            "content-type": "audio/l16;rate=16000",
                            "headers": dict(headers),
                        }
                    ],
                }
            ]:
                if len(json.dumps(headers)) > 512:
                    raise CallRejectedError("the headers are over 512 bytes")
                return uri, {str(name): str(value) for name, value in headers.items()}
            case other:
                raise CallRejectedError(f"the webhook did not connect: {other}")

    def socket_headers(self, url: str) -> Mapping[str, str]:
        """Sign the upgrade."""
        return sign_vonage(self.signature_secret, b"")

    async def report_detection(self) -> None:
        """Tell the webhook who has answered."""
        event = {"uuid": self.call_id, "status": self.detected, "direction": "outbound"}
        body = json.dumps(event).encode()
        await self._post_event(sign_vonage(self.signature_secret, body), body)


class TelnyxCaller(PhoneCaller):
    """A call over Telnyx; see `PhoneCaller`.

    The app answers by REST, at a `TelnyxSimulator`, which passes the request on to `answer`.

    Args:
        public_url: The public address of the app.
        key: Signs the webhooks.
        **options: See `PhoneCaller`.
    """

    carrier = "telnyx"
    dialect = TelnyxDialect

    def __init__(self, public_url: str, *, key: TelnyxKey, **options: object) -> None:
        super().__init__(public_url, **options)  # type: ignore[arg-type]
        self.key = key
        self.call_id = f"v3:{uuid.uuid4().hex}"
        self._answer: Mapping[str, object] | None = None
        self._token = ""

    def answer(self, stream: Mapping[str, object]) -> str:
        """Take the app's answer; return an error, or "" for none."""
        if stream.get("stream_bidirectional_mode") != "rtp":
            return "without stream_bidirectional_mode rtp, audio must be MP3"
        if stream.get("stream_bidirectional_codec", "PCMU") != "PCMU":
            return "this simulator streams PCMU"
        self._answer = stream
        return ""

    def make_dialect(self, parameters: Mapping[str, str]) -> Dialect:
        """Return the messages of the call, which name the numbers."""
        dialect = TelnyxDialect(self.call_id, parameters)
        dialect.caller, dialect.called = self.caller, self.called
        return dialect

    async def call_webhook(self) -> tuple[str, Mapping[str, str]]:
        """Announce the call by a signed event; the app answers meanwhile."""
        event = {
            "data": {
                "event_type": "call.initiated",
                "id": uuid.uuid4().hex,
                "record_type": "event",
                "payload": {
                    "call_control_id": self.call_id,
                    "direction": "incoming",
                    "from": self.caller,
                    "to": self.called,
                    "state": "parked",
                },
            }
        }
        body = json.dumps(event).encode()
        headers = {"content-type": "application/json", **self.key.sign(body)}
        status, text = await self._transport.request("POST", self.webhook_url, headers, body)
        if status != 200 or self._answer is None:
            raise CallRejectedError(f"the app did not answer ({status}): {text.strip()}", status)
        return self.stream_of(self._answer)

    async def report_detection(self) -> None:
        """Tell the webhook who has answered."""
        payload = {"call_control_id": self.call_id, "result": self.detected}
        event = {"event_type": "call.machine.detection.ended", "payload": payload}
        body = json.dumps({"data": event}).encode()
        await self._post_event(self.key.sign(body), body)

    def stream_of(self, answer: Mapping[str, object]) -> tuple[str, Mapping[str, str]]:
        """Return the stream's address and parameters of an answer, or of a dialled call."""
        self._token = str(answer.get("stream_auth_token", ""))
        return str(answer.get("stream_url", "")), {}

    def socket_headers(self, url: str) -> Mapping[str, str]:
        """Return the header with the token that the app gave."""
        return {"x-telnyx-streaming-auth-token": self._token}
