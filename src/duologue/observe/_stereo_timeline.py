"""Put both voices of a conversation on one time axis, sample by sample (sans-IO).

Left is the person, right the agent. The agent's audio lies where it is played: the gate says when.
The person's has no such time. It comes in frames over a device or a network, a little early or
late, and at the pace of another clock, so it is placed by counting its samples; placing each frame
where it arrived would tear words apart. The count is compared with the time of arrival:

- Frames that are late for a moment (jitter, a stall of the event loop) come in a burst afterwards.
  For a second the smallest lateness is looked for: a burst brings it back to about 0.
- If even the smallest lateness of a second is above `_TOLERANCE_S`, audio is missing, and silence
  of that length is put in.
- If the count is ahead of the time for a whole second, the other clock is fast. Then silent frames
  are left out until it is not.

Resampled audio of the agent is contiguous within a speech; a gap begins a new stream.
"""

from __future__ import annotations

from duologue._audio_track import AudioTrack
from duologue._numpy import np
from duologue.audio import AudioFrame, Resampler, Samples

_TOLERANCE_S = 0.015
"""Seconds that the person's audio may lie beside the time of its arrival."""

_WINDOW_S = 1.0
"""Seconds over which the smallest lateness is looked for."""

_QUIET = 200
"""Largest value of a sample in a frame that may be left out."""

_GAP_S = 0.002
"""Seconds between two frames of the agent that belong to one stream; less is rounding."""


class StereoTimeline:
    """Two mono tracks at ``rate`` Hz that begin at ``zero``, in clock seconds.

    Attributes:
        rate: Samples a second.
        muted: While True, both sides are recorded as silence.
    """

    def __init__(self, rate: int, zero: float) -> None:
        self.rate = rate
        self._zero = zero
        self._person = AudioTrack()
        self._agent = AudioTrack()
        self._person_resampler: Resampler | None = None
        self._agent_resampler: Resampler | None = None
        self._agent_until = zero
        self._taken = 0
        self._window_began: float | None = None
        self._least_late = 0.0
        self._ahead = False
        self.muted = False

    def add_person(self, frame: AudioFrame, now: float) -> None:
        """Add audio of the person, whose last sample arrived at ``now``."""
        resampler = self._person_resampler
        if resampler is None or resampler.in_rate != frame.rate:
            resampler = self._person_resampler = Resampler(frame.rate, self.rate)
            first = self._position(now - len(frame.samples) / frame.rate)
            if first > self._person.end:
                self._person.end = first
        samples = resampler.push(frame.samples)
        self._correct(now, len(samples))
        if self._ahead and _is_quiet(frame.samples):
            return
        self._person.put(self._person.end, self._mute(samples))

    def add_agent(self, frame: AudioFrame, at: float) -> None:
        """Add audio of the agent that is played ``at`` that time."""
        resampler = self._agent_resampler
        if (
            resampler is None
            or resampler.in_rate != frame.rate
            or abs(at - self._agent_until) > _GAP_S
        ):
            if resampler is not None:
                self._agent.put(self._agent.end, self._mute(resampler.flush()))
            resampler = self._agent_resampler = Resampler(frame.rate, self.rate)
            self._agent.end = max(self._agent.end, self._position(at))
        self._agent.put(self._agent.end, self._mute(resampler.push(frame.samples)))
        self._agent_until = at + len(frame.samples) / frame.rate

    def clear_agent(self, now: float) -> None:
        """Remove what the agent was to say after ``now``."""
        self._agent.truncate(max(self._taken, self._position(now)))
        self._agent_resampler = None

    def take(self, until: float) -> Samples:
        """Remove and return everything before ``until``: int16 of shape (samples, 2)."""
        start = self._taken
        stop = self._taken = max(start, self._position(until))
        return np.stack((self._person.take(start, stop), self._agent.take(start, stop)), axis=1)

    def _position(self, at: float) -> int:
        return max(0, round((at - self._zero) * self.rate))

    def _mute(self, samples: Samples) -> Samples:
        return np.zeros_like(samples) if self.muted else samples

    def _correct(self, now: float, count: int) -> None:
        """Compare the count of the person's samples with the time of arrival."""
        late = now - self._zero - (self._person.end + count) / self.rate
        if self._window_began is None:
            self._window_began, self._least_late = now, late
        self._least_late = min(self._least_late, late)
        if late >= 0.0:
            self._ahead = False
        if now - self._window_began < _WINDOW_S:
            return
        if self._least_late > _TOLERANCE_S:
            self._person.end += round(self._least_late * self.rate)
        # A burst is ahead for a moment; a fast clock stays ahead.
        self._ahead = self._least_late < -_TOLERANCE_S and late < -_TOLERANCE_S
        self._window_began = None


def _is_quiet(samples: Samples) -> bool:
    return not len(samples) or int(np.abs(samples.astype(np.int32)).max()) < _QUIET
