"""What all stores share: the ids of conversations, and an item as a line of JSON."""

from __future__ import annotations

import json
import re

from duologue.errors import ConfigError
from duologue.items import Item, item_from_dict, item_to_dict, replace_surrogates

MAX_ITEMS = 10_000
"""Most items of a conversation that a database keeps; the oldest are dropped first."""

TICKET_S = 24 * 3600.0
"""Least seconds for which a ticket is known: it is issued when a call begins, and is needed when
the process of the call has died."""

_CONVERSATION_ID = re.compile(r"[\w.:@+-]{1,128}", re.ASCII)


def check_conversation_id(conversation_id: str) -> str:
    """Return the id.

    Raises:
        ConfigError: It is not 1 to 128 ASCII letters, digits and ``. _ : @ + -``.
    """
    if not _CONVERSATION_ID.fullmatch(conversation_id):
        raise ConfigError(
            "the id of a conversation must be 1 to 128 ASCII letters, digits or . _ : @ + -, "
            f"not {conversation_id!r:.60}"
        )
    return conversation_id


def check_bounds(max_items: int, keep_s: float | None) -> None:
    """Check the bounds of a database.

    Raises:
        ConfigError: One is not positive.
    """
    if max_items < 1:
        raise ConfigError(f"max_items must be 1 or more, not {max_items}")
    if keep_s is not None and not 0 < keep_s < float("inf"):
        raise ConfigError(f"keep_s must be a time above 0 or None, not {keep_s!r}")


def item_to_text(item: Item) -> str:
    """Return the item as JSON that UTF-8 can encode."""
    return replace_surrogates(json.dumps(item_to_dict(item), ensure_ascii=False))


def item_from_text(text: str, place: str) -> Item | None:
    """Return the item; None if a newer version has written one of an unknown kind.

    Args:
        text: What `item_to_text` returned.
        place: Where the text was found, for the error.

    Raises:
        ConfigError: The text is no item.
    """
    try:
        values = json.loads(text)
        if not isinstance(values, dict):
            raise ValueError("not an object")
        return item_from_dict(values)
    except KeyError:
        return None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{place} holds what is not a conversation item") from error
