"""Express the difference between two states of a session as commands for a model."""

from __future__ import annotations

from collections.abc import Sequence

from duologue.items import AgentItem, Item
from duologue.realtime.codec import SessionSetup
from duologue.realtime.commands import AddItem, Command, DeleteItem, Truncate, UpdateSession


def diff_setups(before: SessionSetup, after: SessionSetup) -> list[Command]:
    """Return the commands that bring a model from ``before`` to ``after``."""
    changes: list[Command] = list(diff_histories(before.history, after.history))
    instructions = after.instructions if after.instructions != before.instructions else None
    tools = after.tools if tuple(after.tools) != tuple(before.tools) else None
    if instructions is not None or tools is not None:
        changes.append(UpdateSession(instructions, tools))
    return changes


def apply_update(setup: SessionSetup, update: UpdateSession) -> SessionSetup:
    """Return a setup with the instructions and tools of an update."""
    instructions, tools = update.instructions, update.tools
    return SessionSetup(
        setup.instructions if instructions is None else instructions,
        setup.tools if tools is None else tools,
        setup.history,
    )


def diff_histories(
    before: Sequence[Item], after: Sequence[Item]
) -> list[AddItem | DeleteItem | Truncate]:
    """Return the commands that turn the history ``before`` into ``after``.

    Add new items at the end, never between two items that the model knows.
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
