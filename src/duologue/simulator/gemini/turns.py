"""The person's side of a session: what is heard and written, and which of it is a turn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from duologue.audio import Samples
from duologue.clock import Clock, Timer
from duologue.items import UserItem
from duologue.simulator.fields import Object, new_id
from duologue.simulator.gemini.answer import Emit, content
from duologue.simulator.gemini.conversation import Cost, Entry, audio_tokens, text_tokens
from duologue.simulator.gemini.replies import Replies
from duologue.simulator.gemini.schema import IN_RATE
from duologue.simulator.gemini.setup import GENERAL, Setup
from duologue.simulator.gemini.shapes import RefusedError
from duologue.simulator.hearing import Hearing, Turn, TurnTooShortError
from duologue.simulator.kept import Kept

MAX_HEARD = 1000
"""Newest turns of a session that are kept for inspection."""
MAX_HEARD_SAMPLES = 1800 * IN_RATE
"""Samples of their audio, if it is kept: half an hour; beyond it the oldest are dropped."""

EXPLICIT = (
    "Explicit activity control is not supported when automatic activity detection is enabled."
)


@dataclass(frozen=True, slots=True, eq=False)
class HeardTurn:
    """A turn: where it lay in the session's sound, in samples at 16 kHz, and its sound.

    ``samples`` is int16, empty unless the simulator was told to ``keep_audio``.
    """

    start: int
    end: int
    samples: Samples


class Turns:
    """Finds the person's turns, by itself or as the client says, and has them answered."""

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
        self._link = replies.link
        self._link.turn_heard = self.turn_heard
        replies.user_speaks = lambda: self.speaking
        self._emit = emit
        self._clock = clock
        self._delay = transcription_delay
        self._keep_audio = keep_audio
        self._timers: set[Timer] = set()
        self._entries: dict[str, Entry] = {}
        self._active = False
        self._input = False
        self._pictures = 0
        self.hearing = Hearing(self, rate=IN_RATE)
        self.kept: Kept[HeardTurn] = Kept(MAX_HEARD, MAX_HEARD_SAMPLES)

    @property
    def heard(self) -> list[HeardTurn]:
        """The newest user turns."""
        return self.kept.entries

    @property
    def speaking(self) -> bool:
        """The person's turn has begun and is not over."""
        return self._active or self.hearing.speaking

    def configure(self, setup: Setup) -> None:
        """Find turns as the setup says."""
        self.setup = setup
        detection = setup.detection
        self.hearing.configure(
            detection, start_frames=2 if detection is None else detection.start_frames
        )

    def close(self) -> None:
        """Nothing happens any more."""
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        self._entries.clear()
        self.hearing.clear()

    def push(self, samples: Samples) -> None:
        """The next sound, at 16 kHz."""
        if self._active or not self.setup.manual or self.setup.covers_all:
            self.hearing.push(samples)

    def picture(self) -> None:
        """The client has sent a picture."""
        if self.speaking or self.setup.rules.all_video or self.setup.covers_all:
            self._pictures += 1
            self._input = True

    def write(self, text: str) -> None:
        """The person writes: a turn of its own, or a part of the one that has begun."""
        alone = not self.speaking
        if alone and self.setup.interrupts:
            self._replies.interrupt()
        self._replies.conversation.add("user", [{"text": text}], Cost(text=text_tokens(text)))
        self._link.add(UserItem(new_id("item"), text, spoken=False))
        self._input = True
        if alone:
            self._replies.want()

    def stream_end(self) -> None:
        """The microphone is off: what was said is a turn. Raises `RefusedError`."""
        if self.setup.manual:
            raise RefusedError(GENERAL)
        if self.hearing.speaking:
            self._signal("ACTIVITY_END", self.hearing.written * 1000 // IN_RATE)
            self._commit()

    def activity_start(self) -> None:
        """The client says that the person speaks. Raises `RefusedError`."""
        if not self.setup.manual:
            raise RefusedError(EXPLICIT)
        self._active, self._input = True, False
        if self.setup.interrupts:
            self._replies.interrupt()

    def activity_end(self) -> None:
        """The client says that the person is done. Raises `RefusedError`."""
        if not self.setup.manual:
            raise RefusedError(EXPLICIT)
        if self._active:
            self._active = False
            self._commit()

    def _commit(self) -> None:
        try:
            self.hearing.commit()
        except TurnTooShortError:
            if self.hearing.clear():
                self._link.forget_turn()
            if self._input:
                self._replies.want()
        self._input = False

    # TurnSink: what the hearing tells

    def speech_started(self, turn: Turn, at_ms: int) -> None:
        """Stop the model, if that is wanted."""
        self._signal("ACTIVITY_START", at_ms)
        if self.setup.interrupts:
            self._replies.interrupt()

    def speech_heard(self, samples: Samples) -> None:
        """Hand it to the brain."""
        self._link.hear(samples)

    def speech_stopped(self, turn: Turn, at_ms: int) -> None:
        """Tell it, if that is wanted."""
        self._signal("ACTIVITY_END", at_ms)

    def turn_committed(self, turn: Turn, *, streamed: bool) -> None:
        """Put it into the conversation, and have it answered."""
        if not streamed:
            for frame in turn.frames:
                self._link.hear(frame)
        samples = turn.samples
        cost = Cost(
            audio=audio_tokens(len(samples), IN_RATE),
            image=self._pictures * self.setup.image_tokens,
        )
        self._pictures = 0
        self._entries[turn.item_id] = self._replies.conversation.add("user", [], cost)
        kept = samples if self._keep_audio else np.zeros(0, np.int16)
        self.kept.add(HeardTurn(turn.start, turn.end, kept), len(kept))
        self._link.end_turn(turn.item_id)
        self._replies.want()

    def turn_heard(self, item_id: str, text: str, brain_id: str) -> None:
        """The words of a turn have come; the client gets them later, as from another service."""
        entry = self._entries.pop(item_id, None)
        if entry is not None and text:
            entry.content["parts"] = [{"text": text}]
        if not self.setup.heard_words or not text:
            return

        def tell() -> None:
            self._timers.discard(timer)
            for piece in _pieces(text):
                self._emit(*content("inputTranscription", {"text": piece}))

        timer = self._clock.call_at(self._clock.now() + self._delay, tell)
        self._timers.add(timer)

    def _signal(self, kind: str, at_ms: int) -> None:
        if self.setup.vad_signal:
            activity: Object = {"voiceActivityType": kind, "audioOffset": f"{at_ms / 1000:.3f}s"}
            self._emit("voiceActivity", {"voiceActivity": activity})


def _pieces(text: str) -> list[str]:
    """Yield the text in pieces of three words, each after a space."""
    words = text.split()
    groups = [" ".join(words[at : at + 3]) for at in range(0, len(words), 3)]
    return [f" {group}" for group in groups]
