"""What went over a session's stream, for tests to look at."""

from __future__ import annotations

from sys import intern

from duologue.simulator.fields import Object, text_at
from duologue.simulator.kept import Kept

MOST_EVENTS = 10_000
"""Newest events of a session that are kept, each way."""
MAX_CHARS = 4 * 1024 * 1024
"""Characters of the client's events that are kept; beyond it the oldest are dropped."""


class EventLog:
    """The client's events, sound reduced to its length, and the names of the service's.

    ``audioInput`` that follow each other are one entry: their lengths together, in characters of
    base64, and how many they were.
    """

    def __init__(self) -> None:
        self.taken: Kept[Object] = Kept(MOST_EVENTS, MAX_CHARS)
        self.told: Kept[str] = Kept(MOST_EVENTS)
        self._sound: Object | None = None

    def take(self, name: str, fields: Object, size: int) -> None:
        """Record an event of the client with ``size`` bytes."""
        if name != "audioInput":
            self._sound = None
        elif self._sound is not None and isinstance(total := self._sound["content"], int):
            self._sound["content"] = total + len(text_at(fields, "content"))
            self._sound["events"] = int(str(self._sound["events"])) + 1
            return
        else:
            length = len(text_at(fields, "content"))
            fields = {**fields, "content": length, "events": 1}
            size -= length
            self._sound = fields
        self.taken.add({name: fields}, size)

    def tell(self, name: str) -> None:
        """The client was sent one of these."""
        self.told.add(intern(name))
