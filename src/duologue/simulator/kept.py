"""What a simulator keeps for tests to look at: the newest, up to a count and a size."""

from __future__ import annotations

from collections import deque


class Kept[T]:
    """A list of the newest entries: at most ``count``, and at most ``size`` of whatever is counted.

    The newest entry is kept whatever its size.
    """

    def __init__(self, count: int, size: int = 0) -> None:
        self.entries: list[T] = []
        """The entries, oldest first."""
        self.dropped = 0
        """How many older ones were dropped."""
        self._count = count
        self._size = size
        self._sizes: deque[int] = deque()
        self._total = 0

    def add(self, entry: T, size: int = 0) -> None:
        """Keep an entry of this size, and drop the oldest where there is too much."""
        self.entries.append(entry)
        self._sizes.append(size)
        self._total += size
        over = 0
        while len(self._sizes) > self._count or (self._total > self._size and len(self._sizes) > 1):
            self._total -= self._sizes.popleft()
            over += 1
        # Whoever looks at the entries may have taken some out.
        gone = max(0, len(self.entries) - len(self._sizes))
        del self.entries[:gone]
        self.dropped += gone

    def clear(self) -> None:
        """Forget all entries."""
        self.entries.clear()
        self._sizes.clear()
        self._total = 0
