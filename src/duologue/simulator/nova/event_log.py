"""What went over a session's stream, for tests to look at."""

from __future__ import annotations

from duologue.simulator.fields import Object, text_at

MOST_EVENTS = 10_000
"""Events of a session that are kept, each way."""


class EventLog:
    """The client's events, sound reduced to its length, and the names of the service's.

    ``audioInput`` that follow each other are one entry: their lengths together, in characters of
    base64, and how many they were.
    """

    def __init__(self) -> None:
        self.taken: list[Object] = []
        self.told: list[str] = []
        self._sound: Object | None = None

    def take(self, name: str, fields: Object) -> None:
        """The client sent this."""
        if name != "audioInput":
            self._sound = None
        elif self._sound is not None and isinstance(total := self._sound["content"], int):
            self._sound["content"] = total + len(text_at(fields, "content"))
            self._sound["events"] = int(str(self._sound["events"])) + 1
            return
        else:
            fields = {**fields, "content": len(text_at(fields, "content")), "events": 1}
            self._sound = fields
        if len(self.taken) < MOST_EVENTS:
            self.taken.append({name: fields})

    def tell(self, name: str) -> None:
        """The client was sent one of these."""
        if len(self.told) < MOST_EVENTS:
            self.told.append(name)
