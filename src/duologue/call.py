"""One live conversation: joins the person, the gate and the model, and tells what happens."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from uuid import uuid4

from duologue.audio import AudioFrame
from duologue.barge_in import BargeIn, Decision
from duologue.clock import Clock, Timer
from duologue.conversation import Conversation
from duologue.edges.edge import Edge
from duologue.events import (
    ErrorEvent,
    Event,
    InterruptionEvent,
    RateLimitsEvent,
    RealtimeConnectedEvent,
    RealtimeDisconnectedEvent,
    RealtimeReconnectedEvent,
    RealtimeReconnectingEvent,
    SayMismatchEvent,
    SpeechHeldEvent,
    SpeechResumedEvent,
    UsageEvent,
    UserTranscriptEvent,
    UserTurnEndedEvent,
    UserTurnStartedEvent,
)
from duologue.items import Item, UserItem
from duologue.pipeline.words import has_words
from duologue.playout import Playout
from duologue.processors import Processor, ProcessorChain
from duologue.realtime.commands import DeleteItem, Truncate
from duologue.realtime.errors import ErrorKind, SessionClosedError
from duologue.realtime.going_on import GO_ON_AFTER_SOUND
from duologue.realtime.outputs import (
    Alive,
    GoAway,
    Output,
    ProviderError,
    RateLimits,
    ReplyAudio,
    ReplyDone,
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
from duologue.realtime.session import Realtime
from duologue.speech import Speech
from duologue.speeches import Speeches
from duologue.tool_runner import ToolRunner
from duologue.turn_metrics import TurnMetrics
from duologue.video import FrameSampler, VideoFrame

_FRESH_S = 2.0
"""A camera that has sent nothing for so long shows nothing of this moment."""


_TICKS_BETWEEN_HEARD = 10
"""Ticks of 20 ms between two `AgentHeardEvent`."""


class Call:
    """The live part of an `Agent`: what the edge, the gate and the model each talk to.

    It is the edge's `Person`, the gate's `PlayoutListener` and the model's `Listener`. Every method
    is synchronous, so that a signal has had its whole effect when it returns.
    """

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
        write: Callable[[str], object],
        tasks: asyncio.TaskGroup,
        clock: Clock,
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
        self._write = write
        self._tasks = tasks
        self._clock = clock
        self.playout = Playout(edge, clock, self)
        self.disconnected_event: RealtimeDisconnectedEvent | None = None
        self._closed = False
        self._metrics = TurnMetrics()
        self._speeches = Speeches(
            playout=self.playout,
            conversation=conversation,
            metrics=self._metrics,
            rate=lambda: realtime.profile.output_rate,
            emit=emit,
            clock=clock,
        )
        self._sampler = FrameSampler(realtime.fps)
        self._picture: tuple[float, Callable[[], VideoFrame]] | None = None
        self._timer: Timer | None = None
        self._ticks = 0
        self._speaking = False
        self._voice = realtime.voice
        self._can_ask = realtime.profile.say != "none"
        self._stopped_reply: str | None = None
        """The reply that the model stopped by itself, although the agent was not interrupted."""
        self._stopped_speech: str | None = None
        """The speech whose reply the model stopped that way before it was complete."""
        self._told_blind = False

    def expect(self, request_id: str, speech: Speech) -> None:
        """This speech will speak the reply to that request."""
        self._speeches.expect(request_id, speech)

    def close(self) -> None:
        """Let go of timers; end the speeches that nobody will hear."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for cut in self.playout.interrupt(self._realtime.epoch):
            self._speeches.cut(cut)
        self._speeches.close(self._edge.quality)

    def tick(self, now: float) -> None:
        """Play what is due at ``now`` (clock seconds), and report what was heard; every 20 ms."""
        self.playout.tick(now)
        self._ticks += 1
        if self._ticks % _TICKS_BETWEEN_HEARD == 0:
            self._speeches.tell_heard()

    # Person: what the edge tells

    def audio(self, frame: AudioFrame) -> None:
        """The next sound of the person."""
        if self._closed:
            return
        changed = self._processors.audio(frame)
        if changed is None:
            return
        self._realtime.send_audio(changed)
        voice = self._voice
        if voice is not None and voice.is_open:
            may = self._may_interrupt()
            self._decide(self._barge_in.listen(self._clock.now(), may_interrupt=may))

    @property
    def sees(self) -> bool:
        """Whether the model accepts images."""
        return self._realtime.profile.video

    def video(self, frame: Callable[[], VideoFrame]) -> None:
        """A picture is there; it is taken at the model's ``fps``."""
        if not self._realtime.profile.video:
            if not self._told_blind:
                self._told_blind = True
                blind = f"{self._realtime.profile.model} can't see"
                self._emit(ErrorEvent("edge", f"{blind}: the camera's pictures are not used"))
            return
        now = self._clock.now()
        self._picture = (now, frame)
        if self._realtime.connected and self._sampler.wants(now):
            self._show(frame, now=False)

    def look(self) -> None:
        """Let the model see this very moment, before what it is asked next."""
        picture, self._picture = self._picture, None
        if picture is not None and self._clock.now() - picture[0] <= _FRESH_S:
            self._show(picture[1], now=True)

    def _show(self, frame: Callable[[], VideoFrame], *, now: bool) -> None:
        changed = self._processors.video(frame())
        if changed is not None:
            self._realtime.send_video(changed, now=now)

    def text(self, text: str) -> None:
        """The person wrote something."""
        if self._realtime.alive and not self._closed:
            self._write(text)

    def played(self, samples: int) -> None:
        """So many samples of what the edge was given were played."""
        self.playout.confirm(samples)

    async def listening(self) -> None:
        """Wait till the model hears."""
        await self._realtime.ready()

    @property
    def settled(self) -> bool:
        """Nothing is being said, made, played or awaited on either side."""
        return not (
            self._speaking or self.playout.active or self._realtime.pending or self.tools.busy
        )

    def known_words(self, speech: Speech) -> str | None:
        """Return what the model knows of a speech by the agent's own TTS; None if nothing."""
        return self._speeches.known_words(speech)

    def too_long(self, speech: Speech, seconds: float) -> None:
        """End a speech whose next ``seconds`` the gate did not accept."""
        self._speeches.too_long(speech, seconds)

    def _edit(self, changes: Sequence[Truncate | DeleteItem]) -> None:
        """Correct what the model believes it has said, if it can be corrected."""
        profile = self._realtime.profile
        if self._realtime.alive and (profile.truncates or profile.told_cuts):
            for change in changes:
                self._realtime.edit(change)

    def speech_started(self, speech: Speech) -> None:
        """The first sound of a speech is on its way."""
        self._speeches.started(speech)

    def speech_ended(self, speech: Speech) -> None:
        """A speech was heard to its end."""
        self._edit(self._speeches.heard(speech))
        if speech.id == self._stopped_speech:
            self._stopped_speech = None
            if self._realtime.alive and not self._closed:
                self._realtime.request_reply(uuid4().hex, GO_ON_AFTER_SOUND)

    # Listener: what the model tells

    def history(self) -> Sequence[Item]:
        """What was said and heard so far, with what is being spoken and run just now."""
        return self._conversation.history_with(self._speeches.spoken(), self.tools.running)

    def connected(self, event: RealtimeConnectedEvent) -> None:
        """The session is live."""
        self._emit(event)

    def reconnecting(self, event: RealtimeReconnectingEvent) -> None:
        """The next connection is being made."""
        self._emit(event)

    def reconnected(self, event: RealtimeReconnectedEvent) -> None:
        """The session goes on."""
        self._speeches.connected()
        self._emit(event)

    def reply_said(self, reply_id: str) -> str | None:
        """The words of a reply whose sound has come so far; None when no sound has."""
        return self._speeches.said(reply_id)

    def reply_lost(self, reply_id: str, request_id: str | None) -> None:
        """A reply ended with its connection; the reply to that request goes on with it."""
        self._speeches.lost(reply_id, request_id)

    def reheard(self, item_ids: Sequence[str]) -> None:
        """These turns will come again under other ids."""
        for item_id in item_ids:
            self._conversation.remove(item_id)

    def disconnected(self, event: RealtimeDisconnectedEvent) -> None:
        """The session is over: what it has said so far may still be heard."""
        if self.disconnected_event is not None:
            return
        self.disconnected_event = event
        error = SessionClosedError(f"the session is over: {event.reason}")
        self._speeches.fail(error, self._edge.quality)
        self._emit(event)

    def reply_ended(self, request_id: str, error: Exception | None) -> None:
        """A request has ended without a reply."""
        if error is not None and not self._closed:
            self._emit(ErrorEvent("model", str(error), getattr(error, "code", "")))
        self._speeches.ended(request_id, error, self._edge.quality)

    def nothing_follows(self, epoch: int) -> None:
        """The model says nothing after its tools."""
        self._speeches.nothing_follows(epoch)

    def said_anyway(self, words: ReplyText) -> None:
        """What the model takes itself to have said, in a reply that was cut."""
        self._speeches.said_anyway(words)

    def interrupted(self, epoch: int) -> Sequence[Truncate | DeleteItem]:
        """Shut the gate; tell what was heard; say how the model's history is to be cut."""
        self._barge_in.interrupted()
        self._stopped_reply = self._stopped_speech = None
        self._metrics.interrupted()
        self._arm()
        current = self.playout.current
        cuts = self.playout.interrupt(epoch)
        played_ms = current.played_ms if current else 0
        heard = current.heard_text if current else ""
        quality = current.quality if current else self._edge.quality
        speech_id = current.id if current else None
        self._emit(InterruptionEvent(epoch, speech_id, played_ms, heard, quality))
        changes: list[Truncate | DeleteItem] = []
        for cut in cuts:
            changes += self._speeches.cut(cut)
        self._speeches.forget(self._edge.quality)
        self.tools.interrupted()
        return changes

    def output(self, output: Output, epoch: int) -> None:
        """What the model told."""
        match output:
            case ReplyAudio():
                self._speeches.sound(output, epoch)
            case ReplyText():
                self._speeches.words(output)
            case SpeechStarted() | SpeechStopped() | UserTranscript() | UserTurnEnded():
                self._person_signal(output)
            case ReplyStarted():
                self._speeches.begin(output, epoch)
            case ReplyDone(reply_id=reply_id, status=status):
                if status == "cancelled" and reply_id == self._stopped_reply:
                    self._stopped_speech = self._speeches.speech_of(reply_id)
                self._speeches.done(output)
            case ReplyInterrupted(reply_id=stopped):
                self._stopped_reply = stopped if self._can_ask else None
                now, may = self._clock.now(), self._may_interrupt()
                self._decide(self._barge_in.model_stopped(now, may_interrupt=may))
            case ToolCall():
                self._speeches.called_tools(output.reply_id)
                stale = epoch < self._realtime.epoch
                self.tools.call(output, stale=stale, tasks=self._tasks)
            case ToolCallsCancelled(call_ids=call_ids):
                self.tools.cancel(call_ids)
            case Usage(input=input_tokens, output=output_tokens):
                self._emit(UsageEvent(input_tokens, output_tokens))
            case RateLimits(limits=limits):
                self._emit(RateLimitsEvent(limits))
            case SayMismatch(reply_id=reply_id, wanted=wanted, said=said):
                speech_id = self._speeches.speech_of(reply_id)
                if speech_id is not None:
                    self._emit(SayMismatchEvent(speech_id, wanted, said))
            case ProviderError(kind=kind, code=code, message=message):
                if kind is not ErrorKind.BENIGN:
                    self._emit(ErrorEvent("model", message, code))
            case GoAway() | Resumable() | SessionStarted() | ReplyRefused() | Alive():
                """The session's own business."""

    def _person_signal(
        self, signal: SpeechStarted | SpeechStopped | UserTranscript | UserTurnEnded
    ) -> None:
        now = self._clock.now()
        may = self._may_interrupt()
        match signal:
            case SpeechStarted(item_id=turn, at=at):
                if not self._speaking:
                    self._emit(UserTurnStartedEvent(self._participant, turn))
                self._speaking = True
                started = self._barge_in.speech_started
                self._decide(started(now, may_interrupt=may, began=at, turn=turn))
            case SpeechStopped(at=at):
                self._decide(self._barge_in.speech_stopped(now, may_interrupt=may, ended=at))
            case UserTranscript(item_id=item_id, text=text, final=final):
                self._emit(UserTranscriptEvent(text, final, self._participant, item_id))
                self._decide(self._barge_in.words(text, now, may_interrupt=may, turn=item_id))
                if final and text:
                    self._metrics.transcript(now)
                    self._conversation.put(UserItem(item_id, text, self._participant))
                self._settle(signal)
            case UserTurnEnded():
                self._turn_ended(signal, now, may=may)

    def _turn_ended(self, signal: UserTurnEnded, now: float, *, may: bool) -> None:
        item_id, empty = signal.item_id, signal.empty
        said = self._conversation.get(item_id)
        ended = self._barge_in.turn_ended
        self._decide(ended(empty=empty, may_interrupt=may, turn=item_id))
        self._speaking = False
        if said is not None or not self._can_ask:
            self._barge_in.close(item_id)
        aside = self._barge_in.is_open(item_id)
        if aside:
            self._realtime.set_aside(item_id)
        elif not empty and said is None:
            self._conversation.put(UserItem(item_id, None, self._participant))
        if signal.reply_follows and not aside:
            self._metrics.turn_ended(now, signal.speech_end)
        words = said.text if isinstance(said, UserItem) else None
        self._emit(UserTurnEndedEvent(self._participant, words, empty, item_id))

    def _settle(self, words: UserTranscript) -> None:
        """Decide by its late words whether an open turn was speech."""
        item_id = words.item_id
        if not self._barge_in.is_open(item_id) or not (words.final or has_words(words.text)):
            return
        self._barge_in.close(item_id)
        if not self._realtime.alive:
            return
        if has_words(words.text):
            self._realtime.take_up()
        elif self._realtime.profile.truncates:
            self._realtime.edit(
                DeleteItem(item_id)
            )  # It was no speech: the model must not refer to it.

    def _may_interrupt(self) -> bool:
        """A protected speech protects what it waits for, too: all of it is of one epoch."""
        something = self.playout.active or self._realtime.answering
        return something and self.playout.interruptible and self._speeches.asked_may_be_interrupted

    def _decide(self, decision: Decision) -> None:
        current = self.playout.current
        match decision:
            case Decision.HOLD:
                self.playout.hold()
                if current is not None:
                    self._emit(SpeechHeldEvent(current.id))
            case Decision.RESUME:
                held_ms = self.playout.resume()
                if current is not None:
                    self._emit(SpeechResumedEvent(current.id, held_ms))
            case Decision.INTERRUPT:
                self._realtime.interrupt(keep_results=True)
            case Decision.NOTHING:
                pass
        self._arm()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = self._barge_in.deadline
        if deadline is not None:
            self._timer = self._clock.call_at(deadline, self._poll)

    def _poll(self) -> None:
        may = self._may_interrupt()
        self._decide(self._barge_in.poll(self._clock.now(), may_interrupt=may))
