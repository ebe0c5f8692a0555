"""Shapes and order of the simulator's events, as recorded from the real service.

The expectations stand here in our own words: the types of the events, one for several in a row, and
the fields of each. Where the recordings are available, the real service is compared with the same
expectations.
"""

from __future__ import annotations

import asyncio
import json
from itertools import groupby
from pathlib import Path

import pytest

pytest.importorskip("aiohttp", reason="the simulate extra is not installed")
pytest.importorskip("openai", reason="the openai extra is not installed")

import websockets
from openai_client import encode, silence, tone

from duologue.testing import OpenAISimulator, Reply, ToolUse, virtual_time

RECORDINGS = Path(__file__).parents[4] / "shared" / "recordings"

PLACE = "item_id output_index content_index response_id"
SHOWN = (
    "object id status status_details output conversation_id output_modalities max_output_tokens "
    "audio usage metadata"
)
USAGE = "total_tokens input_tokens output_tokens input_token_details output_token_details"
MESSAGE = "id type status role content"
CALL = "id type status name call_id arguments"
FIELDS = {
    "session.created": "session",
    "session.updated": "session",
    "input_audio_buffer.speech_started": "audio_start_ms item_id",
    "input_audio_buffer.speech_stopped": "audio_end_ms item_id",
    "input_audio_buffer.committed": "previous_item_id item_id",
    "conversation.item.added": "previous_item_id item",
    "conversation.item.done": "previous_item_id item",
    "conversation.item.input_audio_transcription.delta": "item_id content_index delta obfuscation",
    "conversation.item.input_audio_transcription.completed": (
        "item_id content_index transcript usage"
    ),
    "response.created": "response",
    "response.output_item.added": "response_id output_index item",
    "response.content_part.added": f"{PLACE} part",
    "response.output_text.delta": f"{PLACE} delta obfuscation",
    "response.output_text.done": f"{PLACE} text",
    "response.output_audio_transcript.delta": f"{PLACE} delta obfuscation",
    "response.output_audio_transcript.done": f"{PLACE} transcript",
    "response.output_audio.delta": f"{PLACE} delta",
    "response.output_audio.done": PLACE,
    "response.function_call_arguments.delta": (
        "response_id item_id output_index call_id delta obfuscation"
    ),
    "response.function_call_arguments.done": (
        "response_id item_id output_index call_id name arguments"
    ),
    "response.content_part.done": f"{PLACE} part",
    "response.output_item.done": "response_id output_index item",
    "response.done": "response",
    "rate_limits.updated": "rate_limits",
}
"""The fields of each event besides ``type`` and ``event_id``."""

SESSION_START = ["session.created", "session.updated"]
TEXT_ITEM = ["conversation.item.added", "conversation.item.done"]
USER_TURN = [
    "input_audio_buffer.speech_started",
    "input_audio_buffer.speech_stopped",
    "input_audio_buffer.committed",
    "conversation.item.added",
    "conversation.item.done",
]
OPENED = [
    "response.created",
    "response.output_item.added",
    "conversation.item.added",
]
ENDED = ["conversation.item.done", "response.output_item.done", "response.done"]
AUDIO_REPLY = [
    *OPENED,
    "response.content_part.added",
    "response.output_audio_transcript.delta",
    "response.output_audio.delta",
    "response.output_audio.done",
    "response.output_audio_transcript.done",
    "response.content_part.done",
    *ENDED,
]
TEXT_REPLY = [
    *OPENED,
    "response.content_part.added",
    "response.output_text.delta",
    "response.output_text.done",
    "response.content_part.done",
    *ENDED,
]
TOOL_CALL = [
    *OPENED,
    "response.function_call_arguments.delta",
    "response.function_call_arguments.done",
    *ENDED,
]
LIMITS = "rate_limits.updated"
"""It follows ``response.done``, if the client is still connected."""


def check_fields(event):
    """Assert that the event has exactly the fields that the service sends."""
    wanted = {*FIELDS[event["type"]].split(), "type", "event_id"}
    assert set(event) == wanted, event["type"]
    if "item" in event:
        check_item(event["item"])
    if "response" in event:
        response = event["response"]
        assert set(response) == set(SHOWN.split())
        for item in response["output"]:
            check_item(item)
        if response["usage"] is not None:
            assert set(response["usage"]) == set(USAGE.split())
    if event["type"] == LIMITS:
        assert [set(one) for one in event["rate_limits"]] == [
            {"name", "limit", "remaining", "reset_seconds"}
        ]
        assert event["rate_limits"][0]["name"] == "tokens"
    if "obfuscation" in event:
        # The two together are as long as any other two.
        assert (len(event["delta"]) + len(event["obfuscation"])) % 16 == 0


def check_item(item):
    match item["type"]:
        case "message":
            assert set(item) == set(MESSAGE.split())
        case "function_call":
            assert set(item) == set(CALL.split())
        case "function_call_output":
            assert set(item) == {"id", "type", "call_id", "output"}


def steps(events, *, without=()):
    """Return the types in order, one for several of the same in a row.

    Transcript and audio of a reply may alternate in any way: only the first of each counts, and the
    transcript stands first.
    """
    seen, found = set(), []
    for event in events:
        kind = event["type"]
        if kind in without or kind == LIMITS:
            continue
        if kind == "response.created":
            seen.clear()
        if kind.startswith("response.output_audio") and kind.endswith(".delta"):
            if kind in seen:
                continue
            seen.add(kind)
        found.append(kind)
    return [kind for kind, _ in groupby(found)]


def service_events(name):
    """Return the service's events of a recording."""
    file = RECORDINGS / f"openai.{name}.jsonl"
    if not file.is_file():
        pytest.skip("the recordings of the real services are not here")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    return [line["s"] for line in lines if "s" in line]


def client_events(name):
    """Return the client's events of a recording, without their audio."""
    file = RECORDINGS / f"openai.{name}.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    events = [line["c"] for line in lines if "c" in line]
    return [event for event in events if event["type"] != "input_audio_buffer.append"]


class Client:
    def __init__(self, socket):
        self.socket = socket
        self.events = []

    async def send(self, kind, **fields):
        await self.socket.send(json.dumps({"type": kind, **fields}))

    async def until(self, kind):
        while True:
            event = json.loads(await self.socket.recv())
            self.events.append(event)
            if event["type"] == kind:
                return event


async def open_session(sim, model="gpt-realtime"):
    headers = {"Authorization": f"Bearer {sim.key}"}
    client = Client(
        await websockets.connect(f"{sim.ws_url}?model={model}", additional_headers=headers)
    )
    await client.until("session.created")
    return client


def update(modality="audio", **more):
    """Return the session update that the recorded client sent."""
    pcm = {"type": "audio/pcm", "rate": 24000}
    detection = {"type": "server_vad", "create_response": True, "interrupt_response": True}
    audio_input = {
        "format": pcm,
        "turn_detection": detection,
        "transcription": {"model": "gpt-realtime-whisper"},
    }
    return {
        "type": "realtime",
        "instructions": "Be short.",
        "output_modalities": [modality],
        "audio": {"input": audio_input, "output": {"format": pcm}},
        **more,
    }


def text_message(text):
    content = [{"type": "input_text", "text": text}]
    return {"type": "message", "role": "user", "content": content}


def expected_steps(name):
    return {
        "text_in_audio_out_turn": [*SESSION_START, *TEXT_ITEM, *AUDIO_REPLY],
        "message_history_seeding": [*SESSION_START, *TEXT_ITEM * 3, *TEXT_REPLY],
        "tool_call_round": [*SESSION_START, *TEXT_ITEM, *TOOL_CALL, *TEXT_ITEM, *TEXT_REPLY],
        "audio_in_server_vad_turn": [*SESSION_START, *USER_TURN, *AUDIO_REPLY],
        "input_audio_retention_segments_three_server_vad_turns": [
            *SESSION_START,
            *(USER_TURN + AUDIO_REPLY) * 3,
        ],
    }[name]


TRANSCRIPTION = [
    f"conversation.item.input_audio_transcription.{name}" for name in ("delta", "completed")
]
"""Events without a fixed place, which are checked separately."""

NAMES = [
    "text_in_audio_out_turn",
    "message_history_seeding",
    "tool_call_round",
    "audio_in_server_vad_turn",
    "input_audio_retention_segments_three_server_vad_turns",
]


@pytest.mark.parametrize("name", NAMES)
def test_recording_of_the_service_meets_the_expectations(name):
    events = service_events(name)
    for event in events:
        check_fields(event)
    assert steps(events, without=TRANSCRIPTION) == expected_steps(name)
    done = [n for n, event in enumerate(events) if event["type"] == "response.done"]
    limits = [n for n, event in enumerate(events) if event["type"] == LIMITS]
    assert all(n - 1 in done for n in limits)


@virtual_time
async def test_text_turn_is_answered_as_recorded():
    async with OpenAISimulator(replies=[Reply("Hi there!", 0.4)]) as sim:
        client = await open_session(sim)
        await client.send("session.update", session=update())
        await client.send("conversation.item.create", item=text_message("Say a greeting."))
        await client.send("response.create")
        await client.until(LIMITS)
        for event in client.events:
            check_fields(event)
        assert client.events[-2]["type"] == "response.done"
        assert steps(client.events) == expected_steps("text_in_audio_out_turn")
        await client.socket.close()


@virtual_time
async def test_tool_call_and_its_result_come_as_recorded():
    replies = [Reply(tools=(ToolUse("weather", {"city": "London"}),)), Reply("Foggy.")]
    tool = {"type": "function", "name": "weather", "parameters": {"type": "object"}}
    async with OpenAISimulator(replies=replies) as sim:
        client = await open_session(sim)
        await client.send("session.update", session=update("text", tools=[tool]))
        await client.send("conversation.item.create", item=text_message("The weather?"))
        await client.send("response.create")
        done = await client.until("response.done")
        (call,) = done["response"]["output"]
        assert len(call["call_id"]) <= 32
        output = {"type": "function_call_output", "call_id": call["call_id"], "output": "foggy"}
        await client.send("conversation.item.create", item=output)
        await client.send("response.create")
        await client.until("response.done")
        for event in client.events:
            check_fields(event)
        assert steps(client.events) == expected_steps("tool_call_round")
        await client.socket.close()


@virtual_time
async def test_second_item_of_a_conversation_is_done_without_a_previous_item():
    async with OpenAISimulator(replies=["One.", "Two."]) as sim:
        client = await open_session(sim)
        for _ in range(2):
            await client.send("conversation.item.create", item=text_message("Go on."))
            await client.send("response.create")
            await client.until("response.done")
        placed = [
            (event["type"].rpartition(".")[2], event["item"]["role"], event["previous_item_id"])
            for event in client.events
            if event["type"].startswith("conversation.item.")
        ]
        first, second, third, _ = [item["id"] for item in sim.sessions[0].conversation]
        assert placed == [
            ("added", "user", None),
            ("done", "user", None),
            ("added", "assistant", first),
            ("done", "assistant", None),
            ("added", "user", second),
            ("done", "user", second),
            ("added", "assistant", third),
            ("done", "assistant", third),
        ]
        await client.socket.close()


@virtual_time
async def test_whisper_model_transcribes_while_the_user_speaks():
    said = "Hello, my name is Marcelo."
    async with OpenAISimulator(replies=[Reply("Hi.", 0.2)], transcripts=[said]) as sim:
        client = await open_session(sim)
        await client.send("session.update", session=update())
        await client.until("session.updated")
        for _ in range(30):
            await client.send("input_audio_buffer.append", audio=encode(tone(0.05)))
            await asyncio.sleep(0.05)
        await client.send("input_audio_buffer.append", audio=encode(silence(0.5)))
        await client.until("response.done")
        for event in client.events:
            check_fields(event)
        assert steps(client.events, without=TRANSCRIPTION) == [
            *SESSION_START,
            *USER_TURN,
            *AUDIO_REPLY,
        ]
        delta, completed = TRANSCRIPTION
        kinds = [event["type"] for event in client.events]
        stopped = kinds.index("input_audio_buffer.speech_stopped")
        deltas = [n for n, kind in enumerate(kinds) if kind == delta]
        assert sum(n < stopped for n in deltas) >= 4
        assert deltas[-1] < kinds.index(completed)
        words = [client.events[n]["delta"] for n in deltas]
        assert words == ["Hello", ",", " my", " name", " is", " Marcelo", "."]
        whole = client.events[kinds.index(completed)]
        assert whole["transcript"] == said
        assert whole["usage"] == {"type": "duration", "seconds": 2}
        assert whole["item_id"] == client.events[deltas[0]]["item_id"]
        await client.socket.close()


@virtual_time
async def test_session_defaults_are_those_of_its_model():
    async with OpenAISimulator() as sim:
        found = {}
        for model in ("gpt-realtime", "gpt-realtime-mini-2025-12-15", "gpt-realtime-2.1"):
            client = await open_session(sim, model)
            await client.send("session.update", session=update())
            await client.until("session.updated")
            for event in client.events:
                audio = event["session"]["audio"]
                silence_ms = audio["input"]["turn_detection"]["silence_duration_ms"]
                found.setdefault(model, []).append((silence_ms, audio["output"]["voice"]))
            transcription = client.events[-1]["session"]["audio"]["input"]["transcription"]
            assert transcription == {
                "model": "gpt-realtime-whisper",
                "language": None,
                "prompt": None,
            }
            await client.socket.close()
        assert found == {
            "gpt-realtime": [(200, "alloy")] * 2,
            "gpt-realtime-mini-2025-12-15": [(200, "alloy")] * 2,
            "gpt-realtime-2.1": [(500, "marin")] * 2,
        }


@virtual_time
async def test_reasoning_model_reports_phases_and_reasoning_tokens():
    replies = [
        Reply("Let me look.", 0.2, tools=(ToolUse("weather", {}), ToolUse("time", {}))),
        Reply("It is foggy.", 0.2),
    ]
    async with OpenAISimulator(replies=replies) as sim:
        client = await open_session(sim, "gpt-realtime-2.1")
        await client.send("session.update", session=update(reasoning={"effort": "medium"}))
        await client.send("response.create")
        first = (await client.until("response.done"))["response"]
        # A commentary and the tool calls are one response.
        kinds = [(item["type"], item.get("phase")) for item in first["output"]]
        assert kinds == [
            ("message", "commentary"),
            ("function_call", None),
            ("function_call", None),
        ]
        await client.send("response.create")
        second = (await client.until("response.done"))["response"]
        assert [item["phase"] for item in second["output"]] == ["final_answer"]
        opened = [e["item"] for e in client.events if e["type"] == "response.output_item.added"]
        assert [item.get("phase") for item in opened] == [
            "commentary",
            None,
            None,
            "final_answer",
        ]
        spent = second["usage"]["output_token_details"]
        assert spent["reasoning_tokens"] == 32
        assert spent["text_tokens"] == 32 + 3
        total = second["usage"]["output_tokens"]
        assert total == spent["text_tokens"] + spent["audio_tokens"]
        await client.socket.close()


@pytest.mark.parametrize("name", NAMES[:3])
def test_simulator_accepts_what_the_recorded_client_sent(name):
    service_events(name)

    @virtual_time
    async def talk():
        replies = [Reply("Yes.", 0.2)] * 3
        async with OpenAISimulator(replies=replies) as sim:
            client = await open_session(sim)
            for event in client_events(name):
                if event.get("item", {}).get("type") == "function_call_output":
                    continue  # Its tool call has an id that only the real service knows.
                await client.socket.send(json.dumps(event))
                if event["type"] == "response.create":
                    await client.until("response.done")
            await client.socket.close()
            return [event["type"] for event in client.events]

    assert "error" not in talk()


NULLS = [
    ("response.create", {"response": {"instructions": None}}),
    ("response.create", {"response": {"instructions": None, "metadata": {"id": "x"}}}),
    ("response.create", {"event_id": None, "response": None}),
    (
        "response.create",
        {
            "response": dict.fromkeys(
                (
                    "audio",
                    "conversation",
                    "input",
                    "instructions",
                    "max_output_tokens",
                    "metadata",
                    "output_modalities",
                    "parallel_tool_calls",
                    "prompt",
                    "reasoning",
                    "tool_choice",
                    "tools",
                )
            )
        },
    ),
    ("response.create", {"response": {"audio": {"output": {"format": None, "voice": None}}}}),
]


@pytest.mark.parametrize(("kind", "fields"), NULLS)
def test_null_means_the_same_as_no_field_in_a_request(kind, fields):
    @virtual_time
    async def talk():
        async with OpenAISimulator(replies=[Reply("Yes.", 0.2)]) as sim:
            client = await open_session(sim)
            await client.send(kind, **fields)
            done = await client.until("response.done")
            await client.socket.close()
            return done["response"]["output"][0]["content"][0]["transcript"]

    assert talk() == "Yes."


@virtual_time
async def test_null_means_the_same_as_no_field_in_a_session_and_in_items():
    async with OpenAISimulator(replies=[Reply("Yes.", 0.2)] * 2) as sim:
        client = await open_session(sim)
        await client.send("session.update", session=update())
        before = (await client.until("session.updated"))["session"]
        nothing = dict.fromkeys(
            (
                "instructions",
                "max_output_tokens",
                "model",
                "output_modalities",
                "tool_choice",
                "tools",
                "truncation",
            )
        )
        audio_input = {"format": None}
        spoken = dict.fromkeys(("format", "voice", "speed"))
        await client.send(
            "session.update",
            event_id=None,
            session={
                "type": "realtime",
                **nothing,
                "audio": {"input": audio_input, "output": spoken},
            },
        )
        assert (await client.until("session.updated"))["session"] == before
        await client.send("session.update", session={"type": "realtime", "audio": None})
        assert (await client.until("session.updated"))["session"] == before
        # Here null has a meaning: no turn detection, and no transcription.
        off = {"turn_detection": None, "transcription": None}
        await client.send("session.update", session={"type": "realtime", "audio": {"input": off}})
        after = (await client.until("session.updated"))["session"]["audio"]["input"]
        assert (after["turn_detection"], after["transcription"]) == (None, None)
        item = {**text_message("Hello."), "id": None, "object": None, "status": None}
        await client.send(
            "conversation.item.create", item=item, previous_item_id=None, event_id=None
        )
        added = (await client.until("conversation.item.done"))["item"]
        assert (added["status"], added["id"][:5]) == ("completed", "item_")
        call = {"type": "function_call", "call_id": None, "name": "x", "arguments": "{}"}
        await client.send("conversation.item.create", item=call)
        assert (await client.until("conversation.item.done"))["item"]["call_id"]
        await client.socket.close()
