"""The server's output buffer of a WebRTC call: sound in real time, and the events about it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from duologue.audio import FRAME_MS, AudioFrame, Samples
from duologue.simulator.openai.answer import Answer
from duologue.simulator.openai.dialect import Emit
from duologue.simulator.openai.schema import RATE

_FRAME = RATE * FRAME_MS // 1000


@dataclass(slots=True)
class _Piece:
    answer_id: str
    item_id: str
    samples: Samples


class OutputBuffer:
    """Plays one response after another, 20 ms a tick; silence between them.

    ``at_once``: there are no ticks, sound is sent as it comes; for measurements.
    """

    def __init__(
        self, send: Callable[[AudioFrame | None], object], *, at_once: bool = False
    ) -> None:
        self._send = send
        self._at_once = at_once
        self._pieces: deque[_Piece] = deque()
        self._begun: dict[str, bool] = {}
        """Responses that have sound, and whether all of it is here."""
        self._playing: set[str] = set()
        """Those of them whose sound has begun to play."""
        self._cleared: set[str] = set()
        self._sent: dict[str, int] = {}
        self.emit: Emit = lambda *_: None
        """Tell the client an event; set by who owns the session."""

    def speak(self, answer: Answer, samples: Samples) -> None:
        """Put sound at the end of the buffer."""
        if answer.id in self._cleared:
            return
        self._begun.setdefault(answer.id, False)
        self._sent.setdefault(answer.item_id, 0)
        self._pieces.append(_Piece(answer.id, answer.item_id, samples))
        while self._at_once and sum(len(piece.samples) for piece in self._pieces) >= _FRAME:
            self._send(self._frame(answer.id))

    def pause(self, answer: Answer) -> None:
        """A message has all its sound; it plays on."""

    def end(self, answer: Answer) -> None:
        """A response has all its sound; it plays on."""
        self._cleared.discard(answer.id)
        if answer.id in self._begun:
            self._begun[answer.id] = True

    def close(self) -> None:
        """Drop all audio without sending an event."""
        self._pieces.clear()
        self._begun.clear()
        self._playing.clear()
        self._send = lambda _: None

    def clear(self) -> Sequence[tuple[str, int]]:
        """Drop what was not sent; the items that this cut, and what was sent of each, in ms."""
        cut = {piece.item_id: self._sent[piece.item_id] * 1000 // RATE for piece in self._pieces}
        self._pieces.clear()
        for answer_id, whole in self._begun.items():
            self.emit("output_audio_buffer.cleared", {"response_id": answer_id})
            if not whole:
                self._cleared.add(answer_id)
        self._begun.clear()
        self._playing.clear()
        self._sent.clear()
        return list(cut.items())

    def tick(self, _: float) -> None:
        """Send the next 20 ms."""
        if self._at_once:
            return
        if not self._pieces:
            self._send(None)
        else:
            self._send(self._frame(self._pieces[0].answer_id))
        playing = self._pieces[0].answer_id if self._pieces else ""
        for answer_id, whole in [*self._begun.items()]:
            if answer_id == playing:
                return
            if whole:
                del self._begun[answer_id]
                self._playing.discard(answer_id)
                self.emit("output_audio_buffer.stopped", {"response_id": answer_id})

    def _frame(self, answer_id: str) -> AudioFrame:
        if answer_id not in self._playing:
            self._playing.add(answer_id)
            self.emit("output_audio_buffer.started", {"response_id": answer_id})
        parts: list[Samples] = []
        left = _FRAME
        while left and self._pieces and self._pieces[0].answer_id == answer_id:
            piece = self._pieces[0]
            part, piece.samples = piece.samples[:left], piece.samples[left:]
            parts.append(part)
            left -= len(part)
            self._sent[piece.item_id] += len(part)
            if not len(piece.samples):
                self._pieces.popleft()
        parts.append(np.zeros(left, np.int16))
        return AudioFrame(np.concatenate(parts), RATE)
