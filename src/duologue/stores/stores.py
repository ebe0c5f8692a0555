"""`ConversationStores`: where conversations are kept, and `open_stores`, which makes one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, Self

from duologue.agent.conversation import AsyncStore, Store
from duologue.errors import ConfigError

if TYPE_CHECKING:
    from duologue.server.tickets import SharedTickets


class ConversationStores(Protocol):
    """Conversations by their ids; several processes may use one at once.

    Use it as ``async with``, or call `close`. ``keep_s`` and ``max_items`` of the classes bound
    what is kept.
    """

    def conversation(self, conversation_id: str) -> Store | AsyncStore:
        """Return the store of one conversation, for `Conversation`; nothing is read yet.

        Args:
            conversation_id: 1 to 128 ASCII letters, digits and ``. _ : @ + -``.

        Raises:
            ConfigError: The id has other characters.
        """
        ...

    @property
    def tickets(self) -> SharedTickets | None:
        """What lets another process take up the calls of one that has died; None for a folder."""
        ...

    async def check(self) -> None:
        """Try the place, so that a wrong address is an error at the start and not in a call.

        Raises:
            ConfigError: Nothing can be kept there.
        """

    async def delete(self, conversation_id: str) -> None:
        """Delete a conversation; do nothing if there is none.

        Raises:
            OSError: The place can't be reached, or refuses.
        """

    async def close(self) -> None:
        """Close connections and files, within 2 s; a second call does nothing."""

    async def __aenter__(self) -> Self:
        """Return itself."""
        ...

    async def __aexit__(self, *exc_info: object) -> None:
        """Close it."""


def open_stores(address: str, *, keep_s: float | None = None) -> ConversationStores:
    """Return the stores that an address names.

    Args:
        address: ``sqlite:FILE``, ``jsonl:FOLDER``, ``redis://HOST:PORT/DATABASE``, ``rediss://...``
            or ``unix://SOCKET``.
        keep_s: Seconds that a database keeps a conversation after its last change; None for ever.

    Raises:
        ConfigError: The address names nothing known, or a folder is missing.
        MissingExtraError: The extra ``redis`` is not installed.
    """
    scheme, _, rest = address.partition(":")
    match scheme:
        case "sqlite" if rest:
            from duologue.stores.sqlite import SqliteStores

            return SqliteStores(rest, keep_s=keep_s)
        case "jsonl" if rest:
            from duologue.stores.jsonl import JsonlStores

            if keep_s is not None:
                raise ConfigError("keep_s is for databases: delete the files of a folder yourself")
            return JsonlStores(rest)
        case "redis" | "rediss" | "unix" if rest.startswith("//"):
            from duologue.stores.redis import RedisStores

            return RedisStores(address, keep_s=keep_s)
        case _:
            # Only the scheme: an address may contain a password.
            raise ConfigError(
                "a store must be sqlite:FILE, jsonl:FOLDER, redis://HOST:PORT/DATABASE, "
                f"rediss://... or unix://SOCKET, not {scheme!r:.40}:..."
            )
