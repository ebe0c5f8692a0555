"""The names of one protocol of this family: OpenAI's own, and that of services that follow it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from duologue.simulator.fields import Object

_BLOCK = 16
_PADDING = "qZ3vT8mKx1RbYw5L"
"""Pads a piece of text to a multiple of 16 characters; the service uses random characters."""

type Emit = Callable[[str, Object], None]
"""Tells the client an event, of that type and with those fields."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """Names of events and of content.

    ``text``, ``audio`` and ``transcript`` name the words of a text response, the sound, and the
    words of the sound: in ``response.NAME.delta``, the first two also as types of content.
    """

    text: str
    audio: str
    transcript: str
    item: str
    """``conversation.item.NAME`` tells that an item was put in."""
    item_done: str | None
    """``conversation.item.NAME`` tells that it is whole, where that is told."""
    previous: bool = True
    """Those two say behind which item it stands."""
    words_first: bool = False
    """A turn is answered once its words have come, and not as soon as it is over."""
    transcript_first: bool = False
    """Of a message that is whole, the words are told before the sound."""
    objects: bool = False
    """Whether items have a field ``object``."""
    obfuscates: bool = False
    """Whether pieces of text are padded, so that their lengths on the wire reveal nothing."""

    def piece(self, text: str) -> Object:
        """Return the fields of a piece of text."""
        if not self.obfuscates:
            return {"delta": text}
        return {"delta": text, "obfuscation": _PADDING[: _BLOCK - len(text) % _BLOCK]}

    def placed(self, before: str | None, item: Object) -> Object:
        """The fields that tell of ``item``, which stands behind the item ``before``."""
        told: Object = {"item": dict(item)}
        return {"previous_item_id": before, **told} if self.previous else told

    def tell_put(self, emit: Emit, before: str | None, item: Object) -> None:
        """Tell that a whole item was put in behind the item ``before``."""
        for name in (self.item, self.item_done):
            if name is not None:
                emit(f"conversation.item.{name}", self.placed(before, item))


GA = Dialect(
    text="output_text",
    audio="output_audio",
    transcript="output_audio_transcript",
    item="added",
    item_done="done",
    obfuscates=True,
)
"""OpenAI's protocol of today."""
