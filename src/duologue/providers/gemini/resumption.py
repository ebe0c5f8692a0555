"""What outlives a connection: the handle to resume by, and what the server knew when it gave it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from duologue.items import AgentItem, Item, UserItem
from duologue.realtime.commands import AddItem, DeleteItem, Truncate
from duologue.realtime.history import history_changes

_MOST_SAID = 256
"""Messages of the model whose words are remembered, to know whether they were cut."""
_TRIES = 3
"""Connections in a row that may fail with a handle; then the history is given instead."""


class Said:
    """The model's own messages, as the server of one connection has them."""

    __slots__ = ("_told", "_words")

    def __init__(self, words: Mapping[str, str] | None = None) -> None:
        self._words = dict(words or {})
        self._told: set[str] = set()
        """Messages of which the server has been told what was heard."""

    @property
    def words(self) -> dict[str, str]:
        """By the ids of the messages, as they are now."""
        return dict(self._words)

    def add(self, item_id: str, text: str) -> None:
        """The next words of a message."""
        if item_id in self._told:
            return
        self._words[item_id] = self._words.get(item_id, "") + text
        if len(self._words) > _MOST_SAID:
            oldest = next(iter(self._words))
            del self._words[oldest]
            self._told.discard(oldest)

    def tell(self, item_id: str, text: str) -> None:
        """The server was told that this is the message, or what was heard of it."""
        self._told.discard(item_id)
        self._words.pop(item_id, None)
        self.add(item_id, text)
        self._told.add(item_id)

    def differs(self, item_id: str, heard: str) -> bool:
        """The server takes more, or something else, for heard of a message than that."""
        said = self._words.get(item_id)
        return said is not None and not _same(said, heard)


@dataclass(frozen=True, slots=True)
class Handle:
    """A state that the server keeps.

    ``history`` is what it knew of the conversation then; ``said`` are the words of its own messages
    as it had them, ``cut`` are those of which it was still to be told what was heard.
    """

    value: str
    history: Sequence[Item]
    said: Mapping[str, str]
    cut: Collection[str] = ()

    def since(
        self, history: Sequence[Item], *, cuts: bool
    ) -> list[AddItem | DeleteItem | Truncate]:
        """What the server does not know of ``history``; ``cuts``: nor what was not heard."""
        known = {item.id for item in self.history} | self.said.keys()
        last = max((at for at, item in enumerate(history) if item.id in known), default=0)
        # A turn before something that it knows was heard there; only its words have come later.
        heard = {item.id for item in history[:last] if isinstance(item, UserItem) and item.spoken}
        waiting = self._cuts(history) if cuts else []
        told = {change.item_id for change in waiting}
        changes: list[AddItem | DeleteItem | Truncate] = [*waiting]
        for change in history_changes(self.history, history):
            match change:
                case Truncate(item_id=item_id) | DeleteItem(item_id=item_id) if item_id in told:
                    continue
                case AddItem(item=AgentItem(id=item_id, text=text) as item) if item_id in self.said:
                    if cuts and item_id not in told and not _same(self.said[item_id], text):
                        changes.append(Truncate(item_id, item.played_ms, text))
                case AddItem(item=item):
                    if item.id not in heard:
                        changes.append(change)
                case Truncate(item_id=item_id, heard_text=text):
                    if cuts and not _same(self.said.get(item_id, ""), text):
                        changes.append(change)
                case DeleteItem():
                    if cuts:
                        changes.append(change)
        return changes

    def _cuts(self, history: Sequence[Item]) -> list[Truncate | DeleteItem]:
        """What was heard by now of the messages about which something was still to be told."""
        heard = {item.id: item for item in history if isinstance(item, AgentItem)}
        return [
            Truncate(item_id, heard[item_id].played_ms, heard[item_id].text)
            if item_id in heard
            else DeleteItem(item_id)
            for item_id in self.cut
        ]


class Resumption:
    """Of one session; ``history`` gives the conversation as it is now.

    Handles are kept only while the server says that it can resume by them: in the middle of a reply
    or of a tool's call the one before is the one to go back to.
    """

    __slots__ = ("_history", "_tries", "handle")

    def __init__(self, history: Callable[[], Sequence[Item]]) -> None:
        self._history = history
        self._tries = 0
        self.handle: Handle | None = None

    def keep(
        self,
        value: str,
        said: Mapping[str, str],
        cut: Collection[str],
        known: Callable[[Item], bool],
    ) -> None:
        """The server can be resumed by this handle; ``known`` are the items that it has."""
        self.handle = Handle(value, tuple(filter(known, self._history())), said, cut)
        self._tries = 0

    def take(self) -> Handle | None:
        """The handle for the next connection; one that did not lead to any is given up."""
        if self.handle is not None:
            self._tries += 1
            if self._tries > _TRIES:
                self.forget()
        return self.handle

    def taken(self) -> None:
        """The server goes on by the handle."""
        self._tries = 0

    def forget(self) -> None:
        """The server does not take the handle."""
        self.handle = None
        self._tries = 0


def _same(said: str, heard: str) -> bool:
    return said.split() == heard.split()
