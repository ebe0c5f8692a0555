"""Telnyx's media streams: Twilio's events in snake_case, in the codec that the call has.

``stream_id`` is at the top of a message, ``call_control_id`` within ``start``. ``start`` says how
the caller's audio is encoded; what we send is what the stream was asked for. Messages may come out
of order: ``chunk`` says which is next. 16-bit PCM is big-endian, as in RTP (RFC 3551); carriers do
not document it, so it is an option.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from duologue.audio import Samples
from duologue.edges.telephone._formats import MULAW, AudioFormat, format_of, whole_number
from duologue.edges.telephone._stream import (
    AudioArrived,
    CountingCodec,
    MarkReturned,
    Message,
    StreamEvent,
    StreamFailed,
    StreamStarted,
    StreamStopped,
    digit_event,
    parse_message,
    text,
    texts,
)


class TelnyxCodec(CountingCodec):
    """The messages of one Telnyx call; see `CarrierCodec`.

    Args:
        output: What the stream was asked to take from us.
    """

    def __init__(self, output: AudioFormat = MULAW) -> None:
        super().__init__()
        self.output_rate = output.rate
        self._output = output
        self._input = MULAW

    def _decode(self, message: Message) -> Sequence[StreamEvent] | None:
        match parse_message(message):
            case {"event": "media", "media": {"payload": payload, **media}}:
                samples = self._input.decode_base64(payload)
                if samples is None:
                    return None
                if media.get("track") == "outbound":
                    return ()
                chunk, at = whole_number(media.get("chunk")), whole_number(media.get("timestamp"))
                return [AudioArrived(samples, self._input.rate, chunk, at)]
            case {"event": "mark", "mark": {"name": str(name)}}:
                return [MarkReturned(name)]
            case {"event": "dtmf", "dtmf": {"digit": digit}}:
                return digit_event(digit)
            case {"event": "start", "stream_id": str(stream_id), "start": dict(start)}:
                return self._start(stream_id, start)
            case {"event": "error", "payload": dict(error)}:
                words = f"{text(error.get('title'))}: {text(error.get('detail'))}"
                return [StreamFailed(words.strip(": ") or str(error.get("code", "")))]
            case {"event": "stop"}:
                return [StreamStopped()]
            case {"event": "connected"}:
                return ()
            case _:
                return None

    def _start(self, stream_id: str, start: Mapping[str, object]) -> Sequence[StreamEvent] | None:
        media = start.get("media_format")
        if isinstance(media, dict):
            found = format_of(media.get("encoding"), media.get("sample_rate"), l16="l16be")
            if found is None:
                name = f"{media.get('encoding')} at {media.get('sample_rate')} Hz"
                return [StreamFailed(f"the caller's audio is {name}, which is not supported")]
            if found.encoding == "l16be" and self._output.encoding == "l16":
                found = AudioFormat("l16", found.rate)  # both directions have one byte order
            self._input = found
        return [
            StreamStarted(
                call_id=text(start.get("call_control_id")),
                stream_id=stream_id,
                caller=text(start.get("from")),
                called=text(start.get("to")),
                parameters=texts(start.get("custom_parameters")),
            )
        ]

    def audio(self, samples: Samples) -> Message:
        """Return the message that plays 20 ms of audio, the shortest that is allowed."""
        payload = self._output.encode_base64(samples)
        return f'{{"event":"media","media":{{"payload":"{payload}"}}}}'

    def mark(self, name: str) -> Message:
        """Return the message that the carrier returns when it has played the audio before it."""
        return json.dumps({"event": "mark", "mark": {"name": name}})

    def clear(self) -> Message:
        """Return the message that drops the audio that has not been played."""
        return '{"event":"clear"}'
