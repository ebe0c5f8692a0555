"""What the engine takes for the end of a turn, in whole conversations in virtual time."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Sequence

import numpy as np
import pytest

from duologue import Agent, AudioFrame
from duologue.audio import Samples
from duologue.edges import wav
from duologue.events import AgentTurnStartedEvent, Event, InterruptionEvent, UserTurnEndedEvent
from duologue.items import Item, UserItem
from duologue.pipeline.interfaces import LLMOutput, TextDelta
from duologue.realtime.commands import ToolSpec
from duologue.testing import virtual_time
from duologue.weights import Store

pytest.importorskip("onnxruntime", reason="needs duologue[local]")

from duologue.providers import local
from duologue.providers.local import engine

pytestmark = pytest.mark.weights

RATE = 24000


class Model:
    """A language model whose reply is always the same."""

    model = "script"
    tools_reliable = True

    async def prepare(self, instructions: str, tools: Sequence[ToolSpec]) -> None: ...

    async def generate(
        self, instructions: str, history: Sequence[Item], tools: Sequence[ToolSpec]
    ) -> AsyncGenerator[LLMOutput]:
        yield TextDelta("All right, I have noted that down for you.")


async def spoken(*parts: str, pause: float) -> AudioFrame:
    voice, pieces = engine.load_tts(), []
    for part in parts:
        pieces += [frame.samples async for frame in voice.synthesize(part)]
        pieces.append(np.zeros(int(pause * RATE), np.int16))
    return AudioFrame(np.concatenate(pieces), RATE)


async def conversation(audio: AudioFrame) -> tuple[list[str], list[Event]]:
    """Return the transcripts of the user turns, and all events."""
    edge = wav.Edge(audio, settle_s=1.5, wait_s=10, lead_in_s=0.3)
    agent = Agent(edge=edge, llm=local.Realtime("tiny", llm=Model()))
    events: list[Event] = []
    agent.events.tap(events.append)
    async with agent.join():
        await agent.finish()
    return [item.text or "" for item in agent.conversation if isinstance(item, UserItem)], events


@virtual_time
@pytest.mark.parametrize(
    "parts",
    [
        ("I would like to book a table for", "four people, on Friday."),
        ("We arrive on Monday and", "we leave on Thursday."),
    ],
)
async def test_a_pause_within_a_sentence_does_not_end_the_turn(
    weights: Store, parts: tuple[str, str]
) -> None:
    turns, events = await conversation(await spoken(*parts, pause=1.0))
    assert len(turns) == 1
    assert len([event for event in events if isinstance(event, AgentTurnStartedEvent)]) == 1
    assert not [event for event in events if isinstance(event, InterruptionEvent)]


@virtual_time
@pytest.mark.parametrize("pause", [0.5, 0.9, 1.8])
async def test_a_number_dictated_in_groups_is_one_turn(weights: Store, pause: float) -> None:
    parts = ("My number is five five five,", "one two three,", "four five six seven.")
    turns, _ = await conversation(await spoken(*parts, pause=pause))
    said = " ".join(turns).lower()
    for digit, word in enumerate(("one", "two", "three", "four", "five", "six", "seven"), 1):
        said = said.replace(word, str(digit))
    assert re.sub(r"\D", "", said) == "5551234567"


@virtual_time
async def test_a_name_that_is_spelled_is_one_turn(weights: Store) -> None:
    turns, _ = await conversation(await spoken("My name is", "J, O, H, N.", pause=0.5))
    letters = re.sub(r"[^a-z]", "", " ".join(turns).lower().partition("is")[2])
    assert letters == "john"


@virtual_time
async def test_music_alone_is_no_turn(weights: Store) -> None:
    at = np.arange(6 * 16000) / 16000
    tones = (np.sin(2 * np.pi * hertz * at) for hertz in (220.0, 277.2, 329.6, 440.0))
    chord: Samples = (2500 * np.sum(list(tones), axis=0)).astype(np.int16)
    turns, _ = await conversation(AudioFrame(chord, 16000))
    assert turns == []


@virtual_time
@pytest.mark.parametrize(
    "question",
    ["Where is the pool?", "What are you looking for?", "Could you repeat that, please?"],
)
async def test_a_complete_sentence_is_answered_at_once(weights: Store, question: str) -> None:
    audio = await spoken(question, pause=0)
    speech_s = np.flatnonzero(np.abs(audio.samples.astype(np.int32)) > 300)[-1] / RATE
    edge = wav.Edge(audio, settle_s=1.0, wait_s=6, lead_in_s=0.3)
    agent = Agent(edge=edge, llm=local.Realtime("tiny", llm=Model()))
    loop = asyncio.get_running_loop()
    ended: list[float] = []
    agent.events.tap(
        lambda event: ended.append(loop.time()) if isinstance(event, UserTurnEndedEvent) else None
    )
    began = loop.time()
    async with agent.join():
        await agent.finish()
    assert ended[-1] - began - 0.3 - speech_s < 0.3
