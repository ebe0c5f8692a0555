"""What outlives a connection: the handle to resume by, and what the server knew when it gave it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from duologue.items import AgentItem, Item, UserItem
from duologue.realtime._session.history_diff import diff_histories
from duologue.realtime.commands import AddItem, DeleteItem, Truncate

_MAX_TEXTS = 256
"""Messages of the model whose words are remembered, to know whether they were cut."""
_MAX_ATTEMPTS = 3
"""Connections in a row that may fail with a handle; then the history is given instead."""


class ServerTranscript:
    """The model's own messages, as the server of one connection has them."""

    __slots__ = ("_corrected", "_texts")

    def __init__(self, texts: Mapping[str, str] | None = None) -> None:
        self._texts = dict(texts or {})
        self._corrected: set[str] = set()
        """Messages of which the server has been told what was heard."""

    @property
    def texts(self) -> dict[str, str]:
        """By the ids of the messages, as they are now."""
        return dict(self._texts)

    def append(self, item_id: str, text: str) -> None:
        """The next words of a message."""
        if item_id in self._corrected:
            return
        self._texts[item_id] = self._texts.get(item_id, "") + text
        if len(self._texts) > _MAX_TEXTS:
            oldest = next(iter(self._texts))
            del self._texts[oldest]
            self._corrected.discard(oldest)

    def replace(self, item_id: str, text: str) -> None:
        """The server was told that this is the message, or what was heard of it."""
        self._corrected.discard(item_id)
        self._texts.pop(item_id, None)
        self.append(item_id, text)
        self._corrected.add(item_id)

    def differs(self, item_id: str, heard: str) -> bool:
        """The server takes more, or something else, for heard of a message than that."""
        said = self._texts.get(item_id)
        return said is not None and not _same_words(said, heard)


@dataclass(frozen=True, slots=True)
class Handle:
    """A state that the server keeps.

    ``history`` is what it knew of the conversation then; ``said`` are the words of its own messages
    as it had them, ``cut`` are those of which it was still to be told what was heard.
    """

    value: str
    history: Sequence[Item]
    server_texts: Mapping[str, str]
    pending_truncations: Collection[str] = ()

    def changes_since(
        self, history: Sequence[Item], *, report_truncation: bool
    ) -> list[AddItem | DeleteItem | Truncate]:
        """What the server does not know of ``history``; ``cuts``: nor what was not heard."""
        known = {item.id for item in self.history} | self.server_texts.keys()
        last = max((at for at, item in enumerate(history) if item.id in known), default=0)
        # A turn before something that it knows was heard there; only its words have come later.
        heard = {item.id for item in history[:last] if isinstance(item, UserItem) and item.spoken}
        waiting = self._late_truncations(history) if report_truncation else []
        told = {change.item_id for change in waiting}
        changes: list[AddItem | DeleteItem | Truncate] = [*waiting]
        for change in diff_histories(self.history, history):
            match change:
                case Truncate(item_id=item_id) | DeleteItem(item_id=item_id) if item_id in told:
                    continue
                case AddItem(item=AgentItem(id=item_id, text=text) as item) if (
                    item_id in self.server_texts
                ):
                    if (
                        report_truncation
                        and item_id not in told
                        and not _same_words(self.server_texts[item_id], text)
                    ):
                        changes.append(Truncate(item_id, item.played_ms, text))
                case AddItem(item=item):
                    if item.id not in heard:
                        changes.append(change)
                case Truncate(item_id=item_id, heard_text=text):
                    if report_truncation and not _same_words(
                        self.server_texts.get(item_id, ""), text
                    ):
                        changes.append(change)
                case DeleteItem():
                    if report_truncation:
                        changes.append(change)
        return changes

    def _late_truncations(self, history: Sequence[Item]) -> list[Truncate | DeleteItem]:
        """What was heard by now of the messages about which something was still to be told."""
        heard = {item.id: item for item in history if isinstance(item, AgentItem)}
        return [
            Truncate(item_id, heard[item_id].played_ms, heard[item_id].text)
            if item_id in heard
            else DeleteItem(item_id)
            for item_id in self.pending_truncations
        ]


class Resumption:
    """Of one session; ``history`` gives the conversation as it is now.

    Handles are kept only while the server says that it can resume by them: in the middle of a reply
    or of a tool's call the one before is the one to go back to.
    """

    __slots__ = ("_attempts", "_get_history", "handle")

    def __init__(self, history: Callable[[], Sequence[Item]]) -> None:
        self._get_history = history
        self._attempts = 0
        self.handle: Handle | None = None

    def save_handle(
        self,
        value: str,
        server_texts: Mapping[str, str],
        pending_truncations: Collection[str],
        server_knows: Callable[[Item], bool],
    ) -> None:
        """The server can be resumed by this handle; ``known`` are the items that it has."""
        self.handle = Handle(
            value,
            tuple(filter(server_knows, self._get_history())),
            server_texts,
            pending_truncations,
        )
        self._attempts = 0

    def next_handle(self) -> Handle | None:
        """The handle for the next connection; one that did not lead to any is given up."""
        if self.handle is not None:
            self._attempts += 1
            if self._attempts > _MAX_ATTEMPTS:
                self.forget()
        return self.handle

    def mark_resumed(self) -> None:
        """The server goes on by the handle."""
        self._attempts = 0

    def forget(self) -> None:
        """The server does not take the handle."""
        self.handle = None
        self._attempts = 0


def _same_words(said: str, heard: str) -> bool:
    return said.split() == heard.split()
