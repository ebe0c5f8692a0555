"""The person's side: where turns begin and end in the sound."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from duologue.audio import Samples
from duologue.simulator.hearing import Hearing, Turn, TurnTooShortError
from duologue.simulator.kept import Kept
from duologue.simulator.nova.input_events import Sensitivity

ENDPOINTING_MS: Mapping[Sensitivity, int] = {"HIGH": 1500, "MEDIUM": 1750, "LOW": 2000}
"""Silence that ends a turn, as AWS documents it for Nova 2 Sonic."""

MOST_HEARD = 1000
"""Newest turns that are kept for inspection."""
MAX_HEARD_S = 1800
"""Seconds of their audio, if it is kept; beyond it the oldest are dropped."""


@dataclass(frozen=True, slots=True, eq=False)
class HeardTurn:
    """A turn: where it lay in the session's sound, in samples at ``rate`` Hz, and its sound.

    ``samples`` is int16, empty unless the simulator was told to ``keep_audio``.
    """

    start: int
    end: int
    rate: int
    samples: Samples


@dataclass(frozen=True, slots=True)
class Endpointing:
    """How turns are found; times in ms."""

    silence_ms: int
    prefix_ms: int = 300
    threshold: float = 0.5


class Turns:
    """Finds the turns of one session; ``rate`` is Hz of its sound."""

    def __init__(self, endpointing: Endpointing, *, rate: int, keep_audio: bool) -> None:
        self._rate = rate
        self._keep_audio = keep_audio
        self._hearing = Hearing(self, rate=rate)
        self._hearing.configure(endpointing)
        self.kept: Kept[HeardTurn] = Kept(MOST_HEARD, MAX_HEARD_S * rate)
        self.started: Callable[[], None] = lambda: None
        """Is told that the person has begun to speak."""
        self.sound: Callable[[Samples], None] = lambda _: None
        """Is told the sound of the turn."""
        self.ended: Callable[[str, float], None] = lambda *_: None
        """Is told a turn's id and its seconds."""

    @property
    def heard(self) -> list[HeardTurn]:
        """The newest user turns."""
        return self.kept.entries

    @property
    def speaking(self) -> bool:
        """A turn has begun and is not over."""
        return self._hearing.speaking

    def push(self, samples: Samples) -> None:
        """The next sound."""
        self._hearing.push(samples)

    def close(self) -> None:
        """Stop listening."""
        self._hearing.clear()

    def end(self) -> None:
        """There is no more sound: a turn that has begun is over."""
        if self._hearing.speaking:
            with suppress(TurnTooShortError):
                self._hearing.commit()

    # TurnSink: what the hearing tells

    def speech_started(self, turn: Turn, at_ms: int) -> None:
        """The person speaks."""
        del turn, at_ms
        self.started()

    def speech_heard(self, samples: Samples) -> None:
        """More of it."""
        self.sound(samples)

    def speech_stopped(self, turn: Turn, at_ms: int) -> None:
        """The service says nothing about it."""

    def turn_committed(self, turn: Turn, *, streamed: bool) -> None:
        """The turn is over."""
        del streamed
        kept = turn.samples if self._keep_audio else np.zeros(0, np.int16)
        self.kept.add(HeardTurn(turn.start, turn.end, self._rate, kept), len(kept))
        self.ended(turn.item_id, (turn.end - turn.start) / self._rate)
