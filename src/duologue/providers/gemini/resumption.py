"""What outlives a connection: the handle to resume by, and what the server knew when it gave it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from duologue.items import Item

_MOST_SAID = 256
"""Messages of the model whose words are remembered, to know whether they were cut."""


@dataclass(frozen=True, slots=True)
class Handle:
    """A state that the server keeps; ``history`` is what the conversation was then."""

    value: str
    history: Sequence[Item]


class Resumption:
    """Of one session; ``history`` gives the conversation as it is now.

    Handles are kept only while the server says that it can resume by them: in the middle of a reply
    or of a tool's call the one before is the one to go back to.
    """

    __slots__ = ("_history", "_said", "handle")

    def __init__(self, history: Callable[[], Sequence[Item]]) -> None:
        self._history = history
        self._said: dict[str, str] = {}
        self.handle: Handle | None = None

    def keep(self, value: str) -> None:
        """The server can be resumed by this handle, from what it knows now."""
        self.handle = Handle(value, tuple(self._history()))

    def forget(self) -> None:
        """The server does not take the handle."""
        self.handle = None

    def say(self, item_id: str, text: str) -> None:
        """The next words of one of the model's messages, as the server knows it."""
        self._said[item_id] = self._said.get(item_id, "") + text
        if len(self._said) > _MOST_SAID:
            del self._said[next(iter(self._said))]

    def know(self, item_id: str, text: str) -> None:
        """The server was given that message."""
        self._said.pop(item_id, None)
        self.say(item_id, text)

    def cut(self, item_id: str, heard: str) -> bool:
        """Only so much of a message was heard; False if that is all that the server knows of it."""
        said = self._said.get(item_id)
        if said is None or said.split() == heard.split():
            return False
        self.know(item_id, heard)
        return True
