"""A whole conversation from files: the agent's side of the recording, sample by sample."""

import wave

import numpy as np
import pytest

from duologue import Agent
from duologue.audio import AudioFrame
from duologue.edges import wav
from duologue.events import InterruptionEvent, SpeechResumedEvent
from duologue.testing import Reply, ScriptedRealtime, virtual_time

RATE = 24000


def loud(seconds):
    return AudioFrame(np.full(round(seconds * 16000), 8000, np.int16), 16000)


def tone(seconds):
    at = np.arange(round(seconds * RATE))
    return (8000 * np.sin(2 * np.pi * 440.0 / RATE * at)).astype(np.int16)


async def converse(tmp_path, interjection, transcripts):
    path = tmp_path / "talk.wav"
    edge = wav.Edge(
        loud(0.6),
        path,
        rate=RATE,
        interjections=[wav.Interjection(interjection, after_agent_speech_s=1.0)],
    )
    model = ScriptedRealtime(
        [Reply("a b c d e f g h", seconds=3.0), Reply("x y z", seconds=0.5, tone=300)],
        transcripts=transcripts,
    )
    agent = Agent(edge=edge, llm=model)
    events = []
    agent.events.tap(events.append)
    async with agent.join():
        await agent.finish()
    with wave.open(str(path)) as file:
        both = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2)
    return agent, events, both[:, 1]


@virtual_time
async def cough(tmp_path):
    agent, events, right = await converse(tmp_path, loud(0.25), ["hello", ""])
    assert len([e for e in events if isinstance(e, SpeechResumedEvent)]) == 1
    assert agent.llm.epoch == 0
    played, whole = right[right != 0], tone(3.0)
    assert np.array_equal(played, whole[whole != 0])
    sounding = np.flatnonzero(right)
    gap = np.diff(sounding).max() / RATE
    assert 0.4 < gap < 0.9


@virtual_time
async def barge_in(tmp_path):
    agent, events, right = await converse(tmp_path, loud(0.8), ["hello", "stop now"])
    (cut,) = [e for e in events if isinstance(e, InterruptionEvent)]
    whole, answer = tone(3.0), (8000 * np.sin(2 * np.pi * 300 / RATE * np.arange(12000)))
    answer = answer.astype(np.int16)
    played = right[right != 0]
    second = answer[answer != 0]
    assert np.array_equal(played[-len(second) :], second)
    first = played[: -len(second)]
    reference = whole[whole != 0]
    assert np.array_equal(first, reference[: len(first)])
    begin = np.flatnonzero(right)[0] - 1
    last_heard = np.flatnonzero(right)[len(first) - 1] + 1 - begin
    assert cut.played_ms == pytest.approx(last_heard * 1000 / RATE, abs=1)
    assert cut.played_ms * RATE <= (last_heard + 1) * 1000
    assert [i.text for i in agent.conversation] == ["hello", cut.heard_text, "stop now", "x y z"]


def test_a_cough_loses_and_doubles_no_sample(tmp_path):
    cough(tmp_path)


def test_a_barge_in_leaves_silence_and_a_history_of_what_was_heard(tmp_path):
    barge_in(tmp_path)
