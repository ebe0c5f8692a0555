"""The messages that a session received and sent, for tests to inspect."""

from __future__ import annotations

from sys import intern

from duologue.json_types import Json, JsonObject
from duologue.simulators._bounded_log import BoundedLog
from duologue.simulators._fields import text_at

MAX_AUDIO_MESSAGES = 5000
"""Number of audio messages that are kept, the first ones; of all others up to `MAX_MESSAGES`."""
MAX_MESSAGES = 20_000
"""Number of newest messages that are kept, each way."""
MAX_CHARS = 4 * 1024 * 1024
"""Characters of the client's messages that are kept; beyond it the oldest are dropped."""


class MessageLog:
    """The client's messages, with the length of media instead of data, and the server's kinds."""

    def __init__(self) -> None:
        self.client_messages: BoundedLog[JsonObject] = BoundedLog(MAX_MESSAGES, MAX_CHARS)
        self.server_messages: BoundedLog[str] = BoundedLog(MAX_MESSAGES)
        self.audio_dropped = 0
        """Number of audio messages that were not kept."""
        self._audio_messages = 0

    def record_client_message(self, kind: str, message: JsonObject, size: int) -> None:
        """Record a message of the client with ``size`` characters."""
        if kind == "realtimeInput.audio":
            self._audio_messages += 1
            if self._audio_messages > MAX_AUDIO_MESSAGES:
                self.audio_dropped += 1
                return
        media = _Media()
        entry = {key: media.reduce(value) for key, value in message.items()}
        self.client_messages.add(entry, size - media.length)

    def record_server_message(self, kind: str) -> None:
        """Record the kind of a message that was sent to the client."""
        self.server_messages.add(intern(kind))


class _Media:
    """Replaces the data of blobs with its length; ``length`` is the sum of all lengths."""

    def __init__(self) -> None:
        self.length = 0

    def reduce(self, value: Json) -> Json:
        """Return the value without the data of its blobs."""
        match value:
            case dict():
                if "mimeType" in value and "data" in value:
                    length = len(text_at(value, "data"))
                    self.length += length
                    return {**value, "data": length}
                return {key: self.reduce(one) for key, one in value.items()}
            case list():
                return [self.reduce(one) for one in value]
            case _:
                return value


def without_media(value: Json) -> Json:
    """Return the value with the length of blobs instead of their data."""
    return _Media().reduce(value)
