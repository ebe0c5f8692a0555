"""What becomes of a turn in this service: its words as they become sure."""

from __future__ import annotations

import re

from duologue.simulator.fields import Object
from duologue.simulator.openai.turns import Turns

_WORDS = re.compile(r"\s*\S+")

UNSURE_WORDS = 2
"""The last words of a transcript under way, which may still change."""


class QwenTurns(Turns):
    """The client's side of one conversation."""

    manual_transcripts = True
    """The whole words of a turn are told although the client has ended it."""

    @property
    def owes(self) -> bool:
        """A turn is answered as soon as its words have come."""
        return bool(self._owed)

    def transcribed(self, item_id: str, text: str) -> None:
        """Tell the words of a turn: as they become sure, then as a whole."""
        if self._conversation.has(item_id):
            content: Object = {"type": "input_audio", "transcript": text}
            self._conversation.find(item_id)["content"] = [content]
        kind = "conversation.item.input_audio_transcription"
        place: Object = {"item_id": item_id, "content_index": 0}
        words = _WORDS.findall(text)
        for count in range(1, len(words) + 1):
            sure = max(0, count - UNSURE_WORDS)
            told: Object = {"text": "".join(words[:sure]), "stash": "".join(words[sure:count])}
            self._emit(f"{kind}.delta", {**place, **told})
        if self.manual_transcripts or self._configuration.turn_detection is not None:
            self._emit(f"{kind}.completed", {**place, "transcript": text})
