"""Encode and decode audio in Gemini messages: base64 of int16 PCM."""

from __future__ import annotations

import re
from functools import lru_cache

from duologue._optional import optional
from duologue.json_types import JsonObject
from duologue.providers._json_fields import MalformedError, object_field, object_list, optional_str
from duologue.providers.gemini._capabilities import INPUT_RATE, OUTPUT_RATE

with optional("gemini"):
    import pybase64

    from duologue.providers._json_text import decode_object


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


class AudioShape:
    """Reads messages that are like an earlier one but for the data of their audio.

    Nearly all messages of the server are. What surrounds the data was parsed once, in `learn`; and
    base64 can't end a string of JSON, so the rest of the message has the same meaning.
    """

    __slots__ = ("_head", "_rate", "_tail")

    def __init__(self) -> None:
        self._head = self._tail = b""
        self._rate = 0

    def learn(self, message: bytes, value: JsonObject) -> None:
        """Remember this message, parsed as ``value``, if it has audio and nothing else."""
        turn = object_field(object_field(value, "serverContent"), "modelTurn")
        blob = next((object_field(one, "inlineData") for one in object_list(turn, "parts")), {})
        kind, data = optional_str(blob, "mimeType"), optional_str(blob, "data")
        if not kind or not data or value != _audio_only(kind, data):
            return
        head, _, tail = message.partition(data.encode())
        try:
            audio = decode_audio({"inlineData": {**blob, "data": ""}})
            if audio is not None and decode_object(head + tail) == _audio_only(kind, ""):
                self._head, self._tail, self._rate = head, tail, audio[1]
        except MalformedError:
            pass  # It is counted where the message is decoded.

    def read(self, message: bytes) -> tuple[bytes, int] | None:
        """Return PCM and sample rate, or None for a message that has to be parsed."""
        start, end = len(self._head), len(message) - len(self._tail)
        if not 0 < start <= end or not message.startswith(self._head):
            return None
        if not message.endswith(self._tail):
            return None
        try:
            return pybase64.b64decode(message[start:end], validate=True), self._rate
        except ValueError:
            return None


def _audio_only(kind: str, data: str) -> JsonObject:
    part: JsonObject = {"inlineData": {"mimeType": kind, "data": data}}
    return {"serverContent": {"modelTurn": {"parts": [part]}}}


@lru_cache(maxsize=16)  # All audio of a server has the same type.
def _rate_of(kind: str) -> int:
    found = _RATE.search(kind)
    rate = int(found[1]) if found else OUTPUT_RATE
    if rate not in _VALID_RATES or (found is None and "rate" in kind):
        raise MalformedError("mimeType")
    return rate
