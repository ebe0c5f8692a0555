"""The difference between two states of a session, as commands for a model."""

import hypothesis.strategies as st
from hypothesis import given

from duologue.items import AgentItem, SystemItem, UserItem
from duologue.realtime._session.history_diff import apply_update, diff_histories, diff_setups
from duologue.realtime.codec import SessionSetup
from duologue.realtime.commands import AddItem, DeleteItem, ToolSpec, Truncate, UpdateSession

TOOL = ToolSpec("look", "Look.", {"type": "object"})


def test_items_are_deleted_truncated_and_added_at_the_end():
    before = (UserItem("u", "hi"), AgentItem("a", "One two three."), SystemItem("s", "x"))
    after = (before[0], AgentItem("a", "One", "cut", 300), UserItem("v", "stop"))
    assert diff_histories(before, after) == [
        DeleteItem("s"), Truncate("a", 300, "One"), AddItem(after[2]),
    ]  # fmt: skip


def test_a_changed_transcript_of_the_person_is_no_command():
    assert diff_histories((UserItem("u", None),), (UserItem("u", "hi"),)) == []


def test_instructions_and_tools_are_updated_where_they_differ():
    before = SessionSetup("be kind", (TOOL,))
    assert diff_setups(before, before) == []
    assert diff_setups(before, SessionSetup("be brief", (TOOL,))) == [UpdateSession("be brief")]
    assert diff_setups(before, SessionSetup("be kind")) == [UpdateSession(None, ())]


def test_an_update_leaves_the_other_part_and_the_history():
    setup = SessionSetup("be kind", (TOOL,), (UserItem("u", "hi"),))
    assert apply_update(setup, UpdateSession("be brief")) == SessionSetup(
        "be brief", (TOOL,), setup.history
    )
    assert apply_update(setup, UpdateSession(tools=())).tools == ()


ITEMS = st.lists(st.sampled_from("abcdef"), unique=True)


@given(ITEMS, ITEMS)
def test_the_commands_turn_one_history_into_the_other(before, after):
    ids = list(before)
    for change in diff_histories([UserItem(i, i) for i in before], [UserItem(i, i) for i in after]):
        if isinstance(change, DeleteItem):
            ids.remove(change.item_id)
        else:
            ids.append(change.item.id)
    assert set(ids) == set(after)
