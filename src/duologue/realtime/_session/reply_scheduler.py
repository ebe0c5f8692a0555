"""One writer of replies: what was asked for, what runs, what is stale (contracts C1, C3, C4).

Sans-IO: methods take the time and return the commands to transmit. At most one request is with the
provider at a time; the others wait for the running reply, automatic ones included.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace

from duologue.realtime.commands import CancelReply, Command, RequestReply, Say
from duologue.realtime.outputs import ReplyRefused

AUTOMATIC_TIMEOUT_S = 8.0
"""An automatic reply that has not begun by then is not coming; requests go on."""
REQUEST_TIMEOUT_S = 30.0
"""A request that was neither begun nor refused by then has failed, and its caller is told."""
MAX_BUSY_RETRIES = 2
"""How often a request is asked again at once that was refused as busy though no reply runs."""
MAX_SPEECH_S = 600.0
"""No speech is longer, so nothing has to be waited for any longer."""
_MAX_ENDED = 16
"""Ended replies that are remembered, since words of them may come late."""
CANCEL_TIMEOUT_S = 5.0
"""A cancelled reply that nothing was heard of for so long has ended (Qwen sends no end)."""


@dataclass(frozen=True, slots=True)
class Request:
    """Somebody wants a reply, or scripted text spoken; ``epoch`` is when they asked."""

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
    """What it answers; None for one that the model makes by itself."""
    cancelled_at: float | None = None
    active_until: float = 0.0
    """When its last part came, or when the audio so far will have been played, if that is later."""


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

    ``confirms``: the provider tells when a cancelled reply has ended, and is waited for. ``holds``:
    requests wait until what is being said was played.
    """

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
        """An automatic reply that is overdue, and not waited for any more."""
        self._audio_until = 0.0
        self._epoch = 0
        self._running: dict[str, Reply] = {}
        self._ended: dict[str, int] = {}
        self._paused = False

    @property
    def pending(self) -> bool:
        """A reply is being made, was asked for, or is expected."""
        return bool(self._is_replying or self._sent or self._expected or self._waiting)

    @property
    def due_next(self) -> bool:
        """Whether a reply was requested, or is made automatically, and has not begun."""
        return bool(self._sent or self._expected)

    @property
    def _is_replying(self) -> bool:
        """A reply is under way that has to end before the next one may begin."""
        if self._confirms_cancel:
            return bool(self._running)
        return any(reply.cancelled_at is None for reply in self._running.values())

    def is_pending(self, epoch: int) -> bool:
        """As `pending`, but only what is of ``epoch``."""
        asked = [] if self._sent is None else [self._sent]
        epochs = [request.epoch for request in (*asked, *self._waiting)]
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
        """Since when the beginning of a reply is due, in clock seconds; None if none is."""
        live = [entry for entry in self._expected if entry[0] >= self._epoch]
        times = [when for _, when, sure in live if sure]
        if self._overdue is not None:
            times.append(self._overdue[1])
        if self._sent is not None and not self._sent_is_dropped:
            # A provider that holds requests back does so until its audio was played.
            times.append(
                max(self._first_sent_at, self._audio_until if self._defers_requests else 0.0)
            )
        return min(times, default=None)

    @property
    def stuck_since(self) -> float | None:
        """Since when a running reply has neither come nor played on; None if there is none."""
        running = self._running.values()
        return min((one.active_until for one in running if one.cancelled_at is None), default=None)

    def record_progress(self, reply_id: str, now: float, audio_s: float = 0.0) -> None:
        """Record that more of a reply has come, with ``sound_s`` seconds of audio."""
        reply = self._running.get(reply_id)
        if reply is not None:
            reply.active_until = max(reply.active_until, now) + audio_s
            self._audio_until = max(self._audio_until, reply.active_until)

    def running(self, reply_id: str) -> Reply | None:
        """Return the reply that the provider is making under this id; None if there is none."""
        return self._running.get(reply_id)

    def epoch_of(self, reply_id: str, *, ended: bool = False) -> int | None:
        """The epoch that a running reply was made in; None for an unknown one.

        With ``ended`` also of one that has ended not long ago.
        """
        reply = self._running.get(reply_id)
        if reply is not None:
            return reply.epoch
        return self._ended.get(reply_id) if ended else None

    def request(self, request: Request, now: float) -> Effects:
        """Somebody wants a reply."""
        self._waiting.append(request)
        return self._send_next(now)

    def expect(self, epoch: int, now: float, *, sure: bool = False) -> None:
        """Expect an automatic reply to the person; ``sure``: a working provider always makes it.

        An older answer that has not begun by now was given up by the provider when it heard the
        person go on; waiting for it would take this one for stale.
        """
        self._expected = deque(entry for entry in self._expected if entry[0] >= epoch)
        self._expected.append((epoch, now, sure))
        self._overdue = None

    def cancel_expected(self, epoch: int, now: float) -> Effects:
        """An automatic reply of that epoch is not coming after all."""
        found = next((entry for entry in self._expected if entry[0] == epoch), None)
        if found is not None:
            self._expected.remove(found)
        return self._send_next(now)

    def adopt(self, stale: int, epoch: int) -> bool:
        """Make an automatic reply that has not begun current again; False if there is none."""
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
        """The provider began a reply; ``epoch`` is the session's."""
        asked = self._sent
        answered: Request | None = None
        if asked is not None and request_id == asked.id:
            self._sent = None
            self._busy_retries = 0
            epoch_of_reply = asked.epoch
            answered = asked
        elif self._expected:
            epoch_of_reply, *_ = self._expected.popleft()
        else:
            epoch_of_reply = epoch
        self._overdue = None
        reply = Reply(reply_id, epoch_of_reply, answered, active_until=now)
        self._running[reply_id] = reply
        if epoch_of_reply >= epoch:
            return Effects()
        reply.cancelled_at = now
        return Effects([CancelReply(reply_id)])

    def reply_done(self, reply_id: str, now: float) -> Effects:
        """The provider has ended a reply, in whatever way."""
        reply = self._running.pop(reply_id, None)
        if reply is not None:
            self._ended[reply_id] = reply.epoch
            if len(self._ended) > _MAX_ENDED:
                del self._ended[next(iter(self._ended))]
        return self._send_next(now)

    def request_refused(self, refusal: ReplyRefused, now: float) -> Effects:
        """The provider did not take the request; a busy one is asked again after the reply."""
        asked = self._sent
        if asked is None or asked.id != refusal.request_id:
            return Effects()
        dropped = self._sent_is_dropped
        self._sent = None
        if dropped:
            return self._send_next(now)
        if refusal.busy and (self._is_replying or self._busy_retries < MAX_BUSY_RETRIES):
            # Nothing runs: the reply that was in the way has ended while the refusal was coming.
            self._busy_retries += not self._is_replying
            self._waiting.appendleft(asked)
            return self._send_next(now)
        self._busy_retries = 0
        changes = self._send_next(now)
        changes.refused.append(refusal)
        return changes

    def interrupt(self, epoch: int, now: float) -> Effects:
        """Everything older than ``epoch`` is stale: cancel what runs, drop what waits."""
        changes = Effects()
        for reply in self._running.values():
            if reply.epoch < epoch and reply.cancelled_at is None:
                reply.cancelled_at = now
                changes.commands.append(CancelReply(reply.id))
        changes.dropped.extend(r.id for r in self._waiting if r.epoch < epoch)
        if self._sent is not None and self._sent.epoch < epoch and not self._sent_is_dropped:
            self._sent_is_dropped = True
            changes.dropped.append(self._sent.id)
        self._waiting = deque(r for r in self._waiting if r.epoch >= epoch)
        self._overdue, self._epoch = None, epoch
        return changes

    def poll(self, now: float) -> Effects:
        """Some time has passed: give up what is not coming, and say so."""
        missing: list[int] = []
        while self._expected and self._expected[0][1] + AUTOMATIC_TIMEOUT_S <= now:
            epoch, when, sure = self._expected.popleft()
            missing.append(epoch)
            if sure and epoch >= self._epoch:
                self._overdue = epoch, when
        for reply in [*self._running.values()]:
            if reply.cancelled_at is not None and reply.cancelled_at + CANCEL_TIMEOUT_S <= now:
                del self._running[reply.id]
        asked = self._sent
        late = asked is not None and self._sent_at + self._request_timeout_s <= now
        if late:
            self._sent = None
        dropped = self._sent_is_dropped
        changes = replace(self._send_next(now), missing=missing)
        if asked is None or not late or dropped:
            return changes
        message = f"the model did not begin to reply within {self._request_timeout_s:.0f} s"
        changes.refused.append(ReplyRefused(asked.id, "timeout", message))
        return changes

    def connection_lost(self) -> tuple[list[Reply], list[int]]:
        """The connection is gone: ask for nothing until `resume`.

        Returns the replies that were being made and are not cancelled, and the epochs of the
        automatic ones that had not begun. What was asked for and had not begun waits again.
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
        """There is a connection again."""
        self._paused = False
        return self._send_next(now)

    def close(self) -> list[str]:
        """The session is over: the requests that will have no reply."""
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
