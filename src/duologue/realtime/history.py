"""What has changed in a history between two looks at it, as commands for a model."""

from __future__ import annotations

from collections.abc import Sequence

from duologue.items import AgentItem, Item
from duologue.realtime.commands import AddItem, DeleteItem, Truncate


def changes_between(
    before: Sequence[Item], after: Sequence[Item]
) -> list[AddItem | DeleteItem | Truncate]:
    """The commands that turn the history ``before`` into ``after``.

    New items come at the end: nothing is ever put between two that a model knows already.
    """
    known = {item.id: item for item in before}
    kept = {item.id for item in after}
    changes: list[AddItem | DeleteItem | Truncate] = [
        DeleteItem(item.id) for item in before if item.id not in kept
    ]
    for item in after:
        old = known.get(item.id)
        if old is None:
            changes.append(AddItem(item))
        elif isinstance(item, AgentItem) and isinstance(old, AgentItem) and old.text != item.text:
            changes.append(Truncate(item.id, item.played_ms, item.text))
    return changes
