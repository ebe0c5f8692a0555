"""The backends of the simulated Gemini service: echo, loopback, a script, the built-in engine."""

from __future__ import annotations

import asyncio
import wave
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("aiohttp", reason="the simulate extra is not installed")
pytest.importorskip("google.genai", reason="google-genai is not installed")

from gemini_client import RATE, connected, silence, tone
from google.genai import types

from duologue.audio import Resampler
from duologue.simulators.script import Script
from duologue.testing import GeminiSimulator, virtual_time

SPEECH = Path(__file__).parents[2] / "data" / "speech"
EXACTLY = 'Say exactly this: """Good morning, everybody."""'


@virtual_time
async def test_echo_returns_each_turn():
    async with GeminiSimulator("echo", tls=True, keep_audio=True) as sim, connected(sim) as client:
        for seconds in (0.3, 0.5):
            client.messages.clear()
            await client.send_turn(seconds)
            await client.until("serverContent.turnComplete")
            turn = sim.sessions[0].user_turns[-1].samples
            assert len(client.audio) == pytest.approx(len(turn) * 1.5, abs=600)
            assert np.abs(client.audio.astype(int)).max() == pytest.approx(6000, abs=300)


@pytest.mark.parametrize("paraphrase", [False, True])
def test_instructed_text_is_said_word_for_word_unless_paraphrased(paraphrase):
    @virtual_time
    async def run():
        simulator = GeminiSimulator(replies=["Hm."], tls=True, paraphrase=paraphrase)
        async with simulator as sim, connected(sim) as client:
            content = types.Content(role="user", parts=[types.Part(text=EXACTLY)])
            await client.session.send_client_content(turns=content)
            await client.until("serverContent.turnComplete")
            return client.transcript

    assert run() == ("Hm." if paraphrase else "Good morning, everybody.")


@virtual_time
async def test_loopback_returns_every_chunk_at_once():
    async with GeminiSimulator("loopback", tls=True) as sim, connected(sim) as client:
        sent = np.concatenate((tone(0.1), silence(0.1), tone(0.1)))
        for begin in range(0, len(sent), 320):
            await client.send_audio(sent[begin : begin + 320])
            await client.until("serverContent.modelTurn")
        assert set(client.kinds) == {"serverContent.modelTurn"}
        assert len(client.audio) == pytest.approx(0.3 * 24000, abs=200)
        assert sim.sessions[0].user_turns == []


PARIS = """
- expect: setup
  where: {generationConfig: {responseModalities: [AUDIO]}}
- hear: what is the weather in Paris
- call: weather
  with: {city: Paris}
- expect: toolResponse
  where: {functionResponses: [{name: weather, response: {output: "20"}}]}
- say: It is sunny in Paris.
  seconds: 0.4
- hear: yes
- calls: [{log: {level: 1}}, {end: {}}]
"""


@pytest.mark.parametrize("as_expected", [True, False])
def test_script_determines_the_replies(as_expected):
    @virtual_time
    async def run():
        script = Script.parse(PARIS)
        functions = [{"name": name, "behavior": "BLOCKING"} for name in ("weather", "log", "end")]
        tools = [{"function_declarations": functions}]
        async with (
            GeminiSimulator(script, tls=True) as sim,
            connected(sim, tools=tools) as client,
        ):
            await client.send_turn()
            (call,) = (await client.until("toolCall")).tool_call.function_calls
            assert (call.name, call.args) == ("weather", {"city": "Paris"})
            result = types.FunctionResponse(
                id=call.id, name=call.name, response={"output": "20" if as_expected else "30"}
            )
            await client.session.send_tool_response(function_responses=[result])
            await client.until("serverContent.turnComplete")
            assert client.transcript == "It is sunny in Paris."
            await client.send_turn()
            called = (await client.until("toolCall")).tool_call.function_calls
            assert [(call.name, call.args) for call in called] == [
                ("log", {"level": 1}),
                ("end", {}),
            ]
            assert client.user_transcript == " what is the weather in Paris yes"
            await asyncio.sleep(5)
            return sim.failures

    failures = run()
    if as_expected:
        assert failures == []
    else:
        (failure,) = failures
        assert "toolResponse did not come in 5 s" in failure


def speech(name: str) -> np.ndarray:
    with wave.open(str(SPEECH / f"{name}.wav")) as file:
        rate = file.getframerate()
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    resampler = Resampler(rate, RATE)
    return np.concatenate((resampler.push(samples), resampler.flush()))


@pytest.mark.weights
async def test_built_in_engine_hears_and_replies(weights):
    pytest.importorskip("xllamacpp", reason="needs duologue[local]")
    detection = {"automatic_activity_detection": {"silence_duration_ms": 600}}
    async with (
        GeminiSimulator("local", profile="tiny", tls=True) as sim,
        connected(sim, realtime_input_config=detection, session_resumption={}) as client,
    ):
        await client.send_audio(np.concatenate((silence(0.4), speech("austen-0930"), silence(0.8))))
        await client.until("serverContent.generationComplete")
        assert "amiable" in client.user_transcript
        assert client.transcript
        assert np.abs(client.audio.astype(int)).max() > 1000
        # The reply is still playing when the person speaks again.
        await client.session.send_realtime_input(text="Go on.")
        await client.until("serverContent.interrupted")
