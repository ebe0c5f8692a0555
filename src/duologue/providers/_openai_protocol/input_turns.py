"""User turns as the server detects them: speech, turn ends and transcripts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from duologue._bounded_dict import BoundedDict
from duologue.errors import ErrorKind
from duologue.json_types import Json, JsonObject
from duologue.providers._json_fields import int_field, object_field, optional_str, str_field
from duologue.realtime.outputs import (
    Output,
    ProviderError,
    SpeechStarted,
    SpeechStopped,
    UserTranscript,
    UserTurnEnded,
)

_MAX_TURNS = 64
"""Maximum number of open transcripts and inserted silences; the oldest is dropped beyond it."""


class InputTurns:
    """Tracks user turns; ``rate`` is the input rate in Hz.

    ``has_positions``: the server's times count the audio that was sent, so they are positions in
    it. Over WebRTC they are not, because the network decides what arrives.
    """

    __slots__ = (
        "_has_positions",
        "_inserted_silence",
        "_rate",
        "_samples_sent",
        "_silent_items",
        "_stop_positions",
        "_transcripts",
        "auto_replies",
        "has_audio",
        "turn_detection",
    )

    def __init__(self, rate: int, *, has_positions: bool) -> None:
        self._rate = rate
        self._has_positions = has_positions
        self._transcripts: BoundedDict[str, str] = BoundedDict(_MAX_TURNS)
        self._stop_positions: BoundedDict[str, int] = BoundedDict(_MAX_TURNS)
        self._samples_sent = 0
        self._silent_items: BoundedDict[str, None] = BoundedDict(_MAX_TURNS)
        self._inserted_silence: list[tuple[int, int]] = []
        self.has_audio = False
        """Whether audio was sent in the current turn."""
        self.turn_detection: Json = None
        """The turn detection that the server reported; None without one."""
        self.auto_replies = False
        """Whether the server replies to a turn by itself."""

    def configure(self, session: Mapping[str, Json]) -> None:
        """Read the turn detection from a session object."""
        audio = session.get("audio")
        audio_input = audio.get("input") if isinstance(audio, dict) else None
        for part in (session, audio_input):
            if not isinstance(part, Mapping) or "turn_detection" not in part:
                continue
            detection = part["turn_detection"]
            self.turn_detection = detection
            on = isinstance(detection, dict)
            self.auto_replies = on and detection.get("create_response") is not False  # type: ignore[union-attr]

    @property
    def auto_interrupts(self) -> bool:
        """Whether the server stops its response when it detects speech."""
        detection = self.turn_detection
        return isinstance(detection, dict) and detection.get("interrupt_response") is not False

    def count_audio(self, samples: int) -> None:
        """Count ``samples`` of audio that are being sent."""
        self._samples_sent += samples
        self.has_audio = True

    def insert_silence(self, samples: int) -> None:
        """Count ``samples`` of silence that are sent but are not part of the input audio."""
        self._inserted_silence.append((self._samples_sent, samples))
        if len(self._inserted_silence) > _MAX_TURNS:
            # Positions that lie so far back are not reported any more.
            (at, first), (_, second) = self._inserted_silence[:2]
            self._inserted_silence[:2] = [(at, first + second)]
        self.count_audio(samples)

    def speech_started(self, event: JsonObject) -> Sequence[Output]:
        """Handle ``input_audio_buffer.speech_started``."""
        return [
            SpeechStarted(
                str_field(event, "item_id"), None, self._position(event, "audio_start_ms")
            )
        ]

    def speech_stopped(self, event: JsonObject) -> Sequence[Output]:
        """Handle ``input_audio_buffer.speech_stopped``."""
        item_id = str_field(event, "item_id")
        place = self._position(event, "audio_end_ms")
        if place is not None:
            self._stop_positions[item_id] = place
        return [SpeechStopped(item_id, None, place)]

    def idle_timed_out(self, event: JsonObject) -> Sequence[Output]:
        """Handle ``input_audio_buffer.timeout_triggered``: a silent item gets a reply."""
        self._silent_items[str_field(event, "item_id")] = None
        return []

    def turn_committed(self, event: JsonObject) -> Sequence[Output]:
        """Handle ``input_audio_buffer.committed``."""
        item_id = str_field(event, "item_id")
        if self.turn_detection is not None:
            self.has_audio = False
        place = self._stop_positions.pop(item_id, None)
        # The end of a turn includes this silence, by OpenAI's reference of `speech_stopped`.
        known = self.turn_detection if isinstance(self.turn_detection, dict) else {}
        ms = int_field(known, "silence_duration_ms")
        silence_s = None if ms is None else ms / 1000
        # A silent item had no speech start, and will have no transcript.
        empty = item_id in self._silent_items
        self._silent_items.pop(item_id, None)
        return [UserTurnEnded(item_id, None, self.auto_replies, empty, place, silence_s)]

    def transcript_delta(self, event: JsonObject) -> Sequence[Output]:
        """Handle ``...input_audio_transcription.delta``: new words, or all so far (``text``)."""
        item_id = str_field(event, "item_id")
        delta = optional_str(event, "delta")
        if delta is not None:
            so_far = self._transcripts.get(item_id, "") + delta
        else:
            so_far = str_field(event, "text") + (optional_str(event, "stash") or "")
        self._transcripts[item_id] = so_far
        return [UserTranscript(item_id, so_far, final=False)]

    def transcript_completed(self, event: JsonObject) -> Sequence[Output]:
        """Handle ``...input_audio_transcription.completed``."""
        item_id = str_field(event, "item_id")
        self._transcripts.pop(item_id, None)
        return [UserTranscript(item_id, str_field(event, "transcript").strip(), final=True)]

    def transcription_failed(self, event: JsonObject) -> Sequence[Output]:
        """Handle ``...input_audio_transcription.failed``: there will be no transcript."""
        item_id = str_field(event, "item_id")
        self._transcripts.pop(item_id, None)
        error = object_field(event, "error")
        code = optional_str(error, "code") or optional_str(error, "type") or "transcription_failed"
        message = optional_str(error, "message") or "what the person said could not be transcribed"
        return [
            UserTranscript(item_id, "", final=True),
            ProviderError(ErrorKind.RETRY, code, message),
        ]

    def _position(self, event: JsonObject, key: str) -> int | None:
        ms = int_field(event, key)
        if not self._has_positions or ms is None:
            return None
        place = ms * self._rate // 1000
        return place - sum(min(n, place - at) for at, n in self._inserted_silence if at < place)
