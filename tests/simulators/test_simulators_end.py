"""How simulators of all four services end connections, and what they keep in memory afterwards."""

from __future__ import annotations

import asyncio
import base64
import gc
import json
import weakref
from contextlib import asynccontextmanager, suppress
from types import FunctionType, ModuleType

import numpy as np
import pytest

pytest.importorskip("aiohttp", reason="the simulate extra is not installed")
pytest.importorskip("h2", reason="the simulate extra is not installed")

import websockets
from h2.connection import H2Connection

from duologue.simulators import _bounded_log
from duologue.simulators.gemini._conversation import Conversation, Cost
from duologue.simulators.nova._eventstream import Message, encode
from duologue.testing import GeminiSimulator, NovaSimulator, OpenAISimulator, QwenSimulator, Reply

SPEECH = (8000 * np.sin(np.arange(24000) / 10)).astype("<i2").tobytes()
REPLIES = [Reply("One two three.", 2.0)] * 3


class Socket:
    """A connection to one of the services on WebSocket, with a started session."""

    def __init__(self, socket, speak):
        self.socket = socket
        self._speak = speak

    async def speak(self):
        for message in self._speak:
            await self.socket.send(json.dumps(message))
        with suppress(TimeoutError):
            while True:
                await asyncio.wait_for(self.socket.recv(), 0.3)

    async def ended(self):
        with suppress(websockets.ConnectionClosed):
            while True:
                await self.socket.recv()

    async def close(self):
        await self.socket.close()


class Stream:
    """A stream of Nova Sonic on a connection of its own, with a started session."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer
        self.h2 = H2Connection()

    async def begin(self):
        self.h2.initiate_connection()
        path = "/model/amazon.nova-2-sonic-v1%3A0/invoke-with-bidirectional-stream"
        fields = [(":method", "POST"), (":path", path), (":scheme", "http"), (":authority", "x")]
        self.h2.send_headers(1, fields)
        await self._send({"sessionStart": {}})

    async def _send(self, event):
        data = base64.b64encode(json.dumps({"event": event}).encode()).decode()
        headers = {":message-type": "event", ":event-type": "chunk"}
        message = encode(Message(headers, json.dumps({"bytes": data}).encode()))
        self.h2.send_data(1, message)
        self.writer.write(self.h2.data_to_send())
        await self.writer.drain()

    async def speak(self):
        return None

    async def ended(self):
        with suppress(OSError):
            while await self.reader.read(65536):
                pass  # Read until the stream ends

    async def close(self):
        self.writer.close()
        with suppress(OSError):
            await self.writer.wait_closed()


def audio_event(name):
    return {"type": "input_audio_buffer.append", name: base64.b64encode(SPEECH).decode()}


async def connect(service):
    match service:
        case OpenAISimulator() | QwenSimulator():
            model = "gpt-realtime-2.1" if isinstance(service, OpenAISimulator) else "qwen3.5-omni"
            socket = await websockets.connect(
                f"{service.ws_url}?model={model}",
                additional_headers={"Authorization": f"Bearer {service.key}"},
            )
            await socket.recv()
            return Socket(socket, [{"type": "response.create"}, audio_event("audio")])
        case GeminiSimulator():
            socket = await websockets.connect(f"{service.ws_url}?key={service.key}")
            await socket.send(json.dumps({"setup": {"model": "models/gemini-3.8-live"}}))
            await socket.recv()
            blob = {"mimeType": "audio/pcm", "data": base64.b64encode(SPEECH).decode()}
            return Socket(
                socket,
                [
                    {
                        "clientContent": {
                            "turns": [{"parts": [{"text": "x"}]}],
                            "turnComplete": True,
                        }
                    },
                    {"realtimeInput": {"audio": blob}},
                ],
            )
        case NovaSimulator():
            stream = Stream(*await asyncio.open_connection("127.0.0.1", service.port))
            await stream.begin()
            while not service.sessions or service.sessions[-1].closed:
                await asyncio.sleep(0.01)
            return stream
    raise TypeError(service)


def simulators(**options):
    return [
        OpenAISimulator(**options),
        GeminiSimulator(**options),
        QwenSimulator(**options),
        NovaSimulator(check_signatures=False, **options),
    ]


NAMES = ["openai", "gemini", "qwen", "nova"]


@asynccontextmanager
async def make_service(name):
    async with simulators(replies=REPLIES)[NAMES.index(name)] as service:
        yield service


@pytest.mark.parametrize("name", NAMES)
async def test_connection_can_be_cut_twice_and_while_it_ends(name):
    async with make_service(name) as service:
        assert not await service.kill()
        await service.drop_all()
        for turn in range(8):
            client = await connect(service)
            if turn % 3 == 0:
                asyncio.get_running_loop().create_task(client.close())
                await asyncio.sleep(0.0)
            for _ in range(3):
                await (service.kill() if turn % 2 else service.drop_all())
            await client.ended()
            await client.close()
        assert not await service.kill()
        assert not await service.kill(99)
        assert not await service.kill(-99)


@pytest.mark.parametrize("name", NAMES)
async def test_cut_session_is_marked_closed(name):
    async with make_service(name) as service:
        first = await connect(service)
        second = await connect(service)
        assert await service.kill(0)
        await first.ended()
        for _ in range(100):
            if service.sessions[0].closed:
                break
            await asyncio.sleep(0.01)
        assert service.sessions[0].closed
        assert not service.sessions[1].closed
        assert await service.kill()
        await second.close()
        await first.close()


def audio_of(session):
    """Return the bytes of audio and of long texts that are reachable from a session."""
    seen, waiting, held = set(), [session], 0
    while waiting:
        one = waiting.pop()
        skipped = (type, ModuleType, FunctionType, asyncio.AbstractEventLoop, asyncio.Task)
        if id(one) in seen or isinstance(one, skipped):
            continue
        seen.add(id(one))
        if isinstance(one, np.ndarray):
            held += one.nbytes
        elif isinstance(one, str | bytes | bytearray) and len(one) > 4000:
            held += len(one)
        waiting += gc.get_referents(one)
    return held


@pytest.mark.parametrize("name", NAMES[:3])
async def test_ended_session_keeps_no_audio(name):
    async with make_service(name) as service:
        client = await connect(service)
        await client.speak()
        session = service.sessions[0]
        assert audio_of(session) > len(SPEECH) // 2
        await client.close()
        while not session.closed or service._open:
            await asyncio.sleep(0.01)
        assert audio_of(session) < 10_000


@pytest.mark.parametrize("name", NAMES)
async def test_stopped_simulator_is_freed(name):
    service = simulators(replies=REPLIES)[NAMES.index(name)]
    async with service:
        for _ in range(3):
            client = await connect(service)
            await client.speak()
            await client.close()
        client = await connect(service)
    await client.close()
    gone = [weakref.ref(service), *map(weakref.ref, service.sessions)]
    del service, client
    await asyncio.sleep(0.05)
    gc.collect()
    assert [ref() for ref in gone] == [None] * len(gone)


async def test_only_the_newest_sessions_are_kept(monkeypatch):
    monkeypatch.setattr("duologue.simulators._service.MAX_KEPT_SESSIONS", 3)
    async with OpenAISimulator(replies=REPLIES) as service:
        for _ in range(5):
            client = await connect(service)
            await client.close()
        assert len(service.sessions) == 3
        assert service.sessions_dropped == 2


async def test_only_the_newest_client_events_are_kept(monkeypatch):
    monkeypatch.setattr("duologue.simulators._openai_protocol.event_log.MAX_EVENTS", 10)
    monkeypatch.setattr("duologue.simulators._openai_protocol.event_log.MAX_APPENDS", 4)
    monkeypatch.setattr("duologue.simulators._openai_protocol.event_session.MAX_IMAGE_BYTES", 2000)
    pixel = base64.b64encode(b"x" * 900).decode()
    part = {"type": "input_image", "image_url": f"data:image/png;base64,{pixel}"}
    item = {"type": "message", "role": "user", "content": [part]}
    silent = {"type": "input_audio_buffer.append", "audio": base64.b64encode(bytes(960)).decode()}
    async with OpenAISimulator(replies=REPLIES) as service:
        client = await connect(service)
        for _ in range(12):
            event = {"type": "conversation.item.create", "item": item}
            await client.socket.send(json.dumps(event))
            await client.socket.send(json.dumps(silent))
        await client.socket.send(json.dumps({"type": "x"}))
        while json.loads(await client.socket.recv())["type"] != "error":
            pass  # Wait until everything was received
        session = service.sessions[0]
        assert len(session.events_in) == 10
        assert session.events_in[-1] == {"type": "x"}
        assert len(session.events_out) == 10
        assert len(session.images) == 2
        # 17 events of the client, of which 7 were dropped, 8 appends, 26 events of the server, 10
        # images.
        assert session.dropped == 7 + 8 + 16 + 10
        await client.close()


def test_newest_entries_are_kept_by_count_and_by_size():
    few = _bounded_log.BoundedLog[str](3)
    for entry in "abcde":
        few.add(entry)
    assert (few.entries, few.dropped) == (["c", "d", "e"], 2)
    small = _bounded_log.BoundedLog[str](100, 10)
    for entry in ("abcd", "efgh", "ijkl", "a very long one"):
        small.add(entry, len(entry))
    assert (small.entries, small.dropped) == (["a very long one"], 3)


NESTED = '{"type": "x", "a": ' + "[" * 5000 + "]" * 5000 + "}"
LESS_NESTED = '{"type": "session.update", "session": ' + '{"a":' * 300 + "1" + "}" * 301


@pytest.mark.parametrize("text", [NESTED, LESS_NESTED])
@pytest.mark.parametrize("name", ["openai", "qwen"])
async def test_deep_messages_are_refused_in_one_line(name, text):
    async with make_service(name) as service:
        client = await connect(service)
        await client.socket.send(text)
        error = json.loads(await client.socket.recv())
        assert error["error"]["message"] == "The event is not a JSON object."
        await client.socket.send(json.dumps({"type": "input_audio_buffer.clear"}))
        assert json.loads(await client.socket.recv())["type"] == "input_audio_buffer.cleared"
        await client.close()


@pytest.mark.parametrize("text", [NESTED, LESS_NESTED])
async def test_deep_messages_end_a_gemini_session_in_one_line(text):
    async with make_service("gemini") as service:
        client = await connect(service)
        await client.socket.send(text)
        await client.ended()
        assert client.socket.close_code == 1007
        assert client.socket.close_reason == "Invalid JSON payload received. Unexpected token."


async def test_deep_schema_of_a_tool_is_refused():
    deep = {"type": "object"}
    for _ in range(150):
        deep = {"type": "object", "properties": {"a": deep}}
    tool = {"type": "function", "name": "x", "parameters": deep}
    async with make_service("openai") as service:
        client = await connect(service)
        change = {"type": "session.update", "session": {"type": "realtime", "tools": [tool]}}
        await client.socket.send(json.dumps(change))
        assert json.loads(await client.socket.recv())["type"] == "error"
        assert not service.sessions[0].closed
        await client.close()


async def test_conversation_refuses_items_beyond_its_characters(monkeypatch):
    monkeypatch.setattr("duologue.simulators._openai_protocol.conversation.MAX_CHARS", 1000)
    content = [{"type": "input_text", "text": "x" * 400}]
    create = {
        "type": "conversation.item.create",
        "item": {"type": "message", "role": "user", "content": content},
    }
    async with make_service("openai") as service:
        client = await connect(service)
        for _ in range(3):
            await client.socket.send(json.dumps(create))
        while True:
            event = json.loads(await client.socket.recv())
            if event["type"] == "error":
                break
        assert event["error"]["code"] == "conversation_full"
        first, _second = service.sessions[0].conversation
        delete = {"type": "conversation.item.delete", "item_id": first["id"]}
        await client.socket.send(json.dumps(delete))
        await client.socket.send(json.dumps(create))
        while json.loads(await client.socket.recv())["type"] != "conversation.item.done":
            pass  # There is room again
        assert len(service.sessions[0].conversation) == 2
        await client.close()


def test_oldest_contents_are_dropped_beyond_the_maximum(monkeypatch):
    monkeypatch.setattr("duologue.simulators.gemini._conversation.MAX_TOKENS", 25)
    conversation = Conversation()
    for text in ("first", "second", "third"):
        conversation.add("user", [{"text": text}], Cost(text=10))
    words = [one["parts"][0]["text"] for one in conversation.contents]
    assert words == ["second", "third"]
    conversation.add("user", [{"text": "long"}], Cost(text=1000))
    assert [one["parts"][0]["text"] for one in conversation.contents] == ["long"]
