"""What went over a session's line, for tests to look at."""

from __future__ import annotations

from duologue.items import Json
from duologue.simulator.fields import Object, text_at

MOST_SOUND = 5000
"""Messages of sound that are kept; all others are, up to `MOST_MESSAGES`."""
MOST_MESSAGES = 100_000


class MessageLog:
    """The client's messages, media reduced to its length, and the kinds of the server's."""

    def __init__(self) -> None:
        self.taken: list[Object] = []
        self.told: list[str] = []
        self._sound = 0

    def take(self, kind: str, message: Object) -> None:
        """The client sent this."""
        if kind == "realtimeInput.audio":
            self._sound += 1
            if self._sound > MOST_SOUND:
                return
        if len(self.taken) < MOST_MESSAGES:
            short = _short(message)
            self.taken.append(short if isinstance(short, dict) else {})

    def tell(self, kind: str) -> None:
        """The client was sent one of these."""
        if len(self.told) < MOST_MESSAGES:
            self.told.append(kind)


def _short(value: Json) -> Json:
    """The value with the data of blobs as its length."""
    match value:
        case dict():
            if "mimeType" in value and "data" in value:
                return {**value, "data": len(text_at(value, "data"))}
            return {key: _short(one) for key, one in value.items()}
        case list():
            return [_short(one) for one in value]
        case _:
            return value
