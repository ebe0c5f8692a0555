"""The last events that a page was sent, so that it gets those that it has missed."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Mapping

from duologue.json_types import Json

MAX_EVENTS = 1000
"""Most events that are kept for a page that comes back."""

MAX_CHARS = 256 * 1024
"""Most characters of all events that are kept."""


class EventLog:
    """Numbers events (messages of any kind), and keeps the last ones.

    Attributes:
        last: Number of the last event; 0 before the first.
        dropped: Events that are not kept any more.
    """

    __slots__ = ("_chars", "_events", "dropped", "last")

    def __init__(self) -> None:
        self._events: deque[tuple[int, str]] = deque()
        self._chars = 0
        self.last = 0
        self.dropped = 0

    def add(self, message: Mapping[str, Json]) -> None:
        """Add an event; drop the oldest ones if there is no room."""
        self.last += 1
        text = json.dumps({**message, "n": self.last}, separators=(",", ":"))
        self._events.append((self.last, text))
        self._chars += len(text)
        while len(self._events) > MAX_EVENTS or (self._chars > MAX_CHARS and len(self._events) > 1):
            self._chars -= len(self._events.popleft()[1])
            self.dropped += 1

    def after(self, number: int) -> Iterator[tuple[int, str]]:
        """Yield the kept events after ``number``, each with its own number; none may be added
        meanwhile.
        """
        count = min(len(self._events), self.last - number) if number < self.last else 0
        for index in range(len(self._events) - count, len(self._events)):
            yield self._events[index]
