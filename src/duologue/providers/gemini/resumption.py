"""What outlives a connection: the handle to resume by, and what the server knew when it gave it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from duologue.items import AgentItem, Item
from duologue.realtime.commands import AddItem, DeleteItem, Truncate
from duologue.realtime.history import history_changes

_MOST_SAID = 256
"""Messages of the model whose words are remembered, to know whether they were cut."""


@dataclass(frozen=True, slots=True)
class Handle:
    """A state that the server keeps; ``history`` is what the conversation was then."""

    value: str
    history: Sequence[Item]
    said: frozenset[str]
    """The messages of the model's own that it had made by then."""


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
        self.handle = Handle(value, tuple(self._history()), frozenset(self._said))

    def forget(self) -> None:
        """The server does not take the handle."""
        self.handle = None

    def since(self, history: Sequence[Item]) -> list[AddItem | DeleteItem | Truncate]:
        """What the server does not know that goes on by the handle, of ``history``."""
        handle = self.handle
        if handle is None:
            return []
        changes: list[AddItem | DeleteItem | Truncate] = []
        for change in history_changes(handle.history, history):
            match change:
                case AddItem(item=AgentItem(id=item_id, text=text) as item) if (
                    item_id in handle.said
                ):
                    if self._differs(item_id, text):
                        changes.append(Truncate(item_id, item.played_ms, text))
                case Truncate(item_id=item_id, heard_text=text) if not self._differs(item_id, text):
                    continue
                case _:
                    changes.append(change)
        return changes

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
        if not self._differs(item_id, heard):
            return False
        self.know(item_id, heard)
        return True

    def _differs(self, item_id: str, heard: str) -> bool:
        said = self._said.get(item_id)
        return said is not None and said.split() != heard.split()
