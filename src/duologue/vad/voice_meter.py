"""Measure how long the person's voice lasts and whether it is speech, for barge-in.

Sans-IO. A service reports the end of speech half a second late, and a VAD releases 0.1 to 0.2 s
late, so judged by either of them every cough lasts as long as a word. Here a frame only counts if
it is voice according to the VAD and also loud compared with the rest of its stretch::

    input      ..,cough,.......,w o r d s ,w o r d s,........
    VAD        ..,######--,....,#############################--,..
    counted    ..,####,........,#########,#########,..........
    stretch      |-- 1 --------|  |-- 2 -----------------------|

The VAD costs more than all the rest, so it sleeps while there is nothing but noise. Audio that
stands out from the noise wakes it. It then begins with the last `_WARM_UP_S` of the noise, because
its verdict depends on what it was given before, and stays awake until no stretch is open and
`_AWAKE_S` have passed.

A stretch continues over gaps of up to `GAP_S`, because words contain such gaps.

Length alone can't tell a long cough, laughter or a hiss from a sentence. Speech has vowels: for a
tenth of a second the VAD is sure, and the signal is periodic at the pitch of a voice. The pitch is
only computed on demand, because it costs more than the VAD does.
"""

from __future__ import annotations

from collections import deque
from functools import cache

from duologue._companding import compress, expand
from duologue._numpy import np
from duologue.audio import Framer, Resampler, Samples, loudness
from duologue.vad._noise_floor import MARGIN, MIN_PEAK, NoiseFloor
from duologue.vad.vad import VAD

VOICE_PROBABILITY = 0.5
"""Probability above which a frame is voice by the VAD."""
START_S = 0.048
"""Seconds of voice without a gap that begin a stretch."""
GAP_S = 0.3
"""Seconds without voice that end a stretch."""
LOUD_RATIO = 0.1
"""A frame softer than this fraction of the loudest one before it (-20 dB) is decay."""
SURE_PROBABILITY = 0.8
"""Probability above which the VAD is sure."""
MIN_SURE_S = 0.112
"""Seconds without a gap that speech contains of frames the VAD is sure of."""
MIN_PERIODICITY = 0.6
"""Autocorrelation above which a frame has a pitch."""
MIN_PERIODIC_S = 0.096
"""Seconds without a gap that speech contains of frames with a pitch."""
_AWAKE_S = 0.08
"""Seconds of noise after which the VAD sleeps; silence needs none."""
_WARM_UP_S = 0.06
"""Seconds of noise that a VAD is given before the audio that has woken it."""
_PITCH_RANGE_HZ = 70, 440
"""Lowest and highest pitch of a voice, in Hz."""
_WINDOW_S = 0.04
"""Seconds of audio in which a pitch is searched: almost three periods of the lowest."""
_MAX_FRAMES = 64
"""Frames that wait to be searched for a pitch; beyond this the oldest are dropped."""


class VoiceMeter:
    """Measures the stretches of voice in one stream of ``rate`` Hz, using the given VAD."""

    __slots__ = (
        "_awake_s",
        "_frame_s",
        "_framer",
        "_frames",
        "_gap_s",
        "_has_slept",
        "_loudest",
        "_max_periodic_s",
        "_max_sure_s",
        "_noise_floor",
        "_periodic_s",
        "_pitch_detector",
        "_rate",
        "_received",
        "_resampler",
        "_rests",
        "_run_s",
        "_skipped",
        "_skipped_s",
        "_stream",
        "_sure_s",
        "_tail",
        "active",
        "is_open",
        "seconds",
        "started_at",
        "stretch_count",
    )

    def __init__(self, vad: VAD, rate: int) -> None:
        self._rate = rate
        self._noise_floor = NoiseFloor()
        self._awake_s = 0.0
        """Seconds of noise until the VAD sleeps."""
        self._skipped: deque[Samples] = deque()
        """The newest audio that the VAD was not given."""
        self._skipped_s = 0.0
        self._received = 0
        """Samples so far, which the VAD was given or not."""
        self._has_slept = False
        """Whether the VAD was not given the samples before the next."""
        self._rests = False
        """Whether the VAD sleeps and nothing of a stretch is kept, so silence changes nothing."""
        self._stream = vad.stream()
        self._resampler = Resampler(rate, vad.rate)
        self._framer = Framer(vad.rate, vad.frame_samples * 1000 // vad.rate)
        self._frame_s = vad.frame_samples / vad.rate
        self._pitch_detector = _pitch_detector(vad.rate)
        self._run_s = 0.0
        self._gap_s = 0.0
        self._loudest = 0.0
        self._sure_s = self._max_sure_s = 0.0
        self._periodic_s = self._max_periodic_s = 0.0
        self._frames: deque[tuple[bytes, bool]] = deque(maxlen=_MAX_FRAMES)
        """Frames that may be searched for a pitch, companded, and whether each is loud."""
        self._tail = np.zeros(0, np.int16)
        self.stretch_count = 0
        """Number of stretches that have begun."""
        self.started_at = float("-inf")
        """When the newest stretch began, in clock seconds."""
        self.seconds = 0.0
        """Seconds of voice in the newest stretch so far, without its gaps."""
        self.active = False
        """Whether there is voice in it now."""
        self.is_open = False
        """Whether the newest stretch may still continue."""

    def push(
        self, samples: Samples, now: float, peak: int | None = None
    ) -> list[tuple[float, float, float]]:
        """Process the next samples, which end at ``now`` (clock seconds).

        ``peak`` is the highest of them, if that is known.

        Return the probability of speech, the length and the end time of each frame of the VAD that
        they complete; with probability 0 if they are only noise, of any length.
        """
        length = len(samples)
        seconds = length / self._rate
        self._received += length
        if peak is None:
            peak = int(np.maximum.reduce(samples))
        if peak <= MIN_PEAK and self._rests:  # A microphone that is muted, or has a noise gate.
            self._noise_floor.lower()
            self._awake_s -= seconds
            return [(0.0, seconds, now)]
        if not self._noise_floor.is_noise(peak, seconds):
            self._awake_s = _AWAKE_S
        elif not (self.is_open or self._run_s):
            self._awake_s -= seconds
            silent = peak <= MARGIN * MIN_PEAK
            if silent or self._awake_s <= 0.0:
                self._skip(samples, seconds, silent=silent)
                return [(0.0, seconds, now)]
        self._rests = False
        if self._skipped:
            samples = np.concatenate((*self._skipped, samples))
            self._skipped.clear()
            self._skipped_s = 0.0
        resampled = self._resampler.push(samples)
        if self._has_slept:
            resampled = self._aligned(resampled)
        frames = self._framer.push(resampled)
        results = []
        for index, frame in enumerate(frames):
            at = now - (len(frames) - 1 - index) * self._frame_s
            activity = self._stream.push(frame)
            if activity > VOICE_PROBABILITY:
                self._awake_s = _AWAKE_S
                self._measure(frame, activity, at)
            elif self.is_open or self._run_s:
                self._measure(frame, activity, at)
            results.append((activity, self._frame_s, at))
        return results

    def _skip(self, samples: Samples, seconds: float, *, silent: bool) -> None:
        """Let the VAD sleep through noise; keep the newest of it, unless it is silence."""
        if not self._rests:
            self._frames.clear()  # Whoever decides by this stretch has done so by now.
            self._framer.flush()
            self._has_slept = self._rests = True
        if silent:
            return
        self._skipped.append(samples)
        self._skipped_s += seconds
        while self._skipped_s > _WARM_UP_S + seconds - 1e-9:
            self._skipped_s -= len(self._skipped.popleft()) / self._rate

    def _aligned(self, resampled: Samples) -> Samples:
        """Return samples that end where they would in the VAD's frames if it had never slept.

        Otherwise the start of a voice would complete its first frame up to a frame later.
        """
        self._has_slept = False
        end = self._received * self._resampler.out_rate // self._rate
        missing = (end - len(resampled)) % self._framer.size
        return np.concatenate((np.zeros(missing, np.int16), resampled))

    def is_speech(self) -> bool:
        """Return whether the newest stretch has the properties of speech so far."""
        if self._max_sure_s < MIN_SURE_S - 1e-9:
            return False
        while self._frames and self._max_periodic_s < MIN_PERIODIC_S - 1e-9:
            packed, loud = self._frames.popleft()
            frame = expand(np.frombuffer(packed, np.uint8))
            window = np.concatenate((self._tail, frame))[-self._pitch_detector.window :]
            self._tail = window
            if loud and self._pitch_detector.periodicity(window) > MIN_PERIODICITY:
                self._periodic_s += self._frame_s
                self._max_periodic_s = max(self._max_periodic_s, self._periodic_s)
            else:
                self._periodic_s = 0.0
        return self._max_periodic_s >= MIN_PERIODIC_S - 1e-9

    def _measure(self, frame: Samples, activity: float, at: float) -> None:
        level = loudness(frame)
        voice = activity > VOICE_PROBABILITY
        if not self.is_open:
            self._try_start(frame, level, at, voice=voice, sure=activity > SURE_PROBABILITY)
            return
        self._loudest = max(self._loudest, level)
        loud = level > LOUD_RATIO * self._loudest
        self.active = voice and loud
        self._count_frame(frame, loud=loud, voice=voice, sure=activity > SURE_PROBABILITY)
        self._gap_s = 0.0 if self.active else self._gap_s + self._frame_s
        if self._gap_s >= GAP_S - 1e-9:
            self.is_open = False

    def _try_start(
        self, frame: Samples, level: float, at: float, *, voice: bool, sure: bool
    ) -> None:
        """Process a frame while no stretch is open."""
        if not voice:
            self._run_s = 0.0
            return
        if not self._run_s:
            self._clear()
        self._run_s += self._frame_s
        self._loudest = max(self._loudest, level)
        self._count_frame(frame, loud=True, voice=True, sure=sure)
        if self._run_s >= START_S - 1e-9:
            self.started_at = at - self._run_s
            self.stretch_count += 1
            self.is_open = self.active = True
            self._run_s = self._gap_s = 0.0

    def _count_frame(self, frame: Samples, *, loud: bool, voice: bool, sure: bool) -> None:
        self._frames.append((compress(frame).tobytes(), loud))
        if loud and voice:
            self.seconds += self._frame_s
        self._sure_s = self._sure_s + self._frame_s if loud and sure else 0.0
        self._max_sure_s = max(self._max_sure_s, self._sure_s)

    def _clear(self) -> None:
        self.seconds = self._loudest = 0.0
        self._sure_s = self._max_sure_s = 0.0
        self._periodic_s = self._max_periodic_s = 0.0
        self._frames.clear()
        self._tail = np.zeros(0, np.int16)


class _PitchDetector:
    """Computes how periodic a signal is at the pitch of a voice."""

    __slots__ = ("_first_lag", "_last_lag", "_scale", "_shape", "_size", "window")

    def __init__(self, rate: int) -> None:
        self.window = round(rate * _WINDOW_S)
        """Samples in which a pitch is searched."""
        low, high = _PITCH_RANGE_HZ
        self._first_lag, self._last_lag = rate // high, rate // low + 1
        self._size = 1 << (self.window + self._last_lag).bit_length()
        self._shape = np.hanning(self.window)
        # Divide by the window's own autocorrelation, which falls off with the lag.
        own = np.fft.irfft(np.abs(np.fft.rfft(self._shape, self._size)) ** 2, self._size)
        self._scale = own[0] / own[self._first_lag : self._last_lag]

    def periodicity(self, samples: Samples) -> float:
        """Return the highest autocorrelation at a voice's pitch, 0 to 1."""
        if len(samples) < self.window:
            return 0.0
        windowed = (samples - samples.mean()) * self._shape
        spectrum = np.fft.rfft(windowed, self._size)
        power = (spectrum * spectrum.conj()).real
        found = np.fft.irfft(power, self._size)
        if found[0] <= 0:
            return 0.0
        return float(np.max(found[self._first_lag : self._last_lag] * self._scale) / found[0])


@cache
def _pitch_detector(rate: int) -> _PitchDetector:
    return _PitchDetector(rate)
