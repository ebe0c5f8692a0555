"""`SqliteStores`: conversations in a file of SQLite, which several processes may share.

The database is in WAL mode, so that one process writes while others read, and with
``synchronous=NORMAL``: a crash of the program loses nothing that was put, a crash of the machine
may lose the last changes, and neither spoils the file. All statements run in one thread, because a
checkpoint calls ``fsync``, which would block the event loop for up to a tenth of a second. Each
conversation waits for one statement at a time, so the thread's queue is never longer than the
number of conversations.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Self

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

BUSY_TIMEOUT_S = 2.0
"""Seconds that a change waits while another process writes."""
CLOSE_TIMEOUT_S = 2.0
EXPIRY_INTERVAL_S = 60.0
"""Seconds between two searches for conversations that are no longer kept."""

_APPLICATION_ID = 0x64756F6C
"""Marks a file as ours; what `file` and other programs see."""
_VERSION = 1

_SCHEMA = (
    """CREATE TABLE IF NOT EXISTS conversations (
        id TEXT PRIMARY KEY,
        changed_at REAL NOT NULL
    ) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS tickets (
        session TEXT PRIMARY KEY,
        digest TEXT NOT NULL,
        expires_at REAL NOT NULL
    ) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS items (
        place INTEGER PRIMARY KEY,
        conversation TEXT NOT NULL,
        id TEXT NOT NULL,
        item TEXT NOT NULL,
        UNIQUE (conversation, id)
    )""",
    "CREATE INDEX IF NOT EXISTS items_in_order ON items (conversation, place)",
    "CREATE INDEX IF NOT EXISTS conversations_by_age ON conversations (changed_at)",
    "CREATE INDEX IF NOT EXISTS tickets_by_age ON tickets (expires_at)",
    f"PRAGMA application_id = {_APPLICATION_ID}",
    f"PRAGMA user_version = {_VERSION}",
)
_TOUCH = """
INSERT INTO conversations (id, changed_at) VALUES (?, ?)
ON CONFLICT (id) DO UPDATE SET changed_at = excluded.changed_at
"""
_PUT = """
INSERT INTO items (conversation, id, item) VALUES (?, ?, ?)
ON CONFLICT (conversation, id) DO UPDATE SET item = excluded.item
"""
_TRIM = """
DELETE FROM items WHERE conversation = ? AND place <= (
    SELECT place FROM items WHERE conversation = ? ORDER BY place DESC LIMIT 1 OFFSET ?
)
"""
_LOAD = "SELECT item FROM items WHERE conversation = ? ORDER BY place"
_REMOVE = "DELETE FROM items WHERE conversation = ? AND id = ?"
_DELETE = (
    "DELETE FROM items WHERE conversation = ?",
    "DELETE FROM conversations WHERE id = ?",
)
_EXPIRE = (
    "DELETE FROM items WHERE conversation IN (SELECT id FROM conversations WHERE changed_at < ?)",
    "DELETE FROM conversations WHERE changed_at < ?",
)


class SqliteStores:
    """Keep conversations in one file of SQLite.

    Several processes of one machine may use the file at once; it must be on a local file system.
    Beside it there are ``FILE-wal`` and ``FILE-shm`` while it is open.

    Args:
        path: The file; it is made if it is missing.
        keep_s: Seconds that a conversation is kept after its last change; None for ever.
        max_items: Most items of a conversation; the oldest are dropped first.

    Raises:
        ConfigError: The folder is missing, or a bound is not positive.
    """

    def __init__(
        self, path: str | Path, *, keep_s: float | None = None, max_items: int = MAX_ITEMS
    ) -> None:
        check_bounds(max_items, keep_s)
        self._path = Path(path)
        if self._path.is_dir():
            raise ConfigError(f"{path} is a folder: name a file in it")
        if not self._path.parent.is_dir():
            raise ConfigError(f"there is no folder {self._path.parent}: make it first")
        self._keep_s, self._max_items = keep_s, max_items
        self._database: sqlite3.Connection | None = None  # used only in the thread
        self._expired_at = float("-inf")
        self._thread: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()

    def conversation(self, conversation_id: str) -> SqliteStore:
        """Return the store of one conversation; nothing is read yet.

        Raises:
            ConfigError: The id is not 1 to 128 ASCII letters, digits and ``. _ : @ + -``.
        """
        return SqliteStore(self, check_conversation_id(conversation_id))

    @property
    def tickets(self) -> SqliteTickets:
        """What lets another process take up the calls of one that has died."""
        return SqliteTickets(self)

    async def check(self) -> None:
        """Open the file.

        Raises:
            ConfigError: It is another program's, or can't be written.
        """
        try:
            await self.run(lambda database: None)
        except OSError as error:
            raise ConfigError(f"nothing can be kept in {self._path}: {error}") from error

    async def delete(self, conversation_id: str) -> None:
        """Delete a conversation; do nothing if there is none.

        Raises:
            OSError: The file can't be written.
        """
        check_conversation_id(conversation_id)

        def delete(database: sqlite3.Connection) -> None:
            for statement in _DELETE:
                database.execute(statement, (conversation_id,))

        await self.run(delete)

    async def close(self) -> None:
        """Close the file, within 2 s; it is opened again by the next change."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is None:
            return
        closing = asyncio.get_running_loop().run_in_executor(thread, self._close)
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await closing
        thread.shutdown(wait=False)

    async def __aenter__(self) -> Self:
        """Return itself."""
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Close the file."""
        await self.close()

    async def run[T](self, work: Callable[[sqlite3.Connection], T], *, writes: bool = True) -> T:
        """Run ``work`` in the thread of the database, as one transaction.

        Args:
            work: Gets the connection.
            writes: Whether it may write, and so waits for other writers.

        Raises:
            ConfigError: The file is another program's.
            OSError: The file can't be read or written.
        """
        with self._lock:
            if self._thread is None:
                self._thread = ThreadPoolExecutor(1, thread_name_prefix="duologue-sqlite")
            thread = self._thread
        return await asyncio.get_running_loop().run_in_executor(thread, self._run, work, writes)

    def change(
        self, conversation_id: str, statement: str, *values: str
    ) -> Callable[[sqlite3.Connection], None]:
        """Return work that changes a conversation, and forgets what is no longer kept."""

        def change(database: sqlite3.Connection) -> None:
            now = time.time()
            database.execute(_TOUCH, (conversation_id, now))
            database.execute(statement, (conversation_id, *values))
            database.execute(_TRIM, (conversation_id, conversation_id, self._max_items))
            self._expire(database, now)

        return change

    def _run[T](self, work: Callable[[sqlite3.Connection], T], writes: bool) -> T:
        try:
            if self._database is None:
                self._database = self._open()
            with self._database:  # Commits, or rolls back after an error.
                self._database.execute("BEGIN IMMEDIATE" if writes else "BEGIN")
                return work(self._database)
        except sqlite3.Error as error:
            raise OSError(f"{self._path}: {error}") from error

    def _open(self) -> sqlite3.Connection:
        deadline = time.monotonic() + BUSY_TIMEOUT_S
        database = sqlite3.connect(self._path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
        try:
            while True:
                try:
                    self._prepare(database)
                except sqlite3.OperationalError as error:
                    # SQLite does not wait for another process that turns WAL mode on.
                    if "locked" not in str(error) or time.monotonic() > deadline:
                        raise
                    time.sleep(0.005)
                else:
                    return database
        except BaseException as error:
            database.close()
            if isinstance(error, sqlite3.DatabaseError) and "not a database" in str(error):
                raise ConfigError(
                    f"{self._path} is not an SQLite database: name another file"
                ) from error
            raise

    def _prepare(self, database: sqlite3.Connection) -> None:
        with database:
            database.execute("BEGIN")
            application = _integer(database, "PRAGMA application_id")
            version = _integer(database, "PRAGMA user_version")
            tables = _integer(database, "SELECT count(*) FROM sqlite_schema")
        if application != _APPLICATION_ID and (application or tables):
            raise ConfigError(f"{self._path} is another program's database: name another file")
        if version > _VERSION:
            raise ConfigError(
                f"{self._path} was written by a newer version of duologue: update this one"
            )
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        database.execute("PRAGMA journal_size_limit = 16777216")
        if application != _APPLICATION_ID:
            with database:
                database.execute("BEGIN IMMEDIATE")
                for statement in _SCHEMA:
                    database.execute(statement)

    def _expire(self, database: sqlite3.Connection, now: float) -> None:
        if self._keep_s is None or time.monotonic() < self._expired_at + EXPIRY_INTERVAL_S:
            return
        self._expired_at = time.monotonic()
        for statement in _EXPIRE:
            database.execute(statement, (now - self._keep_s,))

    def _close(self) -> None:
        database, self._database = self._database, None
        if database is not None:
            database.close()


class SqliteStore:
    """One conversation in an SQLite file, an `AsyncStore`; see `SqliteStores.conversation`.

    All methods raise ``OSError`` if the file can't be read or written.
    """

    def __init__(self, stores: SqliteStores, conversation_id: str) -> None:
        self._stores, self._id = stores, conversation_id

    async def load(self) -> Sequence[Item]:
        """Return the items, oldest first; skip kinds of items that a newer version has written.

        Raises:
            ConfigError: A row is not an item.
        """
        rows = await self._stores.run(
            lambda database: database.execute(_LOAD, (self._id,)).fetchall(), writes=False
        )
        place = f"conversation {self._id}"
        items = (item_from_text(str(row[0]), place) for row in rows)
        return tuple(item for item in items if item is not None)

    async def put(self, item: Item) -> None:
        """Store an item that is new or has changed (same id)."""
        item_id = replace_surrogates(item.id)
        await self._stores.run(self._stores.change(self._id, _PUT, item_id, item_to_text(item)))

    async def remove(self, item_id: str) -> None:
        """Remove an item; do nothing if there is none."""
        await self._stores.run(self._stores.change(self._id, _REMOVE, replace_surrogates(item_id)))


class SqliteTickets:
    """Tickets of calls in an SQLite file (`duologue.server.tickets.SharedTickets`)."""

    def __init__(self, stores: SqliteStores) -> None:
        self._stores = stores

    async def issued(self, session_id: str, digest: str, keep_s: float) -> None:
        """Record the newest ticket of a conversation, and forget the one before it."""
        now = time.time()
        ticket = (session_id, digest, now + max(keep_s, TICKET_S))

        def record(database: sqlite3.Connection) -> None:
            database.execute("DELETE FROM tickets WHERE expires_at < ?", (now,))
            database.execute("INSERT OR REPLACE INTO tickets VALUES (?, ?, ?)", ticket)

        await self._stores.run(record)

    async def claim(self, session_id: str, digest: str) -> bool:
        """Return True, once, if this is the valid ticket of the conversation."""
        claim = "DELETE FROM tickets WHERE session = ? AND digest = ? AND expires_at >= ?"
        values = (session_id, digest, time.time())
        return await self._stores.run(
            lambda database: database.execute(claim, values).rowcount == 1
        )

    async def ended(self, session_id: str) -> None:
        """Forget the ticket of a conversation that has ended regularly."""
        forget = "DELETE FROM tickets WHERE session = ?"
        await self._stores.run(lambda database: database.execute(forget, (session_id,)).close())


def _integer(database: sqlite3.Connection, statement: str) -> int:
    return int(database.execute(statement).fetchone()[0])
