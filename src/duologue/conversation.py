"""The history of what was said and heard, in order, and where it is kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Protocol

from duologue.items import (
    AgentItem,
    Item,
    SystemItem,
    ToolCallItem,
    ToolResultItem,
    UserItem,
)
from duologue.realtime.errors import ConfigError

_KINDS: dict[str, Callable[..., Item]] = {
    kind.__name__: kind for kind in (SystemItem, UserItem, AgentItem, ToolCallItem, ToolResultItem)
}


_START = b'{"kind": '
"""How every line of a `JsonlStore` begins."""


class Store(Protocol):
    """Where a conversation is kept; called for every change, in order, on the event loop."""

    def load(self) -> Sequence[Item]:
        """The items to go on from."""
        ...

    def put(self, item: Item) -> None:
        """An item is new, or has changed (same id)."""

    def remove(self, item_id: str) -> None:
        """An item is gone: nothing of it was heard."""


class Conversation:
    """Items in order; one id each. Iterating gives the items.

    An `AgentItem` never says more than was heard. Items that were not heard at all are removed.
    """

    def __init__(self, store: Store | None = None) -> None:
        self._store = store
        self._items: dict[str, Item] = {}
        for item in store.load() if store else ():
            self._items[item.id] = item

    def __iter__(self) -> Iterator[Item]:
        return iter(tuple(self._items.values()))

    def __len__(self) -> int:
        return len(self._items)

    @property
    def items(self) -> tuple[Item, ...]:
        """All items, oldest first."""
        return tuple(self._items.values())

    @property
    def history(self) -> tuple[Item, ...]:
        """What a model can go on from: items with words, and tool calls that were answered.

        A crash leaves others behind: a speech that was only beginning, a call under way.
        """
        return self.history_with({}, ())

    def history_with(self, spoken: Mapping[str, str], running: Iterable[str]) -> tuple[Item, ...]:
        """As `history`, in the middle of a conversation.

        ``spoken`` are the words so far of agent items that are being spoken, by item id, or whose
        sound has come and is about to be; ``running`` the ids of calls whose results are still to
        come.
        """
        items = [
            replace(item, text=spoken[item.id])
            if isinstance(item, AgentItem) and item.id in spoken
            else item
            for item in self._items.values()
        ]
        items += [
            AgentItem(item_id, words, "speaking", 0, item_id)
            for item_id, words in spoken.items()
            if item_id not in self._items
        ]
        answered = {item.call_id for item in items if isinstance(item, ToolResultItem)}
        answered.update(running)
        return tuple(item for item in items if _is_whole(item, answered))

    def get(self, item_id: str) -> Item | None:
        """The item of that id, if there is one."""
        return self._items.get(item_id)

    def put(self, item: Item) -> None:
        """Add an item at the end, or replace the one that has its id where it stands."""
        self._items[item.id] = item
        if self._store is not None:
            self._store.put(item)

    def remove(self, item_id: str) -> None:
        """Take an item out; harmless when there is none."""
        if self._items.pop(item_id, None) is not None and self._store is not None:
            self._store.remove(item_id)


def _is_whole(item: Item, answered: set[str]) -> bool:
    match item:
        case UserItem(text=text) | AgentItem(text=text):
            return bool(text)
        case ToolCallItem(call_id=call_id):
            return call_id in answered
        case SystemItem() | ToolResultItem():
            return True


class JsonlStore:
    """Keeps a conversation in a file, one change a line, so that a crash loses nothing written.

    A last line that a crash cut short is dropped when the file is next read.
    Raises `ConfigError` from `load` for a file that is not such a record, or that can't be one.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)

    def load(self) -> Sequence[Item]:
        """Replay the changes."""
        if self._path.is_dir():
            raise ConfigError(f"{self._path} is a folder: pass a file in it")
        if not self._path.parent.is_dir():
            raise ConfigError(f"there is no folder {self._path.parent}: make it first")
        if not self._path.exists():
            return ()
        items: dict[str, Item] = {}
        with self._path.open("r+b") as lines:
            whole = 0
            for number, line in enumerate(lines, 1):
                torn = not line.endswith(b"\n")
                if torn and (line.startswith(_START) or _START.startswith(line)):
                    lines.truncate(whole)  # A crash cut this one short.
                    break
                whole += len(line)
                try:
                    fields = json.loads(line)
                    kind = fields.pop("kind")
                    if kind == "removed":
                        items.pop(fields["id"], None)
                    else:
                        items[fields["id"]] = _KINDS[kind](**fields)
                except (ValueError, KeyError, TypeError, AttributeError) as error:
                    raise ConfigError(
                        f"{self._path} line {number} is not a conversation item: move the file away"
                    ) from error
        return tuple(items.values())

    def put(self, item: Item) -> None:
        """Append the item."""
        self._append({"kind": type(item).__name__, **asdict(item)})

    def remove(self, item_id: str) -> None:
        """Append its removal."""
        self._append({"kind": "removed", "id": item_id})

    def _append(self, fields: dict[str, object]) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(fields, ensure_ascii=False) + "\n")
