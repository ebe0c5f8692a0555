"""The turns of the user: their events, their items, their transcripts, and the replies to them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from duologue.audio import Samples
from duologue.clock import Clock, Timer
from duologue.json_types import Json, JsonObject
from duologue.simulators._bounded_log import BoundedLog
from duologue.simulators._openai_protocol.conversation import Conversation
from duologue.simulators._openai_protocol.dialect import Emit
from duologue.simulators._openai_protocol.refusals import RefusedError
from duologue.simulators._openai_protocol.reply import OutgoingReply
from duologue.simulators._openai_protocol.responses import Responses
from duologue.simulators._openai_protocol.schema import RATE
from duologue.simulators._openai_protocol.session_object import SessionObject
from duologue.simulators._turn_detector import DetectedTurn, TurnDetector

_STREAMING_MODELS = ("gpt-realtime-whisper", "gpt-live-transcribe")
"""Models that transcribe while the user speaks; all others do so after the turn."""

_WORDS = re.compile(r"\s*\w+|\s*[^\w\s]+|\s+")
"""A word, or the punctuation after one."""

MAX_USER_TURNS = 1000
"""Newest turns of a session that are kept for inspection."""
MAX_USER_TURN_SAMPLES = 1800 * RATE
"""Samples of their audio, if it is kept: half an hour; beyond it the oldest are dropped."""


@dataclass(frozen=True, slots=True, eq=False)
class UserTurn:
    """A committed turn: its place in the session's audio, and that audio.

    ``start`` and ``end`` are in samples at the rate of the session. ``samples`` is int16, and empty
    unless the simulator was created with ``keep_audio``.
    """

    item_id: str
    start: int
    end: int
    samples: Samples


class UserTurns:
    """The user's side of one conversation.

    Args:
        configuration: The session object.
        conversation: The items of the session.
        responses: Makes the replies.
        emit: Sends the client an event.
        clock: The clock of the timers.
        interrupt: Stops the reply in progress.
        refused: Called when a reply that the session itself starts is refused.
        transcription_delay: Seconds by which transcripts are late.
        keep_audio: Keep the audio of the turns.
        committed: Called with each turn that was committed.
        rate: Hz of the audio.
    """

    def __init__(
        self,
        configuration: SessionObject,
        conversation: Conversation,
        responses: Responses,
        emit: Emit,
        clock: Clock,
        *,
        interrupt: Callable[[], None],
        refused: Callable[[RefusedError], None],
        transcription_delay: float,
        keep_audio: bool,
        committed: Callable[[UserTurn], None] | None = None,
        rate: int = RATE,
    ) -> None:
        self._configuration = configuration
        self._conversation = conversation
        self._responses = responses
        self._backend_session = responses.backend_session
        self._emit = emit
        self._clock = clock
        self._interrupt = interrupt
        self._refused = refused
        self._committed = committed
        self._transcription_delay = transcription_delay
        self._keep_audio = keep_audio
        self._rate = rate
        self._dialect = responses.reply_type.dialect
        self._timers: set[Timer] = set()
        self._idle_timer: Timer | None = None
        self._idle_from = 0
        self._durations: dict[str, float] = {}
        self._open_item_id = ""
        """The item of the open turn, or ""."""
        self._sent_text: dict[str, str] = {}
        """The part of the transcript that was sent while the turn lasted."""
        self._awaiting_transcript: dict[str, bool] = {}
        """Turns that are answered once they are transcribed; True if the user has spoken since."""
        self.detector = TurnDetector(self, rate=rate)
        self.recorded: BoundedLog[UserTurn] = BoundedLog(MAX_USER_TURNS, MAX_USER_TURN_SAMPLES)
        self.configure()

    def configure(self) -> None:
        """Apply the session's turn detection from now on."""
        if self.detector.configure(self._configuration.turn_detection):
            self._sent_text.pop(self._open_item_id, None)
            self._open_item_id = ""
            self._backend_session.discard_turn()
        self._stop_idle()

    def clear(self) -> None:
        """Drop the audio that is not committed."""
        if self.detector.clear():
            self._sent_text.pop(self._open_item_id, None)
            self._open_item_id = ""
            self._backend_session.discard_turn()
        self._emit("input_audio_buffer.cleared", {})

    def close(self) -> None:
        """Stop, because the session is over."""
        self._stop_idle()
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        self.detector.clear()
        self._awaiting_transcript.clear()
        self._durations.clear()
        self._sent_text.clear()

    @property
    def newest(self) -> list[UserTurn]:
        """The newest committed turns."""
        return self.recorded.entries

    # TurnSink: what the turn detector reports

    def speech_started(self, turn: DetectedTurn, at_ms: int) -> None:
        """Report the start of a turn, and interrupt the reply if the session is configured so."""
        self._stop_idle()
        self._open_item_id = turn.item_id
        started: JsonObject = {"audio_start_ms": at_ms, "item_id": turn.item_id}
        self._emit("input_audio_buffer.speech_started", started)
        detection = self._configuration.turn_detection
        if detection is not None and detection.interrupt_response:
            self._awaiting_transcript = dict.fromkeys(self._awaiting_transcript, True)
            self._interrupt()

    def speech_audio(self, samples: Samples) -> None:
        """Send the audio to the backend."""
        self._backend_session.send_audio(samples)

    def speech_stopped(self, turn: DetectedTurn, at_ms: int) -> None:
        """Report the end of the speech."""
        self._emit(
            "input_audio_buffer.speech_stopped",
            {"audio_end_ms": at_ms, "item_id": turn.item_id},
        )

    def turn_committed(self, turn: DetectedTurn, *, streamed: bool) -> None:
        """Make an item of the turn, and reply if the session is configured so."""
        if not streamed:
            for frame in turn.frames:
                self._backend_session.send_audio(frame)
        self._open_item_id = ""
        self._add_item(turn)
        self._backend_session.end_turn(turn.item_id)
        detection = self._configuration.turn_detection
        if detection is None or not detection.create_response:
            return
        if self._dialect.reply_awaits_transcript:
            self._awaiting_transcript[turn.item_id] = False
        else:
            self._create_reply()

    def partial_transcript(self, text: str) -> None:
        """Send the transcript so far of the open turn, if the model transcribes during the turn."""
        model = self._configuration.transcription
        if self._open_item_id and model in _STREAMING_MODELS and not self._transcription_delay:
            self._send_transcript_deltas(self._open_item_id, text)

    def _send_transcript_deltas(self, item_id: str, text: str) -> None:
        """Send the part of a transcript that was not sent yet."""
        sent = self._sent_text.get(item_id, "")
        if not text.startswith(sent):
            return
        self._sent_text[item_id] = text
        kind = "conversation.item.input_audio_transcription.delta"
        for piece in _WORDS.findall(text[len(sent) :]):
            self._emit(
                kind, {"item_id": item_id, "content_index": 0, **self._dialect.delta_fields(piece)}
            )

    def turn_transcribed(self, item_id: str, text: str, backend_item_id: str) -> None:
        """Process the transcript of a turn. The client receives it later if transcription is
        delayed.
        """
        if backend_item_id:
            self._conversation.backend_ids[item_id] = backend_item_id
        is_sent = self._configuration.transcription is not None
        if not is_sent:
            self._durations.pop(item_id, None)
            self._sent_text.pop(item_id, None)
        if is_sent and self._transcription_delay:
            self._call_later(self._transcription_delay, lambda: self.send_transcript(item_id, text))

        def proceed() -> None:
            if is_sent and not self._transcription_delay:
                self.send_transcript(item_id, text)
            interrupted = self._awaiting_transcript.pop(item_id, None)
            if interrupted is not None:
                self._create_reply()
            if interrupted:
                self._interrupt()

        self._call_later(0.0, proceed)

    def _call_later(self, seconds: float, action: Callable[[], None]) -> None:
        """Call something after ``seconds``, unless the session is over by then."""

        def run() -> None:
            self._timers.discard(timer)
            action()

        timer = self._clock.call_at(self._clock.now() + seconds, run)
        self._timers.add(timer)

    def reply_ended(self, reply: OutgoingReply) -> None:
        """Start the idle timeout, after which the agent speaks by itself."""
        detection = self._configuration.turn_detection
        if detection is None or detection.idle_ms is None or self.detector.speaking:
            return
        self._stop_idle()
        seconds = reply.samples / RATE
        self._idle_from = self.detector.samples_received + round(seconds * self._rate)
        when = self._clock.now() + seconds + detection.idle_ms / 1000
        self._idle_timer = self._clock.call_at(when, self._idle_timed_out)

    def _idle_timed_out(self) -> None:
        self._idle_timer = None
        if self._responses.pending:
            return
        turn = self.detector.take_idle_turn(self._idle_from)
        start_ms, end_ms = (at * 1000 // self._rate for at in (turn.start, turn.end))
        self._emit(
            "input_audio_buffer.timeout_triggered",
            {"audio_start_ms": start_ms, "audio_end_ms": end_ms, "item_id": turn.item_id},
        )
        self._add_item(turn)
        self._create_reply()

    def _stop_idle(self) -> None:
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None

    def _add_item(self, turn: DetectedTurn) -> None:
        item_id = turn.item_id
        samples = turn.samples
        self._durations[item_id] = len(samples) / self._rate
        audio = samples if self._keep_audio else np.zeros(0, np.int16)
        user_turn = UserTurn(item_id, turn.start, turn.end, audio)
        self.recorded.add(user_turn, len(audio))
        if self._committed is not None:
            self._committed(user_turn)
        self._conversation.audio_ms[item_id] = len(samples) * 1000 // self._rate
        content: list[Json] = [{"type": "input_audio", "transcript": None}]
        item: JsonObject = {
            "id": item_id,
            "type": "message",
            "status": "completed",
            "role": "user",
            "content": content,
        }
        if self._dialect.item_objects:
            item["object"] = "realtime.item"
        before = self._conversation.append(item)
        fields: JsonObject = {"item_id": item_id}
        if self._dialect.sends_previous_id:
            fields = {"previous_item_id": before, **fields}
        self._emit("input_audio_buffer.committed", fields)
        self._dialect.send_item_added(self._emit, before, item)

    def _create_reply(self) -> None:
        try:
            self._responses.create(None)
        except RefusedError as refusal:
            self._refused(refusal)

    def send_transcript(self, item_id: str, text: str) -> None:
        """Send the transcript of a turn."""
        if self._conversation.has(item_id):
            content: list[Json] = [{"type": "input_audio", "transcript": text}]
            self._conversation.find(item_id)["content"] = content
        self._send_transcript_deltas(item_id, text)
        self._sent_text.pop(item_id, None)
        completed: JsonObject = {
            "item_id": item_id,
            "content_index": 0,
            "transcript": text,
            "usage": self._usage(item_id, text),
        }
        self._emit("conversation.item.input_audio_transcription.completed", completed)

    def _usage(self, item_id: str, text: str) -> JsonObject:
        seconds = self._durations.pop(item_id, 0.0)
        if "whisper" in (self._configuration.transcription or ""):
            return {"type": "duration", "seconds": math.ceil(seconds)}
        audio, text_tokens = round(seconds * 10), len(text.split())
        return {
            "type": "tokens",
            "input_tokens": audio,
            "output_tokens": text_tokens,
            "total_tokens": audio + text_tokens,
            "input_token_details": {"text_tokens": 0, "audio_tokens": audio},
        }
