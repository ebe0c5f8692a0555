"""`AgentSession`: connect the person, the playout and the model of one joined agent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Literal
from uuid import uuid4

from duologue.agent._digits import DigitBuffer
from duologue.agent.barge_in import BargeIn, Decision
from duologue.agent.call_recorder import GuardedRecorder
from duologue.agent.conversation import Conversation
from duologue.agent.playout import Playout
from duologue.agent.processors import Processor, ProcessorChain
from duologue.agent.speech import Speech
from duologue.agent.speech_tracker import SpeechTracker
from duologue.agent.tool_runner import ToolRunner
from duologue.agent.turn_metrics import TurnMetrics
from duologue.audio import AudioFrame
from duologue.clock import Clock, Timer
from duologue.edges.protocol import Edge
from duologue.errors import ErrorKind, ReplyRefusedError, SessionClosedError
from duologue.events.events import (
    DigitEvent,
    ErrorEvent,
    Event,
    InterruptionEvent,
    RateLimitsEvent,
    RealtimeConnectedEvent,
    RealtimeDisconnectedEvent,
    RealtimeReconnectedEvent,
    RealtimeReconnectingEvent,
    ReplyDoneEvent,
    ReplyStartedEvent,
    SayMismatchEvent,
    SpeechHeldEvent,
    SpeechResumedEvent,
    UsageEvent,
    UserTranscriptEvent,
    UserTurnEndedEvent,
    UserTurnStartedEvent,
)
from duologue.items import Item, UserItem
from duologue.realtime.commands import DeleteItem, Truncate
from duologue.realtime.outputs import (
    Alive,
    GoAway,
    Output,
    ProviderError,
    RateLimits,
    ReplyAudio,
    ReplyDone,
    ReplyHeard,
    ReplyInterrupted,
    ReplyRefused,
    ReplyStarted,
    ReplyText,
    Resumable,
    SayMismatch,
    SessionStarted,
    SpeechStarted,
    SpeechStopped,
    ToolCall,
    ToolCallsCancelled,
    Usage,
    UserTranscript,
    UserTurnEnded,
)
from duologue.realtime.realtime import Realtime
from duologue.vad.words import has_words
from duologue.video import FrameSampler, VideoFrame

CONTINUE_AFTER_NOISE_PROMPT = (
    "You stopped because of a sound that was no speech, such as a cough. The person has heard your "
    "last message up to where it ends. Go on from there, without repeating anything and without "
    "mentioning it."
)
"""Instructions for a model that stopped its reply at a noise which did not interrupt the agent."""

_MAX_FRAME_AGE_S = 2.0
"""Seconds after which a camera frame is too old to show the present."""


_MAX_EARLY_TEXTS = 16
"""Most texts of the person that wait for the session to be live; more are dropped."""

_TICKS_PER_HEARD_EVENT = 10
"""Ticks of 20 ms between two `AgentHeardEvent`."""


class AgentSession:
    """The live part of an `Agent`: the edge, the playout and the model all talk to it.

    It implements the edge's `AgentInput`, the `PlayoutObserver` and the model's `SessionObserver`.
    Every method is synchronous, so a signal has had its whole effect when the method returns.
    """

    __slots__ = (
        "_barge_in",
        "_can_request_replies",
        "_clock",
        "_closed",
        "_conversation",
        "_early_texts",
        "_edge",
        "_emit",
        "_interruption_cause",
        "_latest_video",
        "_metrics",
        "_on_text",
        "_participant",
        "_processors",
        "_realtime",
        "_recorder",
        "_reported_blind",
        "_sampler",
        "_stopped_reply",
        "_stopped_speech",
        "_tasks",
        "_ticks",
        "_timer",
        "_tracker",
        "_user_speaking",
        "_voice",
        "_was_live",
        "digits",
        "disconnected_event",
        "playout",
        "tools",
    )

    def __init__(
        self,
        *,
        edge: Edge,
        realtime: Realtime,
        barge_in: BargeIn,
        conversation: Conversation,
        tools: ToolRunner,
        processors: Sequence[Processor],
        participant: str,
        emit: Callable[[Event], None],
        on_text: Callable[[str], object],
        tasks: asyncio.TaskGroup,
        clock: Clock,
        recorder: GuardedRecorder,
    ) -> None:
        self._edge = edge
        self._realtime = realtime
        self._barge_in = barge_in
        self._conversation = conversation
        self.tools = tools
        self._processors = ProcessorChain(
            processors, lambda source, message: emit(ErrorEvent(source, message)), clock.now
        )
        self._participant = participant
        self._emit = emit
        self._on_text = on_text
        self._tasks = tasks
        self._clock = clock
        self._recorder = recorder if recorder.is_on else None
        self.playout = Playout(edge, clock, self, recorder=recorder)
        self.digits = DigitBuffer(clock)
        self.disconnected_event: RealtimeDisconnectedEvent | None = None
        self._closed = False
        self._metrics = TurnMetrics()
        self._tracker = SpeechTracker(
            playout=self.playout,
            conversation=conversation,
            metrics=self._metrics,
            rate=lambda: realtime.capabilities.output_rate,
            emit=emit,
            clock=clock,
            shows_text=realtime.capabilities.output == "text",
        )
        self._sampler = FrameSampler(realtime.fps)
        self._latest_video: tuple[float, Callable[[], VideoFrame]] | None = None
        self._timer: Timer | None = None
        self._ticks = 0
        self._user_speaking = False
        self._voice = realtime.voice_meter
        self._can_request_replies = realtime.capabilities.say != "none"
        self._stopped_reply: str | None = None
        """The reply that the model stopped by itself although the agent was not interrupted."""
        self._stopped_speech: str | None = None
        """The speech of `_stopped_reply`, which was incomplete when the model stopped."""
        self._reported_blind = False
        self._was_live = False
        """Whether the session has been live, though it may have ended."""
        self._early_texts: list[str] = []
        """What the person wrote before the session was live."""
        self._interruption_cause: Literal["words", "voice", "model", "program"] = "program"

    def bind_speech(self, request_id: str, speech: Speech) -> None:
        """Let ``speech`` play the reply to the request."""
        self._tracker.bind_speech(request_id, speech)

    def close(self) -> None:
        """Cancel timers, and end the speeches that the person will not hear."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for cut in self.playout.interrupt(self._realtime.epoch):
            self._tracker.truncate(cut)
        self._tracker.close(self._edge.quality)

    def tick(self, now: float) -> None:
        """Play the audio due at ``now`` (clock seconds) and report what was heard; every 20 ms."""
        self.playout.tick(now)
        self._ticks += 1
        if self._ticks % _TICKS_PER_HEARD_EVENT == 0:
            self._tracker.report_heard()

    # AgentInput: called by the edge

    def push_audio(self, frame: AudioFrame) -> None:
        """Accept the next audio of the person."""
        if self._closed:
            return
        if self._recorder is not None:
            self._recorder.person_audio(frame, self._clock.now())
        changed = self._processors.audio(frame)
        if changed is None:
            return
        self._realtime.send_audio(changed)
        voice = self._voice
        if voice is not None and voice.is_open:
            may = self._may_interrupt()
            self._apply_decision(
                self._barge_in.voice_measured(self._clock.now(), may_interrupt=may)
            )

    @property
    def wants_video(self) -> bool:
        """Whether the model accepts images."""
        return self._realtime.capabilities.video

    def push_video(self, make_frame: Callable[[], VideoFrame]) -> None:
        """Accept a camera frame; frames are sent at the model's ``fps``."""
        if not self._realtime.capabilities.video:
            if not self._reported_blind:
                self._reported_blind = True
                blind = f"{self._realtime.capabilities.model} can't see"
                self._emit(ErrorEvent("edge", f"{blind}: the camera's images are not used"))
            return
        now = self._clock.now()
        self._latest_video = (now, make_frame)
        if self._realtime.connected and self._sampler.wants(now):
            self._send_frame(make_frame, now=False)

    def send_snapshot(self) -> None:
        """Send the newest camera frame, so that the next reply refers to the present."""
        latest, self._latest_video = self._latest_video, None
        if latest is not None and self._clock.now() - latest[0] <= _MAX_FRAME_AGE_S:
            self._send_frame(latest[1], now=True)

    def _send_frame(self, frame: Callable[[], VideoFrame], *, now: bool) -> None:
        changed = self._processors.video(frame())
        if changed is not None:
            self._realtime.send_video(changed, in_order=now)

    def push_text(self, text: str) -> None:
        """Accept a text that the person wrote.

        What comes before the session is live waits for it, as audio does.
        """
        if self._closed:
            return
        if self._realtime.alive:
            self._on_text(text)
        elif not self._was_live and len(self._early_texts) < _MAX_EARLY_TEXTS:
            self._early_texts.append(text)

    def push_digit(self, digit: str) -> None:
        """Accept a key that the person pressed."""
        if not self._closed:
            self.digits.push(digit)
            self._emit(DigitEvent(digit, self._participant))

    def report_played(self, samples: int) -> None:
        """Record that the edge has played ``samples`` of all that it was given."""
        self.playout.report_played(samples)

    def connection_lost(self) -> None:
        """Pause the audio, because the person can't hear it."""
        self.playout.suspend()

    def connection_restored(self) -> None:
        """Let the audio go on where the person heard it last."""
        self.playout.unsuspend()

    async def wait_until_listening(self) -> None:
        """Wait until the model receives audio."""
        await self._realtime.ready()

    @property
    def is_idle(self) -> bool:
        """Whether nothing is being said, generated, played or awaited on either side."""
        return not (
            self._user_speaking or self.playout.active or self._realtime.pending or self.tools.busy
        )

    def known_text(self, speech: Speech) -> str | None:
        """Return what the model knows of a speech by the agent's own TTS; None if nothing."""
        return self._tracker.known_text(speech)

    def end_overlong(self, speech: Speech, seconds: float) -> None:
        """End a speech before its next ``seconds``, which the playout rejected."""
        self._tracker.end_overlong(speech, seconds)

    def _correct_history(self, changes: Sequence[Truncate | DeleteItem]) -> None:
        """Correct the model's history of its own speech, if the model supports that."""
        profile = self._realtime.capabilities
        if self._realtime.alive and profile.truncation != "none":
            for change in changes:
                self._realtime.edit(change)

    def speech_started(self, speech: Speech) -> None:
        """Record that the first audio of a speech was handed to the edge."""
        self._tracker.speech_started(speech)

    def speech_ended(self, speech: Speech) -> None:
        """Record that a speech was heard to its end."""
        self._correct_history(self._tracker.speech_heard(speech))
        if speech.id == self._stopped_speech:
            self._stopped_speech = None
            if self._realtime.alive and not self._closed:
                self._realtime.request_reply(uuid4().hex, CONTINUE_AFTER_NOISE_PROMPT)

    # SessionObserver: called by the model

    def history(self) -> Sequence[Item]:
        """Return the history, including speeches that are playing and tools that are running."""
        return self._conversation.history_with(
            self._tracker.spoken_texts(), self.tools.running_call_ids
        )

    def connected(self, event: RealtimeConnectedEvent) -> None:
        """Report that the session is live."""
        self._emit(event)
        self._was_live = True
        # Not now, because the session is still bringing its first connection up to date.
        asyncio.get_running_loop().call_soon(self._send_early_texts)

    def _send_early_texts(self) -> None:
        texts, self._early_texts = self._early_texts, []
        for text in texts:
            self.push_text(text)

    def reconnecting(self, event: RealtimeReconnectingEvent) -> None:
        """Report that the next connection is being made."""
        self._emit(event)

    def reconnected(self, event: RealtimeReconnectedEvent) -> None:
        """Report that the session continues on a new connection."""
        self._tracker.connection_replaced()
        self._emit(event)

    def spoken_text(self, reply_id: str) -> str | None:
        """Return the text that the audio of a reply says so far; None without audio."""
        return self._tracker.spoken_text(reply_id)

    def reply_lost(self, reply_id: str, request_id: str | None) -> None:
        """Record that a reply lost its connection; the reply to ``request_id`` continues it."""
        self._tracker.reply_lost(reply_id, request_id)

    def turns_replayed(self, item_ids: Sequence[str]) -> None:
        """Remove turns that will come again under other ids."""
        for item_id in item_ids:
            self._conversation.remove(item_id)

    def disconnected(self, event: RealtimeDisconnectedEvent) -> None:
        """Report the end of the session; audio received before may still be heard."""
        if self.disconnected_event is not None:
            return
        self.disconnected_event = event
        error = SessionClosedError(f"the session is over: {event.reason}")
        self._tracker.fail(error, self._edge.quality)
        self._emit(event)

    def reply_ended(self, request_id: str, error: Exception | None) -> None:
        """Record that a request ended without a reply."""
        if error is not None and not self._closed:
            source = "request" if isinstance(error, ReplyRefusedError) else "model"
            self._emit(ErrorEvent(source, str(error), getattr(error, "code", "")))
        self._tracker.request_ended(request_id, error, self._edge.quality)

    def reply_skipped(self, epoch: int) -> None:
        """Record that the model says nothing after its tools."""
        self._tracker.reply_skipped(epoch)

    def late_transcript(self, reply_text: ReplyText) -> None:
        """Record a late transcript of a reply that has already been truncated."""
        self._tracker.late_transcript(reply_text)

    def on_interrupt(self, epoch: int) -> Sequence[Truncate | DeleteItem]:
        """Stop all playout before ``epoch``; return how to truncate the model's history."""
        self._barge_in.agent_interrupted()
        self._stopped_reply = self._stopped_speech = None
        self._metrics.reply_interrupted()
        self._arm_timer()
        current = self.playout.current
        cuts = self.playout.interrupt(epoch)
        played_ms = current.played_ms if current else 0
        heard = current.heard_text if current else ""
        quality = current.quality if current else self._edge.quality
        speech_id = current.id if current else None
        cause = self._interruption_cause
        self._emit(InterruptionEvent(epoch, speech_id, played_ms, heard, quality, cause))
        changes: list[Truncate | DeleteItem] = []
        for cut in cuts:
            changes += self._tracker.truncate(cut)
        self._tracker.drop_replies(self._edge.quality)
        self.tools.person_interrupted()
        return changes

    def output(self, output: Output, epoch: int) -> None:
        """Handle one output of the model."""
        match output:
            case ReplyAudio():
                self._tracker.audio_received(output, epoch)
            case ReplyText():
                self._tracker.text_received(output)
            case SpeechStarted() | SpeechStopped() | UserTranscript() | UserTurnEnded():
                self._handle_user_signal(output)
            case ReplyStarted(reply_id=reply_id):
                self._tracker.reply_started(output, epoch)
                self._emit(ReplyStartedEvent(reply_id))
            case ReplyDone(reply_id=reply_id, status=status):
                speech_id = self._tracker.speech_id_of(reply_id)
                if status == "cancelled" and reply_id == self._stopped_reply:
                    self._stopped_speech = speech_id
                self._tracker.reply_done(output)
                self._emit(ReplyDoneEvent(reply_id, status, speech_id))
            case ReplyHeard():
                self._tracker.reply_heard(output)
            case ReplyInterrupted(reply_id=stopped):
                self._stopped_reply = stopped if self._can_request_replies else None
                now, may = self._clock.now(), self._may_interrupt()
                self._apply_decision(self._barge_in.model_stopped(now, may_interrupt=may))
            case ToolCall():
                self._tracker.tools_called(output.reply_id)
                stale = epoch < self._realtime.epoch
                self.tools.start(output, stale=stale, tasks=self._tasks)
            case ToolCallsCancelled(call_ids=call_ids):
                self.tools.cancel(call_ids)
            case Usage(input=input_tokens, output=output_tokens):
                self._emit(UsageEvent(input_tokens, output_tokens))
            case RateLimits(limits=limits):
                self._emit(RateLimitsEvent(limits))
            case SayMismatch(reply_id=reply_id, wanted=wanted, said=said):
                speech_id = self._tracker.speech_id_of(reply_id)
                if speech_id is not None:
                    self._emit(SayMismatchEvent(speech_id, wanted, said))
            case ProviderError(kind=kind, code=code, message=message):
                if kind is not ErrorKind.BENIGN:
                    self._emit(ErrorEvent("model", message, code))
            case GoAway() | Resumable() | SessionStarted() | ReplyRefused() | Alive():
                pass  # Handled by the session itself

    def _handle_user_signal(
        self, signal: SpeechStarted | SpeechStopped | UserTranscript | UserTurnEnded
    ) -> None:
        now = self._clock.now()
        may = self._may_interrupt()
        match signal:
            case SpeechStarted(item_id=turn, at=at):
                if not self._user_speaking:
                    speech_ms = _ms_between(at, now)
                    self._emit(UserTurnStartedEvent(self._participant, turn, speech_ms))
                self._user_speaking = True
                started = self._barge_in.speech_started
                self._apply_decision(started(now, may_interrupt=may, started_at=at, turn_id=turn))
            case SpeechStopped(at=at):
                self._apply_decision(
                    self._barge_in.speech_stopped(now, may_interrupt=may, ended_at=at)
                )
            case UserTranscript(item_id=item_id, text=text, final=final):
                self._emit(UserTranscriptEvent(text, final, self._participant, item_id))
                self._apply_decision(
                    self._barge_in.transcript_received(
                        text, now, may_interrupt=may, turn_id=item_id
                    )
                )
                if final and text:
                    self._metrics.transcript_received(now)
                    self._conversation.put(UserItem(item_id, text, self._participant))
                self._resolve_open_turn(signal)
            case UserTurnEnded():
                self._user_turn_ended(signal, now, may=may)

    def _user_turn_ended(self, signal: UserTurnEnded, now: float, *, may: bool) -> None:
        item_id, empty = signal.item_id, signal.empty
        item = self._conversation.get(item_id)
        ended = self._barge_in.turn_ended
        self._apply_decision(ended(empty=empty, may_interrupt=may, turn_id=item_id))
        self._user_speaking = False
        if item is not None or not self._can_request_replies:
            self._barge_in.close_turn(item_id)
        aside = self._barge_in.is_turn_open(item_id)
        if aside:
            self._realtime.discard_reply(item_id)
        elif not empty and item is None:
            self._conversation.put(UserItem(item_id, None, self._participant))
        if signal.reply_follows and not aside:
            self._metrics.turn_ended(now, signal.speech_end)
        text = item.text if isinstance(item, UserItem) else None
        silence_ms = _ms_between(signal.speech_end, now)
        self._emit(
            UserTurnEndedEvent(
                self._participant,
                text,
                empty,
                item_id,
                silence_ms,
                signal.ended_by,
                signal.votes,
            )
        )

    def _resolve_open_turn(self, transcript: UserTranscript) -> None:
        """Decide by a late transcript whether an open turn was speech."""
        item_id = transcript.item_id
        if not self._barge_in.is_turn_open(item_id) or not (
            transcript.final or has_words(transcript.text)
        ):
            return
        self._barge_in.close_turn(item_id)
        if not self._realtime.alive:
            return
        if has_words(transcript.text):
            self._realtime.restore_reply()
        elif self._realtime.capabilities.truncation == "native":
            self._realtime.edit(
                DeleteItem(item_id)
            )  # It was no speech, so the model must not refer to it.

    def _may_interrupt(self) -> bool:
        """Return whether there is something to interrupt and nothing protected.

        A protected speech also protects what it waits for, because all of that has the same epoch.
        """
        something = self.playout.active or self._realtime.replying
        return something and self.playout.interruptible and self._tracker.requests_interruptible

    def _apply_decision(self, decision: Decision) -> None:
        current = self.playout.current
        match decision, self._barge_in.reason:
            case Decision.HOLD, ("voice" | "signal" | "model") as reason:
                self.playout.hold()
                if current is not None:
                    self._emit(SpeechHeldEvent(current.id, reason))
            case Decision.RESUME, ("empty" | "time") as reason:
                held_ms = self.playout.resume()
                if current is not None:
                    self._emit(SpeechResumedEvent(current.id, held_ms, reason))
            case Decision.INTERRUPT, ("words" | "voice" | "model") as reason:
                self._interruption_cause = reason
                try:
                    self._realtime.interrupt(keep_results=True)
                finally:
                    self._interruption_cause = "program"
            case _:
                pass
        self._arm_timer()

    def _arm_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = self._barge_in.deadline
        if deadline is not None:
            self._timer = self._clock.call_at(deadline, self._poll_barge_in)

    def _poll_barge_in(self) -> None:
        may = self._may_interrupt()
        self._apply_decision(self._barge_in.poll(self._clock.now(), may_interrupt=may))


def _ms_between(past: float | None, now: float) -> float | None:
    return None if past is None else round((now - past) * 1000, 1)
