"""What went over a session's line, for tests to look at."""

from __future__ import annotations

from duologue.simulator.fields import Object, text_at

MOST_APPENDS = 5000
"""Events of sound that are kept; all others are, up to `MOST_EVENTS`."""
MOST_EVENTS = 100_000


class EventLog:
    """The client's events, sound reduced to its length, and the types of the server's."""

    def __init__(self) -> None:
        self.taken: list[Object] = []
        self.told: list[str] = []
        self._appends = 0

    def take(self, event: Object) -> None:
        """The client sent this."""
        if event.get("type") == "input_audio_buffer.append":
            self._appends += 1
            if self._appends > MOST_APPENDS:
                return
            event = {**event, "audio": len(text_at(event, "audio"))}
        if len(self.taken) < MOST_EVENTS:
            self.taken.append(event)

    def tell(self, kind: str) -> None:
        """The client was sent one of these."""
        if len(self.told) < MOST_EVENTS:
            self.told.append(kind)
