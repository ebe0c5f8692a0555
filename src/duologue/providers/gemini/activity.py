"""Turns of the person that the program ends, with activity detection switched off at the server."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

_BEGIN = b'{"realtimeInput":{"activityStart":{}}}'
_END = b'{"realtimeInput":{"activityEnd":{}}}'

_PREROLL_S = 1.0
"""Sound from before a turn that belongs to it: a voice is noticed only after it has begun."""
_PATIENCE_S = 8.0
"""Sound after a turn without any answer to it; then the next turn may begin."""


class Activity:
    """Where a turn begins and ends in the person's sound, at ``rate`` Hz.

    It begins with the first sound while the model's turn is over, or when `begin` is called. What
    comes after its end, and while the model speaks, is kept for the next one, up to a second.
    """

    __slots__ = ("_awaited", "_before", "_patience", "_preroll", "_samples", "is_open")

    def __init__(self, rate: int) -> None:
        self._preroll = int(rate * _PREROLL_S)
        self._patience = int(rate * _PATIENCE_S)
        self._before: deque[tuple[bytes, int]] = deque()
        self._samples = 0
        self._awaited = 0
        """Samples that an answer may still take to begin; 0 when none is awaited."""
        self.is_open = False

    def sound(self, message: bytes, samples: int, *, busy: bool) -> Sequence[bytes]:
        """What is to be sent for the next sound; ``busy``: the model has the word."""
        if self.is_open:
            return (message,)
        self._before.append((message, samples))
        self._samples += samples
        self._awaited = max(0, self._awaited - samples)
        if not busy and not self._awaited:
            return self.begin()
        while self._samples - self._before[0][1] >= self._preroll:
            self._samples -= self._before.popleft()[1]
        return ()

    @property
    def awaits_answer(self) -> bool:
        """A turn has ended and is not answered: there is none to end."""
        return not self.is_open and self._awaited > 0

    def begin(self) -> Sequence[bytes]:
        """Begin a turn now, if none has begun; it interrupts the model."""
        if self.is_open:
            return ()
        self.is_open = True
        self._awaited = 0
        before = [message for message, _ in self._before]
        self.clear()
        return (_BEGIN, *before)

    def end(self, *, anyway: bool = False) -> Sequence[bytes]:
        """End the turn; one that had no sound is none, unless it has to be ``anyway``.

        Nor is what was said since the last one ended, while an answer to that is awaited.
        """
        if not self.is_open and not anyway and (self._awaited or not self._before):
            return ()
        begun = self.begin()
        self.is_open = False
        self._awaited = self._patience
        return (*begun, _END)

    def answered(self) -> None:
        """The model has answered, or will not."""
        self._awaited = 0

    def clear(self) -> None:
        """Forget the sound that has not been sent."""
        self._before.clear()
        self._samples = 0
