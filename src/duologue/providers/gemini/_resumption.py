"""State that outlives a connection: the handle to resume by, and what the server knew then."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from duologue._bounded_dict import BoundedDict
from duologue.items import AgentItem, Item, UserItem
from duologue.realtime import diff_histories
from duologue.realtime.commands import AddItem, DeleteItem, Truncate

_MAX_TEXTS = 256
"""Messages of the model whose text is kept, to tell whether they were truncated."""
_MAX_ATTEMPTS = 3
"""Connections in a row that may fail with one handle; then the history is sent instead."""


class ServerTranscript:
    """The text of the model's own messages, as the server of one connection has it."""

    __slots__ = ("_corrected", "_texts")

    def __init__(self, texts: Mapping[str, str] | None = None) -> None:
        self._corrected: set[str] = set()
        self._texts: BoundedDict[str, str] = BoundedDict(
            _MAX_TEXTS, on_drop=lambda item_id, _: self._corrected.discard(item_id)
        )
        self._texts.update(texts or {})
        """Messages whose truncation was sent to the server."""

    @property
    def texts(self) -> dict[str, str]:
        """A copy of the texts, by the ids of the messages."""
        return dict(self._texts)

    def append(self, item_id: str, text: str) -> None:
        """Append text to a message, unless the server already got what was heard of it."""
        if item_id in self._corrected:
            return
        self._texts[item_id] = self._texts.get(item_id, "") + text

    def replace(self, item_id: str, text: str) -> None:
        """Record that the server got the whole message, or what was heard of it."""
        self._corrected.discard(item_id)
        self._texts.pop(item_id, None)
        self.append(item_id, text)
        self._corrected.add(item_id)

    def differs(self, item_id: str, heard: str) -> bool:
        """Return whether the server has another text for the message than ``heard``."""
        said = self._texts.get(item_id)
        return said is not None and not _same_words(said, heard)


@dataclass(frozen=True, slots=True)
class Handle:
    """A state that the server keeps.

    Attributes:
        value: The handle itself.
        history: The part of the conversation that the server knew.
        server_texts: The text of the model's messages, as the server had it.
        pending_truncations: Ids of the messages whose truncation was not sent by then.
    """

    value: str
    history: Sequence[Item]
    server_texts: Mapping[str, str]
    pending_truncations: Collection[str] = ()

    def changes_since(
        self, history: Sequence[Item], *, report_truncation: bool
    ) -> list[AddItem | DeleteItem | Truncate]:
        """Return the changes that bring the server up to date.

        Args:
            history: The conversation now.
            report_truncation: Include what the person did not hear.
        """
        known = {item.id for item in self.history} | self.server_texts.keys()
        last = max((at for at, item in enumerate(history) if item.id in known), default=0)
        # The server heard a spoken turn that precedes something it knows; only its transcript was
        # late.
        earlier = history[:last]
        heard_ids = {item.id for item in earlier if isinstance(item, UserItem) and item.spoken}
        pending = self._late_truncations(history) if report_truncation else []
        pending_ids = {change.item_id for change in pending}
        changes: list[AddItem | DeleteItem | Truncate] = [*pending]
        for change in diff_histories(self.history, history):
            match change:
                case Truncate() | DeleteItem() if change.item_id in pending_ids:
                    continue
                case AddItem(item=AgentItem(id=item_id, text=text) as item) if (
                    item_id in self.server_texts
                ):
                    if (
                        report_truncation
                        and item_id not in pending_ids
                        and not _same_words(self.server_texts[item_id], text)
                    ):
                        changes.append(Truncate(item_id, item.played_ms, text))
                case AddItem(item=item):
                    if item.id not in heard_ids:
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
        """Return what the person heard of the messages in `pending_truncations`, as known now."""
        heard = {item.id: item for item in history if isinstance(item, AgentItem)}
        return [
            Truncate(item_id, heard[item_id].played_ms, heard[item_id].text)
            if item_id in heard
            else DeleteItem(item_id)
            for item_id in self.pending_truncations
        ]


class Resumption:
    """Keeps the latest handle of one session.

    A handle is kept only while the server says that the session can be resumed by it; in the middle
    of a reply or of a tool call the previous handle stays the one to use.

    Args:
        history: Returns the current conversation.
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
        """Keep a handle that the session can be resumed with now.

        Args:
            value: The handle.
            server_texts: The text of the model's messages, as the server has it.
            pending_truncations: Ids of the messages whose truncation was not sent yet.
            server_knows: Returns whether the server has an item.
        """
        self.handle = Handle(
            value,
            tuple(filter(server_knows, self._get_history())),
            server_texts,
            pending_truncations,
        )
        self._attempts = 0

    def next_handle(self) -> Handle | None:
        """Return the handle for the next connection, or None after too many failed attempts."""
        if self.handle is not None:
            self._attempts += 1
            if self._attempts > _MAX_ATTEMPTS:
                self.forget()
        return self.handle

    def mark_resumed(self) -> None:
        """Record that the server has accepted the handle."""
        self._attempts = 0

    def forget(self) -> None:
        """Drop the handle, because the server does not accept it."""
        self.handle = None
        self._attempts = 0


def _same_words(said: str, heard: str) -> bool:
    return said.split() == heard.split()
