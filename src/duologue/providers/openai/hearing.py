"""What the server hears of the person: speech, turns and their words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from duologue.items import Json
from duologue.providers.fields import inner, some_text, text, whole
from duologue.realtime.errors import ErrorKind
from duologue.realtime.outputs import (
    Output,
    ProviderError,
    SpeechStarted,
    SpeechStopped,
    UserTranscript,
    UserTurnEnded,
)

type JsonObject = dict[str, Json]

_MOST_OPEN = 64
"""Turns whose words are still coming, and places of silence; the oldest is forgotten beyond it."""


class Hearing:
    """Turns of the person; ``rate`` is Hz of their sound.

    ``placed``: the server's times count the sound that was sent, so they are places in it. That is
    not so over WebRTC, where the network decides what arrives.
    """

    __slots__ = (
        "_inserted",
        "_placed",
        "_rate",
        "_sent",
        "_silent",
        "_stops",
        "_words",
        "detection",
        "has_sound",
        "replies",
    )

    def __init__(self, rate: int, *, placed: bool) -> None:
        self._rate = rate
        self._placed = placed
        self._words: dict[str, str] = {}
        self._stops: dict[str, int] = {}
        self._sent = 0
        self._silent: dict[str, None] = {}
        self._inserted: list[tuple[int, int]] = []
        self.has_sound = False
        """Some sound was sent of the turn that has not ended yet."""
        self.detection: Json = None
        """How the server finds turns, as it told; None when it does not."""
        self.replies = False
        """The server replies to a turn by itself."""

    def configure(self, session: Mapping[str, Json]) -> None:
        """Take from a session object whether the server replies by itself."""
        audio = session.get("audio")
        heard = audio.get("input") if isinstance(audio, dict) else None
        for found in (session, heard):
            if not isinstance(found, Mapping) or "turn_detection" not in found:
                continue
            detection = found["turn_detection"]
            self.detection = detection
            on = isinstance(detection, dict)
            self.replies = on and detection.get("create_response") is not False  # type: ignore[union-attr]

    @property
    def interrupts(self) -> bool:
        """The server stops its response when it hears the person."""
        detection = self.detection
        return isinstance(detection, dict) and detection.get("interrupt_response") is not False

    def sent(self, samples: int) -> None:
        """So much more sound is on its way to the server."""
        self._sent += samples
        self.has_sound = True

    def insert(self, samples: int) -> None:
        """So much silence as well, which the person's sound does not have."""
        self._inserted.append((self._sent, samples))
        if len(self._inserted) > _MOST_OPEN:
            # Nobody is told of places that lie so far back.
            (at, first), (_, second) = self._inserted[:2]
            self._inserted[:2] = [(at, first + second)]
        self.sent(samples)

    def started(self, event: JsonObject) -> Sequence[Output]:
        """``input_audio_buffer.speech_started``."""
        return [SpeechStarted(text(event, "item_id"), None, self._place(event, "audio_start_ms"))]

    def stopped(self, event: JsonObject) -> Sequence[Output]:
        """``input_audio_buffer.speech_stopped``."""
        item_id = text(event, "item_id")
        place = self._place(event, "audio_end_ms")
        if place is not None:
            self._stops[item_id] = place
            _bound(self._stops)
        return [SpeechStopped(item_id, None, place)]

    def timed_out(self, event: JsonObject) -> Sequence[Output]:
        """``input_audio_buffer.timeout_triggered``: that item is silence, which is answered."""
        self._silent[text(event, "item_id")] = None
        _bound(self._silent)
        return []

    def committed(self, event: JsonObject) -> Sequence[Output]:
        """``input_audio_buffer.committed``."""
        item_id = text(event, "item_id")
        if self.detection is not None:
            self.has_sound = False
        place = self._stops.pop(item_id, None)
        # What the end of a turn includes, by OpenAI's reference of `speech_stopped`.
        known = self.detection if isinstance(self.detection, dict) else {}
        ms = whole(known, "silence_duration_ms")
        silence_s = None if ms is None else ms / 1000
        # Nobody has spoken in it: it had no beginning, and no words will come of it.
        empty = item_id in self._silent
        self._silent.pop(item_id, None)
        return [UserTurnEnded(item_id, None, self.replies, empty, place, silence_s)]

    def words(self, event: JsonObject) -> Sequence[Output]:
        """``...input_audio_transcription.delta``: the next words, or all so far (``text``)."""
        item_id = text(event, "item_id")
        delta = some_text(event, "delta")
        if delta is not None:
            so_far = self._words.get(item_id, "") + delta
        else:
            so_far = text(event, "text") + (some_text(event, "stash") or "")
        self._words[item_id] = so_far
        _bound(self._words)
        return [UserTranscript(item_id, so_far, final=False)]

    def worded(self, event: JsonObject) -> Sequence[Output]:
        """``...input_audio_transcription.completed``."""
        item_id = text(event, "item_id")
        self._words.pop(item_id, None)
        return [UserTranscript(item_id, text(event, "transcript").strip(), final=True)]

    def failed(self, event: JsonObject) -> Sequence[Output]:
        """``...input_audio_transcription.failed``: there will be no words."""
        item_id = text(event, "item_id")
        self._words.pop(item_id, None)
        error = inner(event, "error")
        code = some_text(error, "code") or some_text(error, "type") or "transcription_failed"
        message = some_text(error, "message") or "what the person said could not be transcribed"
        return [
            UserTranscript(item_id, "", final=True),
            ProviderError(ErrorKind.RETRY, code, message),
        ]

    def _place(self, event: JsonObject, key: str) -> int | None:
        ms = whole(event, key)
        if not self._placed or ms is None:
            return None
        place = ms * self._rate // 1000
        return place - sum(min(n, place - at) for at, n in self._inserted if at < place)


def _bound[T](entries: dict[str, T]) -> None:
    if len(entries) > _MOST_OPEN:
        del entries[next(iter(entries))]
