"""Finds turns in the audio of a simulated recogniser; its clock is the audio (sans-IO)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from duologue.audio import Framer, Samples, loudness

FRAME_S = 0.02
LOUD_RMS = 300.0
"""Loudness (RMS of int16) of a frame that is speech."""
UPDATE_S = 0.25
"""Seconds of audio between two updates of a turn."""
PREROLL_S = 0.1
"""Seconds of audio before the first loud frame that belong to a turn."""


@dataclass(frozen=True, slots=True)
class TurnBegan:
    """A turn began, ``at`` seconds of the audio."""

    turn: int
    at: float


@dataclass(frozen=True, slots=True)
class TurnGrew:
    """The audio of a turn so far, which ends ``at`` seconds."""

    turn: int
    at: float
    samples: Samples


@dataclass(frozen=True, slots=True)
class TurnPaused:
    """A turn may be over; its audio so far."""

    turn: int
    at: float
    samples: Samples


@dataclass(frozen=True, slots=True)
class TurnWentOn:
    """A turn that paused continues."""

    turn: int
    at: float


@dataclass(frozen=True, slots=True)
class TurnDone:
    """A turn is over; its audio. ``forced``: the client has ended it."""

    turn: int
    at: float
    samples: Samples
    forced: bool = False


type TurnSignal = TurnBegan | TurnGrew | TurnPaused | TurnWentOn | TurnDone


class AudioTurns:
    """Turns in audio at ``rate`` Hz.

    Args:
        rate: Samples a second.
        start_s: Seconds of loud audio that begin a turn.
        eager_s: Seconds of silence after which it may be over; None: that is not told.
        end_s: Seconds of silence that end it.
    """

    def __init__(
        self, rate: int, *, start_s: float = 0.06, eager_s: float | None = 0.2, end_s: float = 0.5
    ) -> None:
        self.rate = rate
        self._start_s, self._eager_s, self._end_s = start_s, eager_s, end_s
        self._framer = Framer(rate, int(FRAME_S * 1000))
        self._frames: list[Samples] = []
        self._turn = 0
        self._open = False
        self._paused = False
        self._loud_s = 0.0
        self._silent_s = 0.0
        self._updated_at = 0.0
        self.seconds = 0.0
        """Seconds of audio so far, in whole frames."""

    @property
    def is_open(self) -> bool:
        """Whether a turn is open."""
        return self._open

    @property
    def turns_done(self) -> int:
        """Number of turns that are over."""
        return self._turn

    def set_end(self, seconds: float) -> None:
        """Set the seconds of silence that end a turn, from now on."""
        self._end_s = seconds

    def push(self, samples: Samples) -> list[TurnSignal]:
        """Process audio; return what happened in it."""
        signals: list[TurnSignal] = []
        for frame in self._framer.push(samples):
            signals += self._push(frame)
        return signals

    def end(self) -> list[TurnSignal]:
        """End the turn that is open, because the client says so."""
        return [self._finish(forced=True)] if self._open else []

    def _push(self, frame: Samples) -> list[TurnSignal]:
        self.seconds += FRAME_S
        loud = loudness(frame) > LOUD_RMS
        self._frames.append(frame)
        self._loud_s = self._loud_s + FRAME_S if loud else 0.0
        self._silent_s = 0.0 if loud else self._silent_s + FRAME_S
        if not self._open:
            return self._wait_for_speech()
        signals: list[TurnSignal] = []
        if self._paused and self._loud_s >= self._start_s - 1e-9:
            self._paused = False
            signals.append(TurnWentOn(self._turn, self.seconds))
        if self._silent_s >= self._end_s - 1e-9:
            signals.append(self._finish(forced=False))
        elif (
            self._eager_s is not None
            and not self._paused
            and self._silent_s >= self._eager_s - 1e-9
        ):
            self._paused = True
            signals.append(TurnPaused(self._turn, self.seconds, self._audio()))
        elif not self._paused and self.seconds - self._updated_at >= UPDATE_S - 1e-9:
            self._updated_at = self.seconds
            signals.append(TurnGrew(self._turn, self.seconds, self._audio()))
        return signals

    def _wait_for_speech(self) -> list[TurnSignal]:
        keep = int((PREROLL_S + self._start_s) / FRAME_S)
        if self._loud_s < self._start_s - 1e-9:
            del self._frames[:-keep]
            return []
        self._open, self._paused = True, False
        self._updated_at = self.seconds
        return [TurnBegan(self._turn, max(0.0, self.seconds - len(self._frames) * FRAME_S))]

    def _finish(self, *, forced: bool) -> TurnDone:
        done = TurnDone(self._turn, self.seconds, self._audio(), forced)
        self._turn += 1
        self._open = self._paused = False
        self._frames.clear()
        self._loud_s = self._silent_s = 0.0
        return done

    def _audio(self) -> Samples:
        return np.concatenate(self._frames) if self._frames else np.zeros(0, np.int16)
