"""What becomes of a turn: its events, its item, its transcript, and the answer to it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from duologue.audio import Samples
from duologue.clock import Clock, Timer
from duologue.items import Json
from duologue.simulator.fields import Object
from duologue.simulator.hearing import Hearing, Turn
from duologue.simulator.kept import Kept
from duologue.simulator.openai.answer import Answer
from duologue.simulator.openai.configuration import SessionObject
from duologue.simulator.openai.conversation import Conversation
from duologue.simulator.openai.dialect import Emit
from duologue.simulator.openai.responses import Responses
from duologue.simulator.openai.schema import RATE
from duologue.simulator.openai.shapes import RefusedError

_STREAMING_MODELS = ("gpt-realtime-whisper", "gpt-live-transcribe")
"""Models that transcribe while the person speaks; the others do so after the turn."""

_PIECES = re.compile(r"\s*\w+|\s*[^\w\s]+|\s+")
"""A word, or the signs after one."""

MAX_HEARD = 1000
"""Newest turns of a session that are kept for inspection."""
MAX_HEARD_SAMPLES = 1800 * RATE
"""Samples of their audio, if it is kept: half an hour; beyond it the oldest are dropped."""


@dataclass(frozen=True, slots=True, eq=False)
class HeardTurn:
    """A committed turn: where it lay in the session's sound, and that sound.

    ``start`` and ``end`` are in samples at the rate of the session; ``samples`` is int16, empty
    unless the simulator was told to ``keep_audio``.
    """

    item_id: str
    start: int
    end: int
    samples: Samples


class Turns:
    """The client's side of one conversation."""

    def __init__(
        self,
        configuration: SessionObject,
        conversation: Conversation,
        responses: Responses,
        emit: Emit,
        clock: Clock,
        *,
        transcription_delay: float,
        keep_audio: bool,
        rate: int = RATE,
    ) -> None:
        self._configuration = configuration
        self._conversation = conversation
        self._responses = responses
        self._link = responses.link
        self._link.turn_heard = self.turn_heard
        self._link.words_so_far = self.words_so_far
        self._emit = emit
        self._clock = clock
        self._delay = transcription_delay
        self._keep_audio = keep_audio
        self._rate = rate
        self._dialect = responses.answer_type.dialect
        self._timers: set[Timer] = set()
        self._idle: Timer | None = None
        self._idle_from = 0
        self._seconds: dict[str, float] = {}
        self._speaking = ""
        """The item of the current turn."""
        self._sent_words: dict[str, str] = {}
        """The words of turns that were sent before these were over."""
        self._owed: dict[str, bool] = {}
        """Turns that are answered once their words have come; True when that was interrupted."""
        self.hearing = Hearing(self, rate=rate)
        self.kept: Kept[HeardTurn] = Kept(MAX_HEARD, MAX_HEARD_SAMPLES)
        self.interrupt: Callable[[], None] = lambda: None
        """Stop what the agent says; set by who owns it."""
        self.refused: Callable[[RefusedError], None] = lambda _: None
        self.on_heard: Callable[[HeardTurn], None] = lambda _: None
        """Is told of each turn that was committed."""
        responses.on_end = self.answered
        self.configure()

    def configure(self) -> None:
        """Follow the session's turn detection from now on."""
        if self.hearing.configure(self._configuration.turn_detection):
            self._sent_words.pop(self._speaking, None)
            self._speaking = ""
            self._link.forget_turn()
        self._stop_idle()

    def clear(self) -> None:
        """Forget what is not committed."""
        if self.hearing.clear():
            self._sent_words.pop(self._speaking, None)
            self._speaking = ""
            self._link.forget_turn()
        self._emit("input_audio_buffer.cleared", {})

    def close(self) -> None:
        """Nothing happens any more."""
        self._stop_idle()
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        self.hearing.clear()
        self._owed.clear()
        self._seconds.clear()
        self._sent_words.clear()

    @property
    def heard(self) -> list[HeardTurn]:
        """The newest committed turns."""
        return self.kept.entries

    # TurnSink: what the hearing tells

    def speech_started(self, turn: Turn, at_ms: int) -> None:
        """Tell it, and stop what the agent says, if that is wanted."""
        self._stop_idle()
        self._speaking = turn.item_id
        started: Object = {"audio_start_ms": at_ms, "item_id": turn.item_id}
        self._emit("input_audio_buffer.speech_started", started)
        detection = self._configuration.turn_detection
        if detection is not None and detection.interrupt_response:
            self._owed = dict.fromkeys(self._owed, True)
            self.interrupt()

    def speech_heard(self, samples: Samples) -> None:
        """Hand it to the brain."""
        self._link.hear(samples)

    def speech_stopped(self, turn: Turn, at_ms: int) -> None:
        """Tell it."""
        self._emit(
            "input_audio_buffer.speech_stopped",
            {"audio_end_ms": at_ms, "item_id": turn.item_id},
        )

    def turn_committed(self, turn: Turn, *, streamed: bool) -> None:
        """Make an item of it, and answer it, if that is wanted."""
        if not streamed:
            for frame in turn.frames:
                self._link.hear(frame)
        self._speaking = ""
        self._put(turn)
        self._link.end_turn(turn.item_id)
        detection = self._configuration.turn_detection
        if detection is None or not detection.create_response:
            return
        if self._dialect.words_first:
            self._owed[turn.item_id] = False
        else:
            self._answer()

    def words_so_far(self, text: str) -> None:
        """Send the words of the current turn, if the model transcribes it before it is over."""
        model = self._configuration.transcription
        if self._speaking and model in _STREAMING_MODELS and not self._delay:
            self._tell_pieces(self._speaking, text)

    def _tell_pieces(self, item_id: str, text: str) -> None:
        """Send the words of a turn that were not sent yet."""
        sent = self._sent_words.get(item_id, "")
        if not text.startswith(sent):
            return
        self._sent_words[item_id] = text
        kind = "conversation.item.input_audio_transcription.delta"
        for piece in _PIECES.findall(text[len(sent) :]):
            self._emit(kind, {"item_id": item_id, "content_index": 0, **self._dialect.piece(piece)})

    def turn_heard(self, item_id: str, text: str, brain_id: str) -> None:
        """The words of a turn have come; the client may get them later, as from elsewhere."""
        if brain_id:
            self._conversation.brain_ids[item_id] = brain_id
        told = self._configuration.transcription is not None
        if not told:
            self._seconds.pop(item_id, None)
            self._sent_words.pop(item_id, None)
        if told and self._delay:
            self._later(self._delay, lambda: self.transcribed(item_id, text))

        def go_on() -> None:
            if told and not self._delay:
                self.transcribed(item_id, text)
            interrupted = self._owed.pop(item_id, None)
            if interrupted is not None:
                self._answer()
            if interrupted:
                self.interrupt()

        self._later(0.0, go_on)

    def _later(self, seconds: float, what: Callable[[], None]) -> None:
        """Do something in so many seconds, unless the session is over by then."""

        def do() -> None:
            self._timers.discard(timer)
            what()

        timer = self._clock.call_at(self._clock.now() + seconds, do)
        self._timers.add(timer)

    def answered(self, answer: Answer) -> None:
        """A response has ended; after it and a long silence the agent goes on by itself."""
        detection = self._configuration.turn_detection
        if detection is None or detection.idle_ms is None or self.hearing.speaking:
            return
        self._stop_idle()
        seconds = answer.samples / RATE
        self._idle_from = self.hearing.written + round(seconds * self._rate)
        when = self._clock.now() + seconds + detection.idle_ms / 1000
        self._idle = self._clock.call_at(when, self._idled)

    def _idled(self) -> None:
        self._idle = None
        if self._responses.pending:
            return
        turn = self.hearing.take_idle(self._idle_from)
        start_ms, end_ms = (at * 1000 // self._rate for at in (turn.start, turn.end))
        self._emit(
            "input_audio_buffer.timeout_triggered",
            {"audio_start_ms": start_ms, "audio_end_ms": end_ms, "item_id": turn.item_id},
        )
        self._put(turn)
        self._answer()

    def _stop_idle(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    def _put(self, turn: Turn) -> None:
        item_id = turn.item_id
        samples = turn.samples
        self._seconds[item_id] = len(samples) / self._rate
        kept = samples if self._keep_audio else np.zeros(0, np.int16)
        heard = HeardTurn(item_id, turn.start, turn.end, kept)
        self.kept.add(heard, len(kept))
        self.on_heard(heard)
        self._conversation.audio_ms[item_id] = len(samples) * 1000 // self._rate
        content: list[Json] = [{"type": "input_audio", "transcript": None}]
        item: Object = {
            "id": item_id,
            "type": "message",
            "status": "completed",
            "role": "user",
            "content": content,
        }
        if self._dialect.objects:
            item["object"] = "realtime.item"
        before = self._conversation.append(item)
        told: Object = {"item_id": item_id}
        if self._dialect.previous:
            told = {"previous_item_id": before, **told}
        self._emit("input_audio_buffer.committed", told)
        self._dialect.tell_put(self._emit, before, item)

    def _answer(self) -> None:
        try:
            self._responses.create(None)
        except RefusedError as refusal:
            self.refused(refusal)

    def transcribed(self, item_id: str, text: str) -> None:
        """Tell the words of a turn, late or not."""
        if self._conversation.has(item_id):
            content: list[Json] = [{"type": "input_audio", "transcript": text}]
            self._conversation.find(item_id)["content"] = content
        self._tell_pieces(item_id, text)
        self._sent_words.pop(item_id, None)
        completed: Object = {
            "item_id": item_id,
            "content_index": 0,
            "transcript": text,
            "usage": self._usage(item_id, text),
        }
        self._emit("conversation.item.input_audio_transcription.completed", completed)

    def _usage(self, item_id: str, text: str) -> Object:
        seconds = self._seconds.pop(item_id, 0.0)
        if "whisper" in (self._configuration.transcription or ""):
            return {"type": "duration", "seconds": math.ceil(seconds)}
        audio, words = round(seconds * 10), len(text.split())
        return {
            "type": "tokens",
            "input_tokens": audio,
            "output_tokens": words,
            "total_tokens": audio + words,
            "input_token_details": {"text_tokens": 0, "audio_tokens": audio},
        }
