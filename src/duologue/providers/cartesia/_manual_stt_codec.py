"""Cartesia's STT WebSocket without turns, for Ink-2 and Ink-Whisper (sans-IO).

Audio goes out as binary messages, and the commands are bare words: ``finalize`` asks for a final
transcript of what was sent, and is always answered by ``flush_done``. Final transcripts are joined
verbatim, because their spaces are the service's. Those that come before a ``flush_done`` belong to
the turn in which it was asked for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from duologue.audio import Samples
from duologue.errors import SessionError
from duologue.json_types import JsonObject
from duologue.pipeline.interfaces import RecognitionEvent, TimedWord, TurnUpdated
from duologue.pipeline.stt_codec import RecognitionFailed
from duologue.providers._json_fields import object_list, optional_str
from duologue.providers._speech_json import JsonDecoder, pcm_bytes, timed_words
from duologue.realtime import BinaryMessage


class CartesiaManualCodec(JsonDecoder[RecognitionEvent | RecognitionFailed]):
    """One connection of Cartesia's STT without turns; ``make_error`` makes the service's errors."""

    def __init__(self, make_error: Callable[[str, str], SessionError]) -> None:
        super().__init__()
        self._make_error = make_error
        self._turn = 0
        self._finalized_turns: deque[int] = deque()
        """The turns of the commands that are not answered."""
        self._final: dict[int, str] = {}
        """Final transcripts of the turns that may still get more."""
        self._words: list[TimedWord] = []
        """Words of the final transcripts of the open turn."""
        self._has_audio = False
        """Whether audio was sent since the last command."""

    def open(self) -> Sequence[bytes]:
        """Return nothing: everything is in the address."""
        return ()

    def audio(self, samples: Samples) -> Sequence[bytes]:
        """Return the audio as a binary message."""
        self._has_audio = True
        return [BinaryMessage(pcm_bytes(samples))]

    def settle(self) -> Sequence[bytes]:
        """Return the command that asks for a final transcript, if there is audio for it."""
        if not self._has_audio:
            return ()
        self._has_audio = False
        self._finalized_turns.append(self._turn)
        return [b"finalize"]

    def end_turn(self) -> Sequence[bytes]:
        """Return the command that finalizes what is left of the turn, and begin the next."""
        messages = self.settle()
        self._turn += 1
        self._words.clear()
        return messages

    def keep_alive(self) -> Sequence[bytes]:
        """Return nothing: audio keeps the connection open."""
        return ()

    def closing(self) -> Sequence[bytes]:
        """Return the command that ends the session."""
        return [b"close"]

    def decode_event(self, event: JsonObject) -> Sequence[RecognitionEvent | RecognitionFailed]:
        """Return what an event means."""
        match event.get("type"):
            case "transcript":
                return self._transcript(event)
            case "flush_done":
                return self._flush_done()
            case "error":
                code = optional_str(event, "error_code") or str(event.get("status_code") or "")
                words = optional_str(event, "message") or optional_str(event, "title") or ""
                return [RecognitionFailed(self._make_error(code, words))]
            case "connected" | "done":
                return ()
            case _:
                self.unknown += 1
                return ()

    def _transcript(self, event: JsonObject) -> Sequence[RecognitionEvent]:
        turn = self._finalized_turns[0] if self._finalized_turns else self._turn
        whole = self._final.get(turn, "") + (optional_str(event, "text") or "")
        if event.get("is_final") is True:
            self._final[turn] = whole
            if turn == self._turn:
                self._words += timed_words(object_list(event, "words"), "word")
        return [TurnUpdated(turn, whole.strip())] if whole.strip() else ()

    def _flush_done(self) -> Sequence[RecognitionEvent]:
        turn = self._finalized_turns.popleft() if self._finalized_turns else self._turn
        text = self._final.get(turn, "").strip()
        oldest = self._finalized_turns[0] if self._finalized_turns else self._turn
        self._final = {number: text for number, text in self._final.items() if number >= oldest}
        if turn == self._turn:
            return [TurnUpdated(turn, text, final=True, words=tuple(self._words))]
        return [TurnUpdated(turn, text, final=True)] if text else ()
