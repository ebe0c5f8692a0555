"""What comes from a carrier's stream, and what a codec of one carrier does."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from duologue.audio import Samples
from duologue.errors import ConfigError

type Message = str | bytes
"""A message of the WebSocket, text or binary."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamStarted:
    """The stream has begun; empty where the carrier does not say."""

    call_id: str
    stream_id: str = ""
    caller: str = ""
    called: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class AudioArrived:
    """Audio of the caller, with its number in the stream and its time, where the carrier says."""

    samples: Samples
    rate: int
    chunk: int | None = None
    timestamp_ms: int | None = None


@dataclass(frozen=True, slots=True)
class DigitPressed:
    """The caller pressed a key: 0 to 9, ``*``, ``#``, or A to D."""

    digit: str


@dataclass(frozen=True, slots=True)
class MarkReturned:
    """The carrier returned a mark: it has played the audio before it, or has dropped it."""

    name: str


@dataclass(frozen=True, slots=True)
class QueueCleared:
    """The carrier has dropped the audio that it had not played."""


@dataclass(frozen=True, slots=True)
class StreamFailed:
    """The carrier reports an error in words of its own."""

    message: str


@dataclass(frozen=True, slots=True)
class StreamStopped:
    """The stream has ended, usually because the caller has hung up."""


type StreamEvent = (
    StreamStarted
    | AudioArrived
    | DigitPressed
    | MarkReturned
    | QueueCleared
    | StreamFailed
    | StreamStopped
)

DIGITS = frozenset("0123456789*#ABCD")


def check_digits(digits: str) -> None:
    """Raise `ConfigError` unless these are keys to press; ``w`` waits for half a second."""
    if not digits or set(digits) - DIGITS - {"w", "W"}:
        raise ConfigError(f"digits must be keys such as 12w3#, not {digits!r:.40}")


class CarrierCodec(Protocol):
    """Sans-IO translation to and from the messages of one call of one carrier.

    Attributes:
        output_rate: Rate in Hz of the audio that the carrier takes.
        malformed: Messages that the carrier should not have sent, or that are unknown.
    """

    output_rate: int
    malformed: int

    def receive(self, message: Message) -> Sequence[StreamEvent]:
        """Return what a message means; never raise, whatever it is."""
        ...

    def audio(self, samples: Samples) -> Message:
        """Return the message that plays 20 ms of audio at ``output_rate``."""
        ...

    def mark(self, name: str) -> Message:
        """Return the message that the carrier returns when it has played the audio before it."""
        ...

    def clear(self) -> Message:
        """Return the message that drops the audio that has not been played."""
        ...


class CountingCodec(ABC):
    """What the codecs share: `receive` counts the messages that `_decode` does not know."""

    def __init__(self) -> None:
        self.malformed = 0

    def receive(self, message: Message) -> Sequence[StreamEvent]:
        """Return what a message means; never raise, whatever it is."""
        events = self._decode(message)
        if events is None:
            self.malformed += 1
            return ()
        return events

    @abstractmethod
    def _decode(self, message: Message) -> Sequence[StreamEvent] | None:
        """Return what a message means; None if it is malformed or unknown."""


def parse_object(data: str | bytes) -> Mapping[str, object] | None:
    """Return the JSON object that ``data`` is; None if it is something else."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def parse_message(message: Message) -> Mapping[str, object] | None:
    """Return the JSON object of a text message; None if it is something else."""
    return parse_object(message) if isinstance(message, str) else None


def texts(value: object) -> dict[str, str]:
    """Return the entries of a JSON object whose values are texts or numbers, as texts."""
    if not isinstance(value, dict):
        return {}
    return {
        str(key): str(entry)
        for key, entry in value.items()
        if isinstance(entry, str | int | float) and not isinstance(entry, bool)
    }


def text(value: object) -> str:
    """Return a text, or an empty one for anything else."""
    return value if isinstance(value, str) else ""


def digit_event(value: object) -> list[StreamEvent] | None:
    """Return the event of a key; None if it is not a key of a telephone."""
    digit = str(value).upper() if isinstance(value, str | int) else ""
    return [DigitPressed(digit)] if digit in DIGITS else None
