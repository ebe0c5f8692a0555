"""Who answers: an echo, the sound straight back, and the engine inside."""

from __future__ import annotations

import asyncio
import wave
from pathlib import Path

import numpy as np
import pybase64
import pytest

pytest.importorskip("aiohttp", reason="the simulate extra is not installed")
pytest.importorskip("openai", reason="the openai extra is not installed")

from openai_client import QUICK, connected, silence, tone

from duologue.audio import Resampler
from duologue.simulator.script import Script
from duologue.testing import OpenAISimulator, virtual_time

SPEECH = Path(__file__).parents[1] / "data" / "speech"


def sound_of(client) -> np.ndarray:
    data = b"".join(pybase64.b64decode(e.delta) for e in client.of("response.output_audio.delta"))
    return np.frombuffer(data, "<i2")


@virtual_time
async def test_an_echo_gives_each_turn_back():
    async with (
        OpenAISimulator("echo", keep_audio=True) as sim,
        connected(sim, turn_detection=QUICK) as client,
    ):
        for seconds in (0.3, 0.5):
            client.events.clear()
            await client.talk(seconds)
            await client.until("response.done")
            assert np.array_equal(sound_of(client), sim.sessions[0].heard[-1].samples)
        client.events.clear()
        said = {"instructions": 'Say exactly """Good morning, everybody."""'}
        await client.send("response.create", response=said)
        await client.until("response.done")
        assert len(sound_of(client)) == round(24 / 15 * 24000)


@virtual_time
async def test_an_echo_can_be_interrupted_and_says_the_next():
    async with OpenAISimulator("echo") as sim, connected(sim, turn_detection=QUICK) as client:
        await client.talk()
        await client.until("response.created")
        await client.send("response.cancel")
        await client.until("response.done", "error")
        client.events.clear()
        await client.talk(0.3)
        await client.until("response.done")
        assert len(sound_of(client)) > 0


@virtual_time
async def test_a_loopback_gives_every_chunk_back_at_once():
    async with OpenAISimulator("loopback") as sim, connected(sim) as client:
        sent = np.concatenate((tone(0.1), silence(0.1), tone(0.1)))
        for begin in range(0, len(sent), 480):
            await client.append(sent[begin : begin + 480])
            await client.until("response.output_audio.delta")
        assert np.array_equal(sound_of(client), sent)
        assert client.types.count("response.created") == 1
        assert "input_audio_buffer.speech_started" not in client.types


def speech() -> np.ndarray:
    file = sorted(SPEECH.rglob("*.wav"))[0]
    with wave.open(str(file)) as sound:
        rate = sound.getframerate()
        samples = np.frombuffer(sound.readframes(sound.getnframes()), "<i2")
    resampler = Resampler(rate, 24000)
    return np.concatenate((resampler.push(samples), resampler.flush()))


@pytest.mark.models
async def test_the_engine_inside_hears_and_answers(weights):
    pytest.importorskip("xllamacpp", reason="needs duologue[local]")
    whisper = {"model": "whisper-1"}
    async with (
        OpenAISimulator("local", profile="tiny") as sim,
        connected(sim, transcription=whisper) as client,
    ):
        await client.append(np.concatenate((silence(0.4), speech(), silence(0.8))))
        done = await client.until("response.done", seconds=60)
        heard = client.of("conversation.item.input_audio_transcription.completed")
        await asyncio.sleep(0)
        print(heard[0].transcript, "|", done.response.output[0].content[0].transcript)
        assert len(heard[0].transcript.split()) > 3
        assert len(client.of("response.created")) == 1
        assert np.abs(sound_of(client).astype(np.int32)).max() > 1000


@pytest.mark.models
async def test_a_script_may_speak_by_the_local_voice(weights):
    script = Script.parse("- say: Good morning.\n  voice: local\n")
    async with OpenAISimulator(script) as sim, connected(sim) as client:
        await client.send("response.create")
        await client.until("response.done")
        sound = sound_of(client)
        assert 0.4 < len(sound) / 24000 < 3
        assert np.abs(sound.astype(np.int32)).max() > 1000
