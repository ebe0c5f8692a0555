"""The backends of the simulated Nova Sonic, and the expectations of scripts."""

from __future__ import annotations

import asyncio
import wave
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("aws_sdk_bedrock_runtime", reason="the aws extra is not installed")
pytest.importorskip("h2", reason="the simulate extra is not installed")
pytest.importorskip("yaml", reason="the simulate extra is not installed")

import aws_sdk_bedrock_runtime.models as sdk_models
from nova_client import QUICK, connected, silence, tone, tool

from duologue.audio import Resampler
from duologue.errors import ErrorKind, SessionError
from duologue.simulators.script import Script
from duologue.testing import At, NovaSimulator, Reply, ScriptedRealtime, virtual_time

SPEECH = Path(__file__).parents[2] / "data" / "speech"


@virtual_time
async def test_echo_returns_each_turn():
    async with (
        NovaSimulator("echo", endpointing_ms=QUICK, keep_audio=True) as sim,
        connected(sim, input=24000) as client,
    ):
        for seconds in (0.3, 0.5):
            client.events.clear()
            await client.send_audio(np.concatenate((tone(seconds, 24000), silence(0.4, 24000))))
            await client.receive_reply()
            assert np.array_equal(client.audio, sim.sessions[0].user_turns[-1].samples)


@virtual_time
async def test_loopback_returns_every_chunk_at_once():
    async with NovaSimulator("loopback") as sim, connected(sim, input=24000) as client:
        sent = np.concatenate((tone(0.1, 24000), silence(0.1, 24000), tone(0.1, 24000)))
        for begin in range(0, len(sent), 480):
            await client.send_audio(sent[begin : begin + 480], 480)
            await client.until("audioOutput")
        assert np.array_equal(client.audio, sent)
        failures = []
        asyncio.get_running_loop().set_exception_handler(lambda _, found: failures.append(found))
        await client.send_text("Well?", interactive=True)
        await client.receive_for()
        assert not failures
        await client.end()
        assert await client.until("never") is None
        assert client.names[:2] == ["completionStart", "contentStart"]
        assert client.names.count("contentStart") == 1


SCRIPT = """
- hear: what is the weather in Rome
- call: weather
  with: {city: Rome}
- expect: toolResult
  where: {content: '"warm"'}
- say: It is warm.
- expect: promptEnd
  within: 1
"""


@pytest.mark.parametrize("result", ["warm", "cold"])
def test_script_checks_its_expectations_of_the_client(result):
    @virtual_time
    async def run():
        script = Script.parse(SCRIPT)
        async with NovaSimulator(script, endpointing_ms=QUICK) as sim:
            async with connected(sim, tools=[tool()]) as client:
                await client.send_turn()
                use = await client.until("toolUse")
                await client.send_result(use["toolUseId"], result)
                await client.receive_reply()
                assert client.blocks[0][1] == "what is the weather in Rome"
                await client.end()
                await client.until("never")
            return sim.failures

    if result == "warm":
        assert run() == []
    else:
        assert [failure.partition(": ")[2] for failure in run()] == [
            "toolResult had not come when the session ended",
            "promptEnd had not come when the session ended",
        ]


@virtual_time
async def test_each_session_has_its_own_backend_with_prompt_and_tools():
    made = []

    def make():
        profile = ScriptedRealtime().capabilities
        made.append(ScriptedRealtime(["Yes."], manual=True, capabilities=profile))
        return made[-1]

    seen = []
    original_open = ScriptedRealtime.open

    def spy(backend, setup):
        seen.append((setup.instructions, [(one.name, one.parameters) for one in setup.tools]))
        return original_open(backend, setup)

    ScriptedRealtime.open = spy
    try:
        async with NovaSimulator(make, endpointing_ms=QUICK) as sim:
            for instructions in ("Be kind.", "Be brief."):
                async with connected(sim, text=instructions, tools=[tool()]):
                    await asyncio.sleep(0.1)
            assert [session.backend for session in sim.sessions] == made
            assert [session.system_prompt for session in sim.sessions] == ["Be kind.", "Be brief."]
    finally:
        ScriptedRealtime.open = original_open
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    assert seen == [("Be kind.", [("weather", schema)]), ("Be brief.", [("weather", schema)])]


@virtual_time
async def test_backend_that_fails_ends_the_stream():
    def make():
        error = SessionError("out of order", kind=ErrorKind.FATAL)
        return ScriptedRealtime(manual=True, at=[At(1.0, error)])

    async with NovaSimulator(make) as sim, connected(sim) as client:
        error = await client.error()
        assert isinstance(error, sdk_models.InternalServerException)
        assert error.message == "out of order"
        assert sim.sessions[0].closed


@virtual_time
async def test_events_of_the_stream_can_be_inspected():
    simulator = NovaSimulator(replies=[Reply("Yes.", 0.2)] * 2, endpointing_ms=QUICK)
    async with simulator as sim, connected(sim, turns="HIGH", tools=[tool()]) as client:
        await client.send_audio(tone(0.1), 160)
        await client.send_text("Well?", interactive=True)
        await client.send_turn()
        await client.receive_reply()
        session = sim.sessions[0]
        assert [next(iter(event)) for event in session.events_in] == [
            "sessionStart",
            "promptStart",
            *["contentStart", "textInput", "contentEnd"],
            "contentStart",
            "audioInput",
            *["contentStart", "textInput", "contentEnd"],
            "audioInput",
        ]
        audio = session.events_in[6]["audioInput"]
        assert (audio["content"], audio["events"]) == (10 * 428, 10)
        assert session.audio_in_samples == 1600 + 14400
        start = session.configuration["sessionStart"]
        assert start["turnDetectionConfiguration"] == {"endpointingSensitivity": "HIGH"}
        assert session.configuration["promptStart"]["audioOutputConfiguration"]["voiceId"]
        assert session.tools == ["weather"]


def speech(name):
    with wave.open(str(SPEECH / f"{name}.wav")) as file:
        rate = file.getframerate()
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    resampler = Resampler(rate, 16000)
    return np.concatenate((resampler.push(samples), resampler.flush()))


@pytest.mark.weights
async def test_built_in_engine_hears_and_replies(weights):
    pytest.importorskip("xllamacpp", reason="needs duologue[local]")
    prompt = "Answer in one short sentence."
    async with (
        NovaSimulator("local", profile="tiny") as sim,
        connected(sim, text=prompt, turns="HIGH") as client,
    ):
        for name, word in (("austen-0930", "amiable"), ("austen-0880", "young man")):
            client.events.clear()
            await client.send_audio(np.concatenate((silence(0.4), speech(name), silence(1.6))))
            transcript = await client.until("textOutput", role="USER")
            assert word in transcript["content"]
            seen = len(client.blocks)
            await client.until("contentEnd", type="AUDIO", stopReason="END_TURN")
            kind, planned, _ = client.blocks[seen]
            assert kind == "TEXT ASSISTANT SPECULATIVE"
            assert len(planned) > 2
            assert np.abs(client.audio.astype(np.int32)).max() > 1000
        assert [turn.role for turn in sim.sessions[0].conversation][:1] == ["USER"]
