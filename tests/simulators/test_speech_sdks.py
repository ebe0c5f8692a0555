"""The vendors' own clients accept the simulated services of voices and recognisers."""

import asyncio
import base64

import numpy as np
import pytest
from cartesia import AsyncCartesia
from deepgram import AsyncDeepgramClient
from deepgram.environment import DeepgramClientEnvironment
from deepgram.speak.v1.types import SpeakV1Clear, SpeakV1Flush, SpeakV1Text
from deepgram.speak.v2.types import SpeakV2Flush, SpeakV2Speak
from elevenlabs import AudioFormat, CommitStrategy, RealtimeEvents
from elevenlabs.client import AsyncElevenLabs
from elevenlabs.types import AudioOutputMulti, FinalOutputMulti
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from duologue.testing import CartesiaSimulator, DeepgramSimulator, ElevenLabsSimulator

CHUNK = 3200
TRANSCRIPT = "what time is it"


def speech():
    """Return half a second of silence, a second of sound, and a second of silence, in chunks."""
    at = np.arange(16000) / 16000
    sound = (8000 * np.sin(2 * np.pi * 220 * at)).astype("<i2")
    silence = np.zeros(8000, "<i2")
    audio = np.concatenate([silence, sound, silence, silence]).tobytes()
    return [audio[begin : begin + CHUNK] for begin in range(0, len(audio), CHUNK)]


def deepgram(service):
    environment = DeepgramClientEnvironment(
        base=service.http_url,
        production=service.url,
        agent=service.url,
        agent_rest=service.http_url,
    )
    return AsyncDeepgramClient(api_key=service.key, environment=environment)


async def events_until(connection, last):
    """Return what a client receives up to an event that ``last`` accepts."""
    events = []
    while not events or not last(events[-1]):
        events.append(await asyncio.wait_for(connection.recv(), 5))
    return events


async def test_cartesia_speaks():
    async with CartesiaSimulator() as service:
        client = AsyncCartesia(
            api_key=service.key, base_url=service.http_url, websocket_base_url=service.url
        )
        async with client.tts.websocket_connect() as connection:
            context = connection.context()
            await context.send(
                model_id="sonic-3",
                voice={"mode": "id", "id": "v"},
                output_format={
                    "container": "raw",
                    "encoding": "pcm_s16le",
                    "sample_rate": 24000,
                },
                transcript="Hello there, ",
                continue_=True,
                add_timestamps=True,
            )
            await context.no_more_inputs()
            events = [event async for event in context.receive()]
    assert [event.type for event in events][-1] == "done"
    words = [
        word
        for event in events
        if event.type == "timestamps"
        for word in event.word_timestamps.words
    ]
    assert words == ["Hello", "there,"]
    assert sum(len(event.audio) for event in events if event.type == "chunk") > 24000


async def test_cartesia_recognises_turns():
    async with CartesiaSimulator(transcripts=[TRANSCRIPT]) as service:
        url = "/stt/turns/websocket?model=ink-2&encoding=pcm_s16le&sample_rate=16000"
        headers = {"Authorization": f"Bearer {service.key}", "Cartesia-Version": "2026-03-01"}
        async with connect(service.url + url, additional_headers=headers) as socket:
            for chunk in speech():
                await socket.send(chunk)
            await socket.send('{"type":"close"}')
            kinds = [message async for message in socket]
    assert '"turn.end"' in kinds[-1]
    assert TRANSCRIPT in kinds[-1]


async def test_cartesia_recognises_by_hand():
    async with CartesiaSimulator(transcripts=[TRANSCRIPT]) as service:
        client = AsyncCartesia(
            api_key=service.key, base_url=service.http_url, websocket_base_url=service.url
        )
        async with client.stt.manual_finalize.websocket(
            model="ink-whisper", encoding="pcm_s16le", sample_rate=16000, language="de"
        ) as connection:
            for chunk in speech():
                await connection.send_raw(chunk)
            await connection.send("finalize")
            events = await events_until(connection, lambda event: event.type == "flush_done")
            await connection.send("close")
            await events_until(connection, lambda event: event.type == "done")
    finals = [event for event in events[:-1] if event.is_final]
    assert "".join(event.text for event in finals).strip() == TRANSCRIPT
    assert finals[-1].language == "de"
    (session,) = service.sessions
    assert session.commands == ["finalize", "close"]


async def test_deepgram_flux_recognises_turns():
    async with (
        DeepgramSimulator(transcripts=[TRANSCRIPT]) as service,
        deepgram(service).listen.v2.connect(
            model="flux-general-en",
            encoding="linear16",
            sample_rate="16000",
            eager_eot_threshold="0.4",
        ) as connection,
    ):
        for chunk in speech():
            await connection.send_media(chunk)
        events = await events_until(
            connection, lambda event: getattr(event, "event", "") == "EndOfTurn"
        )
    kinds = [event.event for event in events[1:] if event.event != "Update"]
    assert kinds == ["StartOfTurn", "EagerEndOfTurn", "EndOfTurn"]
    assert events[-1].transcript == TRANSCRIPT
    assert [word.word for word in events[-1].words] == TRANSCRIPT.split()


async def test_deepgram_nova_recognises():
    async with (
        DeepgramSimulator(transcripts=[TRANSCRIPT]) as service,
        deepgram(service).listen.v1.connect(
            model="nova-3", encoding="linear16", sample_rate="16000", interim_results="true"
        ) as connection,
    ):
        for chunk in speech():
            await connection.send_media(chunk)
        await connection.send_finalize()
        events = await events_until(
            connection, lambda event: getattr(event, "from_finalize", False)
        )
    assert events[-1].is_final
    assert events[-1].channel.alternatives[0].transcript == TRANSCRIPT


async def test_deepgram_aura_speaks_and_clears():
    async with (
        DeepgramSimulator() as service,
        deepgram(service).speak.v1.connect(
            model="aura-2-thalia-en", encoding="linear16", sample_rate="24000"
        ) as connection,
    ):
        await connection.send_text(SpeakV1Text(type="Speak", text="Hello there."))
        await connection.send_flush(SpeakV1Flush(type="Flush"))
        events = await events_until(
            connection, lambda event: getattr(event, "type", "") == "Flushed"
        )
        assert sum(len(event) for event in events if isinstance(event, bytes)) > 24000
        await connection.send_clear(SpeakV1Clear(type="Clear"))
        await events_until(connection, lambda event: getattr(event, "type", "") == "Cleared")


async def test_deepgram_flux_speaks():
    async with (
        DeepgramSimulator() as service,
        deepgram(service).speak.v2.connect(
            model="flux-alexis-en", encoding="linear16", sample_rate="24000"
        ) as connection,
    ):
        await connection.send_speak(SpeakV2Speak(type="Speak", text="Hello there. "))
        await connection.send_flush(SpeakV2Flush(type="Flush"))
        events = await events_until(
            connection, lambda event: getattr(event, "type", "") == "SpeechMetadata"
        )
    assert sum(len(event) for event in events if isinstance(event, bytes)) > 24000


async def test_elevenlabs_recognises():
    async with ElevenLabsSimulator(transcripts=[TRANSCRIPT]) as service:
        client = AsyncElevenLabs(api_key=service.key, base_url=service.http_url)
        connection = await client.speech_to_text.realtime.connect(
            {
                "model_id": "scribe_v2_realtime",
                "audio_format": AudioFormat.PCM_16000,
                "sample_rate": 16000,
                "commit_strategy": CommitStrategy.MANUAL,
            }
        )
        committed = asyncio.get_running_loop().create_future()
        connection.on(RealtimeEvents.COMMITTED_TRANSCRIPT, committed.set_result)
        for chunk in speech():
            await connection.send({"audio_base_64": base64.b64encode(chunk).decode()})
        await connection.commit()
        assert (await asyncio.wait_for(committed, 5))["text"] == TRANSCRIPT
        await connection.close()


async def test_elevenlabs_takes_a_single_use_token_once():
    async with ElevenLabsSimulator() as service:
        client = AsyncElevenLabs(api_key=service.key, base_url=service.http_url)
        scribe = service.url + "/v1/speech-to-text/realtime?token="
        token = (await client.tokens.single_use.create("realtime_scribe")).token
        async with connect(scribe + token) as socket:
            assert "session_started" in await socket.recv()
        for wrong in (token, (await client.tokens.single_use.create("tts_websocket")).token):
            with pytest.raises(InvalidStatus, match="401"):
                await connect(scribe + wrong)
        stranger = AsyncElevenLabs(api_key="another", base_url=service.http_url)
        with pytest.raises(Exception, match="Invalid API key"):
            await stranger.tokens.single_use.create("realtime_scribe")


async def test_elevenlabs_speaks_in_the_types_of_its_package():
    """Its package has no client of this socket, only the types of its messages."""
    async with ElevenLabsSimulator() as service:
        url = "/v1/text-to-speech/v/multi-stream-input?output_format=pcm_24000&auto_mode=true"
        headers = {"xi-api-key": service.key}
        async with connect(service.url + url, additional_headers=headers) as socket:
            for message in (
                '{"text":" ","context_id":"c"}',
                '{"text":"Hello there. ","context_id":"c"}',
                '{"context_id":"c","close_context":true}',
            ):
                await socket.send(message)
            *audio, final = [await socket.recv() for _ in range(3)]
    spoken = [AudioOutputMulti.model_validate_json(message) for message in audio]
    assert all(len(base64.b64decode(one.audio)) > 4800 for one in spoken)
    assert FinalOutputMulti.model_validate_json(final).is_final
