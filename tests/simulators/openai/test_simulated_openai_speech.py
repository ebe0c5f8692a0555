"""The speech API of the simulated OpenAI, by the official client and by `openai.TTS`."""

import base64
import json
from contextlib import aclosing

import numpy as np
import openai as official
import pytest
from openai_client import sdk

from duologue.audio import AudioFrame, Resampler
from duologue.errors import ErrorKind, SessionError
from duologue.providers import openai
from duologue.simulators._speech.voices import ToneVoice
from duologue.simulators.faults import Fault, Handshake
from duologue.testing import OpenAISimulator
from duologue.testing.speech import transcribe

MODEL = "gpt-4o-mini-tts"
TEXT = "We open at seven."


async def tone_of(text, rate=24000):
    async with aclosing(ToneVoice(rate).speak(text)) as pieces:
        return np.concatenate([piece.samples async for piece in pieces])


async def body_of(service, **options):
    """Return type and body of a response to the official client."""
    given = {"model": MODEL, "voice": "alloy", "input": TEXT, "response_format": "pcm", **options}
    async with (
        sdk(service) as client,
        client.audio.speech.with_streaming_response.create(**given) as response,
    ):
        data = b"".join([piece async for piece in response.iter_bytes(4097)])
        return response.headers["content-type"], data


@pytest.fixture
async def service():
    async with OpenAISimulator(replies=[], unknown_models=["tts-none"]) as running:
        yield running


async def test_the_official_client_streams_pcm(service):
    kind, data = await body_of(service, instructions="Whisper.", stream_format="audio")
    assert kind == "audio/pcm"
    assert np.array_equal(np.frombuffer(data, "<i2"), await tone_of(TEXT))


async def test_wav_has_a_header_for_a_stream(service):
    kind, data = await body_of(service, response_format="wav")
    assert kind == "audio/wav"
    assert (data[:4], data[8:16], data[36:40]) == (b"RIFF", b"WAVEfmt ", b"data")
    assert int.from_bytes(data[24:28], "little") == 24000
    assert np.array_equal(np.frombuffer(data[44:], "<i2"), await tone_of(TEXT))


async def test_server_sent_events_carry_the_audio_and_the_usage(service):
    kind, data = await body_of(service, stream_format="sse")
    assert kind == "text/event-stream"
    lines = data.decode().split("\n\n")[:-1]
    *deltas, done = [json.loads(line.removeprefix("data: ")) for line in lines]
    assert {delta["type"] for delta in deltas} == {"speech.audio.delta"}
    audio = b"".join(base64.b64decode(delta["audio"]) for delta in deltas)
    assert np.array_equal(np.frombuffer(audio, "<i2"), await tone_of(TEXT))
    usage = done["usage"]
    assert done["type"] == "speech.audio.done"
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"] > 20


async def test_speed_shortens_the_audio(service):
    _, data = await body_of(service, speed=2)
    assert len(data) // 2 == pytest.approx(len(await tone_of(TEXT)) / 2, abs=10)


@pytest.mark.parametrize(
    ("change", "code", "param"),
    [
        ({"input": ""}, "string_below_min_length", "input"),
        ({"input": "a" * 4097}, "string_above_max_length", "input"),
        ({"response_format": official.omit}, "invalid_value", "response_format"),
        ({"response_format": "ogg"}, "invalid_value", "response_format"),
        ({"speed": 5.0}, "decimal_above_max_value", "speed"),
        ({"model": "tts-1", "stream_format": "sse"}, "invalid_value", "stream_format"),
        ({"voice": 3}, "invalid_type", "voice"),
        ({"extra_body": {"pitch": 2}}, "unknown_parameter", "pitch"),
    ],
)
async def test_a_wrong_field_is_refused_by_its_name(service, change, code, param):
    with pytest.raises(official.BadRequestError) as refused:
        await body_of(service, **change)
    assert (refused.value.code, refused.value.param) == (code, param)


async def test_a_wrong_key_an_unknown_model_and_no_object_are_refused(service):
    with pytest.raises(official.NotFoundError):
        await body_of(service, model="tts-none")
    async with sdk(service, "sk-wrong") as client:
        with pytest.raises(official.AuthenticationError):
            await client.audio.speech.create(model=MODEL, voice="alloy", input=TEXT)
    async with sdk(service) as client:
        for body in (["no"], None):
            with pytest.raises(official.BadRequestError):
                await client.post("/audio/speech", body=body, cast_to=object)


async def test_our_voice_speaks_by_it(service):
    tts = openai.TTS("alloy", base_url=service.url, api_key=service.key)
    try:
        async with aclosing(tts.synthesize(TEXT)) as frames:
            heard = np.concatenate([frame.samples async for frame in frames])
        assert np.array_equal(heard, await tone_of(TEXT))
        async with aclosing(tts.synthesize(TEXT)) as frames:
            await anext(frames)  # An interruption leaves the rest.
        async with aclosing(tts.synthesize("Again.")) as frames:
            assert sum([len(frame) async for frame in frames]) == len(await tone_of("Again."))
    finally:
        await tts.close()
    wrong = openai.TTS("alloy", base_url=service.url, api_key="sk-wrong")
    with pytest.raises(SessionError, match="Incorrect API key") as refused:
        await anext(wrong.synthesize(TEXT))
    await wrong.close()
    assert refused.value.kind is not ErrorKind.RETRY


async def test_our_voice_tries_a_busy_service_once_more():
    async with OpenAISimulator(faults=[Fault(Handshake(429), times=1)]) as service:
        tts = openai.TTS("alloy", base_url=service.url, api_key=service.key)
        async with aclosing(tts.synthesize(TEXT)) as frames:
            assert sum([len(frame) async for frame in frames]) == len(await tone_of(TEXT))
        await tts.close()


async def test_the_local_backend_speaks_words():
    async with OpenAISimulator("local") as service:
        _, data = await body_of(service, input="Good morning.")
    resampler = Resampler(24000, 16000)
    heard = np.concatenate([resampler.push(np.frombuffer(data, "<i2")), resampler.flush()])
    assert "morning" in (await transcribe(AudioFrame(heard, 16000))).lower()
