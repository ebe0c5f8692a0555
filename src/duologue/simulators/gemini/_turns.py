"""The user's side of a session: audio and text, and the turns that they make."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from duologue.audio import Samples
from duologue.clock import Clock, Timer
from duologue.items import UserItem
from duologue.json_types import JsonObject
from duologue.simulators._bounded_log import BoundedLog
from duologue.simulators._fields import new_id
from duologue.simulators._turn_detector import DetectedTurn, TurnDetector, TurnTooShortError
from duologue.simulators.gemini._conversation import Cost, Entry, audio_tokens, text_tokens
from duologue.simulators.gemini._json_shapes import RefusedError
from duologue.simulators.gemini._replies import Replies
from duologue.simulators.gemini._reply import Emit, content_message
from duologue.simulators.gemini._schema import IN_RATE
from duologue.simulators.gemini._setup import INVALID_ARGUMENT, Setup

MAX_USER_TURNS = 1000
"""Number of newest turns of a session that are kept for inspection."""
MAX_USER_TURN_SAMPLES = 1800 * IN_RATE
"""Samples of their audio, if it is kept: half an hour; beyond it the oldest are dropped."""

EXPLICIT_ACTIVITY = (
    "Explicit activity control is not supported when automatic activity detection is enabled."
)


@dataclass(frozen=True, slots=True, eq=False)
class UserTurn:
    """A user turn: its place in the session's audio, in samples at 16 kHz, and its audio.

    ``samples`` is int16, and empty unless the simulator has the option ``keep_audio``.
    """

    start: int
    end: int
    samples: Samples


class UserTurns:
    """Detects user turns, or takes them from the client, and requests a reply to each."""

    def __init__(
        self,
        replies: Replies,
        emit: Emit,
        clock: Clock,
        *,
        transcription_delay: float,
        keep_audio: bool,
    ) -> None:
        self.setup = Setup({})
        self._replies = replies
        self._backend_session = replies.backend_session
        self._emit = emit
        self._clock = clock
        self._transcription_delay = transcription_delay
        self._keep_audio = keep_audio
        self._timers: set[Timer] = set()
        self._entries: dict[str, Entry] = {}
        self._activity_open = False
        self._has_input = False
        self._images = 0
        self.detector = TurnDetector(self, rate=IN_RATE)
        self.recorded: BoundedLog[UserTurn] = BoundedLog(MAX_USER_TURNS, MAX_USER_TURN_SAMPLES)

    @property
    def newest(self) -> list[UserTurn]:
        """The newest user turns."""
        return self.recorded.entries

    @property
    def speaking(self) -> bool:
        """Whether a user turn has begun and not ended."""
        return self._activity_open or self.detector.speaking

    def configure(self, setup: Setup) -> None:
        """Detect turns as the setup says."""
        self.setup = setup
        detection = setup.detection
        self.detector.configure(
            detection, start_frames=2 if detection is None else detection.start_frames
        )

    def close(self) -> None:
        """Stop detecting, and send no more transcripts."""
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        self._entries.clear()
        self.detector.clear()

    def add_audio(self, samples: Samples) -> None:
        """Accept the next input audio, at 16 kHz."""
        if self._activity_open or not self.setup.manual or self.setup.covers_all:
            self.detector.push(samples)

    def image_received(self) -> None:
        """Count an image as part of the turn."""
        if self.speaking or self.setup.rules.covers_all_video or self.setup.covers_all:
            self._images += 1
            self._has_input = True

    def add_text(self, text: str) -> None:
        """Add text that the user wrote: a turn of its own, or part of the turn that has begun."""
        alone = not self.speaking
        if alone and self.setup.interrupts:
            self._replies.interrupt()
        self._replies.conversation.add("user", [{"text": text}], Cost(text=text_tokens(text)))
        self._backend_session.add_item(UserItem(new_id("item"), text, spoken=False))
        self._has_input = True
        if alone:
            self._replies.request_reply()

    def end_audio_stream(self) -> None:
        """End the open turn, because the microphone is off. Raises `RefusedError`."""
        if self.setup.manual:
            raise RefusedError(INVALID_ARGUMENT)
        if self.detector.speaking:
            self._send_activity("ACTIVITY_END", self.detector.samples_received * 1000 // IN_RATE)
            self._commit()

    def start_activity(self) -> None:
        """Begin a turn, because the client says so. Raises `RefusedError`."""
        if not self.setup.manual:
            raise RefusedError(EXPLICIT_ACTIVITY)
        self._activity_open, self._has_input = True, False
        if self.setup.interrupts:
            self._replies.interrupt()

    def end_activity(self) -> None:
        """End the turn, because the client says so. Raises `RefusedError`."""
        if not self.setup.manual:
            raise RefusedError(EXPLICIT_ACTIVITY)
        if self._activity_open:
            self._activity_open = False
            self._commit()

    def _commit(self) -> None:
        try:
            self.detector.commit()
        except TurnTooShortError:
            if self.detector.clear():
                self._backend_session.discard_turn()
            if self._has_input:
                self._replies.request_reply()
        self._has_input = False

    # TurnSink: called by the turn detector

    def speech_started(self, turn: DetectedTurn, at_ms: int) -> None:
        """Report the start of speech, and interrupt the model if that is configured."""
        self._send_activity("ACTIVITY_START", at_ms)
        if self.setup.interrupts:
            self._replies.interrupt()

    def speech_audio(self, samples: Samples) -> None:
        """Send the audio to the backend."""
        self._backend_session.send_audio(samples)

    def speech_stopped(self, turn: DetectedTurn, at_ms: int) -> None:
        """Report the end of speech."""
        self._send_activity("ACTIVITY_END", at_ms)

    def turn_committed(self, turn: DetectedTurn, *, streamed: bool) -> None:
        """Add the turn to the conversation and request a reply."""
        if not streamed:
            for frame in turn.frames:
                self._backend_session.send_audio(frame)
        samples = turn.samples
        cost = Cost(
            audio=audio_tokens(len(samples), IN_RATE),
            image=self._images * self.setup.image_tokens,
        )
        self._images = 0
        self._entries[turn.item_id] = self._replies.conversation.add("user", [], cost)
        recorded = samples if self._keep_audio else np.zeros(0, np.int16)
        self.recorded.add(UserTurn(turn.start, turn.end, recorded), len(recorded))
        self._backend_session.end_turn(turn.item_id)
        self._replies.request_reply()

    def turn_transcribed(self, item_id: str, text: str) -> None:
        """Record the transcript of a turn, and send it after the configured delay."""
        entry = self._entries.pop(item_id, None)
        if entry is not None and text:
            entry.content["parts"] = [{"text": text}]
        if not self.setup.transcribes_input or not text:
            return

        def tell() -> None:
            self._timers.discard(timer)
            for piece in _pieces(text):
                self._emit(*content_message("inputTranscription", {"text": piece}))

        timer = self._clock.call_at(self._clock.now() + self._transcription_delay, tell)
        self._timers.add(timer)

    def _send_activity(self, kind: str, at_ms: int) -> None:
        if self.setup.vad_signal:
            activity: JsonObject = {
                "voiceActivityType": kind,
                "audioOffset": f"{at_ms / 1000:.3f}s",
            }
            self._emit("voiceActivity", {"voiceActivity": activity})


def _pieces(text: str) -> list[str]:
    """Return the text in pieces of three words, each after a space."""
    words = text.split()
    groups = [" ".join(words[at : at + 3]) for at in range(0, len(words), 3)]
    return [f" {group}" for group in groups]
