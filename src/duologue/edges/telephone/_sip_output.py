"""Pace a call's audio into the SIP stack, and count how much of it has left."""

# The stack sends 20 ms every 20 ms from a buffer of its own, and silence when that is empty. What
# lies there can be lost: whenever a side changes the session (hold, resume, another codec), the
# stack replaces its stream, and the buffer goes with it.
#
#     play ──▶ _waiting ──▶ _written ──▶ sent ──────────▶ heard
#              (ours,        (in the      (left, by       (DELAY later, because the other
#               bounded)      stack)       the stack)      side buffers too)
#
# - Only 40 ms are in the stack at a time: enough for a late loop, little to lose or to take back.
# - What a replaced buffer held, by the clock, is written again, and so is the frame before it,
#   which was probably in a second buffer of the stack. So a frame or two may be sent twice, and
#   none is lost.
# - A flush takes effect at the stack's next tick and would take what is written before it along, so
#   nothing is written until the buffer is seen empty.

from __future__ import annotations

from collections import deque

from duologue.audio import Samples

RING_S = 0.04
"""Seconds of audio that may be in the stack."""
MAX_WAITING_S = 10.0
"""Most seconds that wait, such as during a hold; the oldest are dropped."""
FLUSH_S = 0.05
"""Seconds after which a flush counts as done even if the buffer was not seen empty."""


class SipOutput:
    """The audio of one call on its way to the stack, in mono samples at one rate.

    Attributes:
        given: Samples given to `play` so far.
        sent: Samples of them that have left, or were dropped.
        overflowed: Samples dropped because too much was waiting.
        resent: Samples written again after a stream was replaced.
    """

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._ring = round(RING_S * rate)
        self._frame = rate // 50
        self._waiting: deque[Samples] = deque()
        self._waiting_samples = 0
        self._written: deque[Samples] = deque()
        self._written_end = 0
        self._epoch: int | None = None
        self._looked_at = 0.0
        self._flushing_since: float | None = None
        self._log: deque[tuple[float, int]] = deque()
        self._heard = 0
        self.given = 0
        self.sent = 0
        self.overflowed = 0
        self.resent = 0

    @property
    def outstanding(self) -> int:
        """Samples that were given and not proven to have been heard."""
        return self.given - self._heard

    def play(self, samples: Samples) -> None:
        """Add audio; drop the oldest if more than `MAX_WAITING_S` wait."""
        self.given += len(samples)
        self._waiting.append(samples)
        self._waiting_samples += len(samples)
        while self._waiting_samples > MAX_WAITING_S * self._rate:
            dropped = len(self._waiting.popleft())
            self._waiting_samples -= dropped
            self.overflowed += dropped
            self._written_end += dropped
            self.sent += dropped

    def clear(self, now: float) -> bool:
        """Drop what has not left; return whether the stack must flush its buffer."""
        flush = self.sent < self._written_end
        self._waiting.clear()
        self._waiting_samples = 0
        self._written.clear()
        self._log.clear()
        self.sent = self._written_end = self._heard = self.given
        if flush:
            self._flushing_since = now
        return flush

    def take(self, now: float, epoch: int, buffered_s: float) -> list[Samples]:
        """Return the audio to write now.

        Args:
            now: Seconds of the clock.
            epoch: See `SendState`.
            buffered_s: See `SendState`.
        """
        if not self.count(now, epoch, buffered_s):
            return []
        room = self._ring - (self._written_end - self.sent)
        out: list[Samples] = []
        while self._waiting and room > 0:
            samples = self._waiting.popleft()
            self._waiting_samples -= len(samples)
            self._written.append(samples)
            self._written_end += len(samples)
            room -= len(samples)
            out.append(samples)
        return out

    def count(self, now: float, epoch: int, buffered_s: float) -> bool:
        """Count what has left since the last look; return whether more may be written.

        Args:
            now: Seconds of the clock.
            epoch: See `SendState`.
            buffered_s: See `SendState`.
        """
        buffered = round(buffered_s * self._rate)
        if self._flushing_since is not None:
            if buffered and now - self._flushing_since < FLUSH_S:
                return False
            self._flushing_since = None
        left = max(self.sent, self._written_end - buffered)
        if self._epoch is not None and epoch != self._epoch and not buffered:
            left = self._recover(now)
        self._epoch = epoch
        self._looked_at = now
        self._set_sent(now, left)
        return True

    def stopped(self, now: float) -> None:
        """Take back what was written, because nothing is sent at present and it is lost."""
        if self._epoch is not None:
            self._set_sent(now, self._recover(now))
        self._looked_at = now
        self._epoch = None

    def _recover(self, now: float) -> int:
        """Take back what can't have left by the clock; return how much has left."""
        elapsed = round(max(0.0, now - self._looked_at) * self._rate)
        left = min(self._written_end, self.sent + elapsed // self._frame * self._frame)
        if self._written:
            left = max(left - self._frame, self._written_end - sum(map(len, self._written)))
        self._requeue(left)
        self.sent = min(self.sent, left)
        while self._log and self._log[-1][1] > left:
            self._log.pop()
        return left

    def _set_sent(self, now: float, left: int) -> None:
        begin = self._written_end - sum(map(len, self._written))
        while self._written and begin + len(self._written[0]) <= left - self._frame:
            begin += len(self._written.popleft())
        if left > self.sent:
            self.sent = left
            self._log.append((now, left))

    def _requeue(self, left: int) -> None:
        """Take back what was written after ``left``, because the stack has lost it."""
        while self._written and self._written_end > left:
            samples = self._written.pop()
            begin = self._written_end - len(samples)
            samples = samples[max(0, left - begin) :]
            self._written_end -= len(samples)
            self._waiting.appendleft(samples)
            self._waiting_samples += len(samples)
            self.resent += len(samples)

    def heard(self, now: float, delay_s: float) -> int | None:
        """Return how many samples have been heard if what left ``delay_s`` ago was; None if the
        number has not grown.
        """
        grown = False
        while self._log and self._log[0][0] <= now - delay_s:
            self._heard = max(self._heard, self._log.popleft()[1])
            grown = True
        return self._heard if grown else None
