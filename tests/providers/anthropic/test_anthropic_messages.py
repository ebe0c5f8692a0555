"""What the Messages API asks of a conversation, beyond the names of its fields."""

from __future__ import annotations

from duologue.items import AgentItem, Item, SystemItem, ToolCallItem, ToolResultItem, UserItem
from duologue.json_types import Json, JsonObject
from duologue.pipeline.interfaces import TextDelta, TokenUsage, ToolRequest
from duologue.providers._chat_history import BEGINNING, CONTINUE
from duologue.providers.anthropic._message_stream import MessageStream
from duologue.providers.anthropic._messages import conversation, request_body
from duologue.providers.anthropic._thinking import MAX_KEPT, ThinkingPolicy


def blocks(history: list[Item]) -> list[tuple[Json, list[Json]]]:
    """Return the roles of the messages, with their texts."""
    found: list[tuple[Json, list[Json]]] = []
    for message in conversation(history, {}).messages:
        content = message["content"]
        assert isinstance(content, list)
        found.append((message["role"], [one["text"] for one in content]))  # type: ignore[index,call-overload]
    return found


def test_messages_begin_and_end_with_the_person_and_alternate() -> None:
    assert blocks([]) == [("user", [BEGINNING])]
    assert blocks([AgentItem("1", "Hello.")]) == [
        ("user", [BEGINNING]),
        ("assistant", ["Hello."]),
        ("user", [CONTINUE]),
    ]
    history = [
        UserItem("1", "One."),
        SystemItem("2", "Be kind."),
        UserItem("3", "Two."),
        AgentItem("4", "Three."),
        AgentItem("5", "Four."),
        UserItem("6", "Five."),
    ]
    assert blocks(history) == [
        ("user", ["One.", "[Not said by the person: Be kind.]", "Two."]),
        ("assistant", ["Three.", "Four."]),
        ("user", ["Five."]),
    ]


def test_ids_and_arguments_that_the_service_would_refuse_are_replaced() -> None:
    deep = '{"a":' * 200 + "1" + "}" * 200
    history = [
        UserItem("0", "Go."),
        ToolCallItem("1", "call/1:é", "f", "[1]"),
        ToolCallItem("2", "x" * 65, "f", "{broken"),
        ToolCallItem("3", "fine_1-A", "f", deep),
        *(ToolResultItem(f"r{i}", i, "") for i in ("call/1:é", "x" * 65, "fine_1-A")),
    ]
    _, made, results = conversation(history, {}).messages
    ids = [one["id"] for one in made["content"]]  # type: ignore[union-attr,index,call-overload]
    assert ids == [one["tool_use_id"] for one in results["content"]]  # type: ignore[union-attr,index,call-overload]
    assert ids[2] == "fine_1-A"
    assert all(str(one).startswith("toolu_") and len(str(one)) < 64 for one in ids[:2])
    assert len(set(ids)) == 3
    assert [one["input"] for one in made["content"]] == [{}, {}, {}]  # type: ignore[union-attr,index,call-overload]


def test_tools_of_the_history_are_declared_where_none_may_be_called() -> None:
    history = [
        UserItem("0", "Go."),
        ToolCallItem("1", "a", "weather", "{}"),
        ToolResultItem("2", "a", "25"),
    ]
    body = request_body("", conversation(history, {}), [], None)
    assert body["tools"] == [{"name": "weather", "input_schema": {"type": "object"}}]
    assert body["tool_choice"] == {"type": "none"}
    assert "system" not in body


def test_late_thoughts_begin_the_message_of_their_call() -> None:
    history = [
        UserItem("0", "Go."),
        ToolCallItem("1", "a", "f", "{}"),
        ToolResultItem("2", "a", ""),
    ]
    talk = conversation(history, {"a": [{"type": "redacted_thinking", "data": "x"}]})
    kinds = [one["type"] for one in talk.messages[1]["content"]]  # type: ignore[union-attr,index,call-overload]
    assert kinds == ["redacted_thinking", "tool_use"]
    assert (talk.with_thoughts, talk.calls_without_thoughts) == (True, False)


def test_message_of_another_server_of_the_protocol_is_understood() -> None:
    message = MessageStream()
    events: list[JsonObject] = [
        {"type": "message_start", "message": {"usage": {"input_tokens": None}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": "A"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "new", "value": 1}},
        {"type": "content_block_start", "index": 1, "content_block": {"type": "server_tool_use"}},
        {
            "type": "content_block_start",
            "index": 2,
            "content_block": {"type": "tool_use", "name": "f", "input": {"x": 1}},
        },
        {"type": "later"},
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {}},
        {"type": "message_stop"},
    ]
    outputs = [output for event in events for output in message.push(event)]
    outputs += list(message.end())
    [said, call] = outputs
    assert said == TextDelta("A")
    assert isinstance(call, ToolRequest)
    assert (call.name, call.arguments) == ("f", '{"x": 1}')
    assert call.call_id.startswith("toolu_")
    assert message.first_call_id == call.call_id
    assert not message.thoughts


def test_thinking_tokens_are_counted_apart() -> None:
    message = MessageStream()
    start: JsonObject = {"usage": {"input_tokens": 3, "output_tokens": 1}}
    usage: JsonObject = {"output_tokens": 9, "output_tokens_details": {"thinking_tokens": 4}}
    for event in (
        {"type": "message_start", "message": start},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": usage},
    ):
        assert not list(message.push(event))  # type: ignore[arg-type]
    assert list(message.end()) == [TokenUsage(3, 9, reasoning=4)]


def test_thoughts_are_kept_for_so_many_replies() -> None:
    policy = ThinkingPolicy("claude-x", "low")
    for number in range(MAX_KEPT + 5):
        policy.keep(f"call {number}", [{"type": "thinking"}])
    assert len(policy.kept) == MAX_KEPT
    assert not policy.refused("Something else is wrong.", with_thoughts=True)
    assert not policy.refused("effort low is not supported", with_thoughts=False)
