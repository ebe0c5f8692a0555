"""The speech API, ``/v1/audio/speech``: a text in one request, its audio in the response."""

from __future__ import annotations

import struct
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Annotated, Literal

import orjson
import pybase64
from pydantic import Field, TypeAdapter

from duologue.json_types import Json, JsonObject
from duologue.simulators._fields import text_at, value_at
from duologue.simulators._json_shapes import LEFT_OUT, JsonShape, Shape
from duologue.simulators._openai_protocol.refusals import RefusedError, check_object
from duologue.simulators._openai_protocol.schema import RATE, Voice
from duologue.simulators._speech.voices import Voice as Speaker

MAX_CHARS = 4096
_AUDIO_ONLY = ("tts-1", "tts-1-hd")
"""Models that do not stream server-sent events."""
_SAMPLE_BYTES = 2
_CHARS_PER_TOKEN = 4
_TOKENS_PER_S = 20


class _Speech(JsonShape):
    model: str
    input: str
    voice: Voice
    instructions: str = LEFT_OUT
    response_format: Literal["mp3", "opus", "aac", "flac", "wav", "pcm"] = LEFT_OUT
    speed: Annotated[float, Field(ge=0.25, le=4.0)] = LEFT_OUT
    stream_format: Literal["sse", "audio"] = LEFT_OUT


_SPEECH: Shape = TypeAdapter(_Speech)


@dataclass(frozen=True, slots=True)
class SpeechRequest:
    """A request for speech.

    Attributes:
        model: Name of the model.
        text: What to say.
        speed: How many times faster than the voice's own speed; it raises the pitch as well.
        wav: The audio has a WAV header.
        events: The audio comes in server-sent events.
    """

    model: str
    text: str
    speed: float = 1.0
    wav: bool = False
    events: bool = False

    @property
    def voice_rate(self) -> int:
        """Hz at which the voice must speak, so that at `RATE` it has the speed."""
        return round(RATE / self.speed)

    @property
    def content_type(self) -> str:
        """The type of the response."""
        if self.events:
            return "text/event-stream"
        return "audio/wav" if self.wav else "audio/pcm"


def read_request(body: Json) -> SpeechRequest:
    """Return the request of a body.

    Raises:
        RefusedError: A field is missing, unknown or wrong, or the format is compressed.
    """
    fields = check_object(_SPEECH, body if body is not None else {}, "")
    text, model = text_at(fields, "input"), text_at(fields, "model")
    if not text:
        raise RefusedError(
            "string_below_min_length",
            "Invalid 'input': string too short. Expected a string with minimum length 1, but got "
            "an empty string instead.",
            "input",
        )
    if len(text) > MAX_CHARS:
        raise RefusedError(
            "string_above_max_length",
            f"Invalid 'input': string too long. Expected a string with maximum length {MAX_CHARS}, "
            f"but got a string with length {len(text)} instead.",
            "input",
        )
    kind = text_at(fields, "response_format") or "mp3"
    if kind not in ("pcm", "wav"):
        raise RefusedError(
            "invalid_value",
            f"The simulator does not make {kind}: ask for response_format 'pcm' or 'wav'.",
            "response_format",
        )
    events = text_at(fields, "stream_format") == "sse"
    if events and model in _AUDIO_ONLY:
        raise RefusedError(
            "invalid_value", f"stream_format 'sse' is not supported by {model}.", "stream_format"
        )
    speed = value_at(fields, "speed")
    return SpeechRequest(
        model,
        text,
        speed=float(speed) if isinstance(speed, int | float) else 1.0,
        wav=kind == "wav",
        events=events,
    )


async def speech_body(request: SpeechRequest, voice: Speaker) -> AsyncGenerator[bytes]:
    """Stream the body of the response, while ``voice`` speaks at `SpeechRequest.voice_rate`."""
    samples = 0
    if request.wav:
        yield _packed(request, _wav_header())
    async with aclosing(voice.speak(request.text)) as pieces:
        async for piece in pieces:
            samples += len(piece.samples)
            if len(piece.samples):
                yield _packed(request, piece.samples.astype("<i2").tobytes())
    if request.events:
        text_tokens = -(-len(request.text) // _CHARS_PER_TOKEN)
        audio_tokens = round(samples / RATE * _TOKENS_PER_S)
        usage: JsonObject = {
            "input_tokens": text_tokens,
            "output_tokens": audio_tokens,
            "total_tokens": text_tokens + audio_tokens,
        }
        yield _event({"type": "speech.audio.done", "usage": usage})


def _packed(request: SpeechRequest, data: bytes) -> bytes:
    if not request.events:
        return data
    return _event({"type": "speech.audio.delta", "audio": pybase64.b64encode(data).decode()})


def _event(value: JsonObject) -> bytes:
    return b"data: " + orjson.dumps(value) + b"\n\n"


def _wav_header() -> bytes:
    """Return the header of a stream, whose length is not known: all bits of the sizes are set."""
    unknown = 0xFFFFFFFF
    form = struct.pack("<HHIIHH", 1, 1, RATE, RATE * _SAMPLE_BYTES, _SAMPLE_BYTES, 16)
    return struct.pack(
        "<4sI8sI16s4sI", b"RIFF", unknown, b"WAVEfmt ", len(form), form, b"data", unknown
    )
