"""Turns over a WebSocket, with the official SDK as the client, in virtual time."""

from __future__ import annotations

import pytest

pytest.importorskip("aiohttp", reason="the simulate extra is not installed")
pytest.importorskip("openai", reason="the openai extra is not installed")

from openai_client import QUICK, connected

from duologue.testing import OpenAISimulator, Reply, virtual_time


@virtual_time
async def test_a_turn_comes_in_the_order_of_the_protocol():
    async with (
        OpenAISimulator(
            replies=[Reply("It is sunny.", seconds=0.2)], transcripts=["How is it?"]
        ) as sim,
        connected(
            sim, turn_detection=QUICK, transcription={"model": "gpt-4o-transcribe"}
        ) as client,
    ):
        await client.talk()
        await client.until("response.done")
        print(client.types)
