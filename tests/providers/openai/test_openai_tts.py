import json
from contextlib import aclosing, asynccontextmanager

import numpy as np
import pytest
from aiohttp import web

from duologue.errors import ConfigError, ErrorKind, SessionError
from duologue.providers import openai

pytest.importorskip("httpx", reason="needs duologue[openai]")

PCM = np.arange(-1500, 1500, dtype="<i2")


@asynccontextmanager
async def serving(answer, **options):
    """Run a server of the speech API on loopback; yield a voice that uses it, and the requests."""
    requests = []

    async def speak(request):
        requests.append(await request.json())
        return await answer(request)

    app = web.Application()
    app.router.add_post("/v1/audio/speech", speak)
    runner = web.AppRunner(app, handle_signals=False)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    tts = openai.TTS("af_heart", base_url=url, api_key="k", **options)
    try:
        yield tts, requests
    finally:
        await tts.close()
        await runner.cleanup()


def streaming(*pieces, content_type="audio/pcm"):
    async def answer(request):
        response = web.StreamResponse(headers={"Content-Type": content_type})
        await response.prepare(request)
        for piece in pieces:
            await response.write(piece)
        return response

    return answer


async def samples_of(tts, text="Hello."):
    async with aclosing(tts.synthesize(text)) as frames:
        return np.concatenate([frame.samples async for frame in frames])


@pytest.mark.parametrize("size", [1, 7, 4096])
async def test_audio_survives_pieces_of_any_size(size):
    data = PCM.tobytes()
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    async with serving(streaming(*pieces), speed=1.5, instructions="Whisper.") as (tts, requests):
        assert np.array_equal(await samples_of(tts), PCM)
    assert requests == [
        {
            "model": "gpt-4o-mini-tts",
            "voice": "af_heart",
            "response_format": "pcm",
            "speed": 1.5,
            "instructions": "Whisper.",
            "input": "Hello.",
        }
    ]


async def test_the_header_of_a_wav_stream_is_left_out():
    header = b"RIFF" + bytes(40)
    answer = streaming(header[:10], header[10:] + PCM.tobytes(), content_type="audio/wav")
    async with serving(answer) as (tts, _):
        assert np.array_equal(await samples_of(tts), PCM)


async def test_a_refusal_has_the_words_of_the_server():
    async def refuse(request):
        error = {"message": "Unknown voice", "code": "voice_not_found"}
        return web.Response(status=404, body=json.dumps({"error": error}))

    async with serving(refuse) as (tts, _):
        with pytest.raises(SessionError, match="Unknown voice") as raised:
            await samples_of(tts)
    assert raised.value.kind is ErrorKind.FATAL


async def test_something_else_than_audio_is_an_error():
    async def explain(request):
        return web.json_response({"detail": "no"})

    async with serving(explain) as (tts, _):
        with pytest.raises(SessionError, match="instead of audio"):
            await samples_of(tts)


def test_invalid_arguments_are_refused():
    for arguments in ({"voice": ""}, {"voice": "v", "speed": 9}, {"voice": "v", "rate": 0}):
        with pytest.raises(ConfigError):
            openai.TTS(**{"base_url": "http://127.0.0.1:9/v1", **arguments})
