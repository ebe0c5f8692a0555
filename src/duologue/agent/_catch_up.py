"""`CatchUp`: how late the gate is behind its source, and how much of that it may make good."""

# The gate plays every sample at real time, so whatever holds it up once (a garbage collection, a
# busy host, a network that stood still, a hold) makes the rest of the speech late. For audio that
# arrives at the pace of speech that can be made good: the audio that came late waits at the gate,
# and is played in a little less time until it does not wait any longer.
#
#     waits at the gate
#     0.5 s           ┌─────\
#                     │      \ caught up
#     0.0 s  ─────────┘       \────────
#                 stall
#
# Two things bound what is made good, and the smaller one counts:
#
# - *How late it is* (`CatchUp.late_s`): the sum of the gaps in which a speech stood still. A lead
#   that the source gives, such as a second in advance, is no lateness and is never used up.
# - *How much always waits*: the least that waited over a whole `_MIN_WINDOW_S`, or over more than
#   one piece if the source sends in large pieces, less `_RESERVE_S`. So what a source's own jitter
#   needs stays. If nothing waits `_FORGET_S` after a gap, the source itself has paused, and the gap
#   is forgotten.
#
# A source that stands still again and again needs what waits: each gap soon after another doubles
# the window, until a window has a gap in it and nothing is made good any more.
#
# Only a source at the pace of speech may be caught up with (`SourcePace`). Most models send a reply
# much faster; what waits is the rest of the reply then, and is played sample by sample.

from __future__ import annotations

_STEADY_S = 2.0
"""Seconds of audio that must have arrived at the pace of speech before it counts as such."""

_MAX_EVIDENCE_S = 0.5
"""Most seconds that one arrival adds to that, so that a pause of the source proves little."""

_PACE_TOLERANCE_S = 0.1
"""Seconds by which audio may come earlier than any before it, at the same pace."""

_MAX_LEAD_S = 1.0
"""Seconds by which a source at the pace of speech may be ahead of the ear; beyond is a burst."""

_MIN_LATE_S = 0.03
"""Lateness that is caught up with; less than that is jitter."""

_STOP_LATE_S = 0.01
"""Lateness at which catching up ends: less than a pitch period is not worth a splice."""

_RESERVE_S = 0.01
"""Seconds by which audio may always come later without a gap."""

_MIN_WINDOW_S = 0.25
"""Seconds of the shortest window in which the least that waited is looked for."""

_MAX_WINDOW_FACTOR = 32
"""How many times longer the window becomes at most, for a source that stands still often."""

_SETTLE_S = 0.04
"""Seconds after a gap until what has piled up meanwhile has arrived."""

_SAME_GAP_S = 1.0
"""Seconds within which two gaps are one, because a stall may end in steps."""

_OFTEN_S = 10.0
"""Seconds within which another gap doubles the window."""

_FORGET_S = 5.0
"""Seconds after a gap when what does not wait at the gate was not late."""


class SourcePace:
    """Tells whether the audio of one speech arrives at the pace of speech, or faster.

    Attributes:
        steady: Whether it has arrived at the pace of speech for a while.
        max_piece_s: Seconds of the longest piece that arrived.
    """

    __slots__ = ("_begun", "_ceiling", "_evidence", "_last", "max_piece_s", "steady")

    def __init__(self) -> None:
        self._begun: float | None = None
        self._ceiling = 0.0
        self._last = 0.0
        self._evidence = 0.0
        self.max_piece_s = 0.0
        self.steady = False

    def received(self, now: float, piece_s: float, total_s: float, lead_s: float) -> None:
        """Record an arrival.

        Args:
            now: Clock seconds.
            piece_s: Seconds of audio that arrived.
            total_s: Seconds of audio that have arrived so far.
            lead_s: Seconds that wait at the gate, less those that wait because it was late.
        """
        if piece_s > self.max_piece_s:
            self.max_piece_s = piece_s
        if self._begun is None:
            self._begun = self._last = now
        ahead = total_s - (now - self._begun)
        if ahead > self._ceiling or lead_s > _MAX_LEAD_S:
            self._ceiling = max(self._ceiling, ahead + _PACE_TOLERANCE_S)
            self._evidence = 0.0
            self.steady = False
        elif not self.steady:
            self._evidence += min(now - self._last, _MAX_EVIDENCE_S)
            self.steady = self._evidence >= _STEADY_S
        self._last = now


class CatchUp:
    """Counts how late the gate is, and how much of it may be made good now; all in seconds.

    Attributes:
        late_s: How much later than its source the gate plays.
        allowed_s: How much of it may be made good now.
        watches: Whether it is late enough for `observe` to change ``allowed_s``. Without it, only
            lateness that does not matter is not forgotten.
    """

    __slots__ = (
        "_factor",
        "_last_gap",
        "_least",
        "_slack",
        "_window_end",
        "_window_start",
        "allowed_s",
        "late_s",
        "watches",
    )

    def __init__(self) -> None:
        self.late_s = 0.0
        self.allowed_s = 0.0
        self.watches = False
        self._slack = 0.0
        self._least = float("inf")
        self._window_start = 0.0
        self._window_end = 0.0
        self._last_gap = float("-inf")
        self._factor = 1

    def reset(self) -> None:
        """Record that nothing is playing, so that nothing can be late."""
        self.late_s = self.allowed_s = self._slack = 0.0
        self.watches = False

    def gap(self, now: float, seconds: float) -> None:
        """Record that the speech that is playing stood still for ``seconds`` until ``now``."""
        self.late_s += seconds
        if seconds >= _MIN_LATE_S:
            since = now - seconds - self._last_gap
            if since > _OFTEN_S:
                self._factor = 1
            elif since > _SAME_GAP_S:
                self._factor = min(2 * self._factor, _MAX_WINDOW_FACTOR)
            self._last_gap = now
        self.allowed_s = self._slack = 0.0
        self.watches = self.late_s >= _MIN_LATE_S
        self._start_window(now + _SETTLE_S)

    def observe(self, now: float, waiting_s: float, max_piece_s: float) -> None:
        """Record what waits before more arrives; called for every piece and tick when late.

        Args:
            now: Clock seconds.
            waiting_s: Seconds that may pass without a gap until more audio arrives.
            max_piece_s: Seconds of the longest piece that the source sends at once.
        """
        if now < self._window_start:
            return
        self._least = min(self._least, waiting_s)
        window_s = self._factor * max(_MIN_WINDOW_S, 1.25 * max_piece_s)
        if now < self._window_start + window_s - 1e-9:
            return
        self._slack = max(0.0, self._least - _RESERVE_S)
        self._start_window(now)
        if now - self._last_gap >= _FORGET_S:
            self.late_s = min(self.late_s, self._slack)
        self._allow(_MIN_LATE_S if not self.allowed_s else _STOP_LATE_S)

    def caught_up(self, seconds: float) -> None:
        """Record that ``seconds`` were made good; less than 0 where that was taken back."""
        self.late_s = max(0.0, self.late_s - seconds)
        self._slack = max(0.0, self._slack - seconds)
        self._least -= seconds
        self._allow(_STOP_LATE_S)

    def _start_window(self, at: float) -> None:
        self._window_start = at
        self._least = float("inf")

    def _allow(self, from_s: float) -> None:
        allowed = min(self.late_s, self._slack)
        self.allowed_s = allowed if allowed >= from_s else 0.0
        self.watches = self.allowed_s > 0 or self.late_s >= _MIN_LATE_S
