"""The events that a session received and sent, for tests to inspect."""

from __future__ import annotations

from sys import intern

from duologue.json_types import JsonObject
from duologue.simulators._bounded_log import BoundedLog
from duologue.simulators._fields import text_at

MAX_EVENTS = 10_000
"""Number of newest events that are kept, each way."""
MAX_CHARS = 4 * 1024 * 1024
"""Characters of the client's events that are kept; beyond it the oldest are dropped."""


class EventLog:
    """The client's events, with the length of audio instead of data, and the service's names.

    Consecutive ``audioInput`` events are one entry, with the sum of their lengths in base64
    characters and their number.
    """

    def __init__(self) -> None:
        self.client_events: BoundedLog[JsonObject] = BoundedLog(MAX_EVENTS, MAX_CHARS)
        self.server_events: BoundedLog[str] = BoundedLog(MAX_EVENTS)
        self._audio_entry: JsonObject | None = None

    def record_client_event(self, name: str, fields: JsonObject, size: int) -> None:
        """Record an event of the client with ``size`` bytes."""
        if name != "audioInput":
            self._audio_entry = None
        elif self._audio_entry is not None and isinstance(
            total := self._audio_entry["content"], int
        ):
            self._audio_entry["content"] = total + len(text_at(fields, "content"))
            self._audio_entry["events"] = int(str(self._audio_entry["events"])) + 1
            return
        else:
            length = len(text_at(fields, "content"))
            fields = {**fields, "content": length, "events": 1}
            size -= length
            self._audio_entry = fields
        self.client_events.add({name: fields}, size)

    def record_server_event(self, name: str) -> None:
        """Record the name of an event that was sent to the client."""
        self.server_events.add(intern(name))
