"""A realtime transcription session, as the service behaves: audio in, transcripts out, no model.

It is what ``/v1/realtime?intent=transcription`` opens, without a model in the address. Transcripts
come item by item. The client commits them; with ``gpt-transcribe`` and the like, the turn detection
may do that: then silence of ``silence_duration_ms`` does under ``server_vad``, and under
``semantic_vad`` a silence whose length follows from the eagerness. The simulator ignores the other
fields of both.
"""

from __future__ import annotations

import re
import time
from uuid import uuid4

import pybase64
from pydantic import TypeAdapter

from duologue.clock import Clock, Timer
from duologue.json_types import Json, JsonObject
from duologue.simulators import faults
from duologue.simulators._channel import EventChannel
from duologue.simulators._fields import int_at, new_id, text_at, value_at
from duologue.simulators._json_shapes import Shape
from duologue.simulators._openai_protocol.refusals import RefusedError, check_object, missing
from duologue.simulators._openai_protocol.schema import RATE, SemanticVad, ServerVad
from duologue.simulators._openai_protocol.session_object import EAGERNESS_MS
from duologue.simulators._speech.recognition import ENDLESS_S, RecognizerSession
from duologue.simulators._speech.recognizers import Recognizer
from duologue.simulators._speech.turns import AudioTurns, TurnBegan, TurnDone, TurnGrew, TurnSignal

MIN_COMMIT_S = 0.1
"""Seconds of audio below which a commit is refused."""
MAX_DURATION_REASON = "Your session hit the maximum duration of 60 minutes."
_STREAMING = ("gpt-live-transcribe", "gpt-realtime-whisper")
"""Models that transcribe while the person speaks, and take no turn detection."""
_SERVER_VAD: Shape = TypeAdapter(ServerVad)
_SEMANTIC_VAD: Shape = TypeAdapter(SemanticVad)
_DEFAULT_VAD: JsonObject = {
    "type": "server_vad",
    "threshold": 0.5,
    "prefix_padding_ms": 300,
    "silence_duration_ms": 500,
}
_DEFAULT_SEMANTIC_VAD: JsonObject = {"type": "semantic_vad", "eagerness": "auto"}
_DETECTION_PATH = "session.audio.input.turn_detection"
_PIECES = re.compile(r"\S+\s*|\s+")
_TRANSCRIPTION = "conversation.item.input_audio_transcription"


class TranscriptionSession(RecognizerSession):
    """One transcription session. Public attributes are for tests to inspect.

    Args:
        channel: Carries the events to the client.
        clock: Tells the time.
        recognizer: Makes the transcripts.
        max_session_s: Seconds after which the session ends.

    Attributes:
        session_object: The session object as the client sees it.
        commits: How often audio was committed.
    """

    def __init__(
        self,
        channel: EventChannel,
        clock: Clock,
        recognizer: Recognizer,
        *,
        max_session_s: float,
    ) -> None:
        super().__init__(
            channel, clock, recognizer, AudioTurns(RATE, eager_s=None, end_s=ENDLESS_S)
        )
        self._max_session_s = max_session_s
        self._timer: Timer | None = None
        self._uncommitted = 0
        """Samples since the last commit."""
        self._item_id = new_id("item")
        """The item that the next commit makes."""
        self._previous_id: str | None = None
        self._sent_text = ""
        """The transcript of the item as far as deltas have carried it."""
        self.commits = 0
        self.session_object: JsonObject = {
            "type": "transcription",
            "object": "realtime.transcription_session",
            "id": f"sess_{uuid4().hex[:24]}",
            "expires_at": int(time.time() + max_session_s),
            "audio": {
                "input": {
                    "format": {"type": "audio/pcm", "rate": RATE},
                    "transcription": None,
                    "noise_reduction": None,
                    "turn_detection": None,
                }
            },
            "include": None,
        }

    @property
    def events_in(self) -> list[JsonObject]:
        """The client's events, oldest first, as those of a session that speaks."""
        return self.received

    @property
    def _model(self) -> str:
        return text_at(value_at(self.session_object, "audio", "input", "transcription"), "model")

    @property
    def _detects(self) -> bool:
        """Whether the end of a turn is detected."""
        return value_at(self.session_object, "audio", "input", "turn_detection") is not None

    async def begin(self) -> None:
        """Send ``session.created``."""
        when = self._clock.now() + self._max_session_s
        self._timer = self._clock.call_at(when, self._expire)
        self._emit("session.created", {"session": self.session_object})

    def close(self) -> None:
        """End the session."""
        super().close()
        if self._timer is not None:
            self._timer.cancel()

    def inject_error(self, error: faults.Error) -> None:
        """Send an error event that nothing has caused."""
        self._refuse(RefusedError(error.code, error.message, kind="server_error"))

    def plain_text(self, text: str) -> None:
        """Refuse a text that is no JSON object."""
        self._refuse(RefusedError("invalid_json", "The event is not a JSON object."))

    def message(self, event: JsonObject) -> None:
        """Process an event of the client."""
        try:
            self._handle_event(text_at(event, "type"), event)
        except RefusedError as refusal:
            self._refuse(refusal, text_at(event, "event_id") or None)

    async def _handle(self, signal: TurnSignal) -> None:
        if isinstance(signal, TurnDone) and not signal.forced:
            # Told before the transcript is made, which takes time.
            self.commits += 1
            ended: JsonObject = {
                "audio_end_ms": round(signal.at * 1000),
                "item_id": self._item_id,
            }
            self._emit("input_audio_buffer.speech_stopped", ended)
            await self._tell_committed()
        await super()._handle(signal)

    def turn_signal(self, signal: TurnSignal, text: str) -> None:
        """Tell the client of what was recognised."""
        match signal:
            case TurnGrew() if self._model in _STREAMING:
                self._tell(self._item_id, text)
            case TurnBegan(at=at) if self._detects:
                fields: JsonObject = {"audio_start_ms": round(at * 1000), "item_id": self._item_id}
                self._emit("input_audio_buffer.speech_started", fields)
            case TurnBegan() | TurnGrew():
                pass  # Nothing is told before the commit.
            case TurnDone(samples=samples):
                self._complete(text, len(samples))
            case _:
                pass  # The detector tells nothing else.

    def _handle_event(self, kind: str, event: JsonObject) -> None:
        match kind:
            case "session.update":
                self._update(event.get("session"))
            case "input_audio_buffer.append":
                self.received.pop()  # Audio is not kept.
                self._append(event.get("audio"))
            case "input_audio_buffer.commit":
                self._commit()
            case "input_audio_buffer.clear":
                self._uncommitted = 0
                self._detector.end()
                self._emit("input_audio_buffer.cleared", {})
            case "":
                raise missing("type")
            case _:
                raise RefusedError(
                    "invalid_value",
                    f"Invalid value: '{kind}'. It is not supported in transcription sessions.",
                    "type",
                )

    def _update(self, change: Json) -> None:
        if not isinstance(change, dict) or change.get("type") != "transcription":
            raise RefusedError(
                "invalid_value", "session.type must be 'transcription' here.", "session.type"
            )
        given = value_at(change, "audio", "input")
        given = given if isinstance(given, dict) else {}
        audio_format = given.get("format")
        if audio_format is not None and audio_format != {"type": "audio/pcm", "rate": RATE}:
            raise RefusedError(
                "invalid_value",
                f"Only audio/pcm at {RATE} Hz is supported by the simulator.",
                "session.audio.input.format",
            )
        before = value_at(self.session_object, "audio", "input")
        merged = {**(before if isinstance(before, dict) else {}), **given}
        model = text_at(merged.get("transcription"), "model")
        if given.get("transcription") is not None and not model:
            raise missing("session.audio.input.transcription.model")
        detection = _checked_detection(merged.get("turn_detection"), model)
        merged["turn_detection"] = detection
        self._detector.set_end(_silence_s(detection))
        include = change.get("include", self.session_object["include"])
        self.session_object = {
            **self.session_object,
            "audio": {"input": merged},
            "include": include,
        }
        self._emit("session.updated", {"session": self.session_object})

    def _append(self, audio: Json) -> None:
        if not isinstance(audio, str):
            raise missing("audio")
        try:
            data = pybase64.b64decode(audio, validate=True)
        except ValueError:
            raise RefusedError("invalid_value", "audio must be base64.", "audio") from None
        self._uncommitted += len(data) // 2
        done = self._detector.turns_done
        self.binary(data)
        if self._detector.turns_done > done:
            self._uncommitted = 0  # The turn detection commits.

    def _commit(self) -> None:
        seconds = self._uncommitted / RATE
        if seconds < MIN_COMMIT_S:
            raise RefusedError(
                "input_audio_buffer_commit_empty",
                "Error committing input audio buffer: buffer too small. Expected at least "
                f"{MIN_COMMIT_S * 1000:.0f}ms of audio, but buffer only has "
                f"{seconds * 1000:.2f}ms of audio.",
            )
        self.commits += 1
        samples, self._uncommitted = self._uncommitted, 0
        self.do(self._tell_committed())
        if not self.end_turn():
            self.do(self._complete_nothing(samples))

    async def _tell_committed(self) -> None:
        fields: JsonObject = {"item_id": self._item_id, "previous_item_id": self._previous_id}
        self._emit("input_audio_buffer.committed", fields)

    async def _complete_nothing(self, samples: int) -> None:
        self._complete("", samples)

    def _complete(self, text: str, samples: int) -> None:
        """Send the transcript of the item that was committed, and begin the next."""
        item_id = self._item_id
        self._tell(item_id, text)
        self._emit(
            f"{_TRANSCRIPTION}.completed",
            {
                "item_id": item_id,
                "content_index": 0,
                "transcript": text,
                "usage": {"type": "duration", "seconds": round(samples / RATE, 2)},
            },
        )
        self._previous_id, self._item_id, self._sent_text = item_id, new_id("item"), ""

    def _tell(self, item_id: str, text: str) -> None:
        """Send deltas of what is new in a transcript."""
        if not text.startswith(self._sent_text):
            return
        for piece in _PIECES.findall(text[len(self._sent_text) :]):
            fields: JsonObject = {"item_id": item_id, "content_index": 0, "delta": piece}
            self._emit(f"{_TRANSCRIPTION}.delta", fields)
        self._sent_text = text

    def _expire(self) -> None:
        self._channel.close(1001, MAX_DURATION_REASON)

    def _refuse(self, refusal: RefusedError, event_id: str | None = None) -> None:
        error: JsonObject = {
            "type": refusal.kind,
            "code": refusal.code,
            "message": str(refusal),
            "param": refusal.param,
            "event_id": event_id,
        }
        self._emit("error", {"error": error})

    def _emit(self, kind: str, fields: JsonObject) -> None:
        self.send(kind, {"type": kind, "event_id": new_id("event"), **fields})


def _checked_detection(given: Json, model: str) -> Json:
    """Return a turn detection with all its fields.

    Raises:
        RefusedError: It is wrong, or the model does not have it.
    """
    if given is None:
        return None
    if model in _STREAMING:
        words = f"turn_detection must be null with {model}."
        raise RefusedError("invalid_value", words, _DETECTION_PATH)
    if text_at(given, "type") == "semantic_vad":
        return {**_DEFAULT_SEMANTIC_VAD, **check_object(_SEMANTIC_VAD, given, _DETECTION_PATH)}
    return {**_DEFAULT_VAD, **check_object(_SERVER_VAD, given, _DETECTION_PATH)}


def _silence_s(detection: Json) -> float:
    """Return the seconds of silence after which a turn detection commits."""
    if detection is None:
        return ENDLESS_S
    if text_at(detection, "type") == "semantic_vad":
        return EAGERNESS_MS[text_at(detection, "eagerness")] / 1000
    return int_at(detection, "silence_duration_ms") / 1000
