"""The wire protocol of the WebSocket edge, sans-IO: docs/edges/websocket.md describes it."""

from __future__ import annotations

import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

PROTOCOL = "duologue.v1"
"""The sub-protocol that both sides must name (RFC 6455, section 1.9)."""

RATES = (8000, 12000, 16000, 24000, 48000)
"""Rates in Hz of the audio, the same both ways; those that Opus has."""

MAX_AUDIO_MS = 200
"""Longest audio in one message, in ms."""

MAX_TEXT_CHARS = 4000
"""Longest text, in characters."""

MAX_PARAMETERS = 32
"""Most parameters of a hello."""

MESSAGES_PER_S = 60.0
"""Most JSON messages a second; those of one second may arrive at once."""

AUDIO_MESSAGES_PER_S = 1000.0
"""Most messages of audio a second; those of ten seconds may arrive at once, after a stall."""

type Codec = Literal["pcm", "opus"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """The first message of a client."""

    token: str = field(default="", repr=False)
    rate: int = 16000
    codec: Codec = "pcm"
    reports_played: bool = False
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Played:
    """The client has played ``samples`` of the audio since the clear that began ``epoch``."""

    epoch: int
    samples: int


@dataclass(frozen=True, slots=True)
class Text:
    """The person wrote something."""

    text: str


@dataclass(frozen=True, slots=True)
class Digit:
    """The person pressed a key."""

    digit: str


@dataclass(frozen=True, slots=True)
class Image:
    """An image of the person's camera: a JPEG, or any format that Pillow reads."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Bye:
    """The person ends the conversation."""


type ClientMessage = Hello | Played | Text | Digit | Image | Bye


class ProtocolError(Exception):
    """The client broke the protocol; ``code`` is short, the text a sentence."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def read_message(text: str) -> ClientMessage:
    """Return what a text message of a client means.

    Raises:
        ProtocolError: It is not one of the protocol, or a value is out of bounds.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise ProtocolError("format", "a text message must be a JSON object") from None
    match value:
        case {"type": "hello", **fields}:
            return _hello(fields)
        case {"type": "played", "epoch": int(epoch), "samples": int(samples)} if (
            0 <= epoch < 2**53 and 0 <= samples < 2**53
        ):
            return Played(epoch, samples)
        case {"type": "text", "text": str(words)} if 0 < len(words) <= MAX_TEXT_CHARS:
            return Text(words)
        case {"type": "digit", "digit": str(digit)} if len(digit) == 1 and digit in (
            "0123456789*#ABCD"
        ):
            return Digit(digit)
        case {"type": "image", "data": str(data)}:
            try:
                return Image(binascii.a2b_base64(data, strict_mode=True))
            except (binascii.Error, ValueError):
                raise ProtocolError("image", "data of an image must be base64") from None
        case {"type": "bye"}:
            return Bye()
        case {"type": str(kind)} if kind in ("played", "text", "digit", "image"):
            raise ProtocolError(kind, f"a {kind} message lacks its value, or it is out of bounds")
        case _:
            raise ProtocolError("type", "unknown type of message")


def _hello(fields: Mapping[object, object]) -> Hello:
    token, rate = fields.get("token", ""), fields.get("rate", 16000)
    codec, played = fields.get("codec", "pcm"), fields.get("played", False)
    parameters = fields.get("parameters", {})
    if not isinstance(token, str):
        raise ProtocolError("token", "token must be a string")
    if isinstance(rate, bool) or not isinstance(rate, int) or rate not in RATES:
        raise ProtocolError("rate", f"rate must be {', '.join(map(str, RATES))}")
    if codec not in get_args(Codec.__value__):
        raise ProtocolError("codec", "codec must be pcm or opus")
    if not isinstance(played, bool):
        raise ProtocolError("played", "played must be true or false")
    if (
        not isinstance(parameters, dict)
        or len(parameters) > MAX_PARAMETERS
        or not all(isinstance(entry, str) for entry in parameters.values())
    ):
        raise ProtocolError(
            "parameters", f"parameters must be an object of up to {MAX_PARAMETERS} strings"
        )
    return Hello(
        token=token,
        rate=rate,
        codec="opus" if codec == "opus" else "pcm",
        reports_played=played,
        parameters=parameters,
    )


class PlayedReports:
    """Counts what a client has played, by its reports.

    A client counts from its last clear, so a report of an older epoch proves nothing.
    """

    __slots__ = ("_base", "epoch", "given", "ignored", "played")

    def __init__(self) -> None:
        self._base = 0
        self.epoch = 0
        self.given = 0
        """Samples sent so far."""
        self.played = 0
        """Samples of them that were played or dropped."""
        self.ignored = 0
        """Reports of an older epoch, and reports that could not be true."""

    def clear(self) -> int:
        """Begin the next epoch, and return its number."""
        self._base = self.played = self.given
        self.epoch += 1
        return self.epoch

    def report(self, report: Played) -> int | None:
        """Take a report; return ``played`` if it has grown, and None otherwise."""
        total = self._base + report.samples
        if report.epoch != self.epoch or total > self.given:
            self.ignored += 1
            return None
        if total <= self.played:
            return None
        self.played = total
        return total


class MessageBudget:
    """Limits the messages of a client.

    Args:
        now: Time in seconds.
        rate: Most messages a second.
        burst: Most messages at once.
    """

    __slots__ = ("_at", "_burst", "_left", "_rate")

    def __init__(
        self, now: float, *, rate: float = MESSAGES_PER_S, burst: float = MESSAGES_PER_S
    ) -> None:
        self._at = now
        self._rate = rate
        self._burst = self._left = burst

    def spend(self, now: float) -> bool:
        """Count a message at ``now``, in seconds; return False if it is one too many."""
        self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True
