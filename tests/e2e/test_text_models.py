"""Whole conversations whose text model is a vendor's SDK, in virtual time."""

from __future__ import annotations

import asyncio
import json

import pytest

pytest.importorskip("anthropic", reason="needs duologue[anthropic]")
pytest.importorskip("google.genai", reason="needs duologue[gemini-text]")

from fake_components import STT, TTS, Turn

from duologue import Agent
from duologue.events import Event, ToolEndEvent, UsageEvent
from duologue.items import AgentItem, ToolCallItem, ToolResultItem, UserItem
from duologue.json_types import JsonObject
from duologue.pipeline.interfaces import LLM
from duologue.providers import anthropic, gemini
from duologue.testing import virtual_time
from duologue.vad.energy import EnergyVAD
from fake_edge import FakeEdge
from llm_server import Request, serving

SAID = "It is 25 degrees in Rome."


async def converse(llm: LLM) -> None:
    """Let a person ask for the weather, and check that the answer is spoken."""
    edge = FakeEdge()
    agent = Agent(
        edge=edge,
        llm=llm,
        stt=STT(transcribe=lambda loud: "What is the weather in Rome?"),
        tts=TTS(),
        vad=EnergyVAD(),
        turn_detection=Turn(),
        instructions="Be brief.",
    )
    asked: list[str] = []
    events: list[Event] = []
    agent.events.tap(events.append)

    @agent.tool
    async def weather(city: str) -> str:
        """Return the weather of a city."""
        asked.append(city)
        await asyncio.sleep(0.3)
        return "25 degrees"

    async with agent.join():
        await edge.speak(0.5)
        await edge.be_silent(6.0)
    assert asked == ["Rome"]
    kinds = [type(item) for item in agent.conversation]
    assert kinds == [UserItem, ToolCallItem, ToolResultItem, AgentItem]
    last = list(agent.conversation)[-1]
    assert isinstance(last, AgentItem)
    assert (last.text, last.state) == (SAID, "heard")
    assert len([event for event in events if isinstance(event, ToolEndEvent)]) == 1
    used = [event for event in events if isinstance(event, UsageEvent)]
    assert used
    assert {(event.total_input, event.input["cached"]) for event in used} == {(40, 30)}


@virtual_time
async def test_claude_answers_by_voice_with_a_tool() -> None:
    def wire(*events: JsonObject) -> bytes:
        return b"".join(
            f"event: {one['type']}\ndata: {json.dumps(one)}\n\n".encode() for one in events
        )

    start: JsonObject = {
        "type": "message_start",
        "message": {"usage": {"input_tokens": 10, "cache_read_input_tokens": 30}},
    }

    async def answer(request: Request) -> None:
        messages = request.body["messages"]
        assert isinstance(messages, list)
        block: JsonObject = {"type": "text", "text": ""}
        deltas: list[JsonObject] = [
            {"type": "text_delta", "text": f"{word} "} for word in SAID.split()
        ]
        stop = "end_turn"
        if len(messages) == 1:
            block = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {}}
            deltas = [{"type": "input_json_delta", "partial_json": '{"city": "Rome"}'}]
            stop = "tool_use"
        await request.write(
            wire(
                start,
                {"type": "content_block_start", "index": 0, "content_block": block},
                *({"type": "content_block_delta", "index": 0, "delta": one} for one in deltas),
                {"type": "content_block_stop", "index": 0},
                {
                    "type": "message_delta",
                    "delta": {"stop_reason": stop},
                    "usage": {"output_tokens": 9},
                },
                {"type": "message_stop"},
            )
        )
        await request.end()

    async with serving(answer) as (url, requests):
        llm = anthropic.LLM("claude-haiku-4-5", base_url=url, api_key="secret")
        await converse(llm)
        await llm.close()
    assert len(requests) == 2
    assert requests[1].at("messages", 2, "content", 0, "content") == "25 degrees"


@virtual_time
async def test_gemini_answers_by_voice_with_a_tool() -> None:
    usage: JsonObject = {
        "promptTokenCount": 40,
        "cachedContentTokenCount": 30,
        "candidatesTokenCount": 9,
    }

    async def answer(request: Request) -> None:
        contents = request.body["contents"]
        assert isinstance(contents, list)
        parts: list[JsonObject] = [{"text": f"{word} "} for word in SAID.split()]
        if len(contents) == 1:
            parts = [{"functionCall": {"id": "c1", "name": "weather", "args": {"city": "Rome"}}}]
        for at, part in enumerate(parts):
            candidate: JsonObject = {"content": {"role": "model", "parts": [part]}}
            if at == len(parts) - 1:
                candidate["finishReason"] = "STOP"
            chunk: JsonObject = {"candidates": [candidate], "usageMetadata": usage}
            await request.write(f"data: {json.dumps(chunk)}\r\n\r\n".encode())
        await request.end()

    async with serving(answer) as (url, requests):
        llm = gemini.LLM("gemini-3.5-flash", base_url=url, api_key="secret")
        await converse(llm)
        await llm.close()
    assert len(requests) == 2
    response = requests[1].at("contents", 2, "parts", 0, "functionResponse", "response")
    assert response == {"output": "25 degrees"}
