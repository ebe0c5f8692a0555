"""Items and images of the simulated Qwen service."""

from __future__ import annotations

import base64
from io import BytesIO

import numpy as np
import pytest

pytest.importorskip("aiohttp", reason="the simulate extra is not installed")
pytest.importorskip("PIL", reason="the video extra is not installed")

from PIL import Image
from qwen_client import QUICK, open_session, silence

from duologue.items import AgentItem, SystemItem, UserItem
from duologue.realtime.commands import AddItem, SendVideo
from duologue.testing import QwenSimulator, Reply, virtual_time


def make_image(width=64, height=48, colour=(200, 30, 60), kind="JPEG", noise=False) -> bytes:
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:] = colour
    if noise:
        pixels = np.random.default_rng(1).integers(0, 255, pixels.shape, np.uint8)
    out = BytesIO()
    Image.fromarray(pixels).save(out, kind)
    return out.getvalue()


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def message(role: str, kind: str, **fields: object) -> dict[str, object]:
    return {"type": "message", "role": role, "content": [{"type": kind, **fields}]}


def make_simulator():
    return QwenSimulator(replies=[Reply("Yes.", seconds=0.5)] * 5)


@virtual_time
async def test_image_is_accepted_only_after_audio():
    async with make_simulator() as sim, open_session(sim, turn_detection=None) as client:

        async def refused():
            error = await client.error("input_image_buffer.append", image=text(make_image()))
            return error == {
                "type": "invalid_request_error",
                "message": "Error append image before append audio.",
            }

        assert await refused()
        await client.append(silence(0.1))
        await client.send("input_image_buffer.append", image=text(make_image()))
        await client.append(silence(0.1))
        await client.send("input_audio_buffer.commit")
        await client.until("input_audio_buffer.committed")
        # The buffer is empty again.
        assert await refused()
        await client.append(silence(0.1))
        await client.send("input_audio_buffer.clear")
        assert await refused()
        assert len(sim.sessions[0].images) == 1


@virtual_time
async def test_images_are_kept_sent_to_the_backend_and_counted():
    async with make_simulator() as sim, open_session(sim, turn_detection=QUICK) as client:
        await client.append(silence(0.1))
        for colour in ((250, 0, 0), (0, 0, 250)):
            await client.send(
                "input_image_buffer.append", image=text(make_image(80, 60, colour=colour))
            )
        await client.send_turn()
        usage = (await client.until("response.done"))["response"]["usage"]
        assert usage["input_tokens_details"]["image_tokens"] > 0
        red, blue = sim.sessions[0].images
        assert (red.media_type, red.data) == ("image/jpeg", make_image(80, 60, colour=(250, 0, 0)))
        assert blue.data != red.data
        shown = [c.frame for c in sim.sessions[0].backend.commands if isinstance(c, SendVideo)]
        assert [(frame.width, frame.height) for frame in shown] == [(80, 60)] * 2
        assert shown[0].pixels[30, 40, 0] > 200 > 50 > shown[0].pixels[30, 40, 2]
        assert shown[1].pixels[30, 40, 2] > 200 > 50 > shown[1].pixels[30, 40, 0]
        # In the recorded events only the length of an image is kept.
        event = next(e for e in sim.sessions[0].events_in if "image" in e)
        assert event["image"] == len(text(red.data))


@virtual_time
async def test_image_is_sent_only_to_a_backend_with_video():
    async with QwenSimulator() as sim, open_session(sim) as client:
        await client.append(silence(0.1))
        await client.send("input_image_buffer.append", image=text(make_image()))
        await client.update(instructions="x")
        assert len(sim.sessions[0].images) == 1
        assert "error" not in client.types


LARGE = make_image(1024, 1024, noise=True)
HUGE = bytearray(make_image())
HUGE[HUGE.index(b"\xff\xc0") + 5 : HUGE.index(b"\xff\xc0") + 9] = b"\xff\xdc\xff\xdc"


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (text(LARGE), "too large"),
        (text(make_image(kind="PNG")), "JPG or JPEG"),
        (text(make_image(2000, 20)), "1080p"),
        (text(bytes(HUGE)), "1080p"),
        (text(make_image()[:40]), "can't be decoded"),
        (text(b"\xff\xd8\xff" * 50), "can't be decoded"),
        ("not base64!", "not valid base64"),
        ("", "JPG or JPEG"),
    ],
)
def test_invalid_or_too_large_images_are_refused(image, words):
    @virtual_time
    async def talk():
        async with make_simulator() as sim, open_session(sim) as client:
            await client.append(silence(0.1))
            error = await client.error("input_image_buffer.append", image=image)
            assert sim.sessions[0].images == []
            assert (error["code"], error["param"]) == ("invalid_value", "image")
            return error["message"]

    assert words in talk()


def test_largest_image_is_accepted():
    @virtual_time
    async def talk():
        full = make_image(1920, 1080)
        padded = full[:2] + b"\xff\xfe\xff\xfb" + bytes(0xFFFB - 2) + full[2:]
        while len(padded) < 196606 - 70000:
            padded = padded[:2] + b"\xff\xfe\xff\xfb" + bytes(0xFFFB - 2) + padded[2:]
        left = 196608 - len(padded) - 4
        padded = padded[:2] + b"\xff\xfe" + (left + 2).to_bytes(2) + bytes(left) + padded[2:]
        assert len(text(padded)) == 256 * 1024
        async with make_simulator() as sim, open_session(sim) as client:
            await client.append(silence(0.1))
            await client.send("input_image_buffer.append", image=text(padded))
            error = await client.error("input_image_buffer.append", image=text(padded) + "AAAA")
            assert "too large" in error["message"]
            return len(sim.sessions[0].images)

    assert talk() == 1


@virtual_time
async def test_backend_knows_text_items():
    async with make_simulator() as sim, open_session(sim) as client:
        items = [
            message("system", "input_text", text="Be brief."),
            message("user", "input_text", text="Hello."),
            message("assistant", "text", text="Hi."),
        ]
        for index, item in enumerate(items):
            await client.send("conversation.item.create", item={**item, "id": f"mine{index}"})
            created = await client.until("conversation.item.created")
            assert created["item"]["id"] == f"mine{index}"
            assert "previous_item_id" not in created
        added = [c.item for c in sim.sessions[0].backend.commands if isinstance(c, AddItem)]
        assert added == [
            SystemItem("mine0", "Be brief."),
            UserItem("mine1", "Hello.", spoken=False),
            AgentItem("mine2", "Hi."),
        ]
        await client.receive_for()
        assert "response.created" not in client.types
        error = await client.error("conversation.item.create", item={**items[0], "id": "mine0"})
        assert error["param"] == "item.id"
        await client.send("response.create")
        await client.until("response.done")


@pytest.mark.parametrize("model", ["qwen3-omni-flash-realtime", "qwen-omni-turbo-realtime"])
def test_older_models_refuse_text_items(model):
    @virtual_time
    async def talk():
        async with make_simulator() as sim, open_session(sim, model) as client:
            item = message("user", "input_text", text="Hello.")
            error = await client.error("conversation.item.create", item=item)
            assert sim.sessions[0].conversation == []
            return error["message"]

    assert talk() == f"{model} does not support items of text."


@pytest.mark.parametrize(
    ("item", "code", "param"),
    [
        ({}, "missing_required_parameter", "item.type"),
        ({"type": "function_call"}, "invalid_value", "item.type"),
        ({"type": "message"}, "missing_required_parameter", "item.role"),
        (message("robot", "input_text", text="x"), "invalid_value", "item.role"),
        (message("user", "input_image", image_url="x"), "invalid_value", "item.content[0].type"),
        (message("user", "input_text"), "missing_required_parameter", "item.content[0].text"),
        (message("user", "input_text", text=1), "invalid_value", "item.content[0].text"),
    ],
)
def test_invalid_items_are_refused(item, code, param):
    @virtual_time
    async def talk():
        async with make_simulator() as sim, open_session(sim) as client:
            error = await client.error("conversation.item.create", item=item)
            assert sim.sessions[0].conversation == []
            return error["code"], error["param"]

    assert talk() == (code, param)
