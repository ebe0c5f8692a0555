"""User turns that the program ends, while the server's activity detection is off."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

_ACTIVITY_START = b'{"realtimeInput":{"activityStart":{}}}'
_ACTIVITY_END = b'{"realtimeInput":{"activityEnd":{}}}'

_MAX_PREROLL_S = 1.0
"""Seconds of audio from before a turn that are sent with it, because a voice is noticed late."""
_MAX_REPLY_WAIT_S = 8.0
"""Seconds of audio after a turn without a reply, after which the next turn may begin."""


class UserActivity:
    """Marks where user turns begin and end in the input audio, which has ``rate`` samples a second.

    A turn begins with the first audio while the model's turn is over, or with `begin`. Audio from
    after its end, and from while the model speaks, is buffered for the next turn, up to a second.
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
        """Samples of audio until the wait for a reply is given up; 0 when no reply is awaited."""
        self.is_open = False

    def accept(self, message: bytes, samples: int, *, busy: bool) -> Sequence[bytes]:
        """Return the messages to send for the next audio message.

        Args:
            message: The encoded audio.
            samples: Samples of audio in it.
            busy: The model has the turn, so the audio must not begin a new one.
        """
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
        """Whether a turn has ended without a reply so far, so there is no turn to end."""
        return not self.is_open and self._reply_wait_samples > 0

    def begin(self) -> Sequence[bytes]:
        """Begin a turn now, unless one is open; this interrupts the model."""
        if self.is_open:
            return ()
        self.is_open = True
        self._reply_wait_samples = 0
        before = [message for message, _ in self._unsent]
        self.clear()
        return (_ACTIVITY_START, *before)

    def end(self, *, force: bool = False) -> Sequence[bytes]:
        """End the turn, and return the messages to send.

        A turn without audio is not ended unless ``force`` is set. Nor does buffered audio become a
        turn of its own while the reply to the previous turn is awaited.
        """
        if not self.is_open and not force and (self._reply_wait_samples or not self._unsent):
            return ()
        begun = self.begin()
        self.is_open = False
        self._reply_wait_samples = self._max_reply_wait
        return (*begun, _ACTIVITY_END)

    def mark_answered(self) -> None:
        """Record that the model has replied, or will not."""
        self._reply_wait_samples = 0

    def clear(self) -> None:
        """Drop the audio that has not been sent."""
        self._unsent.clear()
        self._unsent_samples = 0
