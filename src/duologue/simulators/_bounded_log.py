"""A bounded list of what a simulator keeps for tests to inspect."""

from __future__ import annotations

from collections import deque


class BoundedLog[T]:
    """Keeps the newest entries, and counts the older ones that it dropped.

    Args:
        count: The most entries that are kept.
        size: The most that all entries together may have, in a unit of the caller's choice. The
            newest entry is kept whatever its size.
    """

    def __init__(self, count: int, size: int = 0) -> None:
        self.entries: list[T] = []
        """The entries, oldest first."""
        self.dropped = 0
        """Number of older entries that were dropped."""
        self._max_count = count
        self._max_size = size
        self._sizes: deque[int] = deque()
        self._total = 0

    def add(self, entry: T, size: int = 0) -> None:
        """Add an entry, and drop the oldest entries beyond the bounds."""
        self.entries.append(entry)
        self._sizes.append(size)
        self._total += size
        over = 0
        while len(self._sizes) > self._max_count or (
            self._total > self._max_size and len(self._sizes) > 1
        ):
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
