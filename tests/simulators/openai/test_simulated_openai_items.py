"""Items of the conversation, also with images: created, found, ordered, truncated, deleted."""

from __future__ import annotations

import base64

import pytest

pytest.importorskip("aiohttp", reason="the simulate extra is not installed")
pytest.importorskip("openai", reason="the openai extra is not installed")

from openai_client import encode, open_session, tone

from duologue.items import AgentItem, SystemItem, ToolCallItem, UserItem
from duologue.realtime.commands import AddItem, DeleteItem
from duologue.testing import OpenAISimulator, Reply, virtual_time

JPEG = base64.b64encode(b"\xff\xd8\xff\xe0 a picture").decode()


def message(role: str, kind: str, **fields: object) -> dict[str, object]:
    return {"type": "message", "role": role, "content": [{"type": kind, **fields}]}


def make_simulator():
    return OpenAISimulator(replies=[Reply("Yes.", seconds=0.5)])


@virtual_time
async def test_backend_knows_items_of_all_kinds():
    async with make_simulator() as sim, open_session(sim) as client:
        call = {"type": "function_call", "name": "f", "arguments": "{}", "call_id": "call_1"}
        items = [
            message("system", "input_text", text="Be brief."),
            message("user", "input_text", text="Hello."),
            message("user", "input_audio", audio=encode(tone(0.2)), transcript="Spoken."),
            message("assistant", "output_text", text="Hi."),
            message("assistant", "output_audio", transcript="Said."),
            call,
            {"type": "function_call_output", "call_id": "call_1", "output": "42"},
        ]
        before = None
        for index, item in enumerate(items):
            await client.send("conversation.item.create", item={**item, "id": f"mine{index}"})
            added = await client.until("conversation.item.added")
            assert (added.previous_item_id, added.item.id) == (before, f"mine{index}")
            before = (await client.until("conversation.item.done")).item.id
        added = [c.item for c in sim.sessions[0].backend.commands if isinstance(c, AddItem)]
        assert added[:6] == [
            SystemItem("mine0", "Be brief."),
            UserItem("mine1", "Hello.", spoken=False),
            UserItem("mine2", "Spoken."),
            AgentItem("mine3", "Hi."),
            AgentItem("mine4", "Said."),
            ToolCallItem("mine5", "call_1", "f", "{}"),
        ]
        await client.receive_for()
        assert "response.created" not in client.types
        error = await client.error("conversation.item.create", item={**items[0], "id": "mine0"})
        assert error.param == "item.id"


@virtual_time
async def test_items_are_inserted_where_the_client_wants():
    async with make_simulator() as sim, open_session(sim) as client:

        async def put(name: str, **where: str):
            item = {**message("user", "input_text", text=name), "id": name}
            await client.send("conversation.item.create", item=item, **where)
            return (await client.until("conversation.item.done")).previous_item_id

        assert await put("a") is None
        assert await put("b", previous_item_id="root") is None
        assert await put("c", previous_item_id="b") == "b"
        assert await put("d") == "a"
        assert [item["id"] for item in sim.sessions[0].conversation] == ["b", "c", "a", "d"]
        item = message("user", "input_text", text="x")
        error = await client.error("conversation.item.create", item=item, previous_item_id="none")
        assert (error.code, error.param) == ("item_not_found", "previous_item_id")
        assert len(sim.sessions[0].conversation) == 4


@virtual_time
async def test_items_are_retrieved_and_deleted():
    async with make_simulator() as sim, open_session(sim) as client:
        await client.send("response.create")
        item_id = (await client.until("response.done")).response.output[0].id
        await client.send("conversation.item.retrieve", item_id=item_id)
        retrieved = await client.until("conversation.item.retrieved")
        assert retrieved.item.content[0].transcript == "Yes."
        await client.send("conversation.item.delete", item_id=item_id)
        assert (await client.until("conversation.item.deleted")).item_id == item_id
        assert sim.sessions[0].conversation == []
        assert isinstance(sim.sessions[0].backend.commands[-1], DeleteItem)
        for kind in ("retrieve", "delete"):
            error = await client.error(f"conversation.item.{kind}", item_id=item_id)
            assert error.code == "item_not_found"


@virtual_time
async def test_only_speech_of_the_agent_can_be_truncated():
    async with make_simulator() as sim, open_session(sim) as client:
        item = {**message("user", "input_text", text="x"), "id": "user"}
        await client.send("conversation.item.create", item=item)
        cut = {"content_index": 0, "audio_end_ms": 0}
        kind = "conversation.item.truncate"
        assert (await client.error(kind, item_id="user", **cut)).code == "invalid_value"
        assert (await client.error(kind, item_id="nobody", **cut)).code == "item_not_found"
        await client.send("response.create")
        item_id = (await client.until("response.done")).response.output[0].id
        error = await client.error(kind, item_id=item_id, content_index=1, audio_end_ms=0)
        assert error.param == "content_index"
        await client.send(kind, item_id=item_id, **cut)
        await client.until("conversation.item.truncated")


@virtual_time
async def test_images_are_kept():
    async with make_simulator() as sim, open_session(sim) as client:
        image_part = {"type": "input_image", "image_url": f"data:image/jpeg;base64,{JPEG}"}
        text = {"type": "input_text", "text": "What is it?"}
        item = {
            "type": "message",
            "role": "user",
            "content": [{**image_part, "detail": "low"}, text],
        }
        await client.send("conversation.item.create", item=item)
        done = await client.until("conversation.item.done")
        assert done.item.content[0].image_url == image_part["image_url"]
        (image,) = sim.sessions[0].images
        assert (image.media_type, image.data, image.detail) == (
            "image/jpeg",
            base64.b64decode(JPEG),
            "low",
        )
        assert image.item_id == done.item.id
        for url in ("https://x/y.jpg", "data:image/gif;base64,AAAA", "data:image/png;base64,!"):
            item = message("user", "input_image", image_url=url)
            error = await client.error("conversation.item.create", item=item)
            assert error.param == "item.content[0].image_url"


@pytest.mark.parametrize(
    ("item", "code", "param"),
    [
        ({}, "missing_required_parameter", "item.type"),
        ({"type": "reasoning"}, "invalid_value", "item.type"),
        ({"type": "message"}, "missing_required_parameter", "item.role"),
        (message("robot", "input_text", text="x"), "invalid_value", "item.role"),
        (message("user", "output_text", text="x"), "invalid_value", "item.content[0].type"),
        (message("user", "input_text"), "missing_required_parameter", "item.content[0].text"),
        (message("user", "input_text", text=1), "invalid_type", "item.content[0].text"),
        (message("user", "input_text", text="x", y=1), "unknown_parameter", "item.content[0].y"),
        (
            {"type": "function_call_output", "call_id": "nobody", "output": ""},
            "invalid_tool_call_id",
            "item.call_id",
        ),
    ],
)
def test_invalid_items_are_refused(item, code, param):
    @virtual_time
    async def talk():
        async with make_simulator() as sim, open_session(sim) as client:
            error = await client.error("conversation.item.create", item=item)
            assert sim.sessions[0].conversation == []
            return error.code, error.param

    assert talk() == (code, param)
