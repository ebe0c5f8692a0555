"""Cartesia's STT WebSocket with turns, Ink-2 (sans-IO).

Audio goes out as binary messages; events come as JSON. The service has neither times nor turn
numbers, and no message that ends a turn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from duologue.audio import Samples
from duologue.errors import SessionError
from duologue.json_types import JsonObject
from duologue.pipeline.interfaces import (
    RecognitionEvent,
    TurnEnded,
    TurnMayEnd,
    TurnResumed,
    TurnStarted,
    TurnUpdated,
)
from duologue.pipeline.stt_codec import RecognitionFailed
from duologue.providers._json_fields import optional_str
from duologue.providers._speech_json import JsonDecoder, pcm_bytes
from duologue.realtime import BinaryMessage

_CLOSE = b'{"type":"close"}'


class CartesiaTurnsCodec(JsonDecoder[RecognitionEvent | RecognitionFailed]):
    """One connection of Cartesia's STT with turns; ``make_error`` makes the service's errors."""

    def __init__(self, make_error: Callable[[str, str], SessionError]) -> None:
        super().__init__()
        self._make_error = make_error
        self._turn = 0

    def open(self) -> Sequence[bytes]:
        """Return nothing: everything is in the address."""
        return ()

    def audio(self, samples: Samples) -> Sequence[bytes]:
        """Return the audio as a binary message."""
        return [BinaryMessage(pcm_bytes(samples))]

    def settle(self) -> Sequence[bytes]:
        """Return nothing: the service settles by itself."""
        return ()

    def end_turn(self) -> Sequence[bytes]:
        """Return nothing: the service can't be told to end a turn."""
        return ()

    def keep_alive(self) -> Sequence[bytes]:
        """Return nothing: audio keeps the connection open."""
        return ()

    def closing(self) -> Sequence[bytes]:
        """Return the message that ends the session."""
        return [_CLOSE]

    def decode_event(self, event: JsonObject) -> Sequence[RecognitionEvent | RecognitionFailed]:
        """Return what an event means."""
        text = optional_str(event, "transcript") or ""
        turn = self._turn
        match event.get("type"):
            case "turn.start":
                return [TurnStarted(turn)]
            case "turn.update":
                return [TurnUpdated(turn, text)]
            case "turn.eager_end":
                return [TurnMayEnd(turn, text)]
            case "turn.resume":
                return [TurnResumed(turn)]
            case "turn.end":
                self._turn += 1
                return [TurnEnded(turn, text)]
            case "error":
                code = optional_str(event, "error_code") or str(event.get("status_code") or "")
                words = optional_str(event, "message") or optional_str(event, "title") or ""
                return [RecognitionFailed(self._make_error(code, words))]
            case "connected":
                return ()
            case _:
                self.unknown += 1
                return ()
