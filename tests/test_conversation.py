import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from duologue import Conversation, JsonlStore
from duologue.items import AgentItem, SystemItem, ToolCallItem, ToolResultItem, UserItem
from duologue.realtime.errors import ConfigError

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
def test_what_was_written_is_read_again(tmp_path, changes):
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


def test_an_item_that_changes_stays_where_it_is():
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
        b'{"kind": "Unheard", "id": "a"}\n',
        b'{"kind": "SystemItem", "id": "a"}\n',
        b'{"id": "a"}\n',
        b'{"kind": "SystemItem", "id": "a", "text": "\xff"}\n',
        b"\n",
        b"a note of mine, without an end",
    ],
)
def test_a_file_that_is_something_else_is_refused_and_left_alone(tmp_path, line):
    path = write(tmp_path / "talk.jsonl", GOOD, line)
    with pytest.raises(ConfigError, match="line 2 is not a conversation item"):
        Conversation(JsonlStore(path))
    assert path.read_bytes() == GOOD + line


@pytest.mark.parametrize("length", range(1, len(GOOD)))
def test_a_line_that_a_crash_cut_short_is_dropped(tmp_path, length):
    path = write(tmp_path / "talk.jsonl", GOOD, GOOD.replace(b"SystemItem", b"UserItem")[:length])
    conversation = Conversation(JsonlStore(path))
    assert len(conversation) == 1
    conversation.put(UserItem("u", "on we go"))
    assert [i.text for i in Conversation(JsonlStore(path))] == ["x", "on we go"]


def test_no_file_is_a_new_conversation(tmp_path):
    assert len(Conversation(JsonlStore(str(tmp_path / "new.jsonl")))) == 0


def test_a_model_is_given_what_is_whole():
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


def test_an_answer_that_is_about_to_be_played_is_in_the_history():
    conversation = Conversation()
    conversation.put(UserItem("u", "hello"))
    conversation.put(AgentItem("a", "", "speaking", 0, "s"))
    said = conversation.history_with({"a": "Good", "b": "And more."}, ())
    assert [(item.id, item.text) for item in said] == [
        ("u", "hello"),
        ("a", "Good"),
        ("b", "And more."),
    ]
    assert [item.id for item in conversation] == ["u", "a"]


@pytest.mark.parametrize("place", [".", "missing/talk.jsonl"])
def test_a_place_where_no_file_can_be_is_told_at_once(tmp_path, place):
    with pytest.raises(ConfigError, match="folder"):
        Conversation(JsonlStore(tmp_path / place))
