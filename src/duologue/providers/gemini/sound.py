"""Sound in Gemini's messages: base64 of int16 PCM."""

from __future__ import annotations

import re

from duologue.extras import require
from duologue.items import Json
from duologue.providers.fields import MalformedError, inner, some_text
from duologue.providers.gemini.profile import INPUT_RATE, OUTPUT_RATE

require("pybase64", "gemini")

import pybase64  # noqa: E402

type JsonObject = dict[str, Json]

_AUDIO = f'{{"realtimeInput":{{"audio":{{"mimeType":"audio/pcm;rate={INPUT_RATE}","data":"'.encode()
_END = b'"}}}'
_RATE = re.compile(r";\s*rate=([0-9]{4,5})\b")
_RATES = range(8000, 48001)
"""Rates in Hz that sound may have."""


def sound_message(pcm: bytes) -> bytes:
    """The message with the person's next sound, at 16 kHz."""
    return b"".join((_AUDIO, pybase64.b64encode(pcm), _END))


def sound_of(part: JsonObject) -> tuple[bytes, int] | None:
    """PCM and rate (Hz) of a part of the model's turn; None for one that is no sound.

    A sample may be split between two parts. Raises `MalformedError` for sound that is none.
    """
    blob = inner(part, "inlineData")
    kind, data = some_text(blob, "mimeType"), some_text(blob, "data")
    if kind is None or data is None or not kind.startswith("audio/pcm"):
        return None
    found = _RATE.search(kind)
    rate = int(found[1]) if found else OUTPUT_RATE
    if rate not in _RATES or (found is None and "rate" in kind):
        raise MalformedError("mimeType")
    try:
        return pybase64.b64decode(data), rate
    except ValueError as error:
        raise MalformedError("data") from error
