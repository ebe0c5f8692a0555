"""Speeches of replies that only called tools, until the replies that follow their results."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from duologue.edges.edge import Quality
from duologue.playout import Playout
from duologue.speech import Speech


class Carried:
    """They wait outside the gate, so that what is said while a tool runs is heard meanwhile."""

    def __init__(self, playout: Playout) -> None:
        self._playout = playout
        self._speeches: deque[Speech] = deque()

    def __iter__(self) -> Iterator[Speech]:
        """All of them, the oldest first."""
        return iter(self._speeches)

    def carry(self, speech: Speech) -> None:
        """Nothing was said in a reply; this speech waits for the next one."""
        self._playout.withdraw(speech)
        self._speeches.append(speech)

    def next(self) -> Speech | None:
        """Take the oldest, whose reply has begun; None when there is none."""
        return self._speeches.popleft() if self._speeches else None

    def end(self, epoch: int) -> None:
        """Nothing follows: the oldest of that epoch is over, and was silent."""
        speech = next((speech for speech in self._speeches if speech.epoch == epoch), None)
        if speech is not None:
            self._speeches.remove(speech)
            self._playout.begin(speech)
            self._playout.end(speech)

    def fail(self, error: Exception) -> None:
        """The reply that the oldest waits for has failed."""
        speech = self.next()
        if speech is not None:
            self._playout.begin(speech)
            speech.fail_at_end(error)
            self._playout.end(speech)

    def cut(self, quality: Quality) -> None:
        """They are stale."""
        for speech in self._speeches:
            speech.finish("cut", 0.0, quality)
        self._speeches.clear()
