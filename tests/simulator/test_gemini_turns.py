"""Turns of the simulated Gemini service, with the official SDK as the client, in virtual time."""

from __future__ import annotations

import pytest

pytest.importorskip("aiohttp", reason="the simulate extra is not installed")
pytest.importorskip("google.genai", reason="google-genai is not installed")

from gemini_client import connected

from duologue.testing import GeminiSimulator, Reply, virtual_time


def answering(*replies, **options):
    options.setdefault("tls", True)
    return GeminiSimulator(replies=replies or [Reply("Yes.", seconds=0.2)] * 3, **options)


@virtual_time
async def test_a_turn_comes_in_the_order_of_the_protocol():
    simulator = answering(Reply("It is sunny today.", seconds=0.3), transcripts=["How is it?"])
    async with simulator as sim, connected(sim) as client:
        await client.talk()
        message = await client.until("serverContent.turnComplete")
        assert client.kinds == [
            "serverContent.inputTranscription",
            *["serverContent.outputTranscription"] * 4,
            *["serverContent.modelTurn"] * 3,
            "serverContent.generationComplete",
            "serverContent.turnComplete",
            "serverContent.interactionStatus",
            "usageMetadata",
        ]
        assert client.heard == "How is it?"
        assert client.said == "It is sunny today."
        assert len(client.sound) == round(0.3 * 24000)
        assert message.usage_metadata.response_token_count == 8
        assert sim.sessions[0].conversation == [
            {"role": "user", "parts": [{"text": "How is it?"}]},
            {"role": "model", "parts": [{"text": "It is sunny today."}]},
        ]
