"""Know which tool calls of which reply still need their result (contract C6; sans-IO)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from duologue.realtime.capabilities import Capabilities
from duologue.realtime.commands import Scheduling, ToolSpec


def scheduling_of(name: str, tools: Sequence[ToolSpec], profile: Capabilities) -> Scheduling | None:
    """Return how the model takes the result of that tool; None if it waits for all results."""
    if not profile.async_tools:
        return None
    return next((tool.scheduling for tool in tools if tool.name == name), None)


@dataclass(slots=True)
class _CallGroup:
    """The calls of one reply."""

    epoch: int
    open_calls: set[str] = field(default_factory=set)
    done: bool = False


class ToolCalls:
    """Groups calls by the reply that made them.

    A group is complete when the reply has ended and every call of it has its result.
    """

    def __init__(self) -> None:
        self._groups: dict[str, _CallGroup] = {}
        self._reply_of: dict[str, str] = {}
        self._known: set[str] = set()

    @property
    def pending(self) -> bool:
        """Whether some call has no result yet."""
        return bool(self._reply_of)

    def is_pending(self, epoch: int) -> bool:
        """Return whether some call of a reply of ``epoch`` has no result yet."""
        return any(group.open_calls and group.epoch == epoch for group in self._groups.values())

    def epoch_of(self, call_id: str) -> int | None:
        """Return the epoch of the reply that made a call; None if the call is not waited for."""
        group = self._groups.get(self._reply_of.get(call_id, ""))
        return None if group is None else group.epoch

    def add(self, reply_id: str, call_id: str, epoch: int) -> bool:
        """Record a call by a reply of ``epoch``; return False if it is already known."""
        if call_id in self._known:
            return False
        self._known.add(call_id)
        self._groups.setdefault(reply_id, _CallGroup(epoch)).open_calls.add(call_id)
        self._reply_of[call_id] = reply_id
        return True

    def mark_answered(self, call_id: str) -> int | None:
        """Record the result of a call; return the reply's epoch if its group is complete."""
        reply_id = self._reply_of.pop(call_id, None)
        if reply_id is None:
            return None
        self._groups[reply_id].open_calls.discard(call_id)
        return self._close_group(reply_id)

    def cancel(self, call_ids: Iterable[str]) -> list[int]:
        """Record that the provider wants no results of these calls.

        Returns:
            The epochs of the replies whose groups are complete by that, which nothing follows.
        """
        epochs = [self.mark_answered(call_id) for call_id in call_ids]
        return [epoch for epoch in epochs if epoch is not None]

    def reply_done(self, reply_id: str) -> int | None:
        """Record the end of a reply; return its epoch if it made calls and has all results."""
        group = self._groups.get(reply_id)
        if group is None:
            return None
        group.done = True
        return self._close_group(reply_id)

    def has_calls(self, reply_id: str) -> bool:
        """Return whether that reply made calls, and its group is not complete."""
        return reply_id in self._groups

    def connection_lost(self) -> list[int]:
        """End every reply, because the connection is lost.

        Returns:
            The epochs of the replies whose calls all have their results.
        """
        over = []
        for reply_id, group in [*self._groups.items()]:
            group.done = True
            epoch = self._close_group(reply_id)
            if epoch is not None:
                over.append(epoch)
        return over

    def clear(self) -> None:
        """Forget everything."""
        self._groups.clear()
        self._reply_of.clear()

    def _close_group(self, reply_id: str) -> int | None:
        group = self._groups[reply_id]
        if group.open_calls or not group.done:
            return None
        del self._groups[reply_id]
        return group.epoch
