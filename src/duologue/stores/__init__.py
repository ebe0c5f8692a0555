"""Keep many conversations in one place: an SQLite file, a Redis server or a folder of files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from duologue._lazy import lazy_names

if TYPE_CHECKING:
    from duologue.stores.jsonl import JsonlStores
    from duologue.stores.redis import RedisStores
    from duologue.stores.sqlite import SqliteStores
    from duologue.stores.stores import ConversationStores, open_stores

__all__ = [
    "ConversationStores",
    "JsonlStores",
    "RedisStores",
    "SqliteStores",
    "open_stores",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "duologue.stores.jsonl": ["JsonlStores"],
            "duologue.stores.redis": ["RedisStores"],
            "duologue.stores.sqlite": ["SqliteStores"],
            "duologue.stores.stores": ["ConversationStores", "open_stores"],
        },
    )
