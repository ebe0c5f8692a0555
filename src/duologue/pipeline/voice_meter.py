"""Measure how long the person's voice lasts and whether it is speech, for barge-in.

Sans-IO. A service reports the end of speech half a second late, and a VAD releases 0.1 to 0.2 s
late, so judged by either of them every cough lasts as long as a word. Here a frame only counts if
it is voice according to the VAD and also loud compared with the rest of its stretch::

    input      ..,cough,.......,w o r d s ,w o r d s,........
    VAD        ..,######--,....,#############################--,..
    counted    ..,####,........,#########,#########,..........
    stretch      |-- 1 --------|  |-- 2 -----------------------|

A stretch continues over gaps of up to `GAP_S`, because words contain such gaps.

Length alone can't tell a long cough, laughter or a hiss from a sentence. Speech has vowels: for a
tenth of a second the VAD is sure, and the signal is periodic at the pitch of a voice. The pitch is
only computed on demand, because it costs more than the VAD does.
"""

from __future__ import annotations

from collections import deque
from functools import cache

import numpy as np

from duologue.audio import Framer, Resampler, Samples
from duologue.pipeline.parts import VAD

VOICE = 0.5
"""Probability above which a frame is voice by the VAD."""
START_S = 0.048
"""Voice without a gap that begins a stretch, in seconds."""
GAP_S = 0.3
"""A stretch is over after this long without voice, in seconds."""
LOUD = 0.1
"""A frame softer than this fraction of the loudest one before it (-20 dB) is decay."""
SURE = 0.8
"""Probability above which the VAD is sure."""
SURE_S = 0.112
"""Sure frames without a gap that speech has somewhere, in seconds."""
PERIODIC = 0.6
"""Autocorrelation above which a frame has a pitch."""
PERIODIC_S = 0.096
"""Frames with a pitch without a gap that speech has somewhere, in seconds."""
_PITCHES = 70, 440
"""Lowest and highest pitch of a voice, in Hz."""
_WINDOW_S = 0.04
"""Seconds of audio in which a pitch is searched: almost three periods of the lowest."""
_MAX_FRAMES = 64
"""Frames that wait for a search for a pitch; beyond it the oldest are dropped."""


class VoiceMeter:
    """Measures the stretches of voice in one stream at ``rate`` Hz, by the given VAD."""

    __slots__ = (
        "_framer",
        "_frames",
        "_gap",
        "_loudest",
        "_periodic",
        "_periodic_longest",
        "_pitch",
        "_resampler",
        "_run",
        "_seconds",
        "_stream",
        "_sure",
        "_sure_longest",
        "_tail",
        "active",
        "began",
        "count",
        "is_open",
        "seconds",
    )

    def __init__(self, vad: VAD, rate: int) -> None:
        self._stream = vad.stream()
        self._resampler = Resampler(rate, vad.rate)
        self._framer = Framer(vad.rate, vad.frame_samples * 1000 // vad.rate)
        self._seconds = vad.frame_samples / vad.rate
        self._pitch = _pitch_at(vad.rate)
        self._run = 0.0
        self._gap = 0.0
        self._loudest = 0.0
        self._sure = self._sure_longest = 0.0
        self._periodic = self._periodic_longest = 0.0
        self._frames: deque[tuple[Samples, bool]] = deque(maxlen=_MAX_FRAMES)
        self._tail = np.zeros(0, np.int16)
        self.count = 0
        """Stretches that have begun so far."""
        self.began = float("-inf")
        """When the newest stretch began, in clock seconds."""
        self.seconds = 0.0
        """Seconds of voice in the newest stretch so far, without its gaps."""
        self.active = False
        """Whether there is voice in it at this moment."""
        self.is_open = False
        """Whether the newest stretch is not over."""

    @property
    def idle(self) -> bool:
        """Whether no stretch is open and none seems to begin."""
        return not (self.is_open or self._run)

    def hear(self, samples: Samples, now: float) -> list[tuple[float, float]]:
        """Process the next samples, which end ``now`` (clock seconds).

        Return the VAD's probability and the end of each frame that they complete.
        """
        frames = self._framer.push(self._resampler.push(samples))
        results = []
        for index, frame in enumerate(frames):
            at = now - (len(frames) - 1 - index) * self._seconds
            activity = self._stream.push(frame)
            if self.is_open or self._run or activity > VOICE:
                self._take(frame, activity, at)
            results.append((activity, at))
        return results

    def is_speech(self) -> bool:
        """Return whether the newest stretch has the properties of speech so far."""
        if self._sure_longest < SURE_S - 1e-9:
            return False
        while self._frames and self._periodic_longest < PERIODIC_S - 1e-9:
            frame, loud = self._frames.popleft()
            window = np.concatenate((self._tail, frame))[-self._pitch.window :]
            self._tail = window
            if loud and self._pitch.of(window) > PERIODIC:
                self._periodic += self._seconds
                self._periodic_longest = max(self._periodic_longest, self._periodic)
            else:
                self._periodic = 0.0
        return self._periodic_longest >= PERIODIC_S - 1e-9

    def _take(self, frame: Samples, activity: float, at: float) -> None:
        level = float(np.sqrt(np.mean(np.square(frame, dtype=np.float32))))
        voice = activity > VOICE
        if not self.is_open:
            self._wait(frame, level, at, voice=voice, sure=activity > SURE)
            return
        self._loudest = max(self._loudest, level)
        loud = level > LOUD * self._loudest
        self.active = voice and loud
        self._count(frame, loud=loud, voice=voice, sure=activity > SURE)
        self._gap = 0.0 if self.active else self._gap + self._seconds
        if self._gap >= GAP_S - 1e-9:
            self.is_open = False

    def _wait(self, frame: Samples, level: float, at: float, *, voice: bool, sure: bool) -> None:
        """Process a frame while no stretch has begun."""
        if not voice:
            self._run = 0.0
            return
        if not self._run:
            self._clear()
        self._run += self._seconds
        self._loudest = max(self._loudest, level)
        self._count(frame, loud=True, voice=True, sure=sure)
        if self._run >= START_S - 1e-9:
            self.began = at - self._run
            self.count += 1
            self.is_open = self.active = True
            self._run = self._gap = 0.0

    def _count(self, frame: Samples, *, loud: bool, voice: bool, sure: bool) -> None:
        self._frames.append((frame, loud))
        if loud and voice:
            self.seconds += self._seconds
        self._sure = self._sure + self._seconds if loud and sure else 0.0
        self._sure_longest = max(self._sure_longest, self._sure)

    def _clear(self) -> None:
        self.seconds = self._loudest = 0.0
        self._sure = self._sure_longest = 0.0
        self._periodic = self._periodic_longest = 0.0
        self._frames.clear()
        self._tail = np.zeros(0, np.int16)


class _Pitch:
    """Computes how periodic a signal is at the pitch of a voice."""

    __slots__ = ("_first", "_last", "_scale", "_shape", "_size", "window")

    def __init__(self, rate: int) -> None:
        self.window = round(rate * _WINDOW_S)
        """Samples in which a pitch is searched."""
        low, high = _PITCHES
        self._first, self._last = rate // high, rate // low + 1
        self._size = 1 << (self.window + self._last).bit_length()
        self._shape = np.hanning(self.window)
        # Divide by the window's own autocorrelation, which falls off with the lag.
        own = np.fft.irfft(np.abs(np.fft.rfft(self._shape, self._size)) ** 2, self._size)
        self._scale = own[0] / own[self._first : self._last]

    def of(self, samples: Samples) -> float:
        """Return the highest autocorrelation at a voice's pitch, 0 to 1."""
        if len(samples) < self.window:
            return 0.0
        windowed = (samples - samples.mean()) * self._shape
        spectrum = np.fft.rfft(windowed, self._size)
        power = (spectrum * spectrum.conj()).real
        found = np.fft.irfft(power, self._size)
        if found[0] <= 0:
            return 0.0
        return float(np.max(found[self._first : self._last] * self._scale) / found[0])


@cache
def _pitch_at(rate: int) -> _Pitch:
    return _Pitch(rate)
