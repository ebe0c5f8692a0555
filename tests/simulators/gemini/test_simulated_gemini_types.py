"""Which of the SDK's fields the simulated Gemini service sends, and which it never sends."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("aiohttp", reason="the simulate extra is not installed")
pytest.importorskip("google.genai", reason="google-genai is not installed")

from gemini_client import MODEL, started
from gemini_sdk_scenarios import certify, fields_of
from google.genai import types

from duologue.testing import GeminiSimulator, Reply, ToolUse, virtual_time

NEVER = {
    "serverContent.groundingMetadata",
    "serverContent.interimInputTranscription",
    "serverContent.urlContextMetadata",
    "serverContent.waitingForInput",
    "setupComplete.voiceConsentSignature",
    "transcription.endOffset",
    "transcription.finished",
    "transcription.languageCode",
    "transcription.speakerLabel",
    "transcription.startOffset",
    "transcription.words",
    "usageMetadata.cacheTokensDetails",
    "usageMetadata.cachedContentTokenCount",
    "usageMetadata.serviceTier",
    "usageMetadata.thoughtsTokenCount",
    "usageMetadata.toolUsePromptTokenCount",
    "usageMetadata.toolUsePromptTokensDetails",
    "usageMetadata.trafficType",
    "voiceActivityDetectionSignal",
}
"""Fields of search, deprecated names, billing, and all of transcriptions but their text."""


def short(name: str) -> str:
    return re.sub(r"^serverContent\.(?:input|output)Transcription\.", "transcription.", name)


def known() -> set[str]:
    names = {short(name) for name in fields_of(types.LiveServerMessage)}
    return {name for name in names if not any(name.startswith(f"{one}.") for one in NEVER)}


@virtual_time
async def test_every_other_field_of_the_sdk_is_sent():
    # The client checks each message that it receives against the SDK's type.
    replies = [
        Reply("Yes.", 3.0),
        Reply("", 0.0, tools=[ToolUse("f", {"x": 1})]),
        Reply("", fails="it broke"),
    ]
    silent = {"automaticActivityDetection": {"silenceDurationMs": 200}}
    async with (
        GeminiSimulator(replies=replies, transcripts=["Hello."]) as sim,
        started(
            sim,
            MODEL,
            realtimeInputConfig=silent,
            inputAudioTranscription={},
            outputAudioTranscription={},
            explicitVadSignal=True,
            sessionResumption={"transparent": True},
            tools=[{"functionDeclarations": [{"name": "f", "behavior": "BLOCKING"}]}],
        ) as client,
    ):
        await client.send_turn()
        await client.until("serverContent.generationComplete")
        await client.send({"realtimeInput": {"text": "Wait."}})
        await client.until("toolCall")
        await client.send({"realtimeInput": {"text": "Stop."}})
        await client.until("toolCallCancellation")
        await client.until("serverContent.turnCompleteReason")
        sim.go_away(time_left=1.0)
        await client.until("goAway")
        assert {short(name) for name in client.fields if name.count(".") < 3} >= known() - NEVER
        assert not {short(name) for name in client.fields} & NEVER


def test_documentation_lists_the_fields_that_are_never_sent():
    page = Path(__file__).parents[3] / "docs" / "simulators" / "gemini.md"
    section = page.read_text("utf-8").partition("## What it never does")[2].partition("\n## ")[0]
    every = {short(name) for name in fields_of(types.LiveServerMessage)}
    listed = {name for name in re.findall(r"`([\w.]+)`", section) if name in every}
    assert listed == NEVER
    assert every >= NEVER


@pytest.mark.parametrize(
    "message",
    [
        {"brandNew": {}},
        {"serverContent": {"turnComplete": True, "newer": 1}},
        {"serverContent": {"modelTurn": {"parts": [{"sound": "x"}]}}},
        {"serverContent": {"turnCompleteReason": "BORED"}},
        {"serverContent": {"turnComplete": "perhaps"}},
        {"goAway": {"timeLeft": 10}},
        {"toolCall": {"functionCalls": ["f"]}},
    ],
)
def test_wrong_message_is_detected(message):
    with pytest.raises((ValueError, AssertionError, UserWarning)):
        certify(message)
