"""Read audio deltas by their shape, without parsing each as JSON (sans-IO).

A reply's audio comes in dozens of messages a second, in which only the event id and the audio
differ from one to the next::

    {"type":"response.output_audio.delta","event_id":"event_17","response_id": ... ,"delta":"UklG"}
    |------------------- head -----------------------|- id --|------- middle --------|audio|-tail|

`DeltaShape.learn` takes these parts from a message that was parsed as JSON. `DeltaShape.read` takes
the id and the audio from the next messages of the same shape, in a fifth of the bytecodes. It says
None to any other message, which is then parsed as JSON.

This is right for any order of keys and any whitespace. Both the id and the audio are JSON strings
of which `learn` has seen the quotes. `read` accepts an id of letters, digits and signs that need no
escape, and audio that is base64 from its first to its last character. So the quotes behind them end
the strings, and all else of the message is, byte for byte, what was parsed before. Therefore JSON
could find no other id, no other audio, and no difference in anything else.

`learn` refuses messages in which that would not be certain: with an escape anywhere, with the words
``event_id`` or ``delta`` in quotes more than once, or with the audio before the id.

Which events are repeated is decided here, too (`RecentEvents`), because it is asked for each delta.
"""

from __future__ import annotations

from typing import Self

from duologue._optional import optional
from duologue.json_types import JsonObject
from duologue.providers._json_fields import int_field, str_field

with optional("openai"):
    import pybase64

_ID_CHARACTERS = (
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-.:+/=~@#$%&*()[]{}<>|,; "
)
"""What the id of an event may consist of; none of these is escaped in JSON."""

_EVENT_ID = b'"event_id"'
_DELTA = b'"delta"'

_MIN_RECENT = 16
"""Number of newest event ids that are always known; up to twice as many are."""

_FINGERPRINT_BYTES = 64
"""Bytes at the end of an event that, with its length, distinguish it from others with its id."""


class DeltaShape:
    """What the audio deltas of one item have in common.

    Attributes:
        reply_id: Their response.
        item_id: Their item.
        content_index: Their part of the item.
    """

    __slots__ = (
        "_audio_start",
        "_head",
        "_id_start",
        "_middle",
        "_tail",
        "content_index",
        "item_id",
        "reply_id",
    )

    def __init__(self, event: JsonObject, head: bytes, middle: bytes, tail: bytes) -> None:
        self.reply_id = str_field(event, "response_id")
        self.item_id = str_field(event, "item_id")
        self.content_index = int_field(event, "content_index") or 0
        self._head = head
        self._id_start = len(head)
        self._middle = middle
        self._audio_start = len(middle)
        self._tail = tail

    @classmethod
    def learn(cls, message: bytes, event: JsonObject) -> Self | None:
        """Return the shape of ``message``, which is ``event`` in JSON; None if it is unclear.

        Raises:
            MalformedError: The event is not a delta of an item.
        """
        if b"\\" in message or message.count(_EVENT_ID) != 1 or message.count(_DELTA) != 1:
            return None
        at_id = _string_behind(message, _EVENT_ID, event.get("event_id"))
        at_audio = _string_behind(message, _DELTA, event.get("delta"))
        if at_id is None or at_audio is None or at_id.stop > at_audio.start:
            return None
        middle = message[at_id.stop : at_audio.start]
        return cls(event, message[: at_id.start], middle, message[at_audio.stop :])

    def read(self, message: bytes) -> tuple[bytes, bytes] | None:
        """Return the event id and the audio of a message of this shape; None for any other."""
        if not message.startswith(self._head):
            return None
        end = message.find(b'"', self._id_start)
        if not message.startswith(self._middle, end) or not message.endswith(self._tail):
            return None
        event_id = message[self._id_start : end]
        if event_id.translate(None, _ID_CHARACTERS):
            return None
        base64 = message[end + self._audio_start : -len(self._tail)]
        try:
            pcm = pybase64.b64decode(base64, None, True)  # The last: nothing but base64.
        except ValueError:
            return None
        # Without audio, the quotes around it might be one and the same.
        return (event_id, pcm) if pcm else None


def _string_behind(message: bytes, key: bytes, value: object) -> range | None:
    """Return where the string ``value`` lies behind ``key``, without its quotes."""
    if not isinstance(value, str):
        return None
    text = value.encode(errors="replace")
    start = message.index(b'"', message.index(key) + len(key)) + 1
    if not message.startswith(text + b'"', start):
        return None
    return range(start, start + len(text))


class RecentEvents:
    """The ids of the newest events of a server, to notice events that it repeats.

    Attributes:
        repeated: Number of events that had the id of an earlier one.
    """

    __slots__ = ("_ids_repeat", "_newer", "_older", "repeated")

    def __init__(self) -> None:
        self._newer: dict[bytes, int] = {}
        self._older: dict[bytes, int] = {}
        """Ids, each with what distinguishes its event from others with this id."""
        self._ids_repeat = False
        """Whether the server gives different events the same id."""
        self.repeated = 0

    def add(self, event_id: bytes, message: bytes) -> bool:
        """Record an event; return False, without recording it, if its id is known."""
        newer = self._newer
        if event_id in newer or event_id in self._older:
            return False
        newer[event_id] = hash(message[-_FINGERPRINT_BYTES:]) ^ len(message)
        if len(newer) >= _MIN_RECENT:
            self._older, self._newer = newer, {}
        return True

    def is_duplicate(self, event_id: bytes, message: bytes) -> bool:
        """Record an event; return whether it is a duplicate of another one.

        Some servers give different events the same id. Nothing that such a server sends is taken
        for a duplicate any more.
        """
        if self.add(event_id, message):
            return False
        self.repeated += 1
        before = self._newer.get(event_id, self._older.get(event_id))
        if before != hash(message[-_FINGERPRINT_BYTES:]) ^ len(message):
            self._ids_repeat = True
        return not self._ids_repeat
