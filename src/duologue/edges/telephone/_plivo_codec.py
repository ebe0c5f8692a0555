"""Plivo's audio streams: JSON in text messages, with a content type in each message of ours.

A checkpoint comes back as ``playedStream``, a clear as ``clearedAudio``. ``stop`` is in the guide
and not in the reference, so the end of the socket is an end as well. The extra headers of the
stream element come with ``start``, in a form that is not documented: as an object, as its JSON, or
as ``name=value`` pairs, with or without the prefix ``X-PH-``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

from duologue.audio import Samples
from duologue.edges.telephone._formats import MULAW, AudioFormat, format_of, whole_number
from duologue.edges.telephone._stream import (
    AudioArrived,
    CountingCodec,
    MarkReturned,
    Message,
    QueueCleared,
    StreamEvent,
    StreamStarted,
    StreamStopped,
    digit_event,
    parse_message,
    parse_object,
    text,
    texts,
)

_PAIR = re.compile(r"([\w-]+)\s*[=:]\s*([^,;{}\s]+)")


class PlivoCodec(CountingCodec):
    """The messages of one Plivo call; see `CarrierCodec`.

    Args:
        audio_format: What both sides send: the content type of the stream element.
    """

    def __init__(self, audio_format: AudioFormat = MULAW) -> None:
        super().__init__()
        self.output_rate = audio_format.rate
        self._output = self._input = audio_format
        kind = "audio/x-mulaw" if audio_format.encoding == "mulaw" else "audio/x-l16"
        self._head = (
            f'{{"event":"playAudio","media":{{"contentType":"{kind}",'
            f'"sampleRate":{audio_format.rate},"payload":"'
        )
        self._stream_id = ""

    def _decode(self, message: Message) -> Sequence[StreamEvent] | None:
        match parse_message(message):
            case {"event": "media", "media": {"payload": payload, **media}}:
                samples = self._input.decode_base64(payload)
                if samples is None:
                    return None
                if media.get("track") == "outbound":
                    return ()
                # The timestamp is the wall clock's, which says nothing about lost audio.
                return [AudioArrived(samples, self._input.rate, whole_number(media.get("chunk")))]
            case {"event": "playedStream", "name": str(name)}:
                return [MarkReturned(name)]
            case {"event": "clearedAudio"}:
                return [QueueCleared()]
            case {"event": "dtmf", "dtmf": {"digit": digit}}:
                return digit_event(digit)
            case {"event": "start", "start": dict(start), **rest}:
                return self._start(start, rest.get("extra_headers"))
            case {"event": "stop"}:
                return [StreamStopped()]
            case _:
                return None

    def _start(self, start: Mapping[str, object], extra: object) -> Sequence[StreamEvent]:
        media = start.get("mediaFormat")
        if isinstance(media, dict):
            found = format_of(media.get("encoding"), media.get("sampleRate"))
            self._input = found or self._input
        self._stream_id = text(start.get("streamId"))
        return [
            StreamStarted(
                call_id=text(start.get("callId")),
                stream_id=self._stream_id,
                parameters=_extra_headers(extra),
            )
        ]

    def audio(self, samples: Samples) -> Message:
        """Return the message that plays 20 ms of audio."""
        return f'{self._head}{self._output.encode_base64(samples)}"}}}}'

    def mark(self, name: str) -> Message:
        """Return the message that the carrier returns when it has played the audio before it."""
        return json.dumps({"event": "checkpoint", "streamId": self._stream_id, "name": name})

    def clear(self) -> Message:
        """Return the message that drops the audio that has not been played."""
        return json.dumps({"event": "clearAudio", "streamId": self._stream_id})


def _extra_headers(value: object) -> dict[str, str]:
    if isinstance(value, str):
        parsed = parse_object(value)
        value = dict(_PAIR.findall(value)) if parsed is None else parsed
    return {name.removeprefix("X-PH-"): entry for name, entry in texts(value).items()}
