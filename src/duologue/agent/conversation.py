"""The history of a conversation, in order, and the stores that keep it."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, cast

from duologue._user_code import is_async, log_failure, run_bounded
from duologue.errors import ConfigError
from duologue.items import (
    AgentItem,
    Item,
    SystemItem,
    ToolCallItem,
    ToolResultItem,
    UserItem,
    replace_surrogates_in_item,
)

log = logging.getLogger(__name__)


FLUSH_TIMEOUT_S = 0.3
"""Seconds that an `AsyncStore` has for the last changes at the end of a conversation."""


MAX_WAITING_CHANGES = 1000
"""Most changes that wait for an `AsyncStore`; the oldest are dropped first."""


class Store(Protocol):
    """Where a conversation is kept; called for every change, in order, on the event loop.

    Its methods must not block. A store that has to wait, for example for a database, is an
    `AsyncStore`.
    """

    def load(self) -> Sequence[Item]:
        """Return the items to continue from."""
        ...

    def put(self, item: Item) -> None:
        """Store an item that is new or has changed (same id)."""

    def remove(self, item_id: str) -> None:
        """Remove an item, because nothing of it was heard."""


class AsyncStore(Protocol):
    """A `Store` whose methods are coroutines.

    They are awaited one after the other in a separate task, so a slow store never delays the
    conversation. If several changes of one item are waiting, only the last is stored. A change that
    raised ``OSError`` is made again with the next one, because the place may be back by then.
    """

    async def load(self) -> Sequence[Item]:
        """Return the items to continue from; awaited when the agent joins."""
        ...

    async def put(self, item: Item) -> None:
        """Store an item that is new or has changed (same id)."""

    async def remove(self, item_id: str) -> None:
        """Remove an item, because nothing of it was heard."""


class Conversation:
    """The items of a conversation, in order, each with its own id; iterating yields them.

    An `AgentItem` never contains more than the person heard. Items that were not heard at all are
    removed. While an agent has joined with the conversation, an error of the store is reported and
    ends nothing; otherwise `put` and `remove` raise it.
    """

    def __init__(self, store: Store | AsyncStore | None = None) -> None:
        self._items: dict[str, Item] = {}
        self._store: Store | None = None
        self._queue: _StoreQueue | None = None
        self._report: Callable[[BaseException], None] | None = None
        self._load_later: Store | AsyncStore | None = None
        self._load_may_fail = False
        self._load_error: Exception | None = None
        self._unstored: tuple[str, ...] = ()
        if store is None:
            return
        if _is_async_store(store):
            self._queue = _StoreQueue(cast("AsyncStore", store))
            self._load_later = store
        else:
            self._store = cast("Store", store)
            self._add(self._store.load())

    @property
    def has_store(self) -> bool:
        """Whether changes are stored."""
        return self._store is not None or self._queue is not None

    def keep_in(self, store: Store | AsyncStore) -> None:
        """Store a conversation that has no store; what it has so far is stored, too.

        The store is loaded when the agent joins. If that fails, the conversation begins without
        the items, and the error is reported like any other error of a store.

        Raises:
            ConfigError: The conversation has a store.
        """
        if self.has_store:
            raise ConfigError("the conversation has a store: pass keep_in a conversation without")
        if _is_async_store(store):
            self._queue = _StoreQueue(cast("AsyncStore", store))
            for item in self._items.values():
                self._queue.put(item.id, item)
        else:
            self._store = cast("Store", store)
            self._unstored = tuple(self._items)
        self._load_later, self._load_may_fail = store, True

    async def load(self) -> None:
        """Load the items of an `AsyncStore`, once; they come before all other items.

        `Agent.join` calls this. Raises whatever the store raises, unless it came by `keep_in`.
        """
        store = self._load_later
        if store is None:
            return
        try:
            loading = store.load()
            items = await loading if inspect.isawaitable(loading) else loading
        except Exception as error:
            if not self._load_may_fail:
                raise
            self._load_later, self._load_error = None, error
            return
        if self._load_later is store:
            self._load_later = None
            ours, self._items = self._items, {}
            self._add(items)
            self._items |= ours

    async def flush(self) -> None:
        """Wait until an `AsyncStore` has all changes; `Agent.join` waits 0.3 s when it ends."""
        if self._queue is not None:
            await self._queue.flush()

    def begin(self, tasks: asyncio.TaskGroup, report: Callable[[BaseException], None]) -> None:
        """Store changes from now on, in a task of ``tasks``; call ``report`` with each failure."""
        self._report = report
        if self._load_error is not None:
            error, self._load_error = self._load_error, None
            report(error)
        unstored, self._unstored = self._unstored, ()
        for item_id in unstored:
            if (item := self._items.get(item_id)) is not None:
                self.put(item)
        if self._queue is not None:
            self._queue.begin(tasks, report)

    async def end(self) -> None:
        """Stop storing changes; wait for the store for up to `FLUSH_TIMEOUT_S`."""
        if self._queue is not None:
            await self._queue.end()
        self._report = None

    def __iter__(self) -> Iterator[Item]:
        return iter(tuple(self._items.values()))

    def __len__(self) -> int:
        return len(self._items)

    def _repr_html_(self) -> str:
        """Return an HTML table of who said what, for notebooks."""
        from duologue._notebook import conversation_html

        return conversation_html(self.items)

    @property
    def items(self) -> tuple[Item, ...]:
        """All items, oldest first."""
        return tuple(self._items.values())

    @property
    def history(self) -> tuple[Item, ...]:
        """The items that a model can continue from: items with text, and tool calls with results.

        A crash leaves other items behind: a speech that was only starting, a tool call under way.
        """
        return self.history_with({}, ())

    def history_with(
        self, spoken_texts: Mapping[str, str], running_call_ids: Iterable[str]
    ) -> tuple[Item, ...]:
        """Return `history` in the middle of a conversation.

        Args:
            spoken_texts: The text so far of agent items that are being played, or whose audio is
                waiting to be played, by item id.
            running_call_ids: The ids of tool calls that have no result yet.
        """
        items = [
            replace(item, text=spoken_texts[item.id])
            if isinstance(item, AgentItem) and item.id in spoken_texts
            else item
            for item in self._items.values()
        ]
        items += [
            AgentItem(item_id, words, "speaking", 0, item_id)
            for item_id, words in spoken_texts.items()
            if item_id not in self._items
        ]
        answered = {item.call_id for item in items if isinstance(item, ToolResultItem)}
        answered.update(running_call_ids)
        return tuple(item for item in items if _is_complete(item, answered))

    def get(self, item_id: str) -> Item | None:
        """Return the item with that id; None without one."""
        return self._items.get(item_id)

    def put(self, item: Item) -> None:
        """Append an item, or replace the item with the same id where it stands."""
        item = replace_surrogates_in_item(item)
        self._items[item.id] = item
        if self._queue is not None:
            self._queue.put(item.id, item)
        elif self._store is not None:
            store = self._store
            self._change_store(lambda: store.put(item))

    def remove(self, item_id: str) -> None:
        """Remove an item; do nothing if there is none."""
        if self._items.pop(item_id, None) is None:
            return
        if self._queue is not None:
            self._queue.put(item_id, None)
        elif self._store is not None:
            store = self._store
            self._change_store(lambda: store.remove(item_id))

    def _add(self, items: Iterable[Item]) -> None:
        for item in items:
            self._items[item.id] = replace_surrogates_in_item(item)

    def _change_store(self, change: Callable[[], object]) -> None:
        """Make a change in the store; report its error if an agent has joined."""
        try:
            change()
        except BaseException as error:
            if self._report is None or isinstance(error, KeyboardInterrupt):
                raise
            self._report(error)


@dataclass(frozen=True, slots=True, eq=False)
class _Change:
    """A change of one item.

    Args:
        item: The item to put; None to put none.
        removes: Whether the item of that id is removed first.
    """

    item: Item | None
    removes: bool


class _StoreQueue:
    """Changes that wait for an `AsyncStore`, by item id."""

    def __init__(self, store: AsyncStore) -> None:
        self.store = store
        self._waiting: dict[str, _Change] = {}
        # These belong to one event loop, so `begin` makes new ones for each conversation.
        self._wake: asyncio.Event | None = None
        self._busy: asyncio.Lock | None = None
        self._task: asyncio.Task[None] | None = None
        self._report: Callable[[BaseException], None] = _log_failure

    def put(self, item_id: str, item: Item | None) -> None:
        """Queue a change; it replaces an earlier change of the same item that is still waiting."""
        earlier = self._waiting.get(item_id)
        if earlier is not None and item is not None and earlier.item is not None:
            change = _Change(item, earlier.removes)
        else:
            # A removed item that is put again comes behind all others.
            self._waiting.pop(item_id, None)
            change = _Change(item, earlier is not None or item is None)
        self._waiting[item_id] = change
        if len(self._waiting) > MAX_WAITING_CHANGES:
            del self._waiting[next(iter(self._waiting))]
            self._report(OSError(f"{MAX_WAITING_CHANGES} changes wait: the oldest was dropped"))
        if self._wake is not None:
            self._wake.set()

    def begin(self, tasks: asyncio.TaskGroup, report: Callable[[BaseException], None]) -> None:
        """Start the task that makes the changes."""
        self._report = report
        self._wake, self._busy = asyncio.Event(), asyncio.Lock()
        self._wake.set()
        self._task = tasks.create_task(self._run(self._wake), name="store")

    async def end(self) -> None:
        """Make the waiting changes within `FLUSH_TIMEOUT_S`, and stop the task."""
        task, self._task = self._task, None
        try:
            async with asyncio.timeout(FLUSH_TIMEOUT_S):
                await self.flush()
        except TimeoutError:
            self._report(
                TimeoutError(
                    f"{len(self._waiting)} changes were not stored within {FLUSH_TIMEOUT_S:g} s: "
                    "await conversation.flush()"
                )
            )
        finally:
            self._report = _log_failure
            self._wake = self._busy = None
            if task is not None:
                task.cancel()

    async def flush(self) -> None:
        """Make all waiting changes, one after the other; stop at the first ``OSError``."""
        async with self._busy or asyncio.Lock():
            while self._waiting:
                item_id = next(iter(self._waiting))
                change = self._waiting[item_id]
                try:
                    if change.removes:
                        await self._make(self.store.remove(item_id))
                    if change.item is not None:
                        await self._make(self.store.put(change.item))
                except asyncio.CancelledError:
                    raise  # The change may not have been made, so it stays queued.
                except Exception as error:  # noqa: BLE001 - reported
                    self._report(error)
                    if isinstance(error, OSError):
                        return  # The next change tries this one again.
                if self._waiting.get(item_id) is change:
                    del self._waiting[item_id]

    async def _make(self, change: object) -> None:
        if inspect.isawaitable(change):
            await run_bounded(change, "a store")

    async def _run(self, wake: asyncio.Event) -> None:
        while True:
            await wake.wait()
            wake.clear()
            await self.flush()


def _is_async_store(store: Store | AsyncStore) -> bool:
    return any(map(is_async, (store.load, store.put, store.remove)))


def _log_failure(error: BaseException) -> None:
    log_failure(log, "the store of a conversation", error)


def _is_complete(item: Item, answered: set[str]) -> bool:
    match item:
        case UserItem(text=text) | AgentItem(text=text):
            return bool(text)
        case ToolCallItem(call_id=call_id):
            return call_id in answered
        case SystemItem() | ToolResultItem():
            return True
