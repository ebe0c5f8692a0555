"""Deepgram's recogniser with turns, Flux: ``/v2/listen`` (sans-IO).

Its clock is the audio: without audio no turn ends. Every ``TurnInfo`` has the whole transcript of
its turn; seconds count from the connection's first audio.
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
from duologue.providers._json_fields import (
    MalformedError,
    int_field,
    number_field,
    object_list,
    optional_str,
)
from duologue.providers._json_text import encode_object
from duologue.providers._speech_json import JsonDecoder, pcm_bytes, timed_words
from duologue.realtime import BinaryMessage

_SILENT = frozenset({"Connected", "ConfigureSuccess", "ConfigureFailure", "Warning"})


class FluxCodec(JsonDecoder[RecognitionEvent | RecognitionFailed]):
    """One connection of Flux; ``make_error`` makes the error for a code and message."""

    def __init__(self, make_error: Callable[[str, str], SessionError]) -> None:
        super().__init__()
        self._make_error = make_error

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
        """Return the message that ends the turn."""
        return [encode_object({"type": "ForceEndTurn"})]

    def keep_alive(self) -> Sequence[bytes]:
        """Return nothing: the service has no such message, only audio keeps it open."""
        return ()

    def closing(self) -> Sequence[bytes]:
        """Return the message that ends the session."""
        return [encode_object({"type": "CloseStream"})]

    def decode_event(self, event: JsonObject) -> Sequence[RecognitionEvent | RecognitionFailed]:
        """Return what an event means."""
        match event.get("type"):
            case "TurnInfo":
                return self._turn_info(event)
            case "Error":
                code = optional_str(event, "code") or ""
                words = optional_str(event, "description") or optional_str(event, "message") or ""
                return [RecognitionFailed(self._make_error(code, words))]
            case kind:
                self.unknown += kind not in _SILENT
                return ()

    def _turn_info(self, event: JsonObject) -> Sequence[RecognitionEvent]:
        turn = int_field(event, "turn_index")
        if turn is None or turn < 0:
            raise MalformedError("turn_index")
        text = optional_str(event, "transcript") or ""
        words = timed_words(object_list(event, "words"), "word")
        match event.get("event"):
            case "StartOfTurn":
                started = TurnStarted(turn, number_field(event, "audio_window_start"))
                return [started, TurnUpdated(turn, text, words=words)] if text else [started]
            case "Update":
                return [TurnUpdated(turn, text, words=words)] if text else ()
            case "EagerEndOfTurn":
                return [TurnMayEnd(turn, text)] if text else ()
            case "TurnResumed":
                return [TurnResumed(turn)]
            case "EndOfTurn":
                at = words[-1].end if words else number_field(event, "audio_window_end")
                return [TurnEnded(turn, text, at, words)]
            case _:
                self.unknown += 1
                return ()
