"""Items of a history as items of the protocol."""

from duologue.items import AgentItem, SystemItem, ToolCallItem, ToolResultItem, UserItem
from duologue.providers._openai_protocol.items import (
    flat_tools,
    image_item,
    item_json,
    nested_tools,
    tool_output,
    wire_id,
)
from duologue.realtime.commands import ToolSpec

TOOL = ToolSpec("time", "Tell the time.", {"type": "object"})


def test_items_are_messages_of_their_role():
    items = [UserItem("u", "Hello."), SystemItem("s", "Guests like tea."), AgentItem("a", "Hi.")]
    found = [item_json(item) for item in items]
    assert [(one["id"], one["role"]) for one in found] == [
        ("u", "user"),
        ("s", "system"),
        ("a", "assistant"),
    ]
    assert [one["content"][0] for one in found] == [
        {"type": "input_text", "text": "Hello."},
        {"type": "input_text", "text": "Guests like tea."},
        {"type": "output_text", "text": "Hi."},
    ]


def test_items_without_text_are_left_out():
    assert item_json(UserItem("u", None)) is None
    assert item_json(SystemItem("s", "")) is None
    assert item_json(AgentItem("a", "")) is None


def test_a_call_and_its_result_have_the_same_call_id():
    call = item_json(ToolCallItem("t", "c" * 40, "time", "{}"))
    result = item_json(ToolResultItem("r", "c" * 40, "noon", failed=True))
    assert (call["type"], call["name"], call["arguments"]) == ("function_call", "time", "{}")
    assert (result["type"], result["output"]) == ("function_call_output", "error: noon")
    assert call["call_id"] == result["call_id"]
    assert len(call["call_id"]) == 32


def test_long_ids_are_hashed_and_short_ones_stay():
    assert wire_id("a" * 32) == "a" * 32
    assert len({wire_id("a" * 33), wire_id("a" * 34)}) == 2


def test_an_image_is_a_data_url():
    (content,) = image_item("i", "anBlZw==")["content"]
    assert content == {"type": "input_image", "image_url": "data:image/jpeg;base64,anBlZw=="}


def test_tools_are_flat_or_nested():
    (flat,), (nested,) = flat_tools([TOOL]), nested_tools([TOOL])
    function = {"name": "time", "description": "Tell the time.", "parameters": {"type": "object"}}
    assert flat == {"type": "function", **function}
    assert nested == {"type": "function", "function": function}
    assert tool_output("noon", failed=False) == "noon"
