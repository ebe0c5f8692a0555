"""What the server hears of the person: speech, turns and their words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
"""Turns whose words are still coming, and places of silence; the oldest is forgotten beyond it."""


class InputTurns:
    """Turns of the person; ``rate`` is Hz of their sound.

    ``placed``: the server's times count the sound that was sent, so they are places in it. That is
    not so over WebRTC, where the network decides what arrives.
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
        self._transcripts: dict[str, str] = {}
        self._stop_positions: dict[str, int] = {}
        self._samples_sent = 0
        self._silent_items: dict[str, None] = {}
        self._inserted_silence: list[tuple[int, int]] = []
        self.has_audio = False
        """Some sound was sent of the turn that has not ended yet."""
        self.turn_detection: Json = None
        """How the server finds turns, as it told; None when it does not."""
        self.auto_replies = False
        """The server replies to a turn by itself."""

    def configure(self, session: Mapping[str, Json]) -> None:
        """Take from a session object whether the server replies by itself."""
        audio = session.get("audio")
        heard = audio.get("input") if isinstance(audio, dict) else None
        for found in (session, heard):
            if not isinstance(found, Mapping) or "turn_detection" not in found:
                continue
            detection = found["turn_detection"]
            self.turn_detection = detection
            on = isinstance(detection, dict)
            self.auto_replies = on and detection.get("create_response") is not False  # type: ignore[union-attr]

    @property
    def auto_interrupts(self) -> bool:
        """The server stops its response when it hears the person."""
        detection = self.turn_detection
        return isinstance(detection, dict) and detection.get("interrupt_response") is not False

    def count_audio(self, samples: int) -> None:
        """So much more sound is on its way to the server."""
        self._samples_sent += samples
        self.has_audio = True

    def insert_silence(self, samples: int) -> None:
        """So much silence as well, which the person's sound does not have."""
        self._inserted_silence.append((self._samples_sent, samples))
        if len(self._inserted_silence) > _MAX_TURNS:
            # Nobody is told of places that lie so far back.
            (at, first), (_, second) = self._inserted_silence[:2]
            self._inserted_silence[:2] = [(at, first + second)]
        self.count_audio(samples)

    def speech_started(self, event: JsonObject) -> Sequence[Output]:
        """``input_audio_buffer.speech_started``."""
        return [
            SpeechStarted(
                str_field(event, "item_id"), None, self._position(event, "audio_start_ms")
            )
        ]

    def speech_stopped(self, event: JsonObject) -> Sequence[Output]:
        """``input_audio_buffer.speech_stopped``."""
        item_id = str_field(event, "item_id")
        place = self._position(event, "audio_end_ms")
        if place is not None:
            self._stop_positions[item_id] = place
            _drop_oldest(self._stop_positions)
        return [SpeechStopped(item_id, None, place)]

    def idle_timed_out(self, event: JsonObject) -> Sequence[Output]:
        """``input_audio_buffer.timeout_triggered``: that item is silence, which is answered."""
        self._silent_items[str_field(event, "item_id")] = None
        _drop_oldest(self._silent_items)
        return []

    def turn_committed(self, event: JsonObject) -> Sequence[Output]:
        """``input_audio_buffer.committed``."""
        item_id = str_field(event, "item_id")
        if self.turn_detection is not None:
            self.has_audio = False
        place = self._stop_positions.pop(item_id, None)
        # What the end of a turn includes, by OpenAI's reference of `speech_stopped`.
        known = self.turn_detection if isinstance(self.turn_detection, dict) else {}
        ms = int_field(known, "silence_duration_ms")
        silence_s = None if ms is None else ms / 1000
        # Nobody has spoken in it: it had no beginning, and no words will come of it.
        empty = item_id in self._silent_items
        self._silent_items.pop(item_id, None)
        return [UserTurnEnded(item_id, None, self.auto_replies, empty, place, silence_s)]

    def transcript_delta(self, event: JsonObject) -> Sequence[Output]:
        """``...input_audio_transcription.delta``: the next words, or all so far (``text``)."""
        item_id = str_field(event, "item_id")
        delta = optional_str(event, "delta")
        if delta is not None:
            so_far = self._transcripts.get(item_id, "") + delta
        else:
            so_far = str_field(event, "text") + (optional_str(event, "stash") or "")
        self._transcripts[item_id] = so_far
        _drop_oldest(self._transcripts)
        return [UserTranscript(item_id, so_far, final=False)]

    def transcript_completed(self, event: JsonObject) -> Sequence[Output]:
        """``...input_audio_transcription.completed``."""
        item_id = str_field(event, "item_id")
        self._transcripts.pop(item_id, None)
        return [UserTranscript(item_id, str_field(event, "transcript").strip(), final=True)]

    def transcription_failed(self, event: JsonObject) -> Sequence[Output]:
        """``...input_audio_transcription.failed``: there will be no words."""
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


def _drop_oldest[T](entries: dict[str, T]) -> None:
    if len(entries) > _MAX_TURNS:
        del entries[next(iter(entries))]
