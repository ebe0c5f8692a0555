"""Speech recognition and synthesis of the built-in engine without a conversation."""

from __future__ import annotations

import asyncio
from os import PathLike

import numpy as np

from duologue.audio import AudioFrame
from duologue.edges.audio_file import load_audio
from duologue.errors import ConfigError
from duologue.providers.local import engine

_CHUNK_S = 1.0


async def transcribe(audio: str | PathLike[str] | AudioFrame, *, offline: bool = False) -> str:
    """Return the English words in an audio file or a frame; "" if there are none.

    Runs in threads.

    Args:
        audio: A file or a frame.
        offline: Fetch no weights.

    Raises:
        ConfigError: The file can't be used.
        WeightsError: Weights are missing and can't be fetched.
        MissingExtraError: The extra ``local`` is not installed.
    """
    stt = await asyncio.to_thread(engine.load_stt, offline=offline)
    frame = await asyncio.to_thread(load_audio, audio, stt.rate)
    stream = stt.stream()
    try:
        size = round(_CHUNK_S * stt.rate)
        for at in range(0, len(frame), size):
            stream.push(AudioFrame(frame.samples[at : at + size], stt.rate))
        return await stream.text()
    finally:
        await stream.close()


async def synthesize(text: str, *, voice: str = "heart") -> AudioFrame:
    """Return an English text as speech, in one frame at 24 kHz.

    Runs in threads.

    Args:
        text: The words.
        voice: A voice of the built-in engine.

    Raises:
        ConfigError: The text has no words, or the voice is unknown.
        MissingExtraError: The extra ``local`` is not installed.
    """
    if not text.strip():
        raise ConfigError("synthesize needs a text with words")
    tts = await asyncio.to_thread(engine.load_tts, voice)
    parts = [frame.samples async for frame in tts.synthesize(text)]
    if not parts:
        raise ConfigError(f"there is nothing to speak in {text[:40]!r}")
    return AudioFrame(np.concatenate(parts), tts.rate)
