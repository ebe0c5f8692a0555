"""The turns of the user in this service, with transcripts that grow as words become certain."""

from __future__ import annotations

import re

from duologue.json_types import JsonObject
from duologue.simulators._openai_protocol.turns import UserTurns

_WORDS = re.compile(r"\s*\S+")

UNCERTAIN_WORDS = 2
"""Words at the end of a growing transcript that may still change."""


class QwenUserTurns(UserTurns):
    """The user's side of one conversation."""

    manual_transcripts = True
    """Whether the complete transcript of a turn is sent although the client has ended the turn."""

    @property
    def awaits_transcript(self) -> bool:
        """Whether a turn is waiting for its transcript, after which it is answered."""
        return bool(self._awaiting_transcript)

    def send_transcript(self, item_id: str, text: str) -> None:
        """Send the transcript of a turn: growing, then complete."""
        if self._conversation.has(item_id):
            content: JsonObject = {"type": "input_audio", "transcript": text}
            self._conversation.find(item_id)["content"] = [content]
        kind = "conversation.item.input_audio_transcription"
        place: JsonObject = {"item_id": item_id, "content_index": 0}
        words = _WORDS.findall(text)
        for count in range(1, len(words) + 1):
            certain = max(0, count - UNCERTAIN_WORDS)
            growing: JsonObject = {
                "text": "".join(words[:certain]),
                "stash": "".join(words[certain:count]),
            }
            self._emit(f"{kind}.delta", {**place, **growing})
        if self.manual_transcripts or self._configuration.turn_detection is not None:
            self._emit(f"{kind}.completed", {**place, "transcript": text})
