"""Whatever a component raises is reported once and fails only its own work."""

import asyncio

import pytest
from fake_components import LLM, STT, TTS, Turn

from duologue.errors import SessionError
from duologue.events import ErrorEvent
from duologue.items import AgentItem
from duologue.pipeline.interfaces import TextDelta, ToolRequest
from duologue.testing import virtual_time
from duologue.vad.energy import EnergyVAD
from fake_edge import FakeEdge, events_of, join_agent


class UnwritableError(Exception):
    def __str__(self):
        raise RuntimeError("no text")


class PanicError(BaseException):
    """Rust code raises a BaseException, not an Exception."""


ERRORS = [
    RuntimeError("the service answered 503"),
    SystemExit(2),
    StopIteration(),
    asyncio.CancelledError(),
    UnwritableError(),
    PanicError("index out of bounds"),
    ExceptionGroup("two", [SessionError("overloaded"), ValueError("no")]),
]


class Broken:
    """Makes a function of a component fail for as long as ``error`` is set."""

    def __init__(self, part, name):
        self.error = None
        work = getattr(part, name)

        def broken(*arguments):
            if self.error is not None:
                raise self.error
            return work(*arguments)

        setattr(part, name, broken)


class LateTTS(TTS):
    """Fails in the middle of its first reply."""

    error = None

    async def synthesize(self, text):
        async for frame in super().synthesize(text):
            yield frame
            if self.error is not None:
                raise self.error


class LateLLM(LLM):
    """Fails in the middle of its replies."""

    error = None

    async def generate(self, instructions, history, tools):
        async for output in super().generate(instructions, history, tools):
            yield output
            if self.error is not None:
                raise self.error


class AsyncSTT(STT):
    """Fails in one of the coroutines of its streams."""

    def __init__(self, name):
        super().__init__()
        self.name, self.error = name, None

    def stream(self):
        stream = super().stream()
        work = getattr(stream, self.name)

        async def coroutine(*arguments):
            if self.error is not None:
                raise self.error
            return await work(*arguments)

        def plain(*arguments):
            if self.error is not None:
                raise self.error
            return work(*arguments)

        setattr(stream, self.name, plain if self.name == "push" else coroutine)
        return stream


class AsyncTurn(Turn):
    error = None

    async def end_of_turn(self, audio, text):
        if self.error is not None:
            raise self.error
        return await super().end_of_turn(audio, text)


class OddVAD(EnergyVAD):
    error = None

    def stream(self):
        stream = super().stream()
        vad = self

        class Stream:
            def push(self, samples):
                if vad.error is not None:
                    raise vad.error
                return stream.push(samples)

        return Stream()


def make(what):
    """Return pipeline options in which ``what`` can fail, and the object that makes it fail."""
    match what:
        case "vad":
            breaks = OddVAD()
            return {"vad": breaks}, breaks
        case "stt stream":
            stt = STT()
            return {"stt": stt}, Broken(stt, "stream")
        case "stt push" | "stt text" | "stt close":
            breaks = AsyncSTT(what.split()[1])
            return {"stt": breaks}, breaks
        case "turn":
            breaks = AsyncTurn()
            return {"turn_detection": breaks}, breaks
        case "llm call":
            llm = LLM("One.", "Two.")
            return {"llm": llm}, Broken(llm, "generate")
        case "llm":
            breaks = LateLLM("One.", "Two.")
            return {"llm": breaks}, breaks
        case "tts call":
            tts = TTS()
            return {"tts": tts}, Broken(tts, "synthesize")
        case _:
            breaks = LateTTS()
            return {"tts": breaks}, breaks


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize(
    "what",
    [
        "vad",
        "stt stream",
        "stt push",
        "stt text",
        "stt close",
        "turn",
        "llm call",
        "llm",
        "tts call",
        "tts",
    ],
)
def test_component_error_is_reported_and_the_next_turn_is_answered(what, error):
    @virtual_time
    async def run():
        options, breaks = make(what)
        phone = FakeEdge()
        parts = {"stt": STT(), "tts": TTS(), "turn_detection": Turn(), "vad": EnergyVAD()}
        llm = options.pop("llm", None) or LLM("One.", "Two.")
        async with join_agent(llm, phone, **{**parts, **options}) as agent:
            breaks.error = error.with_traceback(None)
            await phone.speak(0.5)
            await phone.be_silent(3.0)
            told = [event.message for event in events_of(agent, ErrorEvent)]
            # No reply depends on releasing a turn, so a failure of that is only logged.
            assert len(told) == (0 if what == "stt close" else 1), told
            breaks.error = None
            llm.answers = ["At last."]
            await phone.speak(0.5)
            await phone.be_silent(3.0)
            said = [item.text for item in agent.conversation if isinstance(item, AgentItem)]
            assert said[-1] == "At last."
            assert len(events_of(agent, ErrorEvent)) == len(told)

    run()


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("just text", "an LLM must yield TextDelta, ToolRequest or TokenUsage, not str"),
        (None, "not NoneType"),
        (TextDelta(None), "TypeError"),
        (ToolRequest("c", "look", {"at": 1}), "must be JSON text, not dict"),
    ],
    ids=repr,
)
def test_invalid_output_of_an_llm_is_reported(output, message):
    @virtual_time
    async def run():
        class Odd(LLM):
            async def generate(self, instructions, history, tools):
                yield output

        async with join_agent(Odd(), FakeEdge(), stt=STT(), tts=TTS()) as agent:
            with pytest.raises(SessionError):
                await agent.simple_response("Hello?")
            (error,) = events_of(agent, ErrorEvent)
            assert message in error.message

    run()


@virtual_time
async def test_invalid_output_of_a_tts_is_reported():
    class Bytes(TTS):
        async def synthesize(self, text):
            yield b"1234"

    async with join_agent(LLM("Hello."), FakeEdge(), stt=STT(), tts=Bytes()) as agent:
        with pytest.raises(SessionError, match="a TTS must yield AudioFrame, not bytes"):
            await agent.simple_response("Hello?")


@virtual_time
async def test_component_that_always_fails_is_reported_at_intervals():
    vad = OddVAD()
    vad.error = RuntimeError("no weights")
    phone = FakeEdge()
    async with join_agent(LLM(), phone, stt=STT(), tts=TTS(), vad=vad) as agent:
        await phone.speak(35)
        told = [event.message for event in events_of(agent, ErrorEvent)]
    assert len(told) == 4
    assert told[0] == "voice activity detection: RuntimeError: no weights"
    assert "times more since the last report" in told[1]


@virtual_time
async def test_calls_with_the_same_id_in_every_reply_stay_separate():
    def add(agent):
        @agent.tool
        async def weather(city: str) -> str:
            return f"{city}: sunny"

    oslo, rome = (ToolRequest("call_0", "weather", f'{{"city": "{c}"}}') for c in ("Oslo", "Rome"))
    nameless = ToolRequest("", "weather", '{"city": "Bonn"}')
    llm = LLM([oslo], "Sunny in Oslo.", [rome, nameless], "Sunny there, too.")
    async with join_agent(llm, FakeEdge(), prepare=add, stt=STT(), tts=TTS()) as agent:
        assert (await agent.simple_response("Oslo?")).heard_text == "Sunny in Oslo."
        assert (await agent.simple_response("Rome?")).heard_text == "Sunny there, too."
        outputs = [getattr(item, "output", None) for item in agent.conversation]
        assert [o for o in outputs if o] == ["Oslo: sunny", "Rome: sunny", "Bonn: sunny"]
