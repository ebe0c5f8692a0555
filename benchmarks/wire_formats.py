"""What the echo provider and the baseline client exchange over a WebSocket, by provider.

Only the start of a session, and audio and images either way. Events have the size of the service's,
with ids if it has some, because reading them costs a client time and memory.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import orjson
import pybase64

type Event = dict[str, Any]

RATE = 24000
"""Sample rate in Hz of all audio that comes back."""


class Dialect(ABC):
    """The format of one provider; a session has an instance of its own on either side."""

    rate: ClassVar[int] = RATE
    """Sample rate in Hz of the client's audio."""
    binary: ClassVar[bool] = False
    """Whether the service sends binary messages."""
    path: ClassVar[str] = ""
    """Path of the WebSocket, after the address that a client is given."""
    first: ClassVar[bytes] = b""
    """What a client has to send before it may send audio."""

    def begin(self) -> Sequence[bytes]:
        """Return the first events of the service."""
        return ()

    def answer(self, event: Event) -> Sequence[bytes]:
        """Return the response to an event without audio."""
        return ()

    @abstractmethod
    def input_audio(self, event: Event) -> str | None:
        """Return the audio in a client's event, as base64; None if there is none."""

    def image(self, event: Event) -> str | None:
        """Return the image in a client's event, as base64; None if there is none."""
        return None

    @abstractmethod
    def speak(self, audio: bytes) -> bytes:
        """Return the event with which the service sends audio, as base64 at 24 kHz."""

    @abstractmethod
    def hear(self, audio: str) -> bytes:
        """Return the event with which a client sends audio, as base64."""

    @abstractmethod
    def reply_audio(self, event: Event) -> str | None:
        """Return the audio in a service's event, as base64; None if there is none."""

    def echo(self, audio: str) -> bytes:
        """Return the client's audio at 24 kHz: each 20 ms of one value stay 20 ms of that value."""
        if self.rate == RATE:
            return audio.encode()
        samples = np.frombuffer(pybase64.b64decode(audio), "<i2")
        wide = np.arange(len(samples) * RATE // self.rate) * self.rate // RATE
        return pybase64.b64encode(samples[wide].tobytes())


class OpenAI(Dialect):
    """OpenAI Realtime."""

    path = "/realtime"
    _session: ClassVar[Event] = {
        "type": "realtime",
        "id": "sess_1",
        "model": "bench",
        "audio": {"input": {}},
    }
    _reply = "resp_CLzqZ8dTLYkQyQLUeaIuW"
    _head = (
        b'{"type":"response.output_audio.delta","event_id":"event_%021d","response_id":"'
        + _reply.encode()
        + b'","item_id":"item_CLzqZ5X9IwIfXzsC0vBwm","output_index":0,"content_index":0,"delta":"'
    )
    _kind = "response.output_audio.delta"

    def __init__(self) -> None:
        self._count = -1

    def begin(self) -> Sequence[bytes]:
        response = {"id": self._reply, "status": "in_progress"}
        events: list[Event] = [
            {"type": "session.created", "session": self._session},
            {"type": "session.updated", "session": self._session},
            {"type": "response.created", "response": response},
        ]
        for event in events:
            event["event_id"] = f"event_{self._next():021d}"
        return [orjson.dumps(event) for event in events]

    def input_audio(self, event: Event) -> str | None:
        return event["audio"] if event["type"] == "input_audio_buffer.append" else None

    def speak(self, audio: bytes) -> bytes:
        return b"".join((self._head % self._next(), audio, b'"}'))

    def hear(self, audio: str) -> bytes:
        return orjson.dumps({"type": "input_audio_buffer.append", "audio": audio})

    def reply_audio(self, event: Event) -> str | None:
        return event["delta"] if event["type"] == self._kind else None

    def _next(self) -> int:
        self._count += 1
        return self._count


class Qwen(OpenAI):
    """Qwen Omni: OpenAI's events under their beta names; 16 kHz from the client."""

    rate = 16000
    path = "?model=qwen3.5-omni-plus-realtime"
    _session: ClassVar[Event] = {
        "id": "sess_1",
        "object": "realtime.session",
        "model": "qwen3.5-omni-plus-realtime",
        "modalities": ["text", "audio"],
        "input_audio_format": "pcm",
        "output_audio_format": "pcm",
    }
    _kind = "response.audio.delta"
    _head = (
        b'{"event_id":"event_%021d","type":"response.audio.delta","response_id":"'
        + OpenAI._reply.encode()
        + b'","item_id":"item_CLzqZ5X9IwIfXzsC0vBwm","output_index":0,"content_index":0,"delta":"'
    )

    def hear(self, audio: str) -> bytes:
        event = {
            "event_id": f"event_{self._next():021d}",
            "type": "input_audio_buffer.append",
            "audio": audio,
        }
        return orjson.dumps(event)

    def image(self, event: Event) -> str | None:
        return event["image"] if event["type"] == "input_image_buffer.append" else None


class Gemini(Dialect):
    """Gemini Live: binary messages of indented JSON, without ids; 16 kHz from the client."""

    rate = 16000
    binary = True
    path = "/ws/google.ai.generativelanguage.v1.GenerativeService.BidiGenerateContent"
    first = b'{"setup":{"model":"models/gemini-3.8-live"}}'
    _head = (
        b'{\n  "serverContent": {\n    "modelTurn": {\n      "parts": [\n        {\n'
        b'          "inlineData": {\n            "mimeType": "audio/pcm;rate=24000",\n'
        b'            "data": "'
    )
    _tail = b'"\n          }\n        }\n      ]\n    }\n  }\n}\n'

    def answer(self, event: Event) -> Sequence[bytes]:
        return [b'{\n  "setupComplete": {}\n}\n'] if "setup" in event else ()

    def input_audio(self, event: Event) -> str | None:
        return event.get("realtimeInput", {}).get("audio", {}).get("data")

    def image(self, event: Event) -> str | None:
        return event.get("realtimeInput", {}).get("video", {}).get("data")

    def speak(self, audio: bytes) -> bytes:
        return b"".join((self._head, audio, self._tail))

    def hear(self, audio: str) -> bytes:
        blob = {"mimeType": "audio/pcm;rate=16000", "data": audio}
        return orjson.dumps({"realtimeInput": {"audio": blob}})

    def reply_audio(self, event: Event) -> str | None:
        turn = event.get("serverContent", {}).get("modelTurn")
        return None if turn is None else turn["parts"][0]["inlineData"]["data"]


DIALECTS: dict[str, type[Dialect]] = {"openai": OpenAI, "qwen": Qwen, "gemini": Gemini}
