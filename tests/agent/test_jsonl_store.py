import os
import subprocess
import sys
import time

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from duologue import Conversation, JsonlStore
from duologue.errors import ConfigError
from duologue.items import UserItem
from item_strategies import ids, items

changes = st.lists(st.one_of(items, ids), max_size=12)


GOOD = b'{"kind": "SystemItem", "id": "a", "text": "x"}\n'


def write(path, *contents):
    path.write_bytes(b"".join(contents))
    return path


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
