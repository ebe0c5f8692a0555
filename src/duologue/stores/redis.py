"""`RedisStores`: conversations on a Redis server, which the processes of many machines share.

A conversation is two keys: a hash of its items by id, and a sorted set of the ids in their order.
A script changes both at once, so that a process that dies leaves nothing in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from typing import Self, cast

from duologue._optional import optional
from duologue.errors import ConfigError
from duologue.items import Item, replace_surrogates
from duologue.stores._records import (
    MAX_ITEMS,
    TICKET_S,
    check_bounds,
    check_conversation_id,
    item_from_text,
    item_to_text,
)

with optional("redis"):
    from redis.asyncio import BlockingConnectionPool, Redis
    from redis.exceptions import RedisError

TIMEOUT_S = 2.0
"""Seconds that a command may take, with connecting."""
MAX_CONNECTIONS = 8
"""Most connections of a process; a change waits for a free one."""

_PUT = """
local items, order = KEYS[1], KEYS[2]
if redis.call('HSET', items, ARGV[1], ARGV[2]) == 1 then
    local last = redis.call('ZREVRANGE', order, 0, 0, 'WITHSCORES')
    redis.call('ZADD', order, (last[2] or 0) + 1, ARGV[1])
    local extra = redis.call('ZCARD', order) - ARGV[3]
    if extra > 0 then
        redis.call('HDEL', items, unpack(redis.call('ZRANGE', order, 0, extra - 1)))
        redis.call('ZREMRANGEBYRANK', order, 0, extra - 1)
    end
end
if ARGV[4] ~= '0' then
    redis.call('PEXPIRE', items, ARGV[4])
    redis.call('PEXPIRE', order, ARGV[4])
end
"""
_CLAIM = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
"""
_REMOVE = """
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[1])
"""


class RedisStores:
    """Keep conversations on a Redis server, version 6 or later.

    A client belongs to one event loop; another loop gets another one. Errors never contain the
    password of the address.

    Args:
        url: ``redis://[:PASSWORD@]HOST:PORT/DATABASE``, ``rediss://`` with TLS, or
            ``unix://SOCKET``.
        keep_s: Seconds that a conversation is kept after its last change; None for ever.
        max_items: Most items of a conversation; the oldest are dropped first.
        prefix: What the keys begin with.

    Raises:
        ConfigError: The address can't be read, or a bound is not positive.
    """

    def __init__(
        self,
        url: str,
        *,
        keep_s: float | None = None,
        max_items: int = MAX_ITEMS,
        prefix: str = "duologue",
    ) -> None:
        check_bounds(max_items, keep_s)
        self._url, self._prefix = url, prefix
        self.max_items = max_items
        self.keep_ms = 0 if keep_s is None else max(1, round(keep_s * 1000))
        self._client: Redis | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._make_client()  # Report a wrong address at once; this connects to nothing.

    def conversation(self, conversation_id: str) -> RedisStore:
        """Return the store of one conversation; nothing is read yet.

        Raises:
            ConfigError: The id is not 1 to 128 ASCII letters, digits and ``. _ : @ + -``.
        """
        return RedisStore(self, self._keys(conversation_id))

    @property
    def tickets(self) -> RedisTickets:
        """What lets another process take up the calls of one that has died."""
        return RedisTickets(self, self._prefix)

    async def check(self) -> None:
        """Ask the server whether it is there.

        Raises:
            ConfigError: It can't be reached, or refuses the password.
        """
        try:
            await self.run(self.client().ping())
        except OSError as error:
            raise ConfigError(f"nothing can be kept there: {error}") from error

    async def delete(self, conversation_id: str) -> None:
        """Delete a conversation; do nothing if there is none.

        Raises:
            OSError: The server can't be reached.
        """
        keys = self._keys(conversation_id)
        await self.run(self.client().delete(*keys))

    async def close(self) -> None:
        """Close the connections, within 2 s; the next change opens new ones."""
        client, self._client = self._client, None
        if client is not None and self._loop is asyncio.get_running_loop():
            with suppress(TimeoutError, RedisError, OSError):
                async with asyncio.timeout(TIMEOUT_S):
                    await client.aclose()

    async def __aenter__(self) -> Self:
        """Return itself."""
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Close the connections."""
        await self.close()

    def client(self) -> Redis:
        """Return the client of the running event loop."""
        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:
            self._client, self._loop = self._make_client(), loop
        return self._client

    async def run(self, command: object) -> object:
        """Await a command, for at most `TIMEOUT_S`; return its answer.

        Raises:
            OSError: The server can't be reached, or refuses the command.
        """
        try:
            async with asyncio.timeout(TIMEOUT_S):
                return await cast("Awaitable[object]", command)
        except TimeoutError as error:
            raise OSError(f"redis: no answer within {TIMEOUT_S:g} s") from error
        except (RedisError, OSError) as error:
            raise OSError(f"redis: {error}") from error

    def _make_client(self) -> Redis:
        try:
            pool = BlockingConnectionPool.from_url(
                self._url,
                max_connections=MAX_CONNECTIONS,
                timeout=None,  # `run` limits all waiting
                decode_responses=True,
            )
        except ValueError:
            # The cause may repeat a part of the address, such as the password.
            raise ConfigError(
                "the address of a store must be redis://HOST:PORT/DATABASE, rediss://... or "
                "unix://SOCKET"
            ) from None
        return Redis.from_pool(pool)

    def _keys(self, conversation_id: str) -> tuple[str, str]:
        # The braces keep both keys in one slot of a cluster.
        name = f"{self._prefix}:{{{check_conversation_id(conversation_id)}}}"
        return f"{name}:items", f"{name}:order"


class RedisStore:
    """One conversation on a Redis server, an `AsyncStore`; see `RedisStores.conversation`.

    All methods raise ``OSError`` if the server can't be reached or refuses.
    """

    def __init__(self, stores: RedisStores, keys: tuple[str, str]) -> None:
        self._stores, self._keys = stores, keys

    async def load(self) -> Sequence[Item]:
        """Return the items, oldest first; skip kinds of items that a newer version has written.

        Raises:
            ConfigError: A field is not an item.
        """
        items_key, order_key = self._keys
        async with self._stores.client().pipeline(transaction=True) as pipeline:
            pipeline.zrange(order_key, 0, -1)
            pipeline.hgetall(items_key)
            answers = await self._stores.run(pipeline.execute())
            order, texts = cast("tuple[list[str], dict[str, str]]", answers)
        items = (item_from_text(texts[one], f"key {items_key}") for one in order if one in texts)
        return tuple(item for item in items if item is not None)

    async def put(self, item: Item) -> None:
        """Store an item that is new or has changed (same id)."""
        bounds = str(self._stores.max_items), str(self._stores.keep_ms)
        await self._run(_PUT, replace_surrogates(item.id), item_to_text(item), *bounds)

    async def remove(self, item_id: str) -> None:
        """Remove an item; do nothing if there is none."""
        await self._run(_REMOVE, replace_surrogates(item_id))

    async def _run(self, script: str, *values: str) -> None:
        command = self._stores.client().eval(script, 2, *self._keys, *values)
        await self._stores.run(command)


class RedisTickets:
    """Tickets of calls on a Redis server (`duologue.server.tickets.SharedTickets`)."""

    def __init__(self, stores: RedisStores, prefix: str) -> None:
        self._stores, self._prefix = stores, prefix

    async def issued(self, session_id: str, digest: str, keep_s: float) -> None:
        """Record the newest ticket of a conversation, and forget the one before it."""
        expires_ms = round(max(keep_s, TICKET_S) * 1000)
        await self._stores.run(
            self._stores.client().set(self._key(session_id), digest, px=expires_ms)
        )

    async def claim(self, session_id: str, digest: str) -> bool:
        """Return True, once, if this is the valid ticket of the conversation."""
        claim = self._stores.client().eval(_CLAIM, 1, self._key(session_id), digest)
        return await self._stores.run(claim) == 1

    async def ended(self, session_id: str) -> None:
        """Forget the ticket of a conversation that has ended regularly."""
        await self._stores.run(self._stores.client().delete(self._key(session_id)))

    def _key(self, session_id: str) -> str:
        return f"{self._prefix}:{{{check_conversation_id(session_id)}}}:ticket"
