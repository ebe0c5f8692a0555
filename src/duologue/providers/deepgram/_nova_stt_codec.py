"""Deepgram's recogniser Nova: ``/v1/listen`` (sans-IO).

The transcript of a turn is all final results joined, and the newest interim one behind them. Where
a turn ends is decided here: its own signs of that come late or, in noise, never. ``Finalize`` asks
for the final result of what was sent; none comes if there was nothing to recognise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from duologue.audio import Samples
from duologue.errors import SessionError
from duologue.json_types import JsonObject
from duologue.pipeline.interfaces import RecognitionEvent, TimedWord, TurnUpdated
from duologue.pipeline.stt_codec import RecognitionFailed
from duologue.providers._json_fields import object_field, object_list, optional_str
from duologue.providers._json_text import encode_object
from duologue.providers._speech_json import JsonDecoder, join_transcripts, pcm_bytes, timed_words
from duologue.realtime import BinaryMessage

_SILENT = frozenset(
    {"SpeechStarted", "UtteranceEnd", "Metadata", "ConfigureSuccess", "ConfigureFailure"}
)


class NovaCodec(JsonDecoder[RecognitionEvent | RecognitionFailed]):
    """One connection of Nova; ``make_error`` makes the error for a code and message."""

    def __init__(self, make_error: Callable[[str, str], SessionError]) -> None:
        super().__init__()
        self._make_error = make_error
        self._turn = 0
        self._final: list[str] = []
        self._words: list[TimedWord] = []
        self._interim = ""
        self._late_finals = 0
        """Finalized results still to come that belong to earlier turns."""
        self._finalizing = 0

    def open(self) -> Sequence[bytes]:
        """Return nothing: everything is in the address."""
        return ()

    def audio(self, samples: Samples) -> Sequence[bytes]:
        """Return the audio as a binary message."""
        return [BinaryMessage(pcm_bytes(samples))]

    def settle(self) -> Sequence[bytes]:
        """Return the message that asks for a final result."""
        self._finalizing += 1
        return [encode_object({"type": "Finalize"})]

    def end_turn(self) -> Sequence[bytes]:
        """Begin the next turn; an interim result is finalized for the last one."""
        messages = self.settle() if self._interim else ()
        self._late_finals, self._finalizing = self._late_finals + self._finalizing, 0
        if not self._interim:
            self._late_finals = 0
        self._turn += 1
        self._final.clear()
        self._words.clear()
        self._interim = ""
        return messages

    def keep_alive(self) -> Sequence[bytes]:
        """Return the message without which ten seconds without audio end the connection."""
        return [encode_object({"type": "KeepAlive"})]

    def closing(self) -> Sequence[bytes]:
        """Return the message that ends the session."""
        return [encode_object({"type": "CloseStream"})]

    def decode_event(self, event: JsonObject) -> Sequence[RecognitionEvent | RecognitionFailed]:
        """Return what an event means."""
        match event.get("type"):
            case "Results":
                return self._results(event)
            case "Error":
                code = optional_str(event, "variant") or ""
                words = optional_str(event, "description") or optional_str(event, "message") or ""
                return [RecognitionFailed(self._make_error(code, words))]
            case kind:
                self.unknown += kind not in _SILENT
                return ()

    def _results(self, event: JsonObject) -> Sequence[RecognitionEvent]:
        alternatives = object_list(object_field(event, "channel"), "alternatives")
        best = alternatives[0] if alternatives else {}
        text = (optional_str(best, "transcript") or "").strip()
        finalized = event.get("from_finalize") is True
        if finalized and self._late_finals:
            self._late_finals -= 1
            self._interim = ""
            return ()  # Of a turn that is over.
        if event.get("is_final") is not True:
            self._interim = text
            return [TurnUpdated(self._turn, self._joined())] if text else ()
        self._interim = ""
        if finalized and self._finalizing:
            self._finalizing -= 1
        if text:
            self._final.append(text)
            self._words += timed_words(object_list(best, "words"), "punctuated_word", "word")
        if not text and not finalized:
            return ()
        return [TurnUpdated(self._turn, self._joined(), final=True, words=tuple(self._words))]

    def _joined(self) -> str:
        return join_transcripts((*self._final, self._interim))
