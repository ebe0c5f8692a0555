"""Backends: an echo, the loopback, and the built-in engine."""

from __future__ import annotations

import asyncio
import wave
from pathlib import Path

import numpy as np
import pybase64
import pytest

pytest.importorskip("aiohttp", reason="the simulate extra is not installed")
pytest.importorskip("openai", reason="the openai extra is not installed")

from openai_client import QUICK, open_session, silence, tone

from duologue.audio import AudioFrame, Resampler
from duologue.pipeline.interfaces import TextDelta
from duologue.pipeline.pipeline import Pipeline
from duologue.simulators.script import Script
from duologue.testing import OpenAISimulator, virtual_time
from duologue.vad.endpointing import Endpointing

SPEECH = Path(__file__).parents[1] / "data" / "speech"


def audio_of(client) -> np.ndarray:
    data = b"".join(
        pybase64.b64decode(e.delta) for e in client.events_of("response.output_audio.delta")
    )
    return np.frombuffer(data, "<i2")


@virtual_time
async def test_echo_repeats_each_turn():
    async with (
        OpenAISimulator("echo", keep_audio=True) as sim,
        open_session(sim, turn_detection=QUICK) as client,
    ):
        for seconds in (0.3, 0.5):
            client.events.clear()
            await client.send_turn(seconds)
            await client.until("response.done")
            assert np.array_equal(audio_of(client), sim.sessions[0].user_turns[-1].samples)
        client.events.clear()
        said = {"instructions": 'Say exactly """Good morning, everybody."""'}
        await client.send("response.create", response=said)
        await client.until("response.done")
        assert len(audio_of(client)) == round(24 / 15 * 24000)


@virtual_time
async def test_echo_can_be_interrupted_and_repeats_the_next_turn():
    async with OpenAISimulator("echo") as sim, open_session(sim, turn_detection=QUICK) as client:
        await client.send_turn()
        await client.until("response.created")
        await client.send("response.cancel")
        await client.until("response.done", "error")
        client.events.clear()
        await client.send_turn(0.3)
        await client.until("response.done")
        assert len(audio_of(client)) > 0


@virtual_time
async def test_loopback_sends_every_chunk_back_at_once():
    async with OpenAISimulator("loopback") as sim, open_session(sim) as client:
        sent = np.concatenate((tone(0.1), silence(0.1), tone(0.1)))
        for begin in range(0, len(sent), 480):
            await client.append(sent[begin : begin + 480])
            await client.until("response.output_audio.delta")
        assert np.array_equal(audio_of(client), sent)
        assert client.types.count("response.created") == 1
        assert "input_audio_buffer.speech_started" not in client.types


class FakeSTT:
    """An `STT` that transcribes turns as the next of ``texts``."""

    rate = 16000

    def __init__(self, *texts):
        self.texts = list(texts)

    def stream(self):
        text = self.texts.pop(0)

        class Stream:
            def push(self, frame):
                pass

            async def text(self):
                await asyncio.sleep(0.3)
                return text

            async def close(self):
                pass

        return Stream()


class FakeLLM:
    """An `LLM` that replies "one two three four"; ``requests`` records its requests."""

    model = "fake"
    tools_reliable = True

    def __init__(self):
        self.requests = []

    async def prepare(self, instructions, tools):
        pass

    async def generate(self, instructions, history, tools):
        self.requests.append((instructions, list(history), list(tools)))
        for word in ("one ", "two ", "three ", "four. "):
            await asyncio.sleep(0.01)
            yield TextDelta(word)


class FakeTTS:
    """A `TTS` with one second of audio for each clause."""

    rate = 24000

    async def synthesize(self, text):
        for _ in range(10):
            await asyncio.sleep(0.02)
            yield AudioFrame(np.full(2400, 900, np.int16), self.rate)


@virtual_time
async def test_pipeline_knows_the_turn_and_what_was_truncated():
    llm = FakeLLM()
    never = Endpointing(speculate_s=3600, vote_s=3600, timeout_s=3600)

    def make():
        stt = FakeSTT("Hello.", "", "Go on.")
        return Pipeline(llm=llm, stt=stt, tts=FakeTTS(), endpointing=never)

    async with (
        OpenAISimulator(make) as sim,
        open_session(sim, turn_detection=QUICK, transcription={"model": "whisper-1"}) as client,
    ):
        await client.update(instructions="Be brief.")
        await client.send_turn()
        first = (await client.until("response.done")).response.output[0]
        instructions, history, _ = llm.requests[0]
        assert instructions == "Be brief."
        assert [item.text for item in history] == ["Hello."]
        await client.send(
            "conversation.item.truncate", item_id=first.id, content_index=0, audio_end_ms=500
        )
        # A cough is answered too, as by the real service.
        await asyncio.sleep(3)
        await client.send_turn()
        await client.until("response.done")
        _, history, _ = llm.requests[1]
        assert [item.text for item in history] == ["Hello.", "one two"]
        assert history[1].state == "cut"
        await client.send("conversation.item.delete", item_id=first.id)
        await asyncio.sleep(3)
        await client.send_turn()
        await client.until("response.done")
        _, history, _ = llm.requests[2]
        assert [item.text for item in history] == ["Hello.", "one two three four. ", "Go on."]
        transcripts = client.events_of("conversation.item.input_audio_transcription.completed")
        assert [event.transcript for event in transcripts] == ["Hello.", "", "Go on."]


def speech(name: str) -> np.ndarray:
    with wave.open(str(SPEECH / f"{name}.wav")) as audio:
        rate = audio.getframerate()
        samples = np.frombuffer(audio.readframes(audio.getnframes()), "<i2")
    resampler = Resampler(rate, 24000)
    return np.concatenate((resampler.push(samples), resampler.flush()))


@pytest.mark.weights
async def test_built_in_engine_transcribes_and_replies(weights):
    pytest.importorskip("xllamacpp", reason="needs duologue[local]")
    whisper = {"model": "whisper-1"}
    async with (
        OpenAISimulator("local", profile="tiny") as sim,
        open_session(sim, transcription=whisper) as client,
    ):
        for name, word in (("austen-0930", "amiable"), ("austen-0880", "young man")):
            client.events.clear()
            await client.append(np.concatenate((silence(0.4), speech(name), silence(0.8))))
            done = await client.until("response.done", seconds=60)
            transcripts = client.events_of("conversation.item.input_audio_transcription.completed")
            assert word in transcripts[0].transcript
            assert len(client.events_of("response.created")) == 1
            assert done.response.output[0].content[0].transcript
            assert np.abs(audio_of(client).astype(np.int32)).max() > 1000


@pytest.mark.weights
async def test_script_can_use_the_local_voice(weights):
    script = Script.parse("- say: Good morning.\n  voice: local\n")
    async with OpenAISimulator(script) as sim, open_session(sim) as client:
        await client.send("response.create")
        await client.until("response.done")
        audio = audio_of(client)
        assert 0.4 < len(audio) / 24000 < 3
        assert np.abs(audio.astype(np.int32)).max() > 1000
