"""Turns of the person that the program ends, with activity detection switched off at the server."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

_ACTIVITY_START = b'{"realtimeInput":{"activityStart":{}}}'
_ACTIVITY_END = b'{"realtimeInput":{"activityEnd":{}}}'

_MAX_PREROLL_S = 1.0
"""Sound from before a turn that belongs to it: a voice is noticed only after it has begun."""
_MAX_REPLY_WAIT_S = 8.0
"""Sound after a turn without any answer to it; then the next turn may begin."""


class UserActivity:
    """Where a turn begins and ends in the person's sound, at ``rate`` Hz.

    It begins with the first sound while the model's turn is over, or when `begin` is called. What
    comes after its end, and while the model speaks, is kept for the next one, up to a second.
    """

    __slots__ = (
        "_max_preroll",
        "_max_reply_wait",
        "_reply_wait_samples",
        "_unsent",
        "_unsent_samples",
        "is_open",
    )

    def __init__(self, rate: int) -> None:
        self._max_preroll = int(rate * _MAX_PREROLL_S)
        self._max_reply_wait = int(rate * _MAX_REPLY_WAIT_S)
        self._unsent: deque[tuple[bytes, int]] = deque()
        self._unsent_samples = 0
        self._reply_wait_samples = 0
        """Samples that an answer may still take to begin; 0 when none is awaited."""
        self.is_open = False

    def accept(self, message: bytes, samples: int, *, busy: bool) -> Sequence[bytes]:
        """What is to be sent for the next sound; ``busy``: the model has the word."""
        if self.is_open:
            return (message,)
        self._unsent.append((message, samples))
        self._unsent_samples += samples
        self._reply_wait_samples = max(0, self._reply_wait_samples - samples)
        if not busy and not self._reply_wait_samples:
            return self.begin()
        while self._unsent_samples - self._unsent[0][1] >= self._max_preroll:
            self._unsent_samples -= self._unsent.popleft()[1]
        return ()

    @property
    def awaits_reply(self) -> bool:
        """A turn has ended and is not answered: there is none to end."""
        return not self.is_open and self._reply_wait_samples > 0

    def begin(self) -> Sequence[bytes]:
        """Begin a turn now, if none has begun; it interrupts the model."""
        if self.is_open:
            return ()
        self.is_open = True
        self._reply_wait_samples = 0
        before = [message for message, _ in self._unsent]
        self.clear()
        return (_ACTIVITY_START, *before)

    def end(self, *, force: bool = False) -> Sequence[bytes]:
        """End the turn; one that had no sound is none, unless it has to be ``anyway``.

        Nor is what was said since the last one ended, while an answer to that is awaited.
        """
        if not self.is_open and not force and (self._reply_wait_samples or not self._unsent):
            return ()
        begun = self.begin()
        self.is_open = False
        self._reply_wait_samples = self._max_reply_wait
        return (*begun, _ACTIVITY_END)

    def mark_answered(self) -> None:
        """The model has answered, or will not."""
        self._reply_wait_samples = 0

    def clear(self) -> None:
        """Forget the sound that has not been sent."""
        self._unsent.clear()
        self._unsent_samples = 0
