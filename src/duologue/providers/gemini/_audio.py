"""Encode and decode audio in Gemini messages: base64 of int16 PCM."""

from __future__ import annotations

import re
from functools import lru_cache

from duologue._optional import optional
from duologue.json_types import JsonObject
from duologue.providers._json_fields import MalformedError, object_field, optional_str
from duologue.providers.gemini._capabilities import INPUT_RATE, OUTPUT_RATE

with optional("gemini"):
    import pybase64


_AUDIO_START = (
    f'{{"realtimeInput":{{"audio":{{"mimeType":"audio/pcm;rate={INPUT_RATE}","data":"'.encode()
)
_AUDIO_END = b'"}}}'
_RATE = re.compile(r";\s*rate=([0-9]{4,5})\b")
_VALID_RATES = range(8000, 48001)
"""Valid sample rates in Hz."""


def audio_message(pcm: bytes) -> bytes:
    """Return the message with input audio at 16 kHz."""
    return b"".join((_AUDIO_START, pybase64.b64encode(pcm), _AUDIO_END))


def decode_audio(part: JsonObject) -> tuple[bytes, int] | None:
    """Return PCM and sample rate (Hz) of a part of the model's turn, or None if it is not audio.

    A sample may be split between two parts.

    Raises:
        MalformedError: the audio is invalid.
    """
    blob = object_field(part, "inlineData")
    kind, data = optional_str(blob, "mimeType"), optional_str(blob, "data")
    if kind is None or data is None or not kind.startswith("audio/pcm"):
        return None
    rate = _rate_of(kind)
    try:
        return pybase64.b64decode(data), rate
    except ValueError as error:
        raise MalformedError("data") from error


@lru_cache(maxsize=16)  # All audio of a server has the same type.
def _rate_of(kind: str) -> int:
    found = _RATE.search(kind)
    rate = int(found[1]) if found else OUTPUT_RATE
    if rate not in _VALID_RATES or (found is None and "rate" in kind):
        raise MalformedError("mimeType")
    return rate
