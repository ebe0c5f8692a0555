"""Pipeline components that do what a test says, in virtual time."""

import asyncio
from contextlib import asynccontextmanager, suppress

import numpy as np

from duologue.audio import AudioFrame
from duologue.pipeline.interfaces import TextDelta
from duologue.pipeline.pipeline import Pipeline
from duologue.realtime.codec import SessionSetup

RATE = 16000


class STT:
    """Transcribes each 100 ms of loud audio as a word: "w1 w2", or as ``transcribe`` returns."""

    rate = RATE

    def __init__(self, *, delay_s=0.02, transcribe=None):
        self.delay_s = delay_s
        self.transcribe = transcribe or (
            lambda loud: " ".join(f"w{i + 1}" for i in range(int(loud * 10)))
        )
        self.streams = []
        self.calls = 0
        self.fails = None

    def stream(self):
        stream = _Stream(self)
        self.streams.append(stream)
        return stream


class _Stream:
    def __init__(self, stt):
        self.stt = stt
        self.loud = 0.0
        self.audio = []
        self.closed = False

    def push(self, frame):
        assert frame.rate == self.stt.rate
        self.audio.append(frame.samples)
        self.loud += float(np.count_nonzero(frame.samples)) / frame.rate

    async def text(self):
        self.stt.calls += 1
        loud = self.loud
        await asyncio.sleep(self.stt.delay_s)
        if self.stt.fails is not None:
            raise self.stt.fails
        return self.stt.transcribe(loud + 1e-6)

    async def close(self):
        self.closed = True


class LLM:
    """Replies with the next of ``answers``: a text, a list of outputs, or an error to raise."""

    model = "fake"
    tools_reliable = True

    def __init__(self, *answers, delta_s=0.01, wait_s=0.05):
        self.answers = list(answers)
        self.delta_s = delta_s
        self.wait_s = wait_s
        self.requests = []
        self.closed = 0
        self.prepared = None

    async def prepare(self, instructions, tools):
        self.prepared = (instructions, tools)

    async def generate(self, instructions, history, tools):
        self.requests.append((instructions, list(history), list(tools)))
        answer = self.answers.pop(0) if self.answers else "Yes."
        try:
            await asyncio.sleep(self.wait_s)
            for part in answer.split(" ") if isinstance(answer, str) else answer:
                if isinstance(part, Exception):
                    raise part
                yield TextDelta(part + " ") if isinstance(part, str) else part
                await asyncio.sleep(self.delta_s)
        finally:
            self.closed += 1


class TTS:
    """Yields 50 ms of audio for each letter, each made in ``delay_s``."""

    rate = 24000

    def __init__(self, *, delay_s=0.001):
        self.delay_s = delay_s
        self.texts = []
        self.fails = None

    async def synthesize(self, text):
        self.texts.append(text)
        for _ in text:
            await asyncio.sleep(self.delay_s)
            if self.fails is not None:
                raise self.fails
            yield AudioFrame(np.full(1200, 900, np.int16), self.rate)


class Turn:
    """Votes that the turn is over with the next of ``votes``, then 1."""

    rate = 8000

    def __init__(self, *votes):
        self.votes = list(votes)
        self.heard = []

    async def end_of_turn(self, audio, text):
        self.heard.append((len(audio) / self.rate, await text()))
        vote = self.votes.pop(0) if self.votes else 1.0
        if isinstance(vote, Exception):
            raise vote
        return vote


class Observer:
    """Observes a pipeline as an agent does."""

    def __init__(self, cuts=()):
        self.outputs = []
        self.refusals = []
        self.cuts = cuts
        self.loop = asyncio.get_running_loop()

    def connected(self, event): ...

    def disconnected(self, event): ...

    def output(self, output, epoch):
        self.outputs.append((self.loop.time(), output))

    def on_interrupt(self, epoch):
        return self.cuts

    def reply_ended(self, request_id, error):
        self.refusals.append((request_id, error))

    def of_type(self, *kinds):
        return [output for _, output in self.outputs if isinstance(output, kinds)]

    def time_of(self, kind):
        return next(at for at, output in self.outputs if isinstance(output, kind))

    @property
    def text(self):
        return "".join(o.text for o in self.told_of("ReplyText"))

    def told_of(self, name):
        return [output for _, output in self.outputs if type(output).__name__ == name]


@asynccontextmanager
async def session(*, stt=None, llm=None, tts=None, history=(), tools=(), **options):
    """Run a pipeline that has its ``observer``, ``stt``, ``llm`` and ``tts`` as attributes."""
    pipeline = Pipeline(stt=stt or STT(), llm=llm or LLM(), tts=tts or TTS(), **options)
    parts = pipeline._components
    pipeline.stt, pipeline.llm, pipeline.tts = parts.stt, parts.llm, parts.tts
    pipeline.observer = Observer()
    setup = SessionSetup("Be kind.", tools, history)
    task = asyncio.create_task(pipeline.run(setup, pipeline.observer))
    await pipeline.ready()
    try:
        yield pipeline
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        assert len(asyncio.all_tasks()) == 1, "no task is left"


async def speak(pipeline, seconds, level=8000):
    for _ in range(round(seconds * 50)):
        await asyncio.sleep(0.02)
        pipeline.send_audio(AudioFrame(np.full(RATE // 50, level, np.int16), RATE))


async def be_silent(pipeline, seconds):
    await speak(pipeline, seconds, 0)
