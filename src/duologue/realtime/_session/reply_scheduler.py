"""Decide which reply is made when, and what is stale (contracts C1, C3, C4; sans-IO).

Several parts of a program want the model to speak: the agent's greeting, a `say`, a tool's result,
and the model itself when the person's turn ends. A provider makes one reply at a time, and refuses
or mixes up the rest. So there is one writer:

    request() --> waiting --> sent ------------> running --> done
                  (queue)     (at most one)         ^
    expect() ---> expected -------------------------+    made by the provider unasked

    nothing is sent while a reply is running, sent or expected, or without a connection

Every step takes the time and returns `Effects`: commands to transmit and results to report.
`EffectRunner` carries them out, and calls `poll` when a deadline passes.

- Epochs. `interrupt` cancels what runs and drops what waits. What is sent or expected and has not
  begun can't be cancelled yet: it keeps its old epoch, and is cancelled when it appears.
- Cancelled replies. Until the provider confirms the end (``confirms_cancel``), or
  `CANCEL_TIMEOUT_S` has passed, nothing else is sent, because it would be refused as busy.
- Refusals. "Busy" while a reply runs is a race: the request goes back to the front of the queue.
  Any other refusal reaches the caller. No request ends without one of: a reply, a refusal, a drop.
- Time. An expected reply that has not begun after `AUTOMATIC_TIMEOUT_S` is not coming, and a
  request after `REQUEST_TIMEOUT_S`. ``due_since`` and ``stuck_since`` tell the silence monitor what
  is late.
- Loss of a connection. `connection_lost` returns what was running or expected, and puts what was
  sent back to the front of the queue; nothing is sent until `resume`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from duologue._bounded_dict import BoundedDict
from duologue.clock import Clock, Timer
from duologue.errors import ReplyRefusedError
from duologue.realtime.commands import CancelReply, Command, RequestReply, Say
from duologue.realtime.observer import SessionObserver
from duologue.realtime.outputs import ReplyRefused

AUTOMATIC_TIMEOUT_S = 8.0
"""Seconds after which an expected reply is not coming, and requests continue."""
REQUEST_TIMEOUT_S = 30.0
"""Seconds after which a request that has neither begun nor been refused has failed."""
MAX_BUSY_RETRIES = 2
"""Times that a request is sent again at once which was refused as busy although no reply runs."""
MAX_SPEECH_S = 600.0
"""Seconds; no speech is longer, so nothing waits longer for its end."""
_MAX_ENDED = 16
"""Ended replies that are remembered, because text of them may arrive late."""
CANCEL_TIMEOUT_S = 5.0
"""Seconds without any sign of a cancelled reply after which it has ended (Qwen sends no end)."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request for a reply or for scripted text; ``epoch`` is that of the request."""

    command: RequestReply | Say
    epoch: int

    @property
    def id(self) -> str:
        """The request's id."""
        return self.command.request_id


@dataclass(slots=True)
class Reply:
    """A reply that the provider is making."""

    id: str
    epoch: int
    request: Request | None
    """The request that it fulfils; None for an automatic reply."""
    cancelled_at: float | None = None
    active_until: float = 0.0
    """When its last part arrived, or its audio so far will have been played, if that is later."""


@dataclass(frozen=True, slots=True)
class Effects:
    """What follows from a step: commands to transmit, and requests that ended without a reply."""

    commands: list[Command] = field(default_factory=list)
    refused: list[ReplyRefused] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    missing: list[int] = field(default_factory=list)
    """Epochs of automatic replies that were expected and are not coming."""


class ReplyScheduler:
    """The sequence of replies of one session.

    Args:
        confirms_cancel: the provider confirms the end of a cancelled reply, which is waited for.
        defers_requests: the provider's codec keeps requests until the current audio has been
            played.
    """

    __slots__ = (
        "_audio_until",
        "_busy_retries",
        "_confirms_cancel",
        "_defers_requests",
        "_ended",
        "_epoch",
        "_expected",
        "_first_sent_at",
        "_first_sent_id",
        "_overdue",
        "_paused",
        "_request_timeout_s",
        "_running",
        "_sent",
        "_sent_at",
        "_sent_is_dropped",
        "_waiting",
    )

    def __init__(self, *, confirms_cancel: bool = True, defers_requests: bool = False) -> None:
        self._confirms_cancel = confirms_cancel
        self._defers_requests = defers_requests
        self._request_timeout_s = REQUEST_TIMEOUT_S + (MAX_SPEECH_S if defers_requests else 0.0)
        self._waiting: deque[Request] = deque()
        self._sent: Request | None = None
        self._sent_at = 0.0
        self._first_sent_at = 0.0
        """When the request was sent for the first time."""
        self._first_sent_id = ""
        self._busy_retries = 0
        self._sent_is_dropped = False
        self._expected: deque[tuple[int, float, bool]] = deque()
        self._overdue: tuple[int, float] | None = None
        """An automatic reply that is overdue, and no longer waited for."""
        self._audio_until = 0.0
        self._epoch = 0
        self._running: dict[str, Reply] = {}
        self._ended: BoundedDict[str, int] = BoundedDict(_MAX_ENDED)
        self._paused = False

    @property
    def pending(self) -> bool:
        """Whether a reply is running, requested, or expected."""
        return bool(self._is_replying or self._sent or self._expected or self._waiting)

    @property
    def due_next(self) -> bool:
        """Whether a reply is requested or expected that has not begun."""
        return bool(self._sent or self._expected)

    @property
    def _is_replying(self) -> bool:
        """Whether a reply is running that has to end before the next one may begin."""
        if self._confirms_cancel:
            return bool(self._running)
        return any(reply.cancelled_at is None for reply in self._running.values())

    def is_pending(self, epoch: int) -> bool:
        """Return whether a reply of ``epoch`` is running, requested, or expected."""
        sent = [] if self._sent is None else [self._sent]
        epochs = [request.epoch for request in (*sent, *self._waiting)]
        epochs += [reply.epoch for reply in self._running.values() if reply.cancelled_at is None]
        epochs += [expected for expected, *_ in self._expected]
        return epoch in epochs

    @property
    def deadline(self) -> float | None:
        """When `poll` is due, in clock seconds."""
        times = [when + AUTOMATIC_TIMEOUT_S for _, when, _ in self._expected]
        times += [
            reply.cancelled_at + CANCEL_TIMEOUT_S
            for reply in self._running.values()
            if reply.cancelled_at is not None
        ]
        if self._sent is not None:
            times.append(self._sent_at + self._request_timeout_s)
        return min(times, default=None)

    @property
    def due_since(self) -> float | None:
        """Since when the start of a reply is due, in clock seconds; None if none is due."""
        live = [entry for entry in self._expected if entry[0] >= self._epoch]
        times = [when for _, when, sure in live if sure]
        if self._overdue is not None:
            times.append(self._overdue[1])
        if self._sent is not None and not self._sent_is_dropped:
            # A codec that defers requests does so until its audio has been played.
            times.append(
                max(self._first_sent_at, self._audio_until if self._defers_requests else 0.0)
            )
        return min(times, default=None)

    @property
    def stuck_since(self) -> float | None:
        """Since when a running reply has neither grown nor played on; None if there is none."""
        running = self._running.values()
        return min((one.active_until for one in running if one.cancelled_at is None), default=None)

    def record_progress(self, reply_id: str, now: float, audio_s: float = 0.0) -> int | None:
        """Record that a reply has grown, by ``audio_s`` seconds of audio.

        Return its epoch; None if it is not running.
        """
        reply = self._running.get(reply_id)
        if reply is None:
            return None
        until = reply.active_until = max(reply.active_until, now) + audio_s
        if until > self._audio_until:
            self._audio_until = until
        return reply.epoch

    def running(self, reply_id: str) -> Reply | None:
        """Return the running reply with this id; None if there is none."""
        return self._running.get(reply_id)

    def epoch_of(self, reply_id: str, *, ended: bool = False) -> int | None:
        """Return the epoch of a running reply, with ``ended`` also of a recent one; else None."""
        reply = self._running.get(reply_id)
        if reply is not None:
            return reply.epoch
        return self._ended.get(reply_id) if ended else None

    def request(self, request: Request, now: float) -> Effects:
        """Queue a request, and send it as soon as no other reply is in its way."""
        self._waiting.append(request)
        return self._send_next(now)

    def expect(self, epoch: int, now: float, *, sure: bool = False) -> None:
        """Expect an automatic reply to the person; ``sure``: a working provider always makes it.

        Drop older expected replies that have not begun: the provider gave them up when the person
        continued to speak. Waiting for one would make this reply stale.
        """
        self._expected = deque(entry for entry in self._expected if entry[0] >= epoch)
        self._expected.append((epoch, now, sure))
        self._overdue = None

    def cancel_expected(self, epoch: int, now: float) -> Effects:
        """Stop expecting an automatic reply of that epoch."""
        found = next((entry for entry in self._expected if entry[0] == epoch), None)
        if found is not None:
            self._expected.remove(found)
        return self._send_next(now)

    def adopt(self, stale: int, epoch: int) -> bool:
        """Move an expected reply from a stale epoch to ``epoch``; return False if there is none."""
        for index, (expected, when, sure) in enumerate(self._expected):
            if expected == stale:
                self._expected[index] = epoch, when, sure
                return True
        return False

    def automatic_refused(self, now: float) -> tuple[int | None, Effects]:
        """Drop the automatic reply that is due next; return its epoch, or None if none is due."""
        epoch = self._expected.popleft()[0] if self._expected else None
        return epoch, self._send_next(now)

    def reply_started(
        self, reply_id: str, request_id: str | None, epoch: int, now: float
    ) -> Effects:
        """Record that the provider began a reply, and cancel it if it is older than ``epoch``."""
        sent = self._sent
        fulfilled: Request | None = None
        if sent is not None and request_id == sent.id:
            self._sent = None
            self._busy_retries = 0
            epoch_of_reply = sent.epoch
            fulfilled = sent
        elif self._expected:
            epoch_of_reply, *_ = self._expected.popleft()
        else:
            epoch_of_reply = epoch
        self._overdue = None
        reply = Reply(reply_id, epoch_of_reply, fulfilled, active_until=now)
        self._running[reply_id] = reply
        if epoch_of_reply >= epoch:
            return Effects()
        reply.cancelled_at = now
        return Effects([CancelReply(reply_id)])

    def reply_done(self, reply_id: str, now: float) -> Effects:
        """Record that a reply has ended, in whatever way."""
        reply = self._running.pop(reply_id, None)
        if reply is not None:
            self._ended[reply_id] = reply.epoch
        return self._send_next(now)

    def request_refused(self, refusal: ReplyRefused, now: float) -> Effects:
        """Record a refusal; requeue the request if the provider was busy."""
        sent = self._sent
        if sent is None or sent.id != refusal.request_id:
            return Effects()
        dropped = self._sent_is_dropped
        self._sent = None
        if dropped:
            return self._send_next(now)
        if refusal.busy and (self._is_replying or self._busy_retries < MAX_BUSY_RETRIES):
            # No reply is running: the one in the way ended while the refusal was on its way.
            self._busy_retries += not self._is_replying
            self._waiting.appendleft(sent)
            return self._send_next(now)
        self._busy_retries = 0
        effects = self._send_next(now)
        effects.refused.append(refusal)
        return effects

    def interrupt(self, epoch: int, now: float) -> Effects:
        """Make all older than ``epoch`` stale: cancel running replies, drop waiting requests."""
        effects = Effects()
        for reply in self._running.values():
            if reply.epoch < epoch and reply.cancelled_at is None:
                reply.cancelled_at = now
                effects.commands.append(CancelReply(reply.id))
        effects.dropped.extend(r.id for r in self._waiting if r.epoch < epoch)
        if self._sent is not None and self._sent.epoch < epoch and not self._sent_is_dropped:
            self._sent_is_dropped = True
            effects.dropped.append(self._sent.id)
        self._waiting = deque(r for r in self._waiting if r.epoch >= epoch)
        self._overdue, self._epoch = None, epoch
        return effects

    def poll(self, now: float) -> Effects:
        """Give up what has not come by ``now``, and report it."""
        missing: list[int] = []
        while self._expected and self._expected[0][1] + AUTOMATIC_TIMEOUT_S <= now:
            epoch, when, sure = self._expected.popleft()
            missing.append(epoch)
            if sure and epoch >= self._epoch:
                self._overdue = epoch, when
        for reply in [*self._running.values()]:
            if reply.cancelled_at is not None and reply.cancelled_at + CANCEL_TIMEOUT_S <= now:
                del self._running[reply.id]
        sent = self._sent
        late = sent is not None and self._sent_at + self._request_timeout_s <= now
        if late:
            self._sent = None
        dropped = self._sent_is_dropped
        effects = replace(self._send_next(now), missing=missing)
        if sent is None or not late or dropped:
            return effects
        message = f"the model did not begin to reply within {self._request_timeout_s:.0f} s"
        effects.refused.append(ReplyRefused(sent.id, "timeout", message))
        return effects

    def connection_lost(self) -> tuple[list[Reply], list[int]]:
        """Send nothing until `resume`, and requeue the request that has not begun.

        Returns:
            The running replies that are not cancelled, and the epochs of the expected ones.
        """
        self._paused = True
        running = [reply for reply in self._running.values() if reply.cancelled_at is None]
        expected = [epoch for epoch, *_ in self._expected]
        if self._overdue is not None:
            expected.append(self._overdue[0])
        self._overdue = None
        self._audio_until = 0.0
        if self._sent is not None and not self._sent_is_dropped:
            self._waiting.appendleft(self._sent)
        self._sent = None
        self._busy_retries = 0
        self._first_sent_id = ""
        self._running.clear()
        self._expected.clear()
        return running, expected

    def resume(self, now: float) -> Effects:
        """Send the next request, because there is a connection again."""
        self._paused = False
        return self._send_next(now)

    def close(self) -> list[str]:
        """End the session; return the ids of the requests that get no reply."""
        ended = [r.id for r in self._waiting]
        if self._sent is not None and not self._sent_is_dropped:
            ended.append(self._sent.id)
        self._waiting.clear()
        self._expected.clear()
        self._overdue = None
        self._running.clear()
        self._sent = None
        return ended

    def _send_next(self, now: float) -> Effects:
        busy = self._is_replying or self._sent or self._expected or self._paused
        if not self._waiting or busy:
            return Effects()
        self._sent = self._waiting.popleft()
        self._sent_at = now
        if self._sent.id != self._first_sent_id:
            self._first_sent_id, self._first_sent_at = self._sent.id, now
        self._sent_is_dropped = False
        return Effects([self._sent.command])


class EffectRunner:
    """Transmits commands, reports requests that get no reply, and keeps the timer.

    Args:
        scheduler: decides which reply is made when.
        clock: sets the timer.
        transmit: sends a command to the model.
        observer: returns the observer of the session, which is set after this object is made.
        on_timer: called after each poll, because other waits may be over as well.
    """

    def __init__(
        self,
        scheduler: ReplyScheduler,
        clock: Clock,
        *,
        transmit: Callable[[Command], None],
        observer: Callable[[], SessionObserver],
        on_timer: Callable[[], None],
    ) -> None:
        self._scheduler = scheduler
        self._clock = clock
        self._transmit = transmit
        self._observer = observer
        self._on_timer = on_timer
        self._timer: Timer | None = None
        self.is_open = False
        """Whether there is a session to transmit to."""

    def apply(self, effects: Effects) -> None:
        """Carry out the effects of one step."""
        for command in effects.commands:
            if self.is_open:
                self._transmit(command)
        for request_id in effects.dropped:
            self._observer().reply_ended(request_id, None)
        for refusal in effects.refused:
            error = ReplyRefusedError(refusal.message, code=refusal.code)
            self._observer().reply_ended(refusal.request_id, error)
        for epoch in effects.missing:
            self._observer().reply_skipped(epoch)
        self.arm()

    def arm(self) -> None:
        """Set the timer to the next deadline."""
        self._stop()
        deadline = self._scheduler.deadline
        if deadline is not None and self.is_open:
            self._timer = self._clock.call_at(deadline, self._poll)

    def close(self) -> None:
        """Stop the timer, because the session is over."""
        self.is_open = False
        self._stop()

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _poll(self) -> None:
        self.apply(self._scheduler.poll(self._clock.now()))
        self._on_timer()
