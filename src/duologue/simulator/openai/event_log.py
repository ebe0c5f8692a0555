"""What went over a session's line, for tests to look at."""

from __future__ import annotations

from duologue.simulator.fields import Object, text_at

MOST_APPENDS = 5000
"""Events of sound and pictures that are kept; all others are, up to `MOST_EVENTS`."""
MOST_EVENTS = 100_000

_MEDIA = {"input_audio_buffer.append": "audio", "input_image_buffer.append": "image"}
"""The field of an event that is sound or a picture."""


class EventLog:
    """The client's events, sound and pictures reduced to a length; the types of the server's."""

    def __init__(self) -> None:
        self.taken: list[Object] = []
        self.told: list[str] = []
        self._appends = 0

    def take(self, event: Object) -> None:
        """The client sent this."""
        media = _MEDIA.get(text_at(event, "type"))
        if media is not None:
            self._appends += 1
            if self._appends > MOST_APPENDS:
                return
            event = {**event, media: len(text_at(event, media))}
        if len(self.taken) < MOST_EVENTS:
            self.taken.append(event)

    def tell(self, kind: str) -> None:
        """The client was sent one of these."""
        if len(self.told) < MOST_EVENTS:
            self.told.append(kind)
