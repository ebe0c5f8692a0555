"""A record of a session's events, for tests to inspect."""

from __future__ import annotations

from sys import intern

from duologue.json_types import JsonObject
from duologue.simulators._bounded_log import BoundedLog
from duologue.simulators._fields import text_at

MAX_APPENDS = 5000
"""Events with audio or images that are kept. All other events are, up to `MAX_EVENTS`."""
MAX_EVENTS = 20_000
"""Newest events of each side that are kept."""
MAX_CHARS = 4 * 1024 * 1024
"""Characters of the client's events that are kept; beyond it the oldest are dropped."""

_MEDIA = {"input_audio_buffer.append": "audio", "input_image_buffer.append": "image"}
"""The field that holds the audio or the image of an event."""


class EventLog:
    """Keeps the client's events, with lengths for audio and images, and the server's types."""

    def __init__(self) -> None:
        self.client_events: BoundedLog[JsonObject] = BoundedLog(MAX_EVENTS, MAX_CHARS)
        self.server_events: BoundedLog[str] = BoundedLog(MAX_EVENTS)
        self.appends_dropped = 0
        """Events with audio or images that were not kept."""
        self._appends = 0

    def record_client_event(self, event: JsonObject, size: int) -> None:
        """Record an event of the client with ``size`` characters."""
        media = _MEDIA.get(text_at(event, "type"))
        if media is not None:
            self._appends += 1
            if self._appends > MAX_APPENDS:
                self.appends_dropped += 1
                return
            length = len(text_at(event, media))
            event, size = {**event, media: length}, size - length
        self.client_events.add(event, size)

    def record_server_event(self, kind: str) -> None:
        """Record the type of an event that was sent to the client."""
        self.server_events.add(intern(kind))
