"""A history in an SQL database: a store whose methods are coroutines.

    python examples/history_sql.py [FILE.db]

It uses the sqlite3 of the standard library in a thread; with asyncpg or aiosqlite the statements
are awaited directly. The changes are made one after the other in a task of their own, so that a
slow database never delays the conversation.
"""

import asyncio
import json
import sqlite3
import sys
from collections.abc import Sequence
from pathlib import Path

from duologue import Agent, AudioFrame, Conversation
from duologue.edges import wav
from duologue.items import Item, item_from_dict, item_to_dict
from duologue.testing import ScriptedRealtime, run_virtual

SCHEMA = """
CREATE TABLE IF NOT EXISTS items (
    place INTEGER PRIMARY KEY,
    call_id TEXT NOT NULL,
    id TEXT NOT NULL,
    item TEXT NOT NULL,
    UNIQUE (call_id, id)
)
"""
PUT = """
INSERT INTO items (call_id, id, item) VALUES (?, ?, ?)
ON CONFLICT (call_id, id) DO UPDATE SET item = excluded.item
"""


class SqlStore:
    """The items of one call, in the order in which they were first put."""

    def __init__(self, file: Path, call_id: str) -> None:
        self._file, self._call_id = file, call_id

    async def load(self) -> Sequence[Item]:
        rows = await self._run("SELECT item FROM items WHERE call_id = ? ORDER BY place")
        return [item_from_dict(json.loads(row[0])) for row in rows]

    async def put(self, item: Item) -> None:
        await self._run(PUT, item.id, json.dumps(item_to_dict(item)))

    async def remove(self, item_id: str) -> None:
        await self._run("DELETE FROM items WHERE call_id = ? AND id = ?", item_id)

    async def _run(self, statement: str, *values: str) -> list[tuple[str]]:
        def work() -> list[tuple[str]]:
            database = sqlite3.connect(self._file)
            try:
                with database:
                    database.execute(SCHEMA)
                    return database.execute(statement, (self._call_id, *values)).fetchall()
            finally:
                database.close()

        return await asyncio.to_thread(work)


async def talk(file: Path, question: str, answer: str) -> int:
    """One conversation; returns how many items the model began with."""
    conversation = Conversation(SqlStore(file, "call 1"))
    edge = wav.Edge(AudioFrame.silence(0.1, 16000))
    agent = Agent(edge=edge, llm=ScriptedRealtime([answer]), conversation=conversation)
    async with agent.join():
        known = len(conversation)
        await agent.simple_response(question)
    return known


async def main(file: Path = Path("history.db")) -> None:
    known = await talk(file, "My name is Robin.", "Hello Robin.")
    print(f"the first conversation began with {known} items")
    known = await talk(file, "What is my name?", "You are Robin.")
    print(f"the second began with {known} items")
    conversation = Conversation(SqlStore(file, "call 1"))
    await conversation.load()
    for item in conversation:
        print(item)


if __name__ == "__main__":
    run_virtual(main(*map(Path, sys.argv[1:2])))
