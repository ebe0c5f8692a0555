"""Who answers behind the simulated Gemini service: echo, loopback, a script, the engine inside."""

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
from duologue.simulator.script import Script
from duologue.testing import GeminiSimulator, virtual_time

SPEECH = Path(__file__).parents[1] / "data" / "speech"
EXACTLY = 'Say exactly this: """Good morning, everybody."""'


@virtual_time
async def test_an_echo_gives_each_turn_back():
    async with GeminiSimulator("echo", tls=True, keep_audio=True) as sim, connected(sim) as client:
        for seconds in (0.3, 0.5):
            client.messages.clear()
            await client.talk(seconds)
            await client.until("serverContent.turnComplete")
            turn = sim.sessions[0].heard[-1].samples
            assert len(client.sound) == pytest.approx(len(turn) * 1.5, abs=600)
            assert np.abs(client.sound.astype(int)).max() == pytest.approx(6000, abs=300)


@pytest.mark.parametrize("paraphrase", [False, True])
def test_what_is_to_be_said_exactly_is_said_so_unless_it_is_paraphrased(paraphrase):
    @virtual_time
    async def talk():
        simulator = GeminiSimulator(replies=["Hm."], tls=True, paraphrase=paraphrase)
        async with simulator as sim, connected(sim) as client:
            content = types.Content(role="user", parts=[types.Part(text=EXACTLY)])
            await client.session.send_client_content(turns=content)
            await client.until("serverContent.turnComplete")
            return client.said

    assert talk() == ("Hm." if paraphrase else "Good morning, everybody.")


@virtual_time
async def test_a_loopback_gives_every_chunk_back_at_once():
    async with GeminiSimulator("loopback", tls=True) as sim, connected(sim) as client:
        sent = np.concatenate((tone(0.1), silence(0.1), tone(0.1)))
        for begin in range(0, len(sent), 320):
            await client.append(sent[begin : begin + 320])
            await client.until("serverContent.modelTurn")
        assert set(client.kinds) == {"serverContent.modelTurn"}
        assert len(client.sound) == pytest.approx(0.3 * 24000, abs=200)
        assert sim.sessions[0].heard == []


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


@pytest.mark.parametrize("answers", [True, False])
def test_a_script_is_followed(answers):
    @virtual_time
    async def talk():
        script = Script.parse(PARIS)
        functions = [{"name": name, "behavior": "BLOCKING"} for name in ("weather", "log", "end")]
        tools = [{"function_declarations": functions}]
        async with (
            GeminiSimulator(script, tls=True) as sim,
            connected(sim, tools=tools) as client,
        ):
            await client.talk()
            (call,) = (await client.until("toolCall")).tool_call.function_calls
            assert (call.name, call.args) == ("weather", {"city": "Paris"})
            result = types.FunctionResponse(
                id=call.id, name=call.name, response={"output": "20" if answers else "30"}
            )
            await client.session.send_tool_response(function_responses=[result])
            await client.until("serverContent.turnComplete")
            assert client.said == "It is sunny in Paris."
            await client.talk()
            called = (await client.until("toolCall")).tool_call.function_calls
            assert [(call.name, call.args) for call in called] == [
                ("log", {"level": 1}),
                ("end", {}),
            ]
            assert client.heard == " what is the weather in Paris yes"
            await asyncio.sleep(5)
            return sim.failures

    failures = talk()
    if answers:
        assert failures == []
    else:
        (failure,) = failures
        assert "toolResponse did not come in 5 s" in failure


def speech(name: str) -> np.ndarray:
    with wave.open(str(SPEECH / f"{name}.wav")) as sound:
        rate = sound.getframerate()
        samples = np.frombuffer(sound.readframes(sound.getnframes()), "<i2")
    resampler = Resampler(rate, RATE)
    return np.concatenate((resampler.push(samples), resampler.flush()))


@pytest.mark.models
async def test_the_engine_inside_hears_and_answers(weights):
    pytest.importorskip("xllamacpp", reason="needs duologue[local]")
    detection = {"automatic_activity_detection": {"silence_duration_ms": 600}}
    async with (
        GeminiSimulator("local", profile="tiny", tls=True) as sim,
        connected(sim, realtime_input_config=detection, session_resumption={}) as client,
    ):
        await client.append(np.concatenate((silence(0.4), speech("austen-0930"), silence(0.8))))
        await client.until("serverContent.generationComplete")
        assert "amiable" in client.heard
        assert client.said
        assert np.abs(client.sound.astype(int)).max() > 1000
        # The answer is still playing when the person goes on.
        await client.session.send_realtime_input(text="Go on.")
        await client.until("serverContent.interrupted")
