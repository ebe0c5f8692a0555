"""OpenAI's realtime transcription sessions, with commits of our own (sans-IO).

Each commit makes an item, whose transcript comes in deltas and then as a whole, and perhaps later
than that of the next item. Items belong to the turn in which they were committed; deltas of an item
that is not committed yet belong to the turn that is open.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from duologue.audio import Samples
from duologue.errors import SessionError
from duologue.json_types import JsonObject
from duologue.pipeline.interfaces import RecognitionEvent, TurnUpdated
from duologue.pipeline.stt_codec import RecognitionFailed
from duologue.providers._json_fields import object_field, optional_str, str_field
from duologue.providers._json_text import encode_object
from duologue.providers._speech_json import JsonDecoder, base64_text, join_transcripts

RATE = 24000
MIN_COMMIT_S = 0.1
"""Seconds of audio below which the service refuses a commit."""
MAX_ITEMS = 256
"""Items that are remembered, because their transcripts may be late."""

_COMMIT = encode_object({"type": "input_audio_buffer.commit"})
_BENIGN = frozenset({"input_audio_buffer_commit_empty"})
_TRANSCRIPTION = "conversation.item.input_audio_transcription."


class TranscriptionCodec(JsonDecoder[RecognitionEvent | RecognitionFailed]):
    """One transcription session.

    Args:
        session: The session's configuration.
        make_error: Makes the error for a code and message of the service.
    """

    def __init__(self, session: JsonObject, make_error: Callable[[str, str], SessionError]) -> None:
        super().__init__()
        self._session = session
        self._make_error = make_error
        self._turn = 0
        self._turns: dict[str, int] = {}
        """The turn of each item that was committed."""
        self._texts: dict[str, str] = {}
        """The transcripts of the items of the open turn, in order."""
        self._final: set[str] = set()
        self._commits: deque[int] = deque()
        """The turns of commits that the service has not confirmed."""
        self._uncommitted_s = 0.0

    def open(self) -> Sequence[bytes]:
        """Return the message that configures the session."""
        return [encode_object({"type": "session.update", "session": self._session})]

    def audio(self, samples: Samples) -> Sequence[bytes]:
        """Return the message that carries audio."""
        self._uncommitted_s += len(samples) / RATE
        audio = base64_text(samples)
        return [encode_object({"type": "input_audio_buffer.append", "audio": audio})]

    def settle(self) -> Sequence[bytes]:
        """Return the message that commits the audio so far, if there is enough of it."""
        if self._uncommitted_s < MIN_COMMIT_S:
            return ()
        self._uncommitted_s = 0.0
        self._commits.append(self._turn)
        return [_COMMIT]

    def end_turn(self) -> Sequence[bytes]:
        """Return the message that commits what is left of the turn, and begin the next."""
        messages = self.settle()
        self._turn += 1
        self._texts.clear()
        self._final.clear()
        return messages

    def keep_alive(self) -> Sequence[bytes]:
        """Return nothing: the service keeps quiet connections open."""
        return ()

    def closing(self) -> Sequence[bytes]:
        """Return nothing: the session ends with the connection."""
        return ()

    def decode_event(self, event: JsonObject) -> Sequence[RecognitionEvent | RecognitionFailed]:
        """Return what an event means."""
        kind = optional_str(event, "type") or ""
        match kind.removeprefix(_TRANSCRIPTION):
            case "input_audio_buffer.committed":
                item_id = str_field(event, "item_id")
                while len(self._turns) >= MAX_ITEMS:
                    self._turns.pop(next(iter(self._turns)))
                turn = self._commits.popleft() if self._commits else self._turn
                self._turns[item_id] = turn
                return ()
            case "delta":
                return self._update(event, optional_str(event, "delta") or "", final=False)
            case "completed":
                return self._update(event, optional_str(event, "transcript") or "", final=True)
            case "failed":
                error = self._error(object_field(event, "error"))
                return [*self._update(event, "", final=True), RecognitionFailed(error, benign=True)]
            case "error":
                details = object_field(event, "error")
                benign = optional_str(details, "code") in _BENIGN
                return [RecognitionFailed(self._error(details), benign=benign)]
            case _:
                known = kind.startswith(("session.", "input_audio_buffer.", "conversation.item."))
                self.unknown += not known
                return ()

    def _update(self, event: JsonObject, text: str, *, final: bool) -> Sequence[RecognitionEvent]:
        item_id = str_field(event, "item_id")
        turn = self._turns.get(item_id, self._turn)
        if turn != self._turn:
            return [TurnUpdated(turn, text, final=True)] if final and text else ()
        if final:
            self._final.add(item_id)
            self._texts[item_id] = text
        else:
            self._texts[item_id] = self._texts.get(item_id, "") + text
        whole = join_transcripts([*self._texts.values()])
        settled = final and self._final >= self._texts.keys() and not self._commits
        return [TurnUpdated(turn, whole, final=settled)]

    def _error(self, details: JsonObject) -> SessionError:
        code = optional_str(details, "code") or optional_str(details, "type") or ""
        return self._make_error(code, optional_str(details, "message") or "")
