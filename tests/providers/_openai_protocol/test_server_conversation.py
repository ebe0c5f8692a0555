"""The conversation as an OpenAI server stores it."""

import pytest

from duologue.items import AgentItem, ToolCallItem, ToolResultItem, UserItem
from duologue.providers._openai_protocol.server_conversation import ServerConversation
from duologue.realtime.commands import SendToolResult

LONG_ID = "x" * 40


def conversation(*item_ids, images_kept=2):
    found = ServerConversation(24000, images_kept)
    for item_id in item_ids:
        found.item_added(item_id, None)
    return found


def order(found):
    return list(found._order)


def kinds(events):
    return [event["type"].rpartition(".")[2] for event in events]


def test_items_are_kept_in_the_servers_order():
    found = conversation("a", "b")
    found.item_added("first", "root")
    found.item_added("between", "a")
    found.item_added("last", "unknown")
    assert order(found) == ["first", "a", "between", "b", "last"]
    found.item_added("a", None)  # It was added by ourselves, and is confirmed.
    found.item_added("last", "first")
    assert order(found) == ["first", "last", "a", "between", "b"]
    assert "a" in found
    assert "unknown" not in found


def test_a_deleted_item_is_forgotten_unless_it_was_created_again():
    found = conversation("a")
    found.item_deleted("a")  # By the server itself.
    assert "a" not in found
    found.put(UserItem("b", "Hello."))
    found.put(UserItem("b", "Hello there."))
    found.put(UserItem("b", "Hello, you."))
    found.item_deleted("b")
    found.item_deleted("b")
    assert "b" in found  # Both were our own deletions.
    found.item_deleted("b")
    assert "b" not in found


def test_a_new_item_is_appended_or_put_before_another():
    found = conversation("a", "b")
    (event,) = found.put(UserItem("c", "Hello."))
    assert "previous_item_id" not in event
    (event,) = found.put(UserItem("d", "Hello."), before=("unknown", "b"))
    assert event["previous_item_id"] == "a"
    (event,) = found.put(UserItem("e", "Hello."), before=("a",))
    assert event["previous_item_id"] == "root"
    assert order(found) == ["e", "a", "d", "b", "c"]


def test_an_item_that_is_there_is_replaced_in_its_place():
    found = conversation("a", "b")
    deleted, created = found.put(UserItem("a", "Hello."))
    assert deleted == {"type": "conversation.item.delete", "item_id": "a"}
    assert created["previous_item_id"] == "root"
    _, created = found.put(UserItem("b", "Hello."))
    assert created["previous_item_id"] == "a"
    assert order(found) == ["a", "b"]


def test_items_without_text_and_results_of_unknown_calls_are_left_out():
    found = conversation()
    assert found.put(UserItem("u", None)) == []
    assert found.put(ToolResultItem("r", "unknown", "noon")) == []
    assert kinds(found.put(ToolCallItem("t", "c", "time", "{}"))) == ["create"]
    assert kinds(found.put(ToolResultItem("r", "c", "noon"))) == ["create"]


def test_a_result_names_its_call_as_the_server_does():
    found = conversation()
    (event,) = found.add_tool_result(SendToolResult("c", "time", "noon", failed=True))
    assert event["item"]["call_id"] == "c"
    assert event["item"]["output"] == "error: noon"
    found.put(ToolCallItem("t", LONG_ID, "time", "{}"))
    (event,) = found.add_tool_result(SendToolResult(LONG_ID, "time", "noon"))
    assert len(event["item"]["call_id"]) == 32
    # The server's own calls may have longer ids.
    (event,) = found.add_tool_result(SendToolResult("y" * 40, "time", "noon"))
    assert event["item"]["call_id"] == "y" * 40


@pytest.mark.parametrize(("played_ms", "end_ms"), [(300, 300), (5000, 1000), (-1, 0)])
def test_a_spoken_item_is_truncated_within_its_audio(played_ms, end_ms):
    found = conversation("a")
    found.audio_received("a", 12000)
    found.audio_received("a", 12000, content_index=1)
    assert found.truncate("a", played_ms, "One") == [
        {
            "type": "conversation.item.truncate",
            "item_id": "a",
            "content_index": 1,
            "audio_end_ms": end_ms,
        }
    ]


def test_an_item_that_was_sent_as_text_is_replaced_by_what_was_heard():
    found = conversation()
    found.put(AgentItem("a", "One two three."))
    deleted, created = found.truncate("a", 300, "One")
    assert kinds([deleted, created]) == ["delete", "create"]
    assert created["item"]["content"] == [{"type": "output_text", "text": "One"}]
    assert kinds(found.truncate("a", 0, "")) == ["delete"]
    assert found.truncate("a", 0, "") == []


def test_only_known_items_are_deleted():
    found = conversation("a", LONG_ID)
    found.audio_received("spoken", 240)
    assert found.delete("unknown") == []
    for item_id in ("a", LONG_ID, "spoken"):
        assert found.delete(item_id) == [{"type": "conversation.item.delete", "item_id": item_id}]
        assert found.delete(item_id) == []


def test_an_item_with_a_long_id_of_ours_has_a_short_one_at_the_server():
    found = conversation()
    (event,) = found.put(UserItem(LONG_ID, "Hello."))
    short = event["item"]["id"]
    assert len(short) == 32
    assert found.delete(LONG_ID) == [{"type": "conversation.item.delete", "item_id": short}]


def test_scripted_text_is_added_once_it_was_said():
    found = conversation("a")
    found.audio_received("v", 24000, verbatim=True)
    assert found.add_verbatim("v", "") == []
    (event,) = found.add_verbatim("v", "Good morning.")
    assert event["item"]["role"] == "assistant"
    # It has no audio at the server that could be truncated.
    assert kinds(found.truncate("v", 300, "Good")) == ["delete", "create"]


def test_only_the_newest_images_stay():
    found = conversation(images_kept=2)
    for number in range(2):
        assert kinds(found.add_image(f"i{number}", "anBlZw==")) == ["create"]
    deleted, created = found.add_image("i2", "anBlZw==")
    assert deleted == {"type": "conversation.item.delete", "item_id": "i0"}
    assert created["item"]["content"][0]["image_url"] == "data:image/jpeg;base64,anBlZw=="
