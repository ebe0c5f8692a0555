"""ElevenLabs' realtime STT, Scribe v2, with commits of our own (sans-IO).

The transcript of a turn is what was committed of it, and what the service has recognised since. A
commit is answered by its transcript, in order; the turn that it belongs to is the one in which it
was made.
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
from duologue.providers._json_text import encode_object
from duologue.providers._speech_json import JsonDecoder, base64_text, join_transcripts, timed_words

MIN_COMMIT_S = 0.3
"""Seconds of audio since the last commit below which the service refuses another."""
MAX_COMMITS = 64
"""Commits whose transcripts are awaited at once."""

_BENIGN = frozenset({"commit_throttled", "insufficient_audio_activity"})
"""Errors after which the session continues."""
_ERRORS = frozenset(
    {
        "error",
        "auth_error",
        "quota_exceeded",
        "commit_throttled",
        "unaccepted_terms",
        "rate_limited",
        "queue_overflow",
        "resource_exhausted",
        "session_time_limit_exceeded",
        "input_error",
        "invalid_request",
        "chunk_size_exceeded",
        "insufficient_audio_activity",
        "transcriber_error",
    }
)
_SILENT = frozenset(
    {
        "session_started",
        "committed_transcript",  # The same comes again, with its words.
        "committed_transcript_entities",
        "diarized_transcript",
        "speakers_merged",
        "redacted_transcript",
        "edited_transcript",
        "warning",
    }
)


class ScribeCodec(JsonDecoder[RecognitionEvent | RecognitionFailed]):
    """One connection of Scribe.

    Args:
        rate: Hz of the audio.
        make_error: Makes the error for a code and message of the service.
    """

    def __init__(self, rate: int, make_error: Callable[[str, str], SessionError]) -> None:
        super().__init__()
        self._rate = rate
        self._make_error = make_error
        self._turn = 0
        self._committed: list[str] = []
        """Transcripts of the turn that are final."""
        self._words: list[TimedWord] = []
        self._commits: deque[int] = deque(maxlen=MAX_COMMITS)
        """The turns of the commits that have no transcript yet."""
        self._uncommitted_s = 0.0

    def open(self) -> Sequence[bytes]:
        """Return nothing: everything is in the address."""
        return ()

    def audio(self, samples: Samples) -> Sequence[bytes]:
        """Return the message that carries audio."""
        self._uncommitted_s += len(samples) / self._rate
        return [self._chunk(base64_text(samples), commit=False)]

    def settle(self) -> Sequence[bytes]:
        """Return the message that commits the audio so far, if there is enough of it."""
        if self._uncommitted_s < MIN_COMMIT_S:
            return ()
        self._uncommitted_s = 0.0
        self._commits.append(self._turn)
        return [self._chunk("", commit=True)]

    def end_turn(self) -> Sequence[bytes]:
        """Return the message that commits what is left of the turn, and begin the next."""
        messages = self.settle()
        self._turn += 1
        self._committed.clear()
        self._words.clear()
        return messages

    def keep_alive(self) -> Sequence[bytes]:
        """Return nothing: silence keeps the connection open."""
        return ()

    def closing(self) -> Sequence[bytes]:
        """Return nothing: the session ends with the connection."""
        return ()

    def decode_event(self, event: JsonObject) -> Sequence[RecognitionEvent | RecognitionFailed]:
        """Return what an event means."""
        kind = optional_str(event, "message_type") or ""
        match kind:
            case "partial_transcript":
                text = optional_str(event, "text") or ""
                return [TurnUpdated(self._turn, self._joined(text))] if text else ()
            case "committed_transcript_with_timestamps":
                return self._take_commit(event)
            case _ if kind in _ERRORS:
                words = optional_str(event, "error") or kind
                error = self._make_error(kind, words)
                return [RecognitionFailed(error, benign=kind in _BENIGN)]
            case _:
                self.unknown += kind not in _SILENT
                return ()

    def _take_commit(self, event: JsonObject) -> Sequence[RecognitionEvent]:
        turn = self._commits.popleft() if self._commits else self._turn
        text = (optional_str(event, "text") or "").strip()
        if turn != self._turn:
            return [TurnUpdated(turn, text, final=True)] if text else ()
        if text:
            self._committed.append(text)
        rows = [row for row in object_list(event, "words") if row.get("type") == "word"]
        self._words += timed_words(rows, "text")
        return [TurnUpdated(turn, self._joined(""), final=True, words=tuple(self._words))]

    def _joined(self, partial: str) -> str:
        return join_transcripts((*self._committed, partial))

    def _chunk(self, audio: str, *, commit: bool) -> bytes:
        return encode_object(
            {
                "message_type": "input_audio_chunk",
                "audio_base_64": audio,
                "commit": commit,
                "sample_rate": self._rate,
            }
        )
