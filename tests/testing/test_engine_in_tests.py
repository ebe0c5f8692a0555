"""The built-in engine in programs: faster than real time, to text and to audio."""

import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("xllamacpp", reason="needs duologue[local]")

from duologue import Agent, AudioFrame
from duologue.edges import wav
from duologue.edges.audio_file import load_audio, read_audio, write_audio
from duologue.errors import ConfigError
from duologue.providers import local
from duologue.providers.local.engine import profile_weights
from duologue.testing import run_virtual, synthesize, transcribe
from duologue.vad.words import plain_words
from duologue.weights import Store, WeightsError

pytestmark = pytest.mark.weights

CLIP = Path(__file__).parents[1] / "data" / "speech" / "austen-0930.wav"
WORDS = ["he", "might", "even", "have", "been", "made", "amiable", "himself"]


@pytest.fixture(scope="module", autouse=True)
def weights():
    try:
        for name in profile_weights("tiny"):
            Store().ensure(name, progress=False)
    except WeightsError as error:
        pytest.skip(f"the weights can't be had here: {error}")


async def test_a_file_and_a_frame_become_text():
    assert plain_words(await transcribe(CLIP)) == WORDS
    assert plain_words(await transcribe(load_audio(CLIP, 24000))) == WORDS
    assert await transcribe(AudioFrame.silence(2.0, 48000)) == ""
    with pytest.raises(ConfigError, match="no such file"):
        await transcribe("none.wav")


async def test_a_text_becomes_audio_that_can_be_transcribed_again(tmp_path):
    spoken = await synthesize("The garden is open. Breakfast is at seven.")
    assert spoken.rate == 24000
    assert 1.5 < spoken.duration < 5
    write_audio(tmp_path / "spoken.wav", spoken)
    assert np.array_equal(read_audio(tmp_path / "spoken.wav").samples, spoken.samples)
    said = plain_words(await transcribe(tmp_path / "spoken.wav"))
    assert {"garden", "open", "breakfast"} <= {*said}
    for nothing in ("", "  "):
        with pytest.raises(ConfigError, match="needs a text with words"):
            await synthesize(nothing)


def test_a_conversation_with_the_engine_does_not_wait_in_virtual_time():
    async def main():
        edge = wav.Edge(CLIP, settle_s=300.0)
        agent = Agent(edge=edge, llm=local.Realtime("tiny"), instructions="Answer in five words.")
        async with agent.join():
            await agent.finish()
        return agent

    began = time.monotonic()
    agent = run_virtual(main())
    person, reply = agent.conversation
    assert plain_words(person.text) == WORDS
    assert reply.text
    # The silence alone lasts five minutes of virtual time.
    assert time.monotonic() - began < 150
