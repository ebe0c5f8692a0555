"""The names of one protocol of this family: OpenAI's own, or that of a service that follows it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from duologue.json_types import JsonObject

_BLOCK = 16
_PADDING = "qZ3vT8mKx1RbYw5L"
"""Pads a text delta to a multiple of 16 characters; the service uses random characters."""

type Emit = Callable[[str, JsonObject], None]
"""Sends the client an event with this type and these fields."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """Names of events and of content.

    ``text``, ``audio`` and ``transcript`` name text, audio, and the transcript of audio in
    ``response.NAME.delta``; the first two are also types of content.
    """

    text: str
    audio: str
    transcript: str
    item_added: str
    """``conversation.item.NAME`` reports a new item."""
    item_done: str | None
    """``conversation.item.NAME`` reports that an item is complete, where the protocol has that."""
    sends_previous_id: bool = True
    """Whether these two events name the item before."""
    reply_awaits_transcript: bool = False
    """Whether a turn is answered once it is transcribed, and not as soon as it ends."""
    transcript_first: bool = False
    """Whether a complete message has its transcript reported before its audio."""
    item_objects: bool = False
    """Whether items have a field ``object``."""
    obfuscates: bool = False
    """Whether text deltas are padded, so that their lengths on the wire reveal nothing."""

    def delta_fields(self, text: str) -> JsonObject:
        """Return the fields of a text delta."""
        if not self.obfuscates:
            return {"delta": text}
        return {"delta": text, "obfuscation": _PADDING[: _BLOCK - len(text) % _BLOCK]}

    def item_fields(self, before: str | None, item: JsonObject) -> JsonObject:
        """Return the fields that report ``item``, which stands after the item ``before``."""
        fields: JsonObject = {"item": dict(item)}
        return {"previous_item_id": before, **fields} if self.sends_previous_id else fields

    def send_item_added(self, emit: Emit, before: str | None, item: JsonObject) -> None:
        """Report a complete item that was inserted after the item ``before``."""
        for name in (self.item_added, self.item_done):
            if name is not None:
                emit(f"conversation.item.{name}", self.item_fields(before, item))


GA = Dialect(
    text="output_text",
    audio="output_audio",
    transcript="output_audio_transcript",
    item_added="added",
    item_done="done",
    obfuscates=True,
)
"""OpenAI's current protocol."""
