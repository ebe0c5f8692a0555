"""Which of the protocol's server events the simulator sends, and which it never sends."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("aiohttp", reason="the simulate extra is not installed")
pytest.importorskip("openai", reason="the openai extra is not installed")

from openai_client import QUICK, open_session, tone
from sdk_types import TYPES, check_against_sdk

from duologue.testing import OpenAISimulator, Reply, ToolUse, virtual_time

NEVER = {
    "conversation.created",
    "conversation.item.created",
    "conversation.item.input_audio_transcription.failed",
    "conversation.item.input_audio_transcription.segment",
    "input_audio_buffer.dtmf_event_received",
    "mcp_list_tools.completed",
    "mcp_list_tools.failed",
    "mcp_list_tools.in_progress",
    "response.mcp_call.completed",
    "response.mcp_call.failed",
    "response.mcp_call.in_progress",
    "response.mcp_call_arguments.delta",
    "response.mcp_call_arguments.done",
}
"""Old names, DTMF, speaker labels and MCP. Transcription never fails here."""

OVER_WEBRTC = {
    "output_audio_buffer.cleared",
    "output_audio_buffer.started",
    "output_audio_buffer.stopped",
}
"""Received, and checked against the SDK's types, in test_openai_rtc.py."""


@virtual_time
async def test_every_other_event_of_the_sdk_is_sent():
    # The client checks each event against the SDK's type of it.
    replies = [
        Reply("Yes.", 0.2),
        Reply("A call.", 0.2, tools=[ToolUse("f", {"x": 1})]),
        Reply("Still there?", 0.1),
        Reply("Text."),
    ]
    detection = {**QUICK, "idle_timeout_ms": 5000}
    async with (
        OpenAISimulator(replies=replies) as sim,
        open_session(sim, turn_detection=detection, transcription={"model": "x"}) as client,
    ):
        await client.send_turn()
        item_id = (await client.until("response.done")).response.output[0].id
        await client.send(
            "conversation.item.truncate", item_id=item_id, content_index=0, audio_end_ms=50
        )
        await client.send("conversation.item.retrieve", item_id=item_id)
        await client.send("conversation.item.delete", item_id=item_id)
        await client.send("response.create")
        await client.until("response.done")
        await client.until("input_audio_buffer.timeout_triggered")
        await client.until("response.done")
        await client.send("response.create", response={"output_modalities": ["text"]})
        await client.until("response.done")
        await client.append(tone(0.1))
        await client.send("input_audio_buffer.clear")
        await client.send("response.cancel", response_id="nobody")
        await client.until("error")
        assert {*client.types} == {*TYPES} - NEVER - OVER_WEBRTC


def test_documentation_lists_the_events_that_are_never_sent():
    page = Path(__file__).parents[3] / "docs" / "simulator.md"
    section = page.read_text("utf-8").partition("## What it never does")[2].partition("\n## ")[0]
    told = {name for name in re.findall(r"`([\w.]+)`", section) if name in TYPES}
    assert told == NEVER


@pytest.mark.parametrize(
    "event",
    [
        {"type": "response.output_audio.delta", "event_id": "e", "delta": ""},
        {
            "type": "conversation.item.deleted",
            "event_id": "e",
            "item_id": "i",
            "reason": "unknown to the SDK",
        },
    ],
)
def test_wrong_event_would_be_noticed(event):
    with pytest.raises((ValueError, AssertionError)):
        check_against_sdk(event)
