"""Whole conversations with the built-in engine, from files: a newcomer's first impression."""

import gc
import wave
from pathlib import Path

import numpy as np
import pytest

from duologue import Agent, AudioFrame
from duologue.audio import Resampler
from duologue.edges import wav
from duologue.events import (
    AgentTranscriptEvent,
    InterruptionEvent,
    RealtimeDisconnectedEvent,
    UserTranscriptEvent,
)
from duologue.items import AgentItem, UserItem
from duologue.providers import local
from duologue.testing import virtual_time
from duologue.vad.words import plain_words

pytestmark = pytest.mark.weights

SPEECH = Path(__file__).parents[1] / "data" / "speech"
TEXTS = {
    "austen-0880": "he was not an ill disposed young man",
    "austen-0890": "unless to be rather cold hearted and rather selfish is to be ill disposed",
    "austen-0920": "had he married a more amiable woman he might have been made still more "
    "respectable than he was",
    "austen-0930": "he might even have been made amiable himself",
    "jfk": "and so my fellow americans ask not what your country can do for you "
    "ask what you can do for your country",
}
RATE = 24000


async def spoken(text):
    from duologue.providers.local import engine

    tts = engine.load_tts()
    parts = [frame.samples async for frame in tts.synthesize(text)]
    resampler = Resampler(tts.rate, 16000)
    samples = np.concatenate((resampler.push(np.concatenate(parts)), resampler.flush()))
    return AudioFrame(samples, 16000)


async def conversation(edge):
    agent = Agent(
        edge=edge,
        llm=local.Realtime("tiny"),
        instructions="You are a helpful assistant. Answer in one short sentence.",
    )
    events = []
    agent.events.tap(events.append)
    async with agent.join():
        await agent.finish()
    return agent, events


def word_errors(said, meant):
    row = list(range(len(meant) + 1))
    for i, word in enumerate(said, 1):
        previous, row[0] = row[0], i
        for j, other in enumerate(meant, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (word != other))
    return row[-1]


@pytest.fixture(autouse=True)
def small_heap():
    """Freeze the objects of earlier tests, so that the garbage collector does not walk over them.

    These conversations run in real time, and a full collection stops the event loop.
    """
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


async def test_an_interruption_stops_the_reply_and_is_answered(weights, tmp_path):
    question = await spoken("Please tell me a long story about a dog and a cat.")
    interruption = await spoken("No, wait, tell me what is the capital of France.")
    out = tmp_path / "conversation.wav"
    edge = wav.Edge(question, out, interjections=[wav.Interjection(interruption, 1.0)])
    agent, events = await conversation(edge)

    [cut] = [e for e in events if isinstance(e, InterruptionEvent) and e.played_ms]
    # After a second of the reply plus the time to notice, and not a sample more.
    assert 900 <= cut.played_ms <= 1500
    first, second = [item for item in agent.conversation if isinstance(item, AgentItem)]
    assert first.state == "cut"
    assert first.text == cut.heard_text
    assert first.played_ms == cut.played_ms
    made = "".join(
        event.text
        for event in events
        if isinstance(event, AgentTranscriptEvent)
        and not event.final
        and event.speech_id == first.speech_id
    )
    assert made.startswith(first.text)
    assert len(first.text) < len(made)
    asked = [item for item in agent.conversation if isinstance(item, UserItem)]
    assert "capital of France" in asked[1].text
    assert second.state == "heard"
    assert "Paris" in second.text

    with wave.open(str(out)) as file:
        both = np.frombuffer(file.readframes(file.getnframes()), np.int16).reshape(-1, 2)
    person, voice = (np.flatnonzero(np.abs(side.astype(int)) > 100) for side in both.T)
    answered = voice[0]
    began = person[person > answered][0]
    ended = person[person > answered][-1]
    silent = voice[(voice > began + 0.35 * RATE) & (voice < ended)]
    assert len(silent) == 0
    assert isinstance(events[-1], RealtimeDisconnectedEvent)
    assert events[-1].clean


@virtual_time
async def test_real_people_are_understood(weights):
    # In virtual time, because a machine that stalls in real time ends turns at other places.
    errors = words = 0
    heard = {}
    for clip, text in TEXTS.items():
        _, events = await conversation(wav.Edge(SPEECH / f"{clip}.wav", settle_s=0.5))
        finals = [e.text for e in events if isinstance(e, UserTranscriptEvent) and e.final]
        heard[clip] = finals
        meant = plain_words(text)
        errors += word_errors(plain_words(" ".join(finals)), meant)
        words += len(meant)
    assert errors / words <= 0.05, heard
