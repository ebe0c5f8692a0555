"""A service that does not resume a session that another connection still holds."""

import asyncio
import re
from collections import deque
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from duologue.testing import SCRIPTED_CAPABILITIES

pytest.importorskip("aiohttp", reason="the simulate extra is not installed")
pytest.importorskip("websockets", reason="the gemini extra is not installed")

from duologue.audio import AudioFrame
from duologue.events import RealtimeReconnectedEvent
from duologue.providers.gemini import Realtime
from duologue.testing import GeminiSimulator, Reply, ScriptedRealtime, run_virtual
from duologue.vad.energy import EnergyVAD
from fake_edge import events_of, join_agent


class Scripted(ScriptedRealtime):
    def __init__(self, script):
        super().__init__(
            manual=True,
            capabilities=replace(
                SCRIPTED_CAPABILITIES, manual_turns=True, user_transcripts="final"
            ),
        )
        self.replies = script


def test_the_session_is_resumed_once_the_old_connection_is_closed():
    async def main():
        script = deque([Reply("One."), Reply("Two.")])  # Shared by all connections.
        backend = partial(Scripted, script)
        async with GeminiSimulator(backend, resumes_open=False, keep_audio=True) as server:
            model = Realtime(base_url=server.url, api_key=server.key, vad=EnergyVAD())
            async with join_agent(model) as agent:
                await agent.simple_response("first")
                await asyncio.sleep(2)
                server.go_away(time_left=10.0)
                for _ in range(100):
                    await asyncio.sleep(0.02)
                    agent.llm.send_audio(AudioFrame(np.zeros(320, np.int16), 16000))
                await asyncio.sleep(0.1)
                (event,) = events_of(agent, RealtimeReconnectedEvent)
                assert (event.outcome, event.lost_ms) == ("restored", 0)
                assert server.sessions[-1].resumed
                assert sum(session.audio_in_samples for session in server.sessions) >= 32000
                assert (await agent.simple_response("second")).heard_text == "Two."
                texts = [
                    re.sub(r"\s+", " ", part.get("text", ""))
                    for content in server.sessions[-1].conversation
                    for part in content["parts"]
                ]
                assert [text for text in texts if text] == ["first", "One.", "second", "Two."]

    run_virtual(main(), grace=0.0)
