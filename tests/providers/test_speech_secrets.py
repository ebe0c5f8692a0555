"""Neither logs nor errors nor the repr of a voice or recogniser contain its key."""

import asyncio
import logging
from functools import partial
from typing import Any

import numpy as np
import pytest

from duologue.audio import AudioFrame
from duologue.errors import SessionError
from duologue.providers import cartesia, deepgram, elevenlabs, openai
from duologue.providers._speech_service import SpeechOptions
from duologue.realtime.reconnect import ReconnectPolicy
from duologue.testing import (
    CartesiaSimulator,
    DeepgramSimulator,
    ElevenLabsSimulator,
    OpenAISimulator,
)

KEY = "sk_marmalade_0123456789"
ONCE = ReconnectPolicy(max_attempts=1)
VOICES: dict[str, Any] = {
    "cartesia": (CartesiaSimulator, partial(cartesia.TTS, "v")),
    "elevenlabs": (ElevenLabsSimulator, partial(elevenlabs.TTS, "v")),
    "flux": (DeepgramSimulator, deepgram.TTS),
    "aura": (DeepgramSimulator, partial(deepgram.TTS, "aura-2-thalia-en")),
}
RECOGNISERS: dict[str, Any] = {
    "cartesia": (CartesiaSimulator, cartesia.STT),
    "elevenlabs": (ElevenLabsSimulator, elevenlabs.STT),
    "flux": (DeepgramSimulator, deepgram.STT),
    "nova": (DeepgramSimulator, partial(deepgram.STT, "nova-3")),
    "openai": (OpenAISimulator, openai.STT),
}


async def speak(part):
    voice = part.connect()
    running = asyncio.create_task(voice.run())
    synthesis = voice.synthesize(lambda output: None)
    await synthesis.send("Hello there. ")
    synthesis.finish()
    try:
        await asyncio.wait_for(synthesis.wait(), 10)
    finally:
        running.cancel()


async def listen(part):
    recogniser = part.connect()
    recogniser.push(AudioFrame(np.full(part.rate // 50, 5000, np.int16), part.rate))
    await asyncio.wait_for(recogniser.run(lambda event: None), 0.5)


@pytest.mark.parametrize("valid", [True, False])
@pytest.mark.parametrize(
    ("case", "use"),
    [
        *((case, speak) for case in VOICES.values()),
        *((case, listen) for case in RECOGNISERS.values()),
    ],
    ids=[*(f"voice {name}" for name in VOICES), *(f"recogniser {name}" for name in RECOGNISERS)],
)
async def test_the_key_is_nowhere(case, use, valid, caplog):
    simulator, make = case
    told = []
    with caplog.at_level(logging.DEBUG):
        async with simulator(key=KEY if valid else "another") as service:
            part = make(base_url=service.url, api_key=KEY, reconnect=ONCE)
            try:
                await use(part)
            except TimeoutError:
                assert valid  # A recogniser runs until it is stopped.
            except SessionError as error:
                assert not valid
                told += [str(error), repr(error), repr(error.__context__)]
    if not valid:
        assert told
    told += [repr(part), repr(vars(part)), *(record.getMessage() for record in caplog.records)]
    told += [repr(record.exc_info) for record in caplog.records]
    assert not [text for text in told if KEY in text]


def test_the_options_do_not_show_the_key():
    assert KEY not in repr(SpeechOptions(api_key=KEY))
