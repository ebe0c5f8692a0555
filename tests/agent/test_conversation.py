import asyncio
import json
import os
import subprocess
import sys
import time

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from duologue import Agent, Conversation, JsonlStore
from duologue.errors import ConfigError
from duologue.events import ErrorEvent
from duologue.items import (
    AgentItem,
    SystemItem,
    ToolCallItem,
    ToolResultItem,
    UserItem,
    item_from_dict,
    item_to_dict,
)
from duologue.testing import ScriptedRealtime, virtual_time
from fake_edge import FakeEdge, events_of, join_agent, other_tasks

ids = st.sampled_from(["a", "b", "c", "d"])
words = st.text(max_size=20)
items = st.one_of(
    st.builds(SystemItem, ids, words),
    st.builds(UserItem, ids, st.none() | words, st.none() | words, st.booleans()),
    st.builds(
        AgentItem, ids, words, st.sampled_from(["speaking", "heard", "cut"]), st.integers(0), words
    ),
    st.builds(ToolCallItem, ids, words, words, words),
    st.builds(ToolResultItem, ids, words, words, st.booleans()),
)
changes = st.lists(st.one_of(items, ids), max_size=12)


@given(changes)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_written_items_are_read_again(tmp_path, changes):
    path = tmp_path / "talk.jsonl"
    path.unlink(missing_ok=True)
    conversation = Conversation(JsonlStore(path))
    for change in changes:
        if isinstance(change, str):
            conversation.remove(change)
        else:
            conversation.put(change)
    again = Conversation(JsonlStore(path))
    assert again.items == conversation.items
    assert list(again) == list(conversation)
    assert len(again) == len({item.id for item in conversation})


def test_changed_item_keeps_its_place():
    conversation = Conversation()
    conversation.put(UserItem("u", None))
    conversation.put(AgentItem("a", "hi"))
    conversation.put(UserItem("u", "hello"))
    assert [item.text for item in conversation] == ["hello", "hi"]
    assert conversation.get("u").text == "hello"
    assert conversation.get("x") is None
    conversation.remove("x")
    conversation.remove("u")
    assert len(conversation) == 1


def write(path, *contents):
    path.write_bytes(b"".join(contents))
    return path


GOOD = b'{"kind": "SystemItem", "id": "a", "text": "x"}\n'


@pytest.mark.parametrize(
    "line",
    [
        b"no json\n",
        b"[1]\n",
        b'{"kind": "UserItem", "id": "a", "text": 5}\n',
        b'{"kind": "AgentItem", "id": "a", "text": "x", "state": "odd"}\n',
        b'{"kind": 5, "id": "a"}\n',
        b'{"kind": "SystemItem", "id": "a"}\n',
        b'{"id": "a"}\n',
        b'{"kind": "SystemItem", "id": "a", "text": "\xff"}\n',
        b"a note of mine, without an end",
    ],
)
def test_foreign_file_is_rejected_and_left_alone(tmp_path, line):
    path = write(tmp_path / "talk.jsonl", GOOD, line)
    with pytest.raises(ConfigError, match="line 2 is not a conversation item"):
        Conversation(JsonlStore(path))
    assert path.read_bytes() == GOOD + line


@pytest.mark.parametrize("length", range(1, len(GOOD)))
def test_line_cut_short_by_a_crash_is_dropped(tmp_path, length):
    path = write(tmp_path / "talk.jsonl", GOOD, GOOD.replace(b"SystemItem", b"UserItem")[:length])
    conversation = Conversation(JsonlStore(path))
    assert len(conversation) == 1
    conversation.put(UserItem("u", "on we go"))
    assert [i.text for i in Conversation(JsonlStore(path))] == ["x", "on we go"]


def test_missing_file_is_a_new_conversation(tmp_path):
    assert len(Conversation(JsonlStore(str(tmp_path / "new.jsonl")))) == 0


def test_history_has_only_complete_items():
    conversation = Conversation()
    whole = [
        SystemItem("s", ""),
        UserItem("u", "hello"),
        ToolCallItem("c", "call", "look", "{}"),
        ToolResultItem("r", "call", "blue"),
        AgentItem("a", "it is blue"),
    ]
    broken = [
        UserItem("u2", None),
        AgentItem("a2", "", "speaking"),
        ToolCallItem("c2", "call 2", "look", "{}"),
    ]
    for item in (*whole, *broken):
        conversation.put(item)
    assert conversation.history == tuple(whole)


def test_reply_about_to_be_played_is_in_the_history():
    conversation = Conversation()
    conversation.put(UserItem("u", "hello"))
    conversation.put(AgentItem("a", "", "speaking", 0, "s"))
    history = conversation.history_with({"a": "Good", "b": "And more."}, ())
    assert [(item.id, item.text) for item in history] == [
        ("u", "hello"),
        ("a", "Good"),
        ("b", "And more."),
    ]
    assert [item.id for item in conversation] == ["u", "a"]


@pytest.mark.parametrize("place", [".", "missing/talk.jsonl"])
def test_impossible_path_raises_at_once(tmp_path, place):
    with pytest.raises(ConfigError, match="folder"):
        Conversation(JsonlStore(tmp_path / place))


@pytest.mark.parametrize("length", range(1, len(GOOD) - 1))
def test_line_cut_short_long_ago_is_skipped(tmp_path, length, caplog):
    more = b'{"kind": "UserItem", "id": "u", "text": "on we go"}\n'
    path = write(tmp_path / "talk.jsonl", GOOD, GOOD[:length], b"\n", more)
    texts = [item.text for item in Conversation(JsonlStore(path))]
    assert texts == ["x", "on we go"]
    assert "1 lines were cut short" in caplog.text


def test_character_cut_in_half_is_skipped(tmp_path):
    line = '{"kind": "UserItem", "id": "b", "text": "\N{SNOWMAN}"}\n'.encode()
    path = write(tmp_path / "talk.jsonl", GOOD, line[: line.index("\N{SNOWMAN}".encode()) + 1])
    assert len(Conversation(JsonlStore(path))) == 1


def test_empty_lines_zeros_and_items_of_a_newer_version_are_skipped(tmp_path):
    newer = b'{"kind": "UserItem", "id": "u", "text": "hi", "mood": ["glad"]}\n'
    kind = b'{"kind": "PictureItem", "id": "p", "pixels": 5}\n'
    path = write(
        tmp_path / "talk.jsonl", b"\n", GOOD, b"\0" * 64 + b"\n \r\n", newer, kind, b"\0" * 9
    )
    conversation = Conversation(JsonlStore(path))
    assert [item.text for item in conversation] == ["x", "hi"]
    conversation.put(UserItem("v", "on we go"))
    assert len(Conversation(JsonlStore(path))) == 3


def test_reading_changes_nothing_while_a_line_is_being_written(tmp_path):
    path = write(tmp_path / "talk.jsonl", GOOD)
    line = b'{"kind": "UserItem", "id": "u", "text": "whole"}\n'
    with path.open("ab", buffering=0) as writer:
        for place in range(len(line)):
            before = path.read_bytes()
            assert len(Conversation(JsonlStore(path))) in (1, 2)
            assert path.read_bytes() == before
            writer.write(line[place : place + 1])
    assert [item.text for item in Conversation(JsonlStore(path))] == ["x", "whole"]


def test_several_processes_write_to_one_file_and_lose_nothing(tmp_path):
    path = tmp_path / "talk.jsonl"
    code = """
import sys
from duologue import Conversation, JsonlStore
from duologue.items import UserItem

conversation = Conversation(JsonlStore(sys.argv[1]))
for number in range(300):
    conversation.put(UserItem(f"{sys.argv[2]} {number}", "word " * (number % 50 * 40)))
    if number % 100 == 0:
        len(Conversation(JsonlStore(sys.argv[1])))
"""
    writers = [
        subprocess.Popen([sys.executable, "-c", code, path, name], stderr=subprocess.PIPE)
        for name in "abc"
    ]
    for writer in writers:
        assert writer.wait(60) == 0, writer.stderr.read()
        writer.stderr.close()
    assert len(Conversation(JsonlStore(path))) == 900


def test_lock_held_by_another_process_does_not_block(tmp_path):
    fcntl = pytest.importorskip("fcntl", reason="files are locked on POSIX only")
    path = write(tmp_path / "talk.jsonl", GOOD)
    with path.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        started = time.monotonic()
        Conversation(JsonlStore(path)).put(UserItem("u", "hi"))
        assert time.monotonic() - started < 2
    assert len(Conversation(JsonlStore(path))) == 2


def test_changes_made_while_the_disk_is_full_are_written_with_the_next_change(
    tmp_path, monkeypatch
):
    path = tmp_path / "talk.jsonl"
    conversation = Conversation(JsonlStore(path))
    conversation.put(UserItem("a", "one"))
    write, room = os.write, 10

    def full(file, data):
        return write(file, data[:room])

    monkeypatch.setattr("duologue.agent.jsonl_store.os.write", full)
    for name in "bc":
        with pytest.raises(OSError, match="No space left"):
            conversation.put(UserItem(name, "two"))
        assert len(Conversation(JsonlStore(path))) == 1
        assert path.read_bytes().endswith(b"\n")
    monkeypatch.undo()
    conversation.remove("a")
    assert [item.id for item in Conversation(JsonlStore(path))] == ["b", "c"]


@given(items)
def test_item_converts_to_a_dictionary_and_back(item):
    values = json.loads(json.dumps(item_to_dict(item)))
    assert item_from_dict({**values, "newer": 1}) == item


def test_invalid_item_dictionary_raises():
    with pytest.raises(KeyError):
        item_from_dict({"kind": "PictureItem", "id": "p"})
    with pytest.raises(KeyError):
        item_from_dict({})
    with pytest.raises(ValueError, match="text of a UserItem can't be 5"):
        item_from_dict({"kind": "UserItem", "id": "u", "text": 5})
    with pytest.raises(ValueError, match=r"a UserItem needs more: .*text"):
        item_from_dict({"kind": "UserItem", "id": "u"})


class Database:
    """An `AsyncStore`: each change takes ``takes_s``."""

    def __init__(self, *known, takes_s=0.05):
        self.known, self.takes_s = known, takes_s
        self.calls, self.error, self.under_way = [], None, 0

    async def load(self):
        await asyncio.sleep(self.takes_s)
        return self.known

    async def put(self, item):
        await self._change(("put", item.id, getattr(item, "text", None)))

    async def remove(self, item_id):
        await self._change(("remove", item_id))

    async def _change(self, change):
        self.under_way += 1
        assert self.under_way == 1, "one after the other"
        await asyncio.sleep(self.takes_s)
        self.under_way -= 1
        if self.error is not None:
            raise self.error
        self.calls.append(change)


class Remembers(ScriptedRealtime):
    def open(self, setup):
        self.setup = setup
        return super().open(setup)


@virtual_time
async def test_async_store_is_loaded_at_join_and_kept_in_order():
    store = Database(UserItem("1", "I am Robin."), AgentItem("2", "Hello Robin."))
    conversation = Conversation(store)
    assert len(conversation) == 0
    conversation.put(SystemItem("0", "Be kind."))
    model = Remembers(["You are Robin."])
    async with join_agent(model, conversation=conversation) as agent:
        assert [item.id for item in conversation] == ["1", "2", "0"]
        await agent.simple_response("Who am I?")
        await asyncio.sleep(1)
        texts = [call[2] for call in store.calls]
        assert texts[:2] == ["Be kind.", "Who am I?"]
        assert texts[-1] == "You are Robin."
        agent.say("Never mind.")
    assert [item.id for item in model.setup.history] == ["1", "2", "0"]
    assert len(other_tasks()) == 0


@virtual_time
async def test_slow_store_delays_nothing_and_gets_the_last_state_of_each_item():
    store = Database(takes_s=0.0)
    conversation = Conversation(store)
    async with join_agent(ScriptedRealtime(), conversation=conversation):
        store.takes_s = 1.0
        for number in range(100):
            conversation.put(UserItem("u", str(number)))
            conversation.put(UserItem("v", str(number)))
        conversation.put(UserItem("w", "gone"))
        conversation.remove("w")
        await asyncio.sleep(5)
        assert store.calls[-2:] == [("put", "v", "99"), ("remove", "w")]
        assert len(store.calls) <= 4


@virtual_time
async def test_failing_async_store_is_reported_and_ends_nothing():
    store = Database()
    async with join_agent(ScriptedRealtime(), conversation=Conversation(store)) as agent:
        store.error = OSError("no database")
        await agent.say("One.")
        await asyncio.sleep(1)
        store.error = None
        await agent.say("Two.")
        await asyncio.sleep(1)
        (error,) = events_of(agent, ErrorEvent)
        assert (error.source, error.message) == ("store", "OSError: no database")
        assert store.calls[-1][2] == "Two."


@virtual_time
async def test_hanging_store_ends_with_the_conversation_and_can_be_flushed_later():
    store = Database(takes_s=0.0)
    conversation = Conversation(store)
    async with join_agent(ScriptedRealtime(), conversation=conversation) as agent:
        store.takes_s = 3600.0
        await agent.say("One.")
        started = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - started <= 1.0
    (error,) = events_of(agent, ErrorEvent)
    assert "changes were not stored within 0.3 s" in error.message
    assert len(other_tasks()) == 0
    store.takes_s, store.under_way = 0.0, 0
    await conversation.flush()
    assert store.calls[-1][2] == "One."


@virtual_time
async def test_join_raises_the_load_error_of_an_async_store():
    class Lost(Database):
        async def load(self):
            raise OSError("no database")

    agent = Agent(edge=FakeEdge(), llm=ScriptedRealtime(), conversation=Conversation(Lost()))
    with pytest.raises(OSError, match="no database"):
        async with agent.join():
            pytest.fail("it started")


@pytest.mark.parametrize("error", [OSError(28, "full"), SystemExit(1)], ids=repr)
def test_async_store_that_always_fails_is_reported_now_and_then(error):
    class Full:
        def load(self):
            return ()

        def put(self, item):
            raise error

        remove = put

    @virtual_time
    async def run():
        conversation = Conversation(Full())
        async with join_agent(ScriptedRealtime(["Yes."] * 5), conversation=conversation) as agent:
            for _ in range(5):
                await agent.simple_response("Hello.")
            assert len(conversation) == 10
            assert events_of(agent, ErrorEvent)[0].source == "store"
            assert len(events_of(agent, ErrorEvent)) <= 2
        with pytest.raises(type(error)):
            conversation.put(UserItem("u", "nobody else is told"))

    run()
