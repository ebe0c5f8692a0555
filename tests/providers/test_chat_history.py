"""A history as the steps of a text chat."""

from __future__ import annotations

from duologue.items import AgentItem, Item, SystemItem, ToolCallItem, ToolResultItem, UserItem
from duologue.providers._chat_history import (
    PENDING_RESULT,
    CallGroup,
    Message,
    chat_steps,
    last_message_of_person,
    program_note,
)


def groups(history: list[Item]) -> list[list[tuple[str, str, bool]]]:
    steps = [step for step in chat_steps(history) if isinstance(step, CallGroup)]
    return [[(one.call.call_id, one.output, one.failed) for one in step.calls] for step in steps]


def test_items_without_words_are_left_out() -> None:
    history = [
        UserItem("1", None),
        UserItem("2", "Hello."),
        AgentItem("3", "  "),
        AgentItem("4", "Hi.", state="cut"),
        SystemItem("5", "Be kind."),
        ToolResultItem("6", "nobody's", "sunny"),
    ]
    assert chat_steps(history) == [
        Message("user", "Hello."),
        Message("agent", "Hi."),
        Message("system", "Be kind."),
    ]


def test_calls_that_were_made_together_are_one_group_and_later_ones_another() -> None:
    history: list[Item] = [
        ToolCallItem("1", "a", "weather", "{}"),
        ToolCallItem("2", "b", "weather", "{}"),
        ToolResultItem("3", "b", "no network", failed=True),
        ToolResultItem("4", "a", "sunny"),
        ToolCallItem("5", "c", "clock", "{}"),
        ToolResultItem("6", "c", "nine"),
    ]
    assert groups(history) == [
        [("b", "no network", True), ("a", "sunny", False)],
        [("c", "nine", False)],
    ]


def test_late_result_stands_where_it_came_and_a_missing_one_has_a_placeholder() -> None:
    history: list[Item] = [
        ToolCallItem("1", "a", "book", "{}"),
        ToolCallItem("2", "b", "weather", "{}"),
        ToolResultItem("3", "b", "sunny"),
        UserItem("4", "Are you there?"),
    ]
    assert groups(history) == [[("a", PENDING_RESULT, False), ("b", "sunny", False)]]
    history += [AgentItem("5", "Yes."), ToolResultItem("6", "a", "booked")]
    assert groups(history) == [[("b", "sunny", False)], [("a", "booked", False)]]
    assert isinstance(chat_steps(history)[-1], CallGroup)


def test_last_message_that_is_not_the_agents_is_found() -> None:
    history: list[Item] = [
        UserItem("1", "Hello."),
        SystemItem("2", "Be kind."),
        AgentItem("3", "Hi."),
        ToolCallItem("4", "a", "clock", "{}"),
    ]
    assert last_message_of_person(chat_steps(history)) == 1
    assert last_message_of_person(chat_steps(history[2:])) == -1
    assert program_note("Be kind.") == "[Not said by the person: Be kind.]"
