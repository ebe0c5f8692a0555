"""Twilio's media streams: JSON in text messages, mu-law at 8 kHz.

``connected`` and ``start`` come first, then ``media`` every 20 ms, ``dtmf``, ``mark`` and ``stop``.
Numbers are JSON strings. A mark comes back when the audio before it has been played, and at once
after a ``clear``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from duologue.audio import Samples
from duologue.edges.telephone._formats import MULAW, whole_number
from duologue.edges.telephone._stream import (
    AudioArrived,
    CountingCodec,
    MarkReturned,
    Message,
    StreamEvent,
    StreamStarted,
    StreamStopped,
    digit_event,
    parse_message,
    text,
    texts,
)


class TwilioCodec(CountingCodec):
    """The messages of one Twilio call; see `CarrierCodec`."""

    output_rate = MULAW.rate

    def __init__(self) -> None:
        super().__init__()
        self._stream_id = ""

    def _decode(self, message: Message) -> Sequence[StreamEvent] | None:
        match parse_message(message):
            case {"event": "media", "media": {"payload": payload, **media}}:
                samples = MULAW.decode_base64(payload)
                if samples is None:
                    return None
                if media.get("track") == "outbound":
                    return ()
                chunk, at = whole_number(media.get("chunk")), whole_number(media.get("timestamp"))
                return [AudioArrived(samples, MULAW.rate, chunk, at)]
            case {"event": "mark", "mark": {"name": str(name)}}:
                return [MarkReturned(name)]
            case {"event": "dtmf", "dtmf": {"digit": digit}}:
                return digit_event(digit)
            case {"event": "start", "streamSid": str(stream_id), "start": dict(start)}:
                self._stream_id = stream_id
                return [
                    StreamStarted(
                        call_id=text(start.get("callSid")),
                        stream_id=stream_id,
                        parameters=texts(start.get("customParameters")),
                    )
                ]
            case {"event": "stop"}:
                return [StreamStopped()]
            case {"event": "connected"}:
                return ()
            case _:
                return None

    def audio(self, samples: Samples) -> Message:
        """Return the message that plays 20 ms of audio."""
        # Written by hand, because this is done 50 times a second; base64 needs no escapes.
        payload = MULAW.encode_base64(samples)
        stream = json.dumps(self._stream_id)
        return f'{{"event":"media","streamSid":{stream},"media":{{"payload":"{payload}"}}}}'

    def mark(self, name: str) -> Message:
        """Return the message that the carrier returns when it has played the audio before it."""
        return self._message("mark", {"mark": {"name": name}})

    def clear(self) -> Message:
        """Return the message that drops the audio that has not been played."""
        return self._message("clear", {})

    def _message(self, event: str, fields: dict[str, object]) -> str:
        return json.dumps({"event": event, "streamSid": self._stream_id, **fields})
