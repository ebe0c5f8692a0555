"""One answer as the service tells it: sentence by sentence, planned, spoken, and said."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from duologue.audio import Resampler, Samples
from duologue.clock import Clock
from duologue.simulator.nova.blocks import Blocks
from duologue.simulator.nova.playing import Played, Playing
from duologue.testing.scripted import CHARS_PER_S

_SENTENCE = re.compile(r"\S.*?(?:[.!?…]+[\"')\]]*(?=\s|$)|$)", re.DOTALL)


@dataclass(slots=True, eq=False)
class _Piece:
    """Words, the sentences of them that have not begun, and the sound that was not told yet."""

    sentences: deque[str]
    sound: list[Samples] = field(default_factory=list)
    spoken: bool = False
    """It has sound."""
    whole: bool = False


@dataclass(frozen=True, slots=True)
class _Call:
    call_id: str
    name: str
    arguments: str


class Speech:
    """Tells one answer. What comes in one step of the loop is looked at as a whole.

    The sound of several sentences that came as one text is shared out by their letters, or, while
    it is not whole, as fast as people speak.
    """

    def __init__(
        self,
        blocks: Blocks,
        playing: Playing,
        clock: Clock,
        *,
        rate: int,
        called: Callable[[str, str, str], None],
        ended: Callable[[], None],
    ) -> None:
        self._blocks = blocks
        self._playing = playing
        self._clock = clock
        self._called = called
        self._ended = ended
        self._resampler = Resampler(rate, blocks.rate)
        self._parts: deque[_Piece | _Call] = deque()
        self._played: Played | None = None
        self._sentence: str | None = None
        self._left: int | None = 0
        self._samples = 0
        self._pending = False
        self._told = False
        self._whole = False
        self._brain_id = ""
        self.over = False
        """It was told to its end, or is cut."""

    def text(self, text: str, brain_id: str) -> None:
        """The next words; ``brain_id`` is what the brain calls them."""
        self._brain_id = brain_id
        last = self._parts[-1] if self._parts else None
        if isinstance(last, _Piece) and not last.spoken and not last.whole:
            text = " ".join((*last.sentences, text))
            self._parts.pop()
        self._close()
        self._parts.append(_Piece(deque(sentences(text))))
        self._soon()

    def audio(self, samples: Samples) -> None:
        """The next sound, at the brain's rate."""
        self._put(self._resampler.push(samples))

    def call(self, call_id: str, name: str, arguments: str) -> None:
        """The answer calls a tool."""
        self._put(self._resampler.flush())
        self._close()
        self._parts.append(_Call(call_id, name, arguments))
        self._soon()

    def end(self) -> None:
        """That is all."""
        self._put(self._resampler.flush())
        self._close()
        self._whole = True
        self._soon()

    def cut(self) -> Played | None:
        """Tell nothing more of it; what of it was told, if something was."""
        self.over = True
        self._parts.clear()
        if self._blocks.audio_open:
            self._blocks.close_audio("INTERRUPTED")
            self._blocks.used("output", speech_s=self._samples / self._blocks.rate)
        return self._played

    def _put(self, samples: Samples) -> None:
        if not len(samples):
            return
        last = self._parts[-1] if self._parts else None
        if not isinstance(last, _Piece):
            last = _Piece(deque([""]))
            self._parts.append(last)
        last.sound.append(samples)
        last.spoken = True
        self._soon()

    def _close(self) -> None:
        if self._parts and isinstance(last := self._parts[-1], _Piece):
            last.whole = True

    def _soon(self) -> None:
        if not self._pending:
            self._pending = True
            self._clock.call_at(self._clock.now(), self._tell)

    def _tell(self) -> None:
        self._pending = False
        while self._parts and not self.over:
            match self._parts[0]:
                case _Call(call_id, name, arguments):
                    self._told = True
                    self._finish(last=False)
                    self._called(call_id, name, arguments)
                case _Piece() as piece:
                    self._speak(piece)
                    if not piece.whole:
                        return
            self._parts.popleft()
        if self._whole and not self.over:
            if not self._told:
                # Whoever waits for the end of the turn is to have it.
                self._blocks.open_audio()
                self._blocks.close_audio("END_TURN")
            self._finish(last=True)
            self.over = True
            self._ended()

    def _speak(self, piece: _Piece) -> None:
        sound = np.concatenate(piece.sound) if piece.sound else np.zeros(0, np.int16)
        piece.sound.clear()
        while len(sound) or (piece.whole and piece.sentences):
            if piece.sentences and (self._left == 0 or not len(sound)):
                self._begin(piece, len(sound))
            size = len(sound) if self._left is None else min(self._left, len(sound))
            if size and self._played is not None:
                self._sound(self._played, sound[:size])
            sound = sound[size:]
        if piece.whole:
            self._left = 0

    def _begin(self, piece: _Piece, samples: int) -> None:
        """Begin the next sentence; ``samples`` are there of it, and perhaps of others."""
        self._finish(last=False)
        text = piece.sentences.popleft()
        if not piece.sentences:
            self._left = None
        elif piece.whole:
            letters = sum(len(one) for one in piece.sentences) + len(text)
            self._left = round(samples * len(text) / letters)
        else:
            self._left = round(len(text) / CHARS_PER_S * self._blocks.rate)
        if self._played is None:
            self._played = Played()
        self._played.brain_id = self._brain_id
        if text:
            self._blocks.planned(text)
        self._blocks.open_audio()
        self._told = True
        self._sentence, self._samples = text, 0

    def _sound(self, played: Played, samples: Samples) -> None:
        self._blocks.audio(samples)
        self._playing.sound(played, len(samples) / self._blocks.rate)
        self._samples += len(samples)
        if self._left is not None:
            self._left -= len(samples)

    def _finish(self, *, last: bool) -> None:
        """The sentence that has begun is over, if one has."""
        if self._sentence is None or self._played is None:
            return
        self._blocks.close_audio("END_TURN" if last else "PARTIAL_TURN")
        self._blocks.used("output", speech_s=self._samples / self._blocks.rate)
        self._playing.sentence(self._played, self._sentence, last=last)
        self._sentence = None


def sentences(text: str) -> list[str]:
    """The sentences of a text, without the spaces between them; one empty one at least."""
    return [found.strip() for found in _SENTENCE.findall(text)] or [""]
