"""What a client that plays in real time has played: when sentences have been said, and what a
person cuts off.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from duologue.clock import Clock, Timer
from duologue.simulator.nova.blocks import Blocks


@dataclass(slots=True, eq=False)
class Said:
    """Who said or wrote what; of the model only what was said to the end of a sentence."""

    role: Literal["USER", "ASSISTANT"]
    text: str


@dataclass(slots=True, eq=False)
class Played:
    """One answer: what the brain calls it, and which of its sentences have been said."""

    brain_id: str = ""
    begins: float | None = None
    ends: float = 0.0
    seconds: float = 0.0
    said: Said = field(default_factory=lambda: Said("ASSISTANT", ""))

    def played_ms(self, now: float) -> int:
        """How much of its sound has been played by then, in ms."""
        if self.begins is None:
            return 0
        return round(max(0.0, min(now - self.begins, self.seconds)) * 1000)


@dataclass(frozen=True, slots=True)
class _Sentence:
    due: float
    text: str
    last: bool
    answer: Played


class Playing:
    """Tells what was said once it has been played; nobody tells it, it goes by the clock."""

    def __init__(self, blocks: Blocks, clock: Clock) -> None:
        self._blocks = blocks
        self._clock = clock
        self._sentences: deque[_Sentence] = deque()
        self._answers: list[Played] = []
        self._timer: Timer | None = None
        self.ends = 0.0
        """When all that was sent will have been played, in clock seconds."""
        self.said: Callable[[Said], None] = lambda _: None
        """Is told when the first sentence of an answer has been said; others are added to it."""

    @property
    def busy(self) -> bool:
        """Something is still being played, or was not told to have been said."""
        return bool(self._sentences) or self.ends > self._clock.now()

    def sound(self, answer: Played, seconds: float) -> None:
        """So much more sound has been sent, to be played behind what there is."""
        begins = max(self._clock.now(), self.ends)
        if answer.begins is None:
            answer.begins = begins
        if answer not in self._answers:
            self._answers.append(answer)
        answer.seconds += seconds
        answer.ends = self.ends = begins + seconds

    def sentence(self, answer: Played, text: str, *, last: bool) -> None:
        """A sentence has been sent; ``last``: and so has the answer."""
        self._sentences.append(_Sentence(max(self._clock.now(), self.ends), text, last, answer))
        self.catch_up()

    def catch_up(self) -> None:
        """Tell what has been said by now, unless a block of sound is open."""
        now = self._clock.now()
        while self._sentences and self._sentences[0].due <= now and not self._blocks.audio_open:
            self._tell(self._sentences.popleft())
        self._answers = [answer for answer in self._answers if answer.ends > now]
        self.close()
        if self._sentences and self._sentences[0].due > now:
            self._timer = self._clock.call_at(self._sentences[0].due, self.catch_up)

    def cut(self) -> Sequence[Played]:
        """The person interrupts: tell what was said by now, and drop the rest.

        What comes back is all of which something was left to play. No block may be open.
        """
        self.catch_up()
        left, self._answers = self._answers, []
        self._sentences.clear()
        self.ends = self._clock.now()
        self.close()
        return left

    def close(self) -> None:
        """Nothing is told any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tell(self, sentence: _Sentence) -> None:
        if not sentence.text:
            return
        self._blocks.said(sentence.text, "END_TURN" if sentence.last else "PARTIAL_TURN")
        self._blocks.used("output", text=sentence.text)
        said = sentence.answer.said
        if said.text:
            said.text += f" {sentence.text}"
        else:
            said.text = sentence.text
            self.said(said)
