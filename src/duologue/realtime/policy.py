"""The policy of a session, once for all models.

Epochs and staleness, cancelling, one writer of replies, what follows a tool's result, and going on
over lost connections: what was being made is asked for again, what was not heard is sent again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol
from uuid import uuid4

from duologue.audio import AudioFrame
from duologue.clock import Clock, Timer
from duologue.events import (
    RealtimeDisconnectedEvent,
    RealtimeReconnectingEvent,
)
from duologue.items import sendable
from duologue.pipeline.contained_vad import ContainedVAD
from duologue.pipeline.energy_vad import EnergyVAD
from duologue.pipeline.parts import VAD
from duologue.realtime.asking import Asking
from duologue.realtime.codec import Connection, SessionSetup
from duologue.realtime.commands import (
    Command,
    EndTurn,
    Ping,
    RequestReply,
    Say,
    Scheduling,
    SendAudio,
    SendToolResult,
    UpdateSession,
)
from duologue.realtime.errors import (
    ErrorKind,
    SessionClosedError,
    SessionError,
)
from duologue.realtime.going_on import ANSWERED, Gap, asked_again, connected, put_before
from duologue.realtime.history import changed, changes_between
from duologue.realtime.life import Life, Link
from duologue.realtime.listener import Listener
from duologue.realtime.outputs import (
    Alive,
    Output,
    ProviderError,
    ReplyAudio,
    ReplyDone,
    ReplyRefused,
    ReplyStarted,
    ReplyText,
    Resumable,
    SpeechStarted,
    SpeechStopped,
    ToolCall,
    ToolCallsCancelled,
    UserTranscript,
    UserTurnEnded,
)
from duologue.realtime.partials import Partials
from duologue.realtime.person_sound import PersonSound
from duologue.realtime.profile import Profile
from duologue.realtime.reconnect import ReconnectPolicy
from duologue.realtime.rehearing import TurnSignal
from duologue.realtime.replies import Replies, Request
from duologue.realtime.sendable import sendable_command, sendable_setup
from duologue.realtime.silence import CHANGE_S, LOUD_S, PAUSE_S, SPEECH_S, Silence, Verdict
from duologue.realtime.tool_calls import ToolCalls, scheduling_of
from duologue.user_code import FailureReports

log = logging.getLogger(__name__)
"""INFO: begins, ends and reconnects. DEBUG: kinds of messages except audio. No words, no keys."""

LATE_S = 8.0
"""Seconds that a tool's result waits for the person to finish; not longer, as it may be noise."""


class Model(Protocol):
    """What the policy needs of a `Realtime`."""

    profile: Profile
    clock: Clock
    vad: VAD | None
    one_at_a_time: bool

    @property
    def session_id(self) -> str:
        """A UUID."""
        ...

    def open(self, setup: SessionSetup) -> Connection:
        """Make the next connection."""
        ...


class SessionPolicy:
    """One session: the owner of its `Life`, and what stands behind the methods of `Realtime`."""

    def __init__(self, model: Model, policy: ReconnectPolicy, *, keeps: bool) -> None:
        profile = model.profile
        self.model = model
        self.epoch = 0
        self.stale = 0
        self.is_open = False
        """The session has been live and has not ended."""
        self.life = Life(self, policy, model.clock, renews=keeps, alone=lambda: model.one_at_a_time)
        self.person = PersonSound(
            profile.input_rate,
            policy.keep_s,
            words=profile.user_transcripts != "none",
            keeps=keeps,
            vad=_vad_of(model, FailureReports(self._tell_failure, model.clock.now)),
            finds=profile.speech_signals == "found",
        )
        self._clock = model.clock
        self._replies = Replies(confirms=profile.cancels, holds=profile.holds_requests)
        self._asking = Asking(
            self._replies,
            model.clock,
            transmit=self.transmit,
            told=lambda: self._told,
            looked=self._look,
        )
        self._silence = Silence(policy.silence_s if keeps else None, asks=profile.answers_pings)
        self._hears_loud = keeps and profile.speech_signals == "told"
        # A model without transcripts that may ignore a turn gives no sign of having heard it.
        self._hears_speech = (
            self.person.finds_turns
            and not profile.manual_turns
            and not (profile.may_ignore and profile.user_transcripts == "none")
        )
        self._loud_s = 0.0
        """Seconds of loud input audio until the last sign of life."""
        self._speech_at = 0.0
        """When the speech that was detected here last began, in clock seconds."""
        self._speech_end = float("-inf")
        self._look_at = 0.0
        self._looking: Timer | None = None
        self._tools = ToolCalls()
        self._partials = Partials()
        self._dropped = 0
        """Tool calls of earlier epochs get no reply, because the program has interrupted."""
        self._with_results: set[int] = set()
        """Epochs of tool calls whose results the model has to speak about."""
        self._late_result_at: float | None = None
        """When a result came whose reply was put off because the person spoke."""
        self._in_user_turn = False
        self._rest: Say | None = None
        """The rest of a protected text that the model stopped saying, until neither side speaks."""
        """Whether a user turn is open, according to the signals that the listener was given."""
        self._next_lacks_result = False
        """Whether the reply that is due next may be made without that result."""
        self._setup = SessionSetup()
        self._told: Listener
        self._begun = False
        self._told_live: Callable[[], None] = lambda: None
        self._gap = Gap()
        self._ended_turns = 0
        self._unanswered = False
        """A turn has ended, and no sound of an answer has come yet."""
        self._turn_aside: str | None = None
        """The turn that is ending, if the automatic reply to it is not wanted."""
        self._resumable = True
        self._given_items: frozenset[str] = frozenset()
        """Items that this connection was given at its start."""

    @property
    def live(self) -> bool:
        """The session is open and has a connection."""
        return self.is_open and self.life.live

    @property
    def pending(self) -> bool:
        """A reply is being made or awaited, or a tool's result is."""
        return self._replies.pending or self._tools.pending or self._rest is not None

    @property
    def answering(self) -> bool:
        """As `pending`, but only what is not stale."""
        return self._replies.live(self.epoch) or self._tools.live(self.epoch)

    @property
    def quiet(self) -> bool:
        """Nobody speaks, nothing is awaited: the connection may be changed unnoticed."""
        return self._resumable and not (self.pending or self.person.speaking)

    def begin(self, setup: SessionSetup, listener: Listener, live: Callable[[], None]) -> None:
        """A session begins; ``live`` is called when it is live. ``RuntimeError`` if again."""
        if self._begun:
            raise RuntimeError("a Realtime runs once: make a new one for the next session")
        self._begun = True
        self._told, self._setup, self._told_live = listener, setup, live

    def end(self, reason: str, clean: bool) -> None:
        """The session is over."""
        self.is_open = False
        self._stop_looking()
        self._asking.close()
        unsaid = () if self._rest is None else (self._rest.request_id,)
        for request_id in (*self._replies.close(), *unsaid):
            self._told.reply_ended(request_id, SessionClosedError(f"no reply: {reason}"))
        self._tools.clear()
        log.info("session %s ended: %s", self.model.session_id, reason)
        self._told.disconnected(RealtimeDisconnectedEvent(reason, clean))

    def check_open(self) -> None:
        """Raise `SessionClosedError` unless the session is open."""
        if not self.is_open:
            raise SessionClosedError("the session is not connected")

    def transmit(self, command: Command) -> None:
        """Send a command if there is a connection; the next one learns it from the history."""
        self.check_open()
        if self.life.link is not None:
            if not isinstance(command, SendAudio) and log.isEnabledFor(logging.DEBUG):
                log.debug("session %s sends %s", self.model.session_id, type(command).__name__)
            self.life.link.connection.transmit(sendable_command(command))

    def hear(self, frame: AudioFrame) -> None:
        """The next sound of the person."""
        live = self.live
        sound = self.person.take(frame, live=live)
        if sound is not None and live:
            self.transmit(SendAudio(sound))
            if (
                self._hears_loud
                and self._silence.asks
                and self.person.loud_s - self._loud_s >= LOUD_S
            ):
                self._silence.doubt(self._clock.now())
                self._watch()
        if sound is not None and self.is_open:
            self._take_signals(self.person.listen(sound, self._clock.now()))
            if self._late_result_at is not None:
                self._tell_late()

    def end_turn(self, command: EndTurn) -> None:
        """The person's turn is over."""
        self.check_open()
        self.person.mark(command)
        self._ended_turns += command.reply and self.model.profile.turn_reply == "requested"
        self.transmit(command)
        follows = command.reply and self.model.profile.turn_reply == "automatic"
        self._take_signals(self.person.end_turn(reply_follows=follows))
        if self.person.loud_s - self._loud_s >= LOUD_S:
            self._silence.doubt(self._clock.now())
        self._watch()

    def request(self, command: RequestReply | Say) -> None:
        """Somebody wants a reply."""
        self.check_open()
        self._asking.apply(self._replies.request(Request(command, self.epoch), self._clock.now()))
        self._watch()

    def set_aside(self, item_id: str) -> None:
        """Drop the automatic reply to the turn that is ending: it may not have been speech."""
        self._turn_aside = item_id

    def take_up(self) -> None:
        """Request a reply to a turn that was set aside, because it was speech after all."""
        self.check_open()
        if not self._replies.adopt(ANSWERED, self.epoch):
            self.request(RequestReply(uuid4().hex))

    def interrupt(self, *, keep_results: bool = False) -> int:
        """Make everything that was made or requested so far stale.

        With ``keep_results``, the model speaks later about the results of tools that still run.
        """
        self.epoch += 1
        if not keep_results:
            self._dropped, self._late_result_at = self.epoch, None
        cuts = self._told.interrupted(self.epoch) if self._begun else ()
        if self._rest is not None:
            self._told.reply_ended(self._rest.request_id, None)
            self._rest = None
        self._asking.apply(self._replies.interrupt(self.epoch, self._clock.now()))
        if self.is_open and (self.model.profile.truncates or self.model.profile.told_cuts):
            for cut in cuts:
                self.transmit(cut)
        return self.epoch

    def tool_result(self, result: SendToolResult) -> None:
        """A tool has its result; after the session's end nobody wants it."""
        if not self.is_open:
            return
        epoch = self._tools.epoch_of(result.call_id)
        older = epoch is not None and epoch < self.epoch
        quiet = older and (result.quiet or epoch in range(self._dropped))
        self.transmit(replace(result, quiet=quiet))
        if not result.more:
            if epoch is not None and not quiet:
                self._with_results.add(epoch)
            how = scheduling_of(result.name, self._setup.tools, self.model.profile)
            self._after_tools(self._tools.answered(result.call_id), how)
            self._look()

    def update(self, change: UpdateSession) -> None:
        """Change instructions or tools, for this connection and those that follow."""
        self.check_open()
        self._setup = changed(self._setup, change)
        self.transmit(change)

    # Owner: what the life of the session tells

    def setup(self) -> SessionSetup:
        """What the next connection begins with."""
        history = tuple(self._told.history()) if self.is_open else self._setup.history
        return replace(self._setup, history=history)

    def open(self, setup: SessionSetup) -> Connection:
        """Make the next connection."""
        return self.model.open(sendable_setup(setup))

    def reconnecting(self, reason: str, attempt: int) -> None:
        """The next connection is about to be made."""
        log.info("session %s reconnects (attempt %d): %s", self.model.session_id, attempt, reason)
        self._told.reconnecting(RealtimeReconnectingEvent(reason, attempt))

    def went_live(self, link: Link, before: Link | None) -> None:
        """Bring the new connection to where the session is, and go on."""
        listener, now = self._told, self._clock.now()
        if before is not None:
            self._let_go(now)
        self._resumable = True
        self._given_items = frozenset(item.id for item in self.setup().history)
        first, self.is_open = not self.is_open, True
        self._asking.is_open = True
        if first:
            profile = self.model.profile
            names = self.model.session_id, profile.provider, profile.model
            log.info("session %s began: %s %s", *names)
            listener.connected(connected(link, self.model.session_id, self.model.profile))
            self._told_live()
        else:
            for change in changes_between(link.setup, self.setup()):
                self.transmit(change)
        for command in self.person.again(now):
            self.transmit(command)
        for _ in range(self.person.rehears):
            self._replies.expect(ANSWERED, now)
        if not first:
            event = self._gap.end(link, self.model.profile, self.person.lost, now)
            values = self.model.session_id, event.gap_ms, event.outcome, event.lost_ms
            log.info("session %s continues after %d ms (%s), %d ms lost", *values)
            listener.reconnected(event)
            for signal in self.person.dropped_turns():
                # The words of these turns are lost, but the listener must still learn of their end.
                listener.output(signal, self.epoch)
        self._asking.apply(self._replies.resume(self._clock.now()))
        confirms = link.started is None or link.started.confirms
        self._silence.asks = self.model.profile.answers_pings and confirms
        self._sign(now)
        self._tell_late()
        self._watch()

    def lost(self) -> None:
        """The connection is gone."""
        self._let_go(self._clock.now())

    def receive(self, output: Output) -> None:
        """Take an output of the connection: the way up, in order."""
        if not self.is_open:
            return  # It came after the end.
        now = self._clock.now()
        if not isinstance(output, ReplyAudio) and log.isEnabledFor(logging.DEBUG):
            log.debug("session %s receives %s", self.model.session_id, type(output).__name__)
        if not isinstance(output, ReplyRefused):  # The connection itself may have made it.
            self._sign(now)
        match output:
            case ReplyAudio(reply_id=reply_id) | ReplyText(reply_id=reply_id):
                sound_s = output.frame.duration if isinstance(output, ReplyAudio) else 0.0
                self._replies.progress(reply_id, now, sound_s)
                epoch = self._replies.epoch_of(reply_id, ended=isinstance(output, ReplyText))
                if epoch is None or epoch < self.epoch:
                    self.stale += 1
                    if isinstance(output, ReplyText) and not output.planned:
                        self._told.said_anyway(output)
                    return
                if self._unanswered and isinstance(output, ReplyAudio):
                    self.person.answered()
                    self._unanswered = False
                self._told.output(output, epoch)
                return
            case ReplyStarted(reply_id=reply_id, request_id=request_id):
                self._silence.content()
                self._take_signals(self.person.reply_began(asked=request_id is not None))
                self._asking.apply(self._replies.started(reply_id, request_id, self.epoch, now))
                if self._replies.epoch_of(reply_id) == self.epoch:
                    # A reply that began after the result came includes it.
                    if not self._next_lacks_result:
                        self._late_result_at = None
                    self._next_lacks_result = False
                    self._told.output(output, self.epoch)
            case ReplyDone(reply_id=reply_id):
                epoch = self._replies.epoch_of(reply_id)
                if epoch is None:
                    return
                rest = self._rest_of(output)
                if rest is None:
                    self._told.output(output, epoch)
                else:
                    self._told.reply_lost(reply_id, rest.request_id)
                    self._rest = rest
                self._asking.apply(self._replies.done(reply_id, self._clock.now()))
                self._after_tools(self._tools.reply_done(reply_id))
                self._take_signals(self.person.reply_done())
                self._say_rest()
            case ToolCall(reply_id=reply_id, call_id=call_id):
                self._replies.progress(reply_id, now)
                epoch = self._replies.epoch_of(reply_id)
                epoch = self.epoch if epoch is None else epoch
                if self._tools.called(reply_id, call_id, epoch):
                    self.person.answered()
                    self._told.output(output, epoch)
            case SpeechStarted() | SpeechStopped() | UserTranscript() | UserTurnEnded():
                if isinstance(output, UserTranscript):
                    self._silence.content()
                self._take_signals(self.person.found(output, self._clock.now()))
            case ToolCallsCancelled(call_ids=call_ids):
                for epoch in self._tools.cancelled(call_ids):
                    self._told.nothing_follows(epoch)
                self._told.output(output, self.epoch)
            case Resumable(now=now_resumable):
                self._resumable = now_resumable
            case Alive():
                """`_sign` has recorded it."""
            case ReplyRefused(request_id=""):
                self._automatic_refused()
            case ReplyRefused():
                self._asking.apply(self._replies.refused(output, self._clock.now()))
            case ProviderError(kind=ErrorKind.FATAL | ErrorKind.RECYCLE as kind):
                if kind is ErrorKind.FATAL:
                    self._told.output(output, self.epoch)
                raise SessionError(output.message, code=output.code, kind=kind)
            case _:
                self._told.output(output, self.epoch)
        self._look()

    def _rest_of(self, done: ReplyDone) -> Say | None:
        """Return what is left of a protected text that the model has stopped saying by itself.

        Gemini and Nova stop at any voice, whatever text must be heard to its end.
        """
        reply = self._replies.running(done.reply_id)
        if done.status != "cancelled" or reply is None or reply.cancelled_at is not None:
            return None
        match reply.request:
            case Request(command=Say(interruptible=False), epoch=self.epoch):
                rest = asked_again(reply, self._told.reply_said(reply.id))
                return rest if isinstance(rest, Say) else None
            case _:
                return None

    def _say_rest(self) -> None:
        """Request the rest of a protected text once neither side speaks.

        Before that, Gemini 3.1 would take it for a part of the person's turn.
        """
        if self._rest is not None and not self._in_user_turn:
            rest, self._rest = self._rest, None
            self.request(rest)

    def _look(self) -> None:
        self._tell_late()
        if self.life.watching:
            self.life.poke()
        self._watch()

    # A service that stops responding

    def _sign(self, now: float) -> None:
        """Record a sign of life of the service."""
        self._silence.sign(now)
        self._loud_s = self.person.loud_s

    @property
    def _stuck(self) -> float | None:
        return None if self._tools.pending else self._replies.stuck

    def _watch(self) -> None:
        """Schedule the next check for something that is due."""
        if not self._silence.on:
            return
        deadline = self._silence.deadline(self._replies.due, self._stuck)
        if deadline is None or (self._looking is not None and self._look_at <= deadline):
            return
        self._stop_looking()
        self._look_at = deadline
        self._looking = self._clock.call_at(deadline, self._look_at_silence)

    def _stop_looking(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None

    def _look_at_silence(self) -> None:
        self._looking = None
        if not self.live:
            return  # The next connection starts its own watch.
        due, stuck = self._replies.due, self._stuck
        bound = f"{self._silence.bound_s or 0:g} s"
        match self._silence.poll(due, stuck, self._clock.now()):
            case Verdict.ASK:
                self.transmit(Ping())
            case Verdict.CHANGE:
                reason = f"the model has not shown for {bound} that it has heard the person"
                self.life.roll_over(reason, CHANGE_S)
            case Verdict.LOST:
                reason = f"the model has fallen silent: nothing has come for {bound}"
                error = SessionError(reason, code="silent", kind=ErrorKind.RECYCLE)
                self.life.fail(error)
            case None:
                pass
        self._watch()

    def _follow_speech(self, signal: TurnSignal) -> None:
        """Raise a doubt when speech that was detected here brought no sign of life."""
        match signal:
            case SpeechStarted(at=at):
                if self._clock.now() - self._speech_end < PAUSE_S:
                    self._silence.forget()
                if at is not None:
                    self._speech_at = at
            case SpeechStopped(at=float(at)):
                self._speech_end = at
                heard = self._silence.sign_at >= self._speech_at
                if not heard and at - self._speech_at >= SPEECH_S:
                    self._silence.doubt(at)
                    self._watch()
            case _:
                pass

    def _take_signals(self, signals: Sequence[TurnSignal]) -> None:
        for signal in signals:
            self._take_signal(signal)

    def _take_signal(self, signal: TurnSignal) -> None:
        if self._hears_speech:
            self._follow_speech(signal)
        told = self.person.follow(signal, self._clock.now())
        if isinstance(told, UserTranscript):
            due = self._partials.is_due(told)
            told = replace(told, text=sendable(told.text)) if due else None
        if told is not None:
            self._in_user_turn = self._in_user_turn or isinstance(told, SpeechStarted)
            self._in_user_turn = self._in_user_turn and not isinstance(told, UserTurnEnded)
            self._told.output(told, self.epoch)
        match told, signal:
            case UserTurnEnded(reply_follows=reply_follows, empty=empty), _:
                self._unanswered = True
                aside, self._turn_aside = self._turn_aside == signal.item_id, None
                if reply_follows:
                    epoch = ANSWERED if aside else self.epoch
                    sure = not (aside or self.model.profile.may_ignore)
                    self._replies.expect(epoch, self._clock.now(), sure=sure)
                    self._asking.arm()
                elif self._ended_turns:
                    self._ended_turns -= 1
                    if not empty:
                        self.request(RequestReply(uuid4().hex))
                self._say_rest()
            case None, UserTurnEnded(reply_follows=False):
                self._asking.apply(self._replies.unexpect(ANSWERED, self._clock.now()))
            case UserTranscript(item_id=item_id), _ if item_id != signal.item_id:
                if self.model.profile.truncates:
                    history = self._told.history()
                    for change in put_before(item_id, signal.item_id, history, self._given_items):
                        self.transmit(change)

    def _automatic_refused(self) -> None:
        """Request the reply that the provider refused to make by itself, unless it is stale."""
        epoch, changes = self._replies.automatic_refused(self._clock.now())
        self._asking.apply(changes)
        if epoch == self.epoch:
            self.request(RequestReply(uuid4().hex))

    def _after_tools(
        self, epoch: int | None, how: Scheduling | None = None, *, lost: bool = False
    ) -> None:
        """Let the model speak once every call of a reply has its result.

        If the person has spoken since, wait until neither side speaks. If the program has
        interrupted, do nothing.
        """
        if epoch is None:
            return
        worth = epoch in self._with_results and epoch >= self._dropped
        if not self._tools.live(epoch):
            self._with_results.discard(epoch)
        automatic = not lost and self.model.profile.tool_reply == "automatic"
        if epoch < self.epoch and not worth:
            if automatic and how is None:
                # What the model makes of that is stale when it comes.
                self._replies.expect(epoch, self._clock.now())
                self._asking.arm()
            return
        if how == "interrupt":
            epoch = self.interrupt(keep_results=True)
        if how == "silent":
            self._told.nothing_follows(epoch)
        elif automatic:
            sure = how is None and epoch == self.epoch
            self._replies.expect(self.epoch, self._clock.now(), sure=sure)
            self._asking.arm()
        elif epoch == self.epoch and not self._in_user_turn:
            self.request(RequestReply(uuid4().hex))
        else:
            self._late_result_at, self._next_lacks_result = (
                self._clock.now(),
                self._replies.due_next,
            )

    def _tell_late(self) -> None:
        """Request a reply about late results once neither side speaks or is about to."""
        if self._late_result_at is None or not self.live or self._replies.pending:
            return
        if not self._in_user_turn or self._clock.now() >= self._late_result_at + LATE_S:
            self._late_result_at = None
            self.request(RequestReply(uuid4().hex))

    def _tell_failure(self, part: str, message: str) -> None:
        """Report the failure of a user's part; the session continues."""
        error = ProviderError(ErrorKind.RETRY, "", f"{part}: {message}")
        self._told.output(error, self.epoch)

    def _let_go(self, now: float) -> None:
        """What was under way on the connection that is gone has to be had again."""
        self._gap.begin(self.person.lost, now)
        self._in_user_turn = False
        reheard = self.person.connection_lost()
        if reheard:
            self._told.reheard(reheard)
        running, expected = self._replies.lost()
        for reply in running:
            if reply.epoch == self.epoch:
                anyway = (bool(reheard) and reply.request is None) or self._tools.has(reply.id)
                said = self._told.reply_said(reply.id)
                command = None if anyway else asked_again(reply, said)
                self._told.reply_lost(reply.id, command.request_id if command else None)
                if command is not None:
                    self.request(command)
        if not reheard:
            for _ in filter(self.epoch.__eq__, expected):
                self.request(RequestReply(uuid4().hex))
        for epoch in self._tools.lost():
            self._after_tools(epoch, lost=True)


def _vad_of(model: Model, failures: FailureReports) -> VAD | None:
    """Return the VAD to use; None for a model that signals speech, or whose program does."""
    match model.profile.speech_signals:
        case "found":
            return ContainedVAD(model.vad or EnergyVAD(), failures)
        case "told":
            return None if model.vad is None else ContainedVAD(model.vad, failures)
        case "none":
            return None
