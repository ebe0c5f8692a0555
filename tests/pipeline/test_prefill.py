"""A language model that reads ahead while the person speaks."""

import asyncio
from itertools import pairwise

from fake_components import LLM, STT, Turn, be_silent, session, speak

from duologue.items import AgentItem, UserItem
from duologue.pipeline.interfaces import PrefillingLLM
from duologue.realtime.outputs import ProviderError, ReplyDone, UserTurnEnded
from duologue.testing import virtual_time


class ReadingLLM(LLM):
    """An `LLM` that notes what it reads ahead, each reading taking ``read_s``."""

    def __init__(self, *answers, read_s=0.02, fails=None):
        super().__init__(*answers)
        self.read_s = read_s
        self.fails = fails
        self.readings = []
        self.cancelled = 0

    async def prefill(self, instructions, history, tools):
        assert (instructions, tools) == ("Be kind.", ())
        self.readings.append([(type(item), item.text) for item in history])
        try:
            await asyncio.sleep(self.read_s)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.fails is not None:
            raise self.fails

    @property
    def texts(self):
        return [reading[-1][1] for reading in self.readings if reading]


def test_an_llm_without_a_cache_is_not_taken_for_one_that_has():
    assert isinstance(ReadingLLM(), PrefillingLLM)
    assert not isinstance(LLM(), PrefillingLLM)


@virtual_time
async def test_words_are_read_while_the_person_speaks():
    llm = ReadingLLM()
    async with session(llm=llm, turn=Turn()) as pipeline:
        await speak(pipeline, 3.0)
        assert llm.readings[0] == []  # the conversation so far: none
        assert len(llm.texts) >= 3
        assert all(after.startswith(text) for text, after in pairwise(llm.texts))
        assert len(llm.texts[-1].split()) >= 20
        await be_silent(pipeline, 1.0)
        [(_, history, _)] = llm.requests
        [said] = history
        assert said.text.startswith(llm.texts[-1])


@virtual_time
async def test_the_conversation_is_read_at_the_first_words():
    llm = ReadingLLM("Yes.")
    async with session(llm=llm, turn=Turn()) as pipeline:
        await speak(pipeline, 0.5)
        await be_silent(pipeline, 3.0)
        before = len(llm.readings)
        await speak(pipeline, 0.5)
        assert llm.readings[before] == [(UserItem, "w1 w2 w3 w4 w5"), (AgentItem, "Yes. ")]


@virtual_time
async def test_one_reading_runs_at_a_time_and_the_next_catches_up():
    llm = ReadingLLM(read_s=1.0)
    async with session(llm=llm, turn=Turn()) as pipeline:
        await speak(pipeline, 3.5)
        assert len(llm.readings) == 4
        assert llm.cancelled == 0
        assert len(llm.texts[-1].split()) >= 25


@virtual_time
async def test_a_reply_does_not_wait_for_a_reading():
    llm = ReadingLLM(read_s=60.0)
    async with session(llm=llm, turn=Turn()) as pipeline:
        await speak(pipeline, 0.5)
        await be_silent(pipeline, 1.0)
        assert llm.cancelled == 1
        assert len(pipeline.observer.of_type(ReplyDone)) == 1


@virtual_time
async def test_a_reading_that_fails_is_of_no_consequence():
    llm = ReadingLLM(fails=RuntimeError("no room"))
    async with session(llm=llm, turn=Turn()) as pipeline:
        await speak(pipeline, 2.0)
        await be_silent(pipeline, 2.0)
        assert len(llm.readings) > 1
        assert not pipeline.observer.of_type(ProviderError)
        [done] = pipeline.observer.of_type(ReplyDone)
        assert done.status == "completed"
        assert len(pipeline.observer.of_type(UserTurnEnded)) == 1


@virtual_time
async def test_nothing_is_read_for_audio_without_words():
    llm = ReadingLLM()
    async with session(llm=llm, stt=STT(transcribe=lambda loud: ""), turn=Turn()) as pipeline:
        await speak(pipeline, 2.0)
        await be_silent(pipeline, 1.0)
        assert [reading for reading in llm.readings if reading] == []
