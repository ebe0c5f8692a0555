"""Vonage's WebSocket endpoint: binary messages of 20 ms of PCM, and JSON in text messages.

The first message is a text with the content type and the headers of the NCCO. Each binary message
that we send must be exactly one frame of 20 ms: another size ends the listening. ``notify`` comes
back when the audio before it has been played. The audio is 16-bit little-endian.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from duologue.audio import FRAME_MS, Samples
from duologue.edges.telephone._formats import AudioFormat, whole_number
from duologue.edges.telephone._stream import (
    AudioArrived,
    CountingCodec,
    MarkReturned,
    Message,
    QueueCleared,
    StreamEvent,
    StreamFailed,
    StreamStarted,
    StreamStopped,
    digit_event,
    parse_message,
    texts,
)


class VonageCodec(CountingCodec):
    """The messages of one Vonage call; see `CarrierCodec`.

    Args:
        rate: Rate in Hz of the audio both ways: 8000, 16000 or 24000.
    """

    def __init__(self, rate: int = 16000) -> None:
        super().__init__()
        self.output_rate = rate
        self._format = AudioFormat("l16", rate)
        self._frame_size = rate * FRAME_MS // 1000

    def _decode(self, message: Message) -> Sequence[StreamEvent] | None:
        if isinstance(message, bytes):
            samples = self._format.decode(message)
            return None if samples is None else [AudioArrived(samples, self.output_rate)]
        match parse_message(message):
            case {"event": "websocket:notify", "payload": {"mark": str(name)}}:
                return [MarkReturned(name)]
            case {"event": "websocket:cleared"}:
                return [QueueCleared()]
            case {"event": "websocket:dtmf", "digit": digit}:
                return digit_event(digit)
            case {"event": "websocket:connected", "content-type": str(content), **headers}:
                return self._start(content, headers)
            case {"event": "websocket:disconnected"}:
                return [StreamStopped()]
            case _:
                return None

    def _start(self, content: str, headers: object) -> Sequence[StreamEvent]:
        kind, _, rate = content.replace(" ", "").partition(";rate=")
        if kind != "audio/l16" or whole_number(rate) != self.output_rate:
            wanted = f"audio/l16;rate={self.output_rate}"
            return [StreamFailed(f"the content type is {content!r}, and {wanted} was asked for")]
        parameters = texts(headers)
        return [StreamStarted(call_id=parameters.get("uuid", ""), parameters=parameters)]

    def audio(self, samples: Samples) -> Message:
        """Return the message that plays 20 ms of audio.

        Raises:
            ValueError: It is not exactly 20 ms.
        """
        if len(samples) != self._frame_size:
            raise ValueError(f"Vonage takes {self._frame_size} samples, not {len(samples)}")
        return self._format.encode(samples)

    def mark(self, name: str) -> Message:
        """Return the message that the carrier returns when it has played the audio before it."""
        return json.dumps({"action": "notify", "payload": {"mark": name}})

    def clear(self) -> Message:
        """Return the message that drops the audio that has not been played."""
        return '{"action":"clear"}'
