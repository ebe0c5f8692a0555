"""A voice that says what was spoken of a reply that was cut corrects what is known as heard."""

import asyncio

import numpy as np
import pytest
from fake_components import LLM, STT

from duologue.audio import AudioFrame
from duologue.items import AgentItem
from duologue.pipeline._reply_speaker import prefix_of
from duologue.pipeline.interfaces import SpokenText, StoppedText
from duologue.testing import virtual_time
from fake_edge import FakeEdge, join_agent

RATE = 24000
TEXT = "One two three four five six seven. "


class Voice:
    """A voice without times, whose replies do not end by themselves; both of its protocols."""

    rate = RATE

    def __init__(self, report=None, report_s=0.05):
        self.report, self.report_s = report, report_s
        self.played = []

    def connect(self):
        return self

    async def run(self):
        await asyncio.Event().wait()

    def synthesize(self, receive, *, hurry=True):
        return Synthesis(self, receive)


class Synthesis:
    def __init__(self, voice, receive):
        self.voice, self.receive = voice, receive

    async def send(self, text):
        self.receive(SpokenText(text))
        for _ in range(30):
            self.receive(AudioFrame(np.full(RATE // 10, 500, np.int16), RATE))

    def flush(self): ...

    def finish(self): ...

    async def wait(self):
        await asyncio.Event().wait()

    def cancel(self, played=None):
        self.voice.played.append(played)
        self.receive(SpokenText("stale"))
        if self.voice.report is not None:
            stopped = StoppedText(self.voice.report)
            asyncio.get_running_loop().call_later(self.voice.report_s, self.receive, stopped)


async def heard_after_a_cut(voice, seconds=1.0):
    """Return the conversation's item of a reply that was cut, and what the model knows of it."""
    llm = LLM(TEXT, "Yes.")
    async with join_agent(llm, FakeEdge(), stt=STT(), tts=voice) as agent:
        agent.simple_response("go on")
        await asyncio.sleep(seconds)
        agent.interrupt()
        await asyncio.sleep(1.0)
        agent.simple_response("and then?")
        await asyncio.sleep(0.2)
        (item, *_) = [one for one in agent.conversation if isinstance(one, AgentItem)]
        known = [one for one in llm.requests[-1][1] if isinstance(one, AgentItem)]
        return item, known[0]


@virtual_time
async def test_the_voice_gets_what_was_played_and_its_words_count():
    voice = Voice(" One two  three four five")
    item, known = await heard_after_a_cut(voice)
    assert item.text == known.text == "One two three four five"
    assert item.state == "cut"
    assert voice.played[0] == item.played_ms * RATE // 1000
    assert 0.9 < item.played_ms / 1000 <= 1.0


@pytest.mark.parametrize(
    ("report", "seconds"), [(None, 0.05), ("one to", 0.05), ("One two three four", 0.7)]
)
def test_without_a_report_that_fits_and_is_in_time_the_estimate_stays(report, seconds):
    @virtual_time
    async def run():
        item, _ = await heard_after_a_cut(Voice(report, seconds))
        estimated, _ = await heard_after_a_cut(Voice())
        assert item.text == estimated.text != "One two three four"

    run()


@virtual_time
async def test_a_reply_that_was_not_heard_is_stopped_without_a_position():
    voice = Voice()
    llm = LLM(TEXT, "Yes.")
    async with join_agent(llm, FakeEdge(), stt=STT(), tts=voice) as agent:
        agent.simple_response("go on")
        while not llm.requests:
            await asyncio.sleep(0.001)
        agent.interrupt()
        await asyncio.sleep(0.1)
        assert voice.played == [None]
        assert not [one for one in agent.conversation if isinstance(one, AgentItem)]


@pytest.mark.parametrize(
    ("text", "said", "prefix"),
    [
        ("One two.", "One", "One"),
        ("One  two.", "One two", "One  two"),
        ("你好。再见", "你好。", "你好。"),
        ("One two.", "", ""),
        ("One two.", "one", None),
        ("One", "One two", None),
    ],
)
def test_the_spaces_of_a_report_do_not_count(text, said, prefix):
    assert prefix_of(text, said) == prefix
