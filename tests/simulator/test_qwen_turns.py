"""Turns of the simulated Qwen service, in virtual time."""

from __future__ import annotations

import pytest

pytest.importorskip("aiohttp", reason="the simulate extra is not installed")

from qwen_client import QUICK, connected

from duologue.testing import QwenSimulator, Reply, virtual_time


def answering(*replies, **options):
    return QwenSimulator(replies=replies or [Reply("Yes.", seconds=0.2)] * 3, **options)


@virtual_time
async def test_a_turn_comes_in_the_order_of_the_protocol():
    simulator = answering(Reply("It is sunny.", seconds=0.1), transcripts=["How is it?"])
    async with simulator as sim, connected(sim, turn_detection=QUICK) as client:
        await client.talk()
        done = await client.until("response.done")
        assert client.types == [
            "session.created",
            "session.updated",
            "input_audio_buffer.speech_started",
            "input_audio_buffer.speech_stopped",
            "input_audio_buffer.committed",
            "conversation.item.created",
            *["conversation.item.input_audio_transcription.delta"] * 3,
            "conversation.item.input_audio_transcription.completed",
            "response.created",
            "response.output_item.added",
            "conversation.item.created",
            "response.content_part.added",
            *["response.audio_transcript.delta"] * 3,
            "response.audio.delta",
            "response.audio_transcript.done",
            "response.audio.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.done",
        ]
        assert done["response"]["status"] == "completed"
