"""A bounded list of what a simulator keeps for tests to inspect."""

from __future__ import annotations

from collections import deque


class Kept[T]:
    """Keeps the newest entries: at most ``count`` of them, with a total size of at most ``size``.

    The caller chooses the unit of the size. The newest entry is kept whatever its size.
    """

    def __init__(self, count: int, size: int = 0) -> None:
        self.entries: list[T] = []
        """The entries, oldest first."""
        self.dropped = 0
        """Older entries dropped so far."""
        self._count = count
        self._size = size
        self._sizes: deque[int] = deque()
        self._total = 0

    def add(self, entry: T, size: int = 0) -> None:
        """Add an entry of this size, and drop the oldest ones if there are too many."""
        self.entries.append(entry)
        self._sizes.append(size)
        self._total += size
        over = 0
        while len(self._sizes) > self._count or (self._total > self._size and len(self._sizes) > 1):
            self._total -= self._sizes.popleft()
            over += 1
        # A test may have removed entries itself.
        surplus = max(0, len(self.entries) - len(self._sizes))
        del self.entries[:surplus]
        self.dropped += surplus

    def clear(self) -> None:
        """Remove all entries."""
        self.entries.clear()
        self._sizes.clear()
        self._total = 0
