"""What stands behind `Realtime`: the rules of a session, written once for all models.

                    commands                                  outputs
    agent --> Realtime --> Session --> connection --> Session.receive --> SessionObserver --> agent
                             |
                             +-- ConnectionSupervisor   which connection is current
                             +-- ReplyScheduler         which reply runs, and what waits for it
                             +-- ToolCalls              which results are still missing
                             +-- InputAudio             what to send again, and which turn is which
                             +-- SilenceMonitor         whether the service still works

Every arrow is a plain call on the event loop that has had its whole effect when it returns. That is
why no audio of an older epoch can pass after `interrupt`.

The parts know nothing of each other. This class connects them, and has the rules for several parts:

- Epochs. `interrupt` raises the epoch. A reply has the epoch of its request, not of its start, so
  one that was requested before an interruption and begins after it is stale, and is cancelled at
  once. The observer is asked for its truncations before the provider learns anything.
- Tool results. When every call of a reply has its result, the model has to speak about them. If the
  person has spoken since, that waits until neither side speaks; if the program has interrupted, it
  is dropped.
- Loss of a connection (`connection_lost`, then `connection_established`). Replies in flight are
  requested again, with what is left of a scripted text. Requests go back to the front of the queue.
  The next connection starts with the history of that moment; what changes while it connects is
  sent as the difference of two histories, then the kept audio, then the requests, all within one
  call, so nothing can come between.
- Stale replies on purpose. A turn that is replayed to a new connection gets a second reply from the
  provider. It is expected with `STALE_EPOCH`, and so cancelled as soon as it appears; the same goes
  for a turn that may have been a cough (`discard_reply`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol
from uuid import uuid4

from duologue._user_code import FailureReports
from duologue.audio import AudioFrame
from duologue.clock import Clock, Timer
from duologue.errors import ErrorKind, SessionClosedError, SessionError
from duologue.events.events import RealtimeDisconnectedEvent, RealtimeReconnectingEvent
from duologue.items import replace_surrogates
from duologue.realtime._session.connections import ActiveConnection, ConnectionSupervisor
from duologue.realtime._session.history_diff import apply_update, diff_setups
from duologue.realtime._session.input_audio import InputAudio
from duologue.realtime._session.partial_transcripts import PartialsFilter
from duologue.realtime._session.replayed_turns import TurnSignal
from duologue.realtime._session.reply_scheduler import EffectRunner, ReplyScheduler, Request
from duologue.realtime._session.resume import (
    STALE_EPOCH,
    Outage,
    connected_event,
    reinsert_turn,
    retry_command,
)
from duologue.realtime._session.silence_monitor import (
    MAX_ROLL_OVER_WAIT_S,
    MIN_LOUD_S,
    MIN_SPEECH_S,
    TURN_PAUSE_S,
    SilenceMonitor,
    Verdict,
)
from duologue.realtime._session.surrogates import (
    replace_surrogates_in_command,
    replace_surrogates_in_setup,
)
from duologue.realtime._session.tool_calls import ToolCalls, scheduling_of
from duologue.realtime.border import Border, TimerSwitch
from duologue.realtime.capabilities import Capabilities
from duologue.realtime.codec import Connection, SessionSetup
from duologue.realtime.commands import (
    ClearInput,
    Command,
    DeleteItem,
    EndTurn,
    Ping,
    RequestReply,
    Say,
    Scheduling,
    SendAudio,
    SendToolResult,
    Truncate,
    UpdateSession,
)
from duologue.realtime.observer import SessionObserver
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
from duologue.realtime.reconnect import ReconnectPolicy
from duologue.realtime.reply_voice import ReplyVoice
from duologue.vad.contained import ContainedVAD
from duologue.vad.energy import EnergyVAD
from duologue.vad.vad import VAD

log = logging.getLogger(__name__)
"""INFO: starts, ends and reconnects. DEBUG: kinds of messages except audio. No text, no keys."""

MAX_RESULT_WAIT_S = 8.0
"""Seconds that a tool's result waits for the end of the user turn, which may be only noise."""


class SessionHost(Protocol):
    """What the session needs of a `Realtime`."""

    capabilities: Capabilities
    clock: Clock
    vad: VAD | None
    voice: ReplyVoice | None
    single_connection: bool

    @property
    def session_id(self) -> str:
        """A UUID."""
        ...

    def open(self, setup: SessionSetup) -> Connection:
        """Make the next connection."""
        ...


class Session:
    """One session over many connections: what stands behind the methods of `Realtime`."""

    __slots__ = (
        "_awaits_reply_audio",
        "_check_at",
        "_check_timer",
        "_clock",
        "_discarded_turn",
        "_doubts_loud_audio",
        "_doubts_speech",
        "_dropped_before_epoch",
        "_effects",
        "_epochs_with_results",
        "_has_begun",
        "_in_user_turn",
        "_initial_items",
        "_late_result_at",
        "_loud_at_sign",
        "_min_loud",
        "_next_lacks_result",
        "_now",
        "_observer",
        "_on_live",
        "_outage",
        "_partials",
        "_resumable",
        "_scheduler",
        "_setup",
        "_silence_monitor",
        "_speech_ended_at",
        "_speech_started_at",
        "_tool_calls",
        "_turns_to_request",
        "_unspoken_rest",
        "_voice",
        "connections",
        "epoch",
        "host",
        "input_audio",
        "is_open",
        "stale_outputs",
    )

    def __init__(self, host: SessionHost, policy: ReconnectPolicy, *, reconnects: bool) -> None:
        can = host.capabilities
        self.host = host
        self.epoch = 0
        self.stale_outputs = 0
        self.is_open = False
        """Whether the session has been live and has not ended."""
        self._clock = TimerSwitch(host.clock)
        self._voice: ReplyVoice | None = None
        self.connections = ConnectionSupervisor(
            self,
            policy,
            self._clock,
            reconnects=reconnects,
            single_connection=lambda: host.single_connection,
        )
        self.input_audio = InputAudio(
            can.input_rate,
            policy.keep_s,
            transcribes=can.user_transcripts != "none",
            reconnects=reconnects,
            vad=_vad_of(host, FailureReports(host.clock.now, self._report_failure)),
            detects_turns=can.speech_detection == "local",
        )
        self._now = host.clock.now
        self._scheduler = ReplyScheduler(
            confirms_cancel=can.confirms_cancel, defers_requests=can.defers_requests
        )
        self._effects = EffectRunner(
            self._scheduler,
            self._clock,
            transmit=self.transmit,
            observer=lambda: self._observer,
            on_timer=self._recheck,
        )
        self._silence_monitor = SilenceMonitor(
            policy.silence_s if reconnects else None, pings=can.answers_pings
        )
        self._doubts_loud_audio = reconnects and can.speech_detection == "server"
        # A model without transcripts that may ignore a turn gives no sign that audio has reached
        # it.
        self._doubts_speech = (
            self.input_audio.detects_turns
            and not can.manual_turns
            and not (can.may_ignore and can.user_transcripts == "none")
        )
        self._loud_at_sign = 0
        """Samples of loud input audio until the last sign of life."""
        self._min_loud = int(MIN_LOUD_S * can.input_rate)
        self._speech_started_at = 0.0
        """When the speech that was detected here last began, in clock seconds."""
        self._speech_ended_at = float("-inf")
        self._check_at = 0.0
        self._check_timer: Timer | None = None
        self._tool_calls = ToolCalls()
        self._partials = PartialsFilter()
        self._dropped_before_epoch = 0
        """Tool calls of earlier epochs get no reply, because the program has interrupted."""
        self._epochs_with_results: set[int] = set()
        """Epochs of tool calls whose results the model has to speak about."""
        self._late_result_at: float | None = None
        """When a result arrived whose reply waits until the person has finished."""
        self._in_user_turn = False
        """Whether a user turn is open, according to the signals that the observer was given."""
        self._unspoken_rest: Say | None = None
        """The rest of a protected text that the model stopped saying, until neither side speaks."""
        self._next_lacks_result = False
        """Whether the reply that is due next may be made without that result."""
        self._setup = SessionSetup()
        self._observer: SessionObserver
        self._has_begun = False
        self._on_live: Callable[[], None]
        self._outage = Outage()
        self._turns_to_request = 0
        self._awaits_reply_audio = False
        """Whether a turn has ended and no audio of its reply has arrived yet."""
        self._discarded_turn: str | None = None
        """The turn that is ending, if the automatic reply to it is not wanted."""
        self._resumable = True
        self._initial_items: frozenset[str] = frozenset()
        """Items that this connection was given at its start."""

    @property
    def has_begun(self) -> bool:
        """Whether `begin` was called."""
        return self._has_begun

    @property
    def live(self) -> bool:
        """Whether the session is open and has a connection."""
        return self.is_open and self.connections.live

    @property
    def pending(self) -> bool:
        """Whether a reply is being made or awaited, or a tool's result is."""
        return (
            self._scheduler.pending or self._tool_calls.pending or self._unspoken_rest is not None
        )

    @property
    def replying(self) -> bool:
        """As `pending`, but only what is not stale."""
        return self._scheduler.is_pending(self.epoch) or self._tool_calls.is_pending(self.epoch)

    @property
    def quiet(self) -> bool:
        """Whether neither side speaks and nothing is awaited, so a switch goes unnoticed."""
        return self._resumable and not (self.pending or self.input_audio.speaking)

    @property
    def _can_truncate(self) -> bool:
        return self.host.capabilities.truncation != "none"

    def begin(
        self, setup: SessionSetup, observer: SessionObserver, on_live: Callable[[], None]
    ) -> None:
        """Begin the session; call ``on_live`` when it is live.

        Raises:
            RuntimeError: it has been begun before.
        """
        if self._has_begun:
            raise RuntimeError("a Realtime runs once: make a new one for the next session")
        self._has_begun = True
        self._observer, self._setup, self._on_live = observer, setup, on_live
        self._voice = self.host.voice

    def set_border(self, border: Border) -> None:
        """Let a border see, or be, what is around the session, which has just begun."""
        self._observer = border.observer(self._observer)
        self._clock.use(border.clock(self.host.clock))
        self._now = self._clock.now
        self.connections.cancelled = lambda: border.note_input("leave")
        self.input_audio.wrap_measure(border.measure)
        for frame in self.input_audio.kept():
            border.note_input("send_audio", frame)  # before the session began
        if self._voice is not None:
            self._voice = border.voice(self._voice)

    def end(self, reason: str, clean: bool) -> None:
        """End the session: fail every request that waits, and report the end."""
        self.is_open = False
        self._cancel_check()
        self._effects.close()
        unsaid = () if self._unspoken_rest is None else (self._unspoken_rest.request_id,)
        for request_id in (*self._scheduler.close(), *unsaid):
            self._observer.reply_ended(request_id, SessionClosedError(f"no reply: {reason}"))
        self._tool_calls.clear()
        log.info("session %s ended: %s", self.host.session_id, reason)
        self._observer.disconnected(RealtimeDisconnectedEvent(reason, clean))

    def check_open(self) -> None:
        """Raise `SessionClosedError` unless the session is open."""
        if not self.is_open:
            raise SessionClosedError("the session is not connected")

    def transmit(self, command: Command) -> None:
        """Send a command if there is a connection; the next one learns it from the history."""
        self.check_open()
        if self.connections.current is not None:
            if not isinstance(command, SendAudio) and log.isEnabledFor(logging.DEBUG):
                log.debug("session %s sends %s", self.host.session_id, type(command).__name__)
            self.connections.current.connection.transmit(replace_surrogates_in_command(command))

    def transmit_directly(self, command: Command) -> None:
        """Give a command to the current connection, which the history does not have."""
        if self.connections.current is not None:
            self.connections.current.connection.transmit(command)

    def roll_over(self, reason: str, within_s: float | None) -> None:
        """Switch to a new connection in the next silence, at the latest after ``within_s``."""
        self.connections.roll_over(reason, within_s)

    def send_audio(self, frame: AudioFrame) -> None:
        """Send the person's next audio, and look for speech in it."""
        current = self.connections.current if self.is_open else None
        audio = self.input_audio
        accepted = audio.accept(frame, live=current is not None)
        if accepted is None:
            return
        if current is not None:
            # Not by `transmit`, because this happens most often and audio has no text to clean.
            current.send_audio(accepted)
        if not self.is_open:
            return
        now = self._now()
        if audio.loud_samples - self._loud_at_sign >= self._min_loud and current is not None:
            self._doubt_if_unanswered(now)
        signals = audio.detect(accepted, now)
        if signals:
            self._handle_signals(signals)
        if self._late_result_at is not None:
            self._request_late_reply()

    def _doubt_if_unanswered(self, now: float) -> None:
        """Doubt that the service works, which has been silent while the person was loud."""
        if (
            self._doubts_loud_audio
            and self._silence_monitor.pings
            and self._silence_monitor.raise_doubt(now)
        ):
            self._schedule_check()

    def end_turn(self, command: EndTurn) -> None:
        """End the person's turn."""
        self.check_open()
        self.input_audio.mark_boundary(command)
        self._turns_to_request += command.reply and self.host.capabilities.turn_reply == "requested"
        self.transmit(command)
        follows = command.reply and self.host.capabilities.turn_reply == "automatic"
        self._handle_signals(self.input_audio.end_turn(reply_follows=follows))
        if self.input_audio.loud_samples - self._loud_at_sign >= self._min_loud:
            self._silence_monitor.raise_doubt(self._clock.now())
        self._schedule_check()

    def clear_input(self) -> None:
        """Drop the audio of the turn that has not ended yet."""
        self.check_open()
        command = ClearInput()
        self.input_audio.mark_boundary(command)
        self.transmit(command)

    def request(self, command: RequestReply | Say) -> None:
        """Request a reply or scripted text."""
        self.check_open()
        self._effects.apply(
            self._scheduler.request(Request(command, self.epoch), self._clock.now())
        )
        self._schedule_check()

    def discard_reply(self, item_id: str) -> None:
        """Drop the automatic reply to the turn that is ending, which may not have been speech."""
        self._discarded_turn = item_id

    def restore_reply(self) -> None:
        """Restore the reply to a turn that was discarded, because it was speech after all."""
        self.check_open()
        if not self._scheduler.adopt(STALE_EPOCH, self.epoch):
            self.request(RequestReply(uuid4().hex))

    def interrupt(self, *, keep_results: bool = False) -> int:
        """Make everything that was made or requested so far stale.

        With ``keep_results``, the model speaks later about the results of tools that still run.
        """
        self.epoch += 1
        if not keep_results:
            self._dropped_before_epoch, self._late_result_at = self.epoch, None
        truncations = self._observer.on_interrupt(self.epoch) if self._has_begun else ()
        if self._unspoken_rest is not None:
            self._observer.reply_ended(self._unspoken_rest.request_id, None)
            self._unspoken_rest = None
        self._effects.apply(self._scheduler.interrupt(self.epoch, self._clock.now()))
        if self.is_open and self._can_truncate:
            for truncation in truncations:
                self.transmit(truncation)
        return self.epoch

    def send_tool_result(self, result: SendToolResult) -> None:
        """Send a tool's result; ignore it after the end of the session."""
        if not self.is_open:
            return
        epoch = self._tool_calls.epoch_of(result.call_id)
        older = epoch is not None and epoch < self.epoch
        quiet = older and (result.quiet or epoch in range(self._dropped_before_epoch))
        self.transmit(replace(result, quiet=quiet))
        if not result.more:
            if epoch is not None and not quiet:
                self._epochs_with_results.add(epoch)
            scheduling = scheduling_of(result.name, self._setup.tools, self.host.capabilities)
            self._continue_after_tools(self._tool_calls.mark_answered(result.call_id), scheduling)
            self._recheck()

    def update(self, change: UpdateSession) -> None:
        """Change instructions or tools, for this connection and those that follow."""
        self.check_open()
        self._setup = apply_update(self._setup, change)
        self.transmit(change)

    # What the supervisor of the connections calls

    def make_setup(self) -> SessionSetup:
        """Return what the next connection begins with."""
        history = tuple(self._observer.history()) if self.is_open else self._setup.history
        return replace(self._setup, history=history)

    def open(self, setup: SessionSetup) -> Connection:
        """Make the next connection."""
        connection = self.host.open(replace_surrogates_in_setup(setup))
        return connection if self._voice is None else self._voice.speak_for(connection)

    def reconnecting(self, reason: str, attempt: int) -> None:
        """Report that the next connection is about to be made."""
        log.info("session %s reconnects (attempt %d): %s", self.host.session_id, attempt, reason)
        self._observer.reconnecting(RealtimeReconnectingEvent(reason, attempt))

    def connection_established(
        self, connection: ActiveConnection, before: ActiveConnection | None
    ) -> None:
        """Bring the new connection to the state of the session, and continue."""
        observer, now = self._observer, self._clock.now()
        if before is not None:
            self._requeue_in_flight(now)
        self._resumable = True
        self._initial_items = frozenset(item.id for item in self.make_setup().history)
        first, self.is_open = not self.is_open, True
        self._effects.is_open = True
        if first:
            session_id, can = self.host.session_id, self.host.capabilities
            log.info("session %s began: %s %s", session_id, can.provider, can.model)
            observer.connected(connected_event(connection, session_id, can))
            self._on_live()
        else:
            for change in diff_setups(connection.setup, self.make_setup()):
                if isinstance(change, DeleteItem | Truncate) and not self._can_truncate:
                    continue
                self.transmit(change)
        for command in self.input_audio.replay(now):
            self.transmit(command)
        for _ in range(self.input_audio.replayed_turns):
            self._scheduler.expect(STALE_EPOCH, now)
        if not first:
            event = self._outage.end(
                connection, self.host.capabilities, self.input_audio.lost_samples, now
            )
            values = self.host.session_id, event.gap_ms, event.outcome, event.lost_ms
            log.info("session %s continues after %d ms (%s), %d ms lost", *values)
            observer.reconnected(event)
            for signal in self.input_audio.take_dropped_turns():
                # The transcripts of these turns are lost, but the observer must still learn of
                # their end.
                observer.output(signal, self.epoch)
        self._effects.apply(self._scheduler.resume(self._clock.now()))
        confirms = connection.started is None or connection.started.confirms_updates
        self._silence_monitor.pings = self.host.capabilities.answers_pings and confirms
        self._record_sign(now)
        self._request_late_reply()
        self._schedule_check()

    def connection_lost(self) -> None:
        """Requeue what was in flight, because the connection is lost."""
        self._requeue_in_flight(self._clock.now())

    def receive(self, output: Output) -> None:
        """Handle an output of the connection."""
        if not self.is_open:
            return  # It arrived after the end.
        now = self._now()
        if type(output) is ReplyAudio:
            self._receive_audio(output, now)
            return
        if log.isEnabledFor(logging.DEBUG):
            log.debug("session %s receives %s", self.host.session_id, type(output).__name__)
        if not isinstance(output, ReplyRefused):  # The connection itself may have made it.
            self._record_sign(now)
        match output:
            case ReplyText(reply_id=reply_id):
                self._scheduler.record_progress(reply_id, now)
                epoch = self._scheduler.epoch_of(reply_id, ended=True)
                if epoch is None or epoch < self.epoch:
                    self.stale_outputs += 1
                    if not output.planned:
                        self._observer.late_transcript(output)
                    return
                self._observer.output(output, epoch)
                return
            case ReplyStarted(reply_id=reply_id, request_id=request_id):
                self._silence_monitor.record_content()
                self._handle_signals(
                    self.input_audio.reply_started(requested=request_id is not None)
                )
                self._effects.apply(
                    self._scheduler.reply_started(reply_id, request_id, self.epoch, now)
                )
                if self._scheduler.epoch_of(reply_id) == self.epoch:
                    # A reply that began after the result arrived includes it.
                    if not self._next_lacks_result:
                        self._late_result_at = None
                    self._next_lacks_result = False
                    self._observer.output(output, self.epoch)
            case ReplyDone(reply_id=reply_id):
                epoch = self._scheduler.epoch_of(reply_id)
                if epoch is None:
                    return
                rest = self._find_unspoken_rest(output)
                if rest is None:
                    self._observer.output(output, epoch)
                else:
                    self._observer.reply_lost(reply_id, rest.request_id)
                    self._unspoken_rest = rest
                self._effects.apply(self._scheduler.reply_done(reply_id, self._clock.now()))
                self._continue_after_tools(self._tool_calls.reply_done(reply_id))
                self._handle_signals(self.input_audio.reply_done())
                self._request_unspoken_rest()
            case ToolCall(reply_id=reply_id, call_id=call_id):
                self._scheduler.record_progress(reply_id, now)
                epoch = self._scheduler.epoch_of(reply_id)
                epoch = self.epoch if epoch is None else epoch
                if self._tool_calls.add(reply_id, call_id, epoch):
                    self.input_audio.mark_answered()
                    self._observer.output(output, epoch)
            case SpeechStarted() | SpeechStopped() | UserTranscript() | UserTurnEnded():
                if isinstance(output, UserTranscript):
                    self._silence_monitor.record_content()
                self._handle_signals(self.input_audio.translate(output, self._clock.now()))
            case ToolCallsCancelled(call_ids=call_ids):
                for epoch in self._tool_calls.cancel(call_ids):
                    self._observer.reply_skipped(epoch)
                self._observer.output(output, self.epoch)
            case Resumable(now=now_resumable):
                self._resumable = now_resumable
            case Alive():
                pass  # `_record_sign` has recorded it
            case ReplyRefused(request_id=""):
                self._request_refused_reply()
            case ReplyRefused():
                self._effects.apply(self._scheduler.request_refused(output, self._clock.now()))
            case ProviderError(kind=ErrorKind.FATAL | ErrorKind.RECYCLE as kind):
                if kind is ErrorKind.FATAL:
                    self._observer.output(output, self.epoch)
                raise SessionError(output.message, code=output.code, kind=kind)
            case _:
                self._observer.output(output, self.epoch)
        self._recheck()

    def _receive_audio(self, audio: ReplyAudio, now: float) -> None:
        """Handle the next audio of a reply, which fifty times a second is all that comes."""
        self._silence_monitor.record_sign(now)
        self._loud_at_sign = self.input_audio.loud_samples
        frame = audio.frame
        seconds = len(frame.samples) / frame.rate
        epoch = self._scheduler.record_progress(audio.reply_id, now, seconds)
        if epoch is None or epoch < self.epoch:
            self.stale_outputs += 1
            return
        if self._awaits_reply_audio:
            self.input_audio.mark_answered()
            self._awaits_reply_audio = False
        self._observer.output(audio, epoch)

    def _find_unspoken_rest(self, done: ReplyDone) -> Say | None:
        """Return the rest of a protected text that the model has stopped saying by itself.

        Gemini and Nova stop at any voice, even if a text has to be heard to its end.
        """
        reply = self._scheduler.running(done.reply_id)
        if done.status != "cancelled" or reply is None or reply.cancelled_at is not None:
            return None
        match reply.request:
            case Request(command=Say(interruptible=False), epoch=self.epoch):
                rest = retry_command(reply, self._observer.spoken_text(reply.id))
                return rest if isinstance(rest, Say) else None
            case _:
                return None

    def _request_unspoken_rest(self) -> None:
        """Request the rest of a protected text once neither side speaks.

        Before that, Gemini 3.1 would take it for a part of the user turn.
        """
        if self._unspoken_rest is not None and not self._in_user_turn:
            rest, self._unspoken_rest = self._unspoken_rest, None
            self.request(rest)

    def _recheck(self) -> None:
        self._request_late_reply()
        if self.connections.awaits_silence:
            self.connections.recheck()
        self._schedule_check()

    # A service that stops responding

    def _record_sign(self, now: float) -> None:
        """Record a sign of life of the service."""
        self._silence_monitor.record_sign(now)
        self._loud_at_sign = self.input_audio.loud_samples

    @property
    def _stuck_since(self) -> float | None:
        return None if self._tool_calls.pending else self._scheduler.stuck_since

    def _schedule_check(self) -> None:
        """Schedule the next check for something that is due."""
        if not self._silence_monitor.enabled:
            return
        deadline = self._silence_monitor.deadline(self._scheduler.due_since, self._stuck_since)
        if deadline is None or (self._check_timer is not None and self._check_at <= deadline):
            return
        self._cancel_check()
        self._check_at = deadline
        self._check_timer = self._clock.call_at(deadline, self._check_silence)

    def _cancel_check(self) -> None:
        if self._check_timer is not None:
            self._check_timer.cancel()
            self._check_timer = None

    def _check_silence(self) -> None:
        self._check_timer = None
        if not self.live:
            return  # The next connection starts its own watch.
        due, stuck = self._scheduler.due_since, self._stuck_since
        bound = f"{self._silence_monitor.bound_s or 0:g} s"
        match self._silence_monitor.poll(due, stuck, self._clock.now()):
            case Verdict.PING:
                self.transmit(Ping())
            case Verdict.ROLL_OVER:
                reason = f"the model has not shown for {bound} that it has heard the person"
                self.connections.roll_over(reason, MAX_ROLL_OVER_WAIT_S)
            case Verdict.LOST:
                reason = f"the model has fallen silent: nothing has come for {bound}"
                error = SessionError(reason, code="silent", kind=ErrorKind.RECYCLE)
                self.connections.fail(error)
            case None:
                pass
        self._schedule_check()

    def _doubt_unnoticed_speech(self, signal: TurnSignal) -> None:
        """Raise a doubt when speech that was detected here brought no sign of life."""
        match signal:
            case SpeechStarted(at=at):
                if self._clock.now() - self._speech_ended_at < TURN_PAUSE_S:
                    self._silence_monitor.drop_doubt()
                if at is not None:
                    self._speech_started_at = at
            case SpeechStopped(at=float(at)):
                self._speech_ended_at = at
                noticed = self._silence_monitor.last_sign_at >= self._speech_started_at
                if not noticed and at - self._speech_started_at >= MIN_SPEECH_S:
                    self._silence_monitor.raise_doubt(at)
                    self._schedule_check()
            case _:
                pass

    def _handle_signals(self, signals: Sequence[TurnSignal]) -> None:
        for signal in signals:
            self._handle_signal(signal)

    def _handle_signal(self, signal: TurnSignal) -> None:
        if self._doubts_speech:
            self._doubt_unnoticed_speech(signal)
        passed = self.input_audio.track(signal, self._clock.now())
        if isinstance(passed, UserTranscript):
            due = self._partials.is_due(passed)
            passed = replace(passed, text=replace_surrogates(passed.text)) if due else None
        if passed is not None:
            self._in_user_turn = self._in_user_turn or isinstance(passed, SpeechStarted)
            self._in_user_turn = self._in_user_turn and not isinstance(passed, UserTurnEnded)
            self._observer.output(passed, self.epoch)
        match passed, signal:
            case UserTurnEnded(reply_follows=reply_follows, empty=empty), _:
                self._awaits_reply_audio = True
                discarded, self._discarded_turn = self._discarded_turn == signal.item_id, None
                if reply_follows:
                    epoch = STALE_EPOCH if discarded else self.epoch
                    sure = not (discarded or self.host.capabilities.may_ignore)
                    self._scheduler.expect(epoch, self._clock.now(), sure=sure)
                    self._effects.arm()
                elif self._turns_to_request:
                    self._turns_to_request -= 1
                    if not empty:
                        self.request(RequestReply(uuid4().hex))
                self._request_unspoken_rest()
            case None, UserTurnEnded(reply_follows=False):
                self._effects.apply(self._scheduler.cancel_expected(STALE_EPOCH, self._clock.now()))
            case UserTranscript(item_id=item_id), _ if item_id != signal.item_id:
                if self.host.capabilities.truncation == "native":
                    history = self._observer.history()
                    for change in reinsert_turn(
                        item_id, signal.item_id, history, self._initial_items
                    ):
                        self.transmit(change)

    def _request_refused_reply(self) -> None:
        """Request the reply that the provider refused to make by itself, unless it is stale."""
        epoch, effects = self._scheduler.automatic_refused(self._clock.now())
        self._effects.apply(effects)
        if epoch == self.epoch:
            self.request(RequestReply(uuid4().hex))

    def _continue_after_tools(
        self, epoch: int | None, scheduling: Scheduling | None = None, *, lost: bool = False
    ) -> None:
        """Let the model speak once every call of a reply has its result.

        If the person has spoken since, wait until neither side speaks. If the program has
        interrupted, do nothing.
        """
        if epoch is None:
            return
        has_results = epoch in self._epochs_with_results and epoch >= self._dropped_before_epoch
        if not self._tool_calls.is_pending(epoch):
            self._epochs_with_results.discard(epoch)
        automatic = not lost and self.host.capabilities.tool_reply == "automatic"
        if epoch < self.epoch and not has_results:
            if automatic and scheduling is None:
                # The reply that the model makes of these results is stale when it comes.
                self._scheduler.expect(epoch, self._clock.now())
                self._effects.arm()
            return
        if scheduling == "interrupt":
            epoch = self.interrupt(keep_results=True)
        if scheduling == "silent":
            self._observer.reply_skipped(epoch)
        elif automatic:
            sure = scheduling is None and epoch == self.epoch
            self._scheduler.expect(self.epoch, self._clock.now(), sure=sure)
            self._effects.arm()
        elif epoch == self.epoch and not self._in_user_turn:
            self.request(RequestReply(uuid4().hex))
        else:
            self._late_result_at, self._next_lacks_result = (
                self._clock.now(),
                self._scheduler.due_next,
            )

    def _request_late_reply(self) -> None:
        """Request a reply about late results once neither side speaks or is about to."""
        if self._late_result_at is None or not self.live or self._scheduler.pending:
            return
        if not self._in_user_turn or self._clock.now() >= self._late_result_at + MAX_RESULT_WAIT_S:
            self._late_result_at = None
            self.request(RequestReply(uuid4().hex))

    def _report_failure(self, part: str, message: str) -> None:
        """Report the failure of a user's part; the session continues."""
        error = ProviderError(ErrorKind.RETRY, "", f"{part}: {message}")
        self._observer.output(error, self.epoch)

    def _requeue_in_flight(self, now: float) -> None:
        """Requeue everything that was in flight on the lost connection."""
        self._outage.begin(self.input_audio.lost_samples, now)
        self._in_user_turn = False
        replayed = self.input_audio.connection_lost()
        if replayed:
            self._observer.turns_replayed(replayed)
        running, expected = self._scheduler.connection_lost()
        for reply in running:
            if reply.epoch == self.epoch:
                comes_again = bool(replayed) and reply.request is None
                comes_again = comes_again or self._tool_calls.has_calls(reply.id)
                spoken = self._observer.spoken_text(reply.id)
                command = None if comes_again else retry_command(reply, spoken)
                self._observer.reply_lost(reply.id, command.request_id if command else None)
                if command is not None:
                    self.request(command)
        if not replayed:
            for _ in filter(self.epoch.__eq__, expected):
                self.request(RequestReply(uuid4().hex))
        for epoch in self._tool_calls.connection_lost():
            self._continue_after_tools(epoch, lost=True)


def _vad_of(host: SessionHost, failures: FailureReports) -> VAD | None:
    """Return the VAD to use; None if the model signals speech, or the program ends the turns."""
    match host.capabilities.speech_detection:
        case "local":
            return ContainedVAD(host.vad or EnergyVAD(), failures)
        case "server":
            return None if host.vad is None else ContainedVAD(host.vad, failures)
        case "none":
            return None
