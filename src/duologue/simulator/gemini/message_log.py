"""What went over a session's line, for tests to look at."""

from __future__ import annotations

from sys import intern

from duologue.items import Json
from duologue.simulator.fields import Object, text_at
from duologue.simulator.kept import Kept

MOST_SOUND = 5000
"""Messages of sound that are kept; all others are, up to `MOST_MESSAGES`."""
MOST_MESSAGES = 20_000
"""Newest messages that are kept, each way."""
MAX_CHARS = 4 * 1024 * 1024
"""Characters of the client's messages that are kept; beyond it the oldest are dropped."""


class MessageLog:
    """The client's messages, media reduced to its length, and the kinds of the server's."""

    def __init__(self) -> None:
        self.taken: Kept[Object] = Kept(MOST_MESSAGES, MAX_CHARS)
        self.told: Kept[str] = Kept(MOST_MESSAGES)
        self.sound_dropped = 0
        """Audio messages that were not kept."""
        self._sound = 0

    def take(self, kind: str, message: Object, size: int) -> None:
        """Record a message of the client with ``size`` characters."""
        if kind == "realtimeInput.audio":
            self._sound += 1
            if self._sound > MOST_SOUND:
                self.sound_dropped += 1
                return
        media = _Media()
        kept = {key: media.reduce(one) for key, one in message.items()}
        self.taken.add(kept, size - media.length)

    def tell(self, kind: str) -> None:
        """The client was sent one of these."""
        self.told.add(intern(kind))


class _Media:
    """Reduces the data of blobs to its length; ``length`` is the length of all data."""

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
    """The value with the data of blobs as its length."""
    return _Media().reduce(value)
