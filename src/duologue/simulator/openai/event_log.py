"""What went over a session's line, for tests to look at."""

from __future__ import annotations

from sys import intern

from duologue.simulator.fields import Object, text_at
from duologue.simulator.kept import Kept

MOST_APPENDS = 5000
"""Events of sound and pictures that are kept; all others are, up to `MOST_EVENTS`."""
MOST_EVENTS = 20_000
"""Newest events that are kept, each way."""
MAX_CHARS = 4 * 1024 * 1024
"""Characters of the client's events that are kept; beyond it the oldest are dropped."""

_MEDIA = {"input_audio_buffer.append": "audio", "input_image_buffer.append": "image"}
"""The field of an event that is sound or a picture."""


class EventLog:
    """The client's events, sound and pictures reduced to a length; the types of the server's."""

    def __init__(self) -> None:
        self.taken: Kept[Object] = Kept(MOST_EVENTS, MAX_CHARS)
        self.told: Kept[str] = Kept(MOST_EVENTS)
        self.appends_dropped = 0
        """Events with audio or images that were not kept."""
        self._appends = 0

    def take(self, event: Object, size: int) -> None:
        """Record an event of the client with ``size`` characters."""
        media = _MEDIA.get(text_at(event, "type"))
        if media is not None:
            self._appends += 1
            if self._appends > MOST_APPENDS:
                self.appends_dropped += 1
                return
            length = len(text_at(event, media))
            event, size = {**event, media: length}, size - length
        self.taken.add(event, size)

    def tell(self, kind: str) -> None:
        """The client was sent one of these."""
        self.told.add(intern(kind))
