"""What each carrier sends and takes, written from its side of the socket.

This shares nothing with the codecs of `duologue.edges.telephone`, so that each checks the other.
"""

from __future__ import annotations

import base64
import binascii
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from duologue import _g711
from duologue.audio import Samples

type Message = str | bytes

VONAGE_BUFFER = 3072
"""Frames that Vonage keeps for a call; more are lost."""


@dataclass(frozen=True, slots=True, eq=False)
class PlayAudio:
    """The app wants audio to be played."""

    samples: Samples


@dataclass(frozen=True, slots=True)
class PlaceMark:
    """The app asks for a message when the audio before it has been played."""

    name: str


@dataclass(frozen=True, slots=True)
class ClearQueue:
    """The app drops what has not been played."""


@dataclass(frozen=True, slots=True)
class Violation:
    """The app sent what the carrier does not take; ``fatal``: the carrier hangs up."""

    text: str
    fatal: bool = False


type Order = PlayAudio | PlaceMark | ClearQueue | Violation


class Dialect(ABC):
    """The messages of one call of one carrier.

    Args:
        call_id: The carrier's id of the call.
        parameters: The stream's parameters.
    """

    rate: int = 8000
    frame_ms: ClassVar[int] = 20

    def __init__(self, call_id: str, parameters: Mapping[str, str]) -> None:
        self.call_id = call_id
        self.parameters = dict(parameters)
        self.stream_id = f"MZ{call_id[-8:]}"
        self._sequence = 0

    def next_number(self) -> int:
        """Return the number of the next message."""
        self._sequence += 1
        return self._sequence

    @abstractmethod
    def start(self) -> Sequence[Message]:
        """Return the first messages."""

    @abstractmethod
    def media(self, chunk: int, samples: Samples) -> Message:
        """Return the caller's audio; ``chunk`` counts from 1."""

    @abstractmethod
    def digit(self, digit: str) -> Message:
        """Return a key that the caller has pressed."""

    @abstractmethod
    def mark(self, name: str) -> Message:
        """Return a mark."""

    def cleared(self) -> Sequence[Message]:
        """Return what confirms that the queue was cleared."""
        return ()

    def stop(self) -> Sequence[Message]:
        """Return the last messages."""
        return ()

    @abstractmethod
    def read(self, message: Message) -> Order:
        """Return what the app wants."""


class TwilioDialect(Dialect):
    """Twilio's media streams."""

    def start(self) -> Sequence[Message]:
        """Return the first messages."""
        start = {
            "streamSid": self.stream_id,
            "accountSid": "AC0123456789",
            "callSid": self.call_id,
            "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
            "customParameters": self.parameters,
        }
        connected = {"event": "connected", "protocol": "Call", "version": "1.0.0"}
        return [json.dumps(connected), self._message("start", start=start)]

    def _message(self, event: str, **fields: object) -> str:
        number = str(self.next_number())
        head = {"event": event, "sequenceNumber": number, "streamSid": self.stream_id}
        return json.dumps(head | fields)

    def media(self, chunk: int, samples: Samples) -> Message:
        """Return the caller's audio."""
        media = {
            "track": "inbound",
            "chunk": str(chunk),
            "timestamp": str((chunk - 1) * self.frame_ms),
            "payload": _mulaw(samples),
        }
        return self._message("media", media=media)

    def digit(self, digit: str) -> Message:
        """Return a key that the caller has pressed."""
        return self._message("dtmf", dtmf={"track": "inbound_track", "digit": digit})

    def mark(self, name: str) -> Message:
        """Return a mark."""
        return self._message("mark", mark={"name": name})

    def stop(self) -> Sequence[Message]:
        """Return the last message."""
        return [self._message("stop", stop={"accountSid": "AC0123456789", "callSid": self.call_id})]

    def read(self, message: Message) -> Order:
        """Return what the app wants."""
        value = _object(message)
        if value is None:
            return Violation("31950: binary or undecodable message", fatal=True)
        if value.get("streamSid") != self.stream_id:
            return Violation("31951: wrong streamSid")
        match value:
            case {"event": "media", "media": {"payload": str(payload)}}:
                return _play_mulaw(payload)
            case {"event": "mark", "mark": {"name": str(name)}}:
                return PlaceMark(name)
            case {"event": "clear"}:
                return ClearQueue()
            case _:
                return Violation("31951: wrong shape")


class TelnyxDialect(Dialect):
    """Telnyx's media streams, with PCMU both ways."""

    caller = ""
    called = ""

    def start(self) -> Sequence[Message]:
        """Return the first messages."""
        start = {
            "user_id": "user",
            "call_control_id": self.call_id,
            "call_session_id": "session",
            "from": self.caller,
            "to": self.called,
            "tags": [],
            "custom_parameters": self.parameters,
            "media_format": {"encoding": "PCMU", "sample_rate": 8000, "channels": 1},
        }
        connected = json.dumps({"event": "connected", "version": "1.0.0"})
        return [connected, self._message("start", start=start)]

    def _message(self, event: str, **fields: object) -> str:
        number = str(self.next_number())
        head = {"event": event, "sequence_number": number, "stream_id": self.stream_id}
        return json.dumps(head | fields)

    def media(self, chunk: int, samples: Samples) -> Message:
        """Return the caller's audio."""
        media = {
            "track": "inbound",
            "chunk": str(chunk),
            "timestamp": str((chunk - 1) * self.frame_ms),
            "payload": _mulaw(samples),
        }
        return self._message("media", media=media)

    def digit(self, digit: str) -> Message:
        """Return a key that the caller has pressed."""
        return self._message("dtmf", dtmf={"digit": digit})

    def mark(self, name: str) -> Message:
        """Return a mark."""
        return self._message("mark", mark={"name": name})

    def stop(self) -> Sequence[Message]:
        """Return the last message."""
        return [self._message("stop", stop={"call_control_id": self.call_id})]

    def read(self, message: Message) -> Order:
        """Return what the app wants."""
        match _object(message):
            case {"event": "media", "media": {"payload": str(payload)}}:
                order = _play_mulaw(payload)
                if isinstance(order, PlayAudio) and not 160 <= len(order.samples) <= 240_000:
                    return Violation(f"media of {len(order.samples) / 8:g} ms: 20 ms to 30 s")
                return order
            case {"event": "mark", "mark": {"name": str(name)}}:
                return PlaceMark(name)
            case {"event": "clear"}:
                return ClearQueue()
            case _:
                return Violation("an unknown message", fatal=True)


class PlivoDialect(Dialect):
    """Plivo's audio streams, with mu-law both ways; they end without a ``stop``."""

    def start(self) -> Sequence[Message]:
        """Return the first message."""
        start = {
            "callId": self.call_id,
            "streamId": self.stream_id,
            "accountId": "MA0123456789",
            "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000},
        }
        extra = json.dumps({f"X-PH-{name}": value for name, value in self.parameters.items()})
        return [self._message("start", start=start, extra_headers=extra)]

    def _message(self, event: str, **fields: object) -> str:
        head = {"event": event, "sequenceNumber": self.next_number(), "streamId": self.stream_id}
        return json.dumps(head | fields)

    def media(self, chunk: int, samples: Samples) -> Message:
        """Return the caller's audio."""
        media = {
            "track": "inbound",
            "timestamp": str(1_750_000_000_000 + chunk * self.frame_ms),
            "chunk": chunk,
            "payload": _mulaw(samples),
        }
        return self._message("media", media=media, extra_headers="{}")

    def digit(self, digit: str) -> Message:
        """Return a key that the caller has pressed."""
        return self._message("dtmf", dtmf={"track": "inbound", "digit": digit})

    def mark(self, name: str) -> Message:
        """Return a checkpoint that was passed."""
        return self._message("playedStream", name=name)

    def cleared(self) -> Sequence[Message]:
        """Return what confirms that the queue was cleared."""
        return [self._message("clearedAudio")]

    def read(self, message: Message) -> Order:
        """Return what the app wants."""
        match _object(message):
            case {
                "event": "playAudio",
                "media": {
                    "contentType": "audio/x-mulaw",
                    "sampleRate": 8000,
                    "payload": str(payload),
                },
            }:
                return _play_mulaw(payload)
            case {"event": "checkpoint", "streamId": self.stream_id, "name": str(name)}:
                return PlaceMark(name)
            case {"event": "clearAudio", "streamId": self.stream_id}:
                return ClearQueue()
            case _:
                return Violation("an unknown message, or a wrong streamId")


class VonageDialect(Dialect):
    """Vonage's WebSocket endpoint, with 16-bit PCM at 16 kHz both ways."""

    rate = 16000

    def start(self) -> Sequence[Message]:
        """Return the first message."""
        head = {"event": "websocket:connected", "content-type": f"audio/l16;rate={self.rate}"}
        return [json.dumps(head | self.parameters)]

    def media(self, chunk: int, samples: Samples) -> Message:
        """Return the caller's audio."""
        return samples.astype("<i2").tobytes()

    def digit(self, digit: str) -> Message:
        """Return a key that the caller has pressed."""
        return json.dumps({"event": "websocket:dtmf", "digit": digit, "duration": 260})

    def mark(self, name: str) -> Message:
        """Return a notification."""
        return json.dumps({"event": "websocket:notify", "payload": {"mark": name}})

    def cleared(self) -> Sequence[Message]:
        """Return what confirms that the queue was cleared."""
        return [json.dumps({"event": "websocket:cleared"})]

    def read(self, message: Message) -> Order:
        """Return what the app wants."""
        if isinstance(message, bytes):
            size = self.rate * self.frame_ms // 1000 * 2
            if len(message) != size:
                return Violation(f"unexpected frame size: {len(message)}, not {size}", fatal=True)
            return PlayAudio(np.frombuffer(message, "<i2").astype(np.int16))
        match _object(message):
            case {"action": "clear"}:
                return ClearQueue()
            case {"action": "notify", "payload": {"mark": str(name)}}:
                return PlaceMark(name)
            case _:
                return Violation("an unknown action")


def _object(message: Message) -> Mapping[str, object] | None:
    if isinstance(message, bytes):
        return None
    try:
        value = json.loads(message)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _mulaw(samples: Samples) -> str:
    return base64.b64encode(_g711.encode(samples, "mulaw")).decode()


def _play_mulaw(payload: str) -> Order:
    try:
        data = base64.b64decode(payload, validate=True)
    except (binascii.Error, ValueError):
        return Violation("bad base64")
    if data[:4] == b"RIFF":
        return Violation("the payload has a file header")
    return PlayAudio(_g711.decode(data, "mulaw"))
