"""What every store promises: the files of JSON lines, SQLite and Redis alike."""

import asyncio
import inspect
import os
import shutil
import sqlite3
import sys
import traceback

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from duologue import Conversation
from duologue.errors import ConfigError
from duologue.events import ErrorEvent
from duologue.items import AgentItem, SystemItem, UserItem
from duologue.stores import SqliteStores, open_stores
from duologue.testing import Reply, ScriptedRealtime
from fake_edge import events_of, join_agent
from item_strategies import ids, items
from redis_process import redis_process  # noqa: F401 - a fixture

changes = st.lists(st.one_of(items, ids), max_size=12)

KINDS = ["jsonl", "sqlite", "redis"]
DATABASES = ["sqlite", "redis"]


@pytest.fixture
def address(request, tmp_path):
    """Return the address of stores of the kind that the test names."""
    match request.param:
        case "jsonl":
            return f"jsonl:{tmp_path / 'calls'}"
        case "sqlite":
            return f"sqlite:{tmp_path / 'calls.db'}"
        case "redis":
            return request.getfixturevalue("redis_process").url


every_store = pytest.mark.parametrize("address", KINDS, indirect=True)
every_database = pytest.mark.parametrize("address", DATABASES, indirect=True)


async def settle(value):
    """Await what an asynchronous store returns."""
    return await value if inspect.isawaitable(value) else value


async def load(address, name):
    async with open_stores(address) as stores:
        return tuple(await settle(stores.conversation(name).load()))


async def change(store, changes):
    """Make changes in a conversation of the store, and wait for them."""
    conversation = Conversation(store)
    await conversation.load()
    for one in changes:
        if isinstance(one, str):
            conversation.remove(one)
        else:
            conversation.put(one)
    await conversation.flush()
    return conversation.items


@every_store
@given(changes=changes)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
def test_what_was_put_is_loaded_in_its_order(address, changes):
    async def main():
        async with open_stores(address) as stores:
            await stores.delete("a")
            kept = await change(stores.conversation("a"), changes)
        assert await load(address, "a") == kept

    asyncio.run(main())


@every_store
async def test_changed_item_keeps_its_place_and_a_removed_one_is_gone(address):
    async with open_stores(address) as stores:
        store = stores.conversation("order")
        for item in (UserItem("u", None), AgentItem("a", "hi"), UserItem("u", "hello")):
            await settle(store.put(item))
        for item_id in ("never put", "a"):
            await settle(store.remove(item_id))
        await settle(store.put(AgentItem("a", "hi again")))
        assert [item.text for item in await settle(store.load())] == ["hello", "hi again"]


@every_store
async def test_conversations_are_apart_and_deleted_alone(address):
    async with open_stores(address) as stores:
        for name in ("+4930", "robin@example.org", ".."):
            await settle(stores.conversation(name).put(SystemItem("s", name)))
        await stores.delete("..")
        await stores.delete("never-there")
    assert await load(address, "..") == ()
    assert [item.text for item in await load(address, "+4930")] == ["+4930"]
    assert [item.text for item in await load(address, "robin@example.org")] == ["robin@example.org"]


@every_store
@pytest.mark.parametrize("name", ["", "a b", "../x", "\u00e9", "x" * 129, "a\n"])
def test_id_with_other_characters_is_rejected(address, name):
    with pytest.raises(ConfigError, match="1 to 128 ASCII"):
        open_stores(address).conversation(name)


@every_store
async def test_text_that_no_store_can_hold_is_replaced(address):
    async with open_stores(address) as stores:
        store = stores.conversation("odd")
        await settle(store.put(UserItem("u\ud83d", "a \0 and \ud83d and \N{SNOWMAN}")))
        (item,) = await settle(store.load())
        assert item.text == "a \0 and ? and \N{SNOWMAN}"
        await settle(store.remove("u\ud83d"))
        assert len(await settle(store.load())) == 0


WRITER = """
import asyncio, inspect, sys
from duologue.items import UserItem
from duologue.stores import open_stores

async def settle(value):
    return await value if inspect.isawaitable(value) else value

async def main(address, *names):
    async with open_stores(address) as stores:
        for number in range(150):
            for name in names:
                store = stores.conversation(name)
                await settle(store.put(UserItem(f"{names[0]} {number}", "word " * number)))

asyncio.run(main(*sys.argv[1:]))
"""


@every_store
async def test_processes_that_write_at_once_lose_nothing(address):
    writers = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", WRITER, address, name, "shared"), stderr=asyncio.subprocess.PIPE
        )
        for name in ("one", "two")
    ]
    for writer in writers:
        _, errors = await asyncio.wait_for(writer.communicate(), 60)
        assert writer.returncode == 0, errors
    for name, count in (("one", 150), ("two", 150), ("shared", 300)):
        found = await load(address, name)
        assert len(found) == count
        order = [int(item.id.split()[1]) for item in found if item.id.startswith("one")]
        assert order == sorted(order)


@every_database
async def test_oldest_items_are_dropped_beyond_the_bound(address):
    stores = open_stores(address)
    async with type(stores)(address.removeprefix("sqlite:"), max_items=3) as stores:
        store = stores.conversation("long")
        for number in range(10):
            await store.put(UserItem(str(number), "hi"))
        await store.put(UserItem("7", "changed"))
        assert [item.id for item in await store.load()] == ["7", "8", "9"]


@every_database
async def test_conversation_without_changes_expires(address, monkeypatch):
    monkeypatch.setattr("duologue.stores.sqlite.EXPIRY_INTERVAL_S", 0)
    async with open_stores(address, keep_s=0.05) as stores:
        await stores.conversation("old").put(UserItem("u", "hi"))
        await asyncio.sleep(0.1)
        await stores.conversation("new").put(UserItem("u", "hi"))
        assert await stores.conversation("old").load() == ()
        assert len(await stores.conversation("new").load()) == 1


async def fail(stores, address, request):
    """Make the place unusable; return what repairs it."""
    if address.startswith("unix"):
        process = request.getfixturevalue("redis_process")
        process.stop()
        return process.start
    await stores.close()
    path = address.partition(":")[2]
    os.rename(path, f"{path}.away")
    if address.startswith("sqlite"):
        os.mkdir(path)

    def repair():
        if os.path.isdir(path):
            shutil.rmtree(path)
        os.rename(f"{path}.away", path)

    return repair


@every_store
async def test_store_that_fails_is_reported_and_never_ends_the_call(address, request):
    stores = open_stores(address)
    conversation = Conversation(stores.conversation("call"))
    model = ScriptedRealtime([Reply(text, 0.1) for text in ("One.", "Two.", "Three.")])
    async with stores, join_agent(model, conversation=conversation) as agent:
        await agent.simple_response("First?")
        await conversation.flush()
        repair = await fail(stores, address, request)
        try:
            conversation.put(UserItem("lost", "x"))
            await conversation.flush()
            errors = [e for e in events_of(agent, ErrorEvent) if e.source == "store"]
            assert errors
            await agent.simple_response("Second?")
        finally:
            repair()
        await agent.simple_response("Third?")
        await conversation.flush()
        assert len(conversation) == 7
    # What was put meanwhile was put again.
    texts = [item.text for item in await load(address, "call")]
    assert texts == ["First?", "One.", "x", "Second?", "Two.", "Third?", "Three."]


@every_store
async def test_conversation_is_kept_in_a_store_that_it_gets_later(address):
    async with open_stores(address) as stores:
        for number in range(2):
            conversation = Conversation()
            conversation.put(SystemItem(f"s{number}", "Be kind."))
            assert not conversation.has_store
            conversation.keep_in(stores.conversation("later"))
            with pytest.raises(ConfigError, match="has a store"):
                conversation.keep_in(stores.conversation("later"))
            async with join_agent(
                ScriptedRealtime([Reply("Yes.", 0.1)]), conversation=conversation
            ) as agent:
                await agent.simple_response("Hello?")
                await conversation.flush()
            found = [item.text for item in await settle(stores.conversation("later").load())]
            assert found == ["Be kind.", "Hello?", "Yes."] * (number + 1)


@every_store
async def test_store_that_cannot_be_loaded_is_reported_and_the_call_begins(address, request):
    stores = open_stores(address)
    await settle(stores.conversation("call").put(UserItem("u", "hi")))
    repair = await fail(stores, address, request)
    try:
        conversation = Conversation()
        conversation.put(SystemItem("s", "Be kind."))
        conversation.keep_in(stores.conversation("call"))
        async with (
            stores,
            join_agent(ScriptedRealtime([Reply("Yes.", 0.1)]), conversation=conversation) as it,
        ):
            await it.simple_response("Hello?")
            await conversation.flush()
            assert [e.source for e in events_of(it, ErrorEvent)][:1] == ["store"]
            assert [item.text for item in conversation] == ["Be kind.", "Hello?", "Yes."]
    finally:
        repair()


@every_database
async def test_ticket_is_claimed_once_by_any_process_and_only_the_newest(address):
    async with open_stores(address) as one, open_stores(address) as other:
        await one.tickets.issued("call", "old", 30)
        await one.tickets.issued("call", "new", 30)
        assert not await other.tickets.claim("call", "old")
        assert not await other.tickets.claim("another", "new")
        claims = (stores.tickets.claim("call", "new") for stores in (one, other, one, other))
        assert sorted(await asyncio.gather(*claims)) == [False, False, False, True]
        await one.tickets.issued("call", "newer", 30)
        await other.tickets.ended("call")
        assert not await one.tickets.claim("call", "newer")


@every_store
async def test_closing_twice_is_allowed_and_a_later_change_opens_again(address):
    stores = open_stores(address)
    await stores.check()
    await stores.close()
    await stores.close()
    await settle(stores.conversation("again").put(UserItem("u", "hi")))
    await stores.close()
    assert len(await load(address, "again")) == 1


@every_store
def test_stores_work_in_one_event_loop_after_another(address):
    stores = open_stores(address)

    async def main(number):
        store = stores.conversation("loops")
        await settle(store.put(UserItem(str(number), "hi")))
        found = len(await settle(store.load()))
        if number == 1:
            await stores.close()
        return found

    assert [asyncio.run(main(number)) for number in (0, 1)] == [1, 2]


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("calls.db", "sqlite:FILE"),
        ("sqlite:", "sqlite:FILE"),
        ("redis:server", "sqlite:FILE"),
        ("mysql://u:secret@host/db", "not 'mysql'"),
        ("sqlite:/no/such/folder/calls.db", "no folder /no/such/folder"),
        ("jsonl:/no/such/folder", "can't be a folder"),
        ("sqlite:/", "is a folder"),
    ],
)
def test_address_that_cannot_work_is_an_error_at_once(address, says):
    with pytest.raises(ConfigError, match=says) as caught:
        open_stores(address)
    assert "secret" not in str(caught.value)


def test_bounds_must_be_positive(tmp_path):
    for bounds in ({"keep_s": 0}, {"keep_s": float("nan")}, {"max_items": 0}):
        with pytest.raises(ConfigError, match=next(iter(bounds))):
            SqliteStores(tmp_path / "calls.db", **bounds)
    with pytest.raises(ConfigError, match="keep_s"):
        open_stores(f"jsonl:{tmp_path}", keep_s=5)


def foreign(path):
    sqlite3.connect(path).execute("CREATE TABLE mine (a)").connection.close()


def newer(path):
    database = sqlite3.connect(path)
    database.executescript("PRAGMA application_id = 0x64756f6c; PRAGMA user_version = 99")
    database.close()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: path.write_bytes(b"dear diary, " * 100), "not an SQLite database"),
        (foreign, "another program's"),
        (newer, "newer version"),
    ],
)
async def test_sqlite_file_of_another_program_is_left_alone(tmp_path, make, says):
    path = tmp_path / "calls.db"
    make(path)
    before = path.read_bytes()
    async with SqliteStores(path) as stores:
        with pytest.raises(ConfigError, match=says):
            await stores.check()
    assert path.read_bytes() == before


async def test_locked_sqlite_file_fails_within_the_bound_and_blocks_no_event_loop(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("duologue.stores.sqlite.BUSY_TIMEOUT_S", 0.3)
    async with SqliteStores(tmp_path / "calls.db") as stores:
        await stores.check()
        other = sqlite3.connect(tmp_path / "calls.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        put = asyncio.ensure_future(stores.conversation("a").put(UserItem("u", "hi")))
        ticks = 0
        while not put.done():
            await asyncio.sleep(0.01)
            ticks += 1
        with pytest.raises(OSError, match="locked"):
            put.result()
        assert ticks > 10
        other.close()
        await stores.conversation("a").put(UserItem("u", "hi"))


async def test_redis_that_cannot_be_reached_is_one_error_without_the_password():
    pytest.importorskip("redis", reason="the extra redis is not installed")
    async with open_stores("redis://:hunter2@127.0.0.1:1/0") as stores:
        with pytest.raises(ConfigError, match="nothing can be kept there") as caught:
            await stores.check()
        assert "hunter2" not in str(caught.value)
        assert "hunter2" not in repr(stores)


def test_wrong_address_of_redis_is_an_error_without_the_password():
    pytest.importorskip("redis", reason="the extra redis is not installed")
    password = "hunter" + "2"  # in two parts, because a traceback shows this text
    with pytest.raises(ConfigError) as caught:
        open_stores(f"redis://:{password}#1@127.0.0.1/0")
    assert password not in "".join(traceback.format_exception(caught.value))


async def test_redis_that_does_not_answer_fails_within_the_bound(monkeypatch, unused_tcp_port):
    pytest.importorskip("redis", reason="the extra redis is not installed")
    monkeypatch.setattr("duologue.stores.redis.TIMEOUT_S", 0.2)
    gone = asyncio.Event()

    async def silent(reader, writer):
        await gone.wait()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", unused_tcp_port)
    async with server, open_stores(f"redis://127.0.0.1:{unused_tcp_port}/0") as stores:
        with pytest.raises(OSError, match=r"no answer within 0\.2 s"):
            await stores.conversation("a").put(UserItem("u", "hi"))
        gone.set()
