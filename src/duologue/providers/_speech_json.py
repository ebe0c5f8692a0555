"""Read what the messages of speech services have in common: JSON with audio and columns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import pybase64

from duologue._word_timing import is_unspaced, needs_space
from duologue.audio import AudioFrame, Samples
from duologue.json_types import JsonObject
from duologue.pipeline.interfaces import TimedWord
from duologue.providers._json_fields import MalformedError, number_field, optional_str
from duologue.providers._json_text import decode_object


class JsonDecoder[E](ABC):
    """The receiving half of a codec whose service sends JSON objects.

    Attributes:
        unknown: Messages of an unknown type so far.
        malformed: Messages so far that are no JSON object, or not what the protocol says.
    """

    def __init__(self) -> None:
        self.unknown = 0
        self.malformed = 0

    def decode(self, message: bytes) -> Sequence[E]:
        """Return what a message means; never raise."""
        try:
            return self.decode_event(decode_object(memoryview(message).tobytes()))
        except MalformedError:
            self.malformed += 1
            return ()

    @abstractmethod
    def decode_event(self, event: JsonObject) -> Sequence[E]:
        """Return what an event means. Raise `MalformedError` if it breaks the protocol."""


def audio_field(event: JsonObject, key: str, rate: int) -> AudioFrame | None:
    """Return base64 audio, mono int16; None if the field is missing, null or empty.

    Raises:
        MalformedError: It is something else.
    """
    value = event.get(key)
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise MalformedError(key)
    try:
        samples = np.frombuffer(pybase64.b64decode(value), "<i2")
    except ValueError as error:
        raise MalformedError(key) from error
    return AudioFrame(samples, rate)


def columns(event: JsonObject, *keys: str) -> list[tuple[str, float, float]]:
    """Return rows of a text and two numbers, which come as three lists of these names.

    Rows of other types are left out.
    """
    lists = [value if isinstance(value := event.get(key), list) else [] for key in keys]
    return [
        (text, float(first), float(second))
        for text, first, second in zip(*lists, strict=False)
        if isinstance(text, str) and _is_number(first) and _is_number(second)
    ]


def timed_words(rows: Sequence[JsonObject], *keys: str) -> list[TimedWord]:
    """Return the words that have times; the first of ``keys`` that a row has is its text."""
    words = []
    for row in rows:
        text = next((text for key in keys if (text := optional_str(row, key))), "")
        start, end = number_field(row, "start"), number_field(row, "end")
        if text and start is not None and end is not None:
            words.append(TimedWord(text, start, end))
    return words


def align_characters(
    characters: Sequence[str], starts: Sequence[float], ends: Sequence[float]
) -> list[tuple[str, float, float]]:
    """Return timed characters as tokens: joined to words, except in scripts without spaces."""
    tokens: list[tuple[str, float, float]] = []
    joined = False
    for character, start, end in zip(characters, starts, ends, strict=False):
        if not character.strip():
            joined = False
            continue
        alone = is_unspaced(character[0])
        if joined and not alone:
            text, begun, _ = tokens[-1]
            tokens[-1] = (text + character, begun, end)
        else:
            tokens.append((character, start, end))
        joined = not alone
    return tokens


def join_transcripts(texts: Sequence[str]) -> str:
    """Return consecutive transcripts as one, with the spaces that their script has."""
    joined = ""
    for text in texts:
        stripped = text.strip()
        joined += f" {stripped}" if needs_space(joined, stripped) else stripped
    return joined


def pcm_bytes(samples: Samples) -> bytes:
    """Return samples as little-endian int16."""
    return samples.astype("<i2", copy=False).tobytes()


def base64_text(samples: Samples) -> str:
    """Return samples as base64 of little-endian int16."""
    return pybase64.b64encode(pcm_bytes(samples)).decode()


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
