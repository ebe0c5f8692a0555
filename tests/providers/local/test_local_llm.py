from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import cast

import pytest

from duologue.errors import ConfigError, ErrorKind, SessionError
from duologue.items import AgentItem, Item, ToolCallItem, ToolResultItem, UserItem
from duologue.json_types import JsonObject
from duologue.pipeline.interfaces import LLM, LLMOutput, TextDelta, TokenUsage, ToolRequest
from duologue.realtime.commands import ToolSpec
from duologue.weights import GgufError, Store
from gguf_files import gguf

pytest.importorskip("xllamacpp", reason="needs duologue[local]")

from duologue.providers.local import _llama, _prompt, engine
from duologue.providers.local._llama import SLOTS, Llama, Message
from duologue.providers.local._llm import MIN_CHARACTERS, LocalLLM

pytestmark = pytest.mark.weights

INSTRUCTIONS = "You are Ava of Hotel Sol. Breakfast is from seven to ten. The pool closes at nine."

TIMER = ToolSpec(
    "set_timer",
    "Set a timer.",
    {
        "type": "object",
        "properties": {"minutes": {"type": "integer"}},
        "required": ["minutes"],
    },
)


@pytest.fixture(scope="session")
def llm(weights: Store) -> LLM:
    _, model = engine.load_llm(engine.find_profile("tiny"))
    return model


async def reply(
    llm: LLM, history: Sequence[Item], tools: Sequence[ToolSpec] = ()
) -> list[LLMOutput]:
    async with aclosing(llm.generate(INSTRUCTIONS, history, tools)) as stream:
        return [output async for output in stream]


def text_of(outputs: list[LLMOutput]) -> str:
    return "".join(output.text for output in outputs if isinstance(output, TextDelta))


async def test_text_streams_and_tokens_are_counted(llm: LLM) -> None:
    await llm.prepare(INSTRUCTIONS, [])
    outputs = await reply(llm, [UserItem("1", "When does the pool close?")])
    assert "nine" in text_of(outputs)
    assert len([output for output in outputs if isinstance(output, TextDelta)]) > 3
    assert isinstance(outputs[-1], TokenUsage)
    assert outputs[-1].input > 50
    assert outputs[-1].output > 3


async def test_closing_stops_the_generation_soon(llm: LLM) -> None:
    story = [UserItem("1", "Tell me a very long story about a dog and a cat.")]
    started = time.perf_counter()
    await reply(llm, story)
    whole = time.perf_counter() - started
    for _ in range(SLOTS + 2):
        async with aclosing(llm.generate(INSTRUCTIONS, story, [])) as stream:
            await anext(stream)
    started = time.perf_counter()
    outputs = await reply(llm, [UserItem("1", "Hello.")])
    # If one of the many had run to its end, this would wait for it.
    assert outputs
    assert time.perf_counter() - started < max(1.0, 3 * whole)


async def test_a_cancelled_reader_frees_the_model(llm: LLM) -> None:
    async with asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(reply(llm, [UserItem("1", "Tell me a long story.")]))
        await asyncio.sleep(0.05)
        reading.cancel()
    assert text_of(await reply(llm, [UserItem("1", "Hello.")]))


async def test_a_reply_reads_only_what_was_not_read_ahead(llm: LLM) -> None:
    assert isinstance(llm, LocalLLM)
    words = "Could you please tell me in one sentence when the pool and the restaurant "
    question = [UserItem("1", f"{words * 3}close tonight?")]

    async def first_text_s(history: Sequence[Item]) -> float:
        started = time.perf_counter()
        async with aclosing(llm.generate(INSTRUCTIONS, history, [])) as stream:
            await anext(stream)
        return time.perf_counter() - started

    alone, ahead = [], []
    for _ in range(3):
        await llm.prefill(INSTRUCTIONS, [UserItem("1", "Good morning.")], [])
        alone.append(await first_text_s(question))
        await llm.prefill(INSTRUCTIONS, [UserItem("1", "Good morning.")], [])
        await llm.prefill(INSTRUCTIONS, [UserItem("1", words * 3)], [])
        ahead.append(await first_text_s(question))
    assert min(ahead) < 0.8 * min(alone)


async def test_a_reply_goes_to_the_slot_that_reads_ahead_for_it(llm: LLM) -> None:
    assert isinstance(llm, LocalLLM)
    cost = _llama._slot_cost
    prompt = ["system: Be kind.", "user: What is my name, and when do we eat?"]
    thread = llm._llama._slots[0].thread
    reading = _llama._Slot(0, thread, cached=[prompt[0], "user: What is my name"])
    reading.runs.append(_llama._Run(is_short=True))
    other = _llama._Slot(1, thread, cached=[prompt[0], "user: " + "Something else. " * 9])
    assert cost(reading, prompt) < cost(other, prompt)
    talking = _llama._Slot(2, thread, cached=prompt, runs=[_llama._Run(is_short=False)])
    assert cost(talking, prompt) > cost(reading, prompt)


async def test_more_conversations_than_slots_are_all_served(llm: LLM) -> None:
    async with asyncio.TaskGroup() as tasks:
        replies = [
            tasks.create_task(reply(llm, [UserItem("1", f"Count to {n}.")]))
            for n in range(2, SLOTS + 4)
        ]
    assert all(text_of(each.result()) for each in replies)


async def test_each_conversation_finds_its_cache_again(llm: LLM) -> None:
    # Each conversation is long, so that reading another one's prompt would take noticeable time.
    def opening(name: str) -> list[Item]:
        long = f"My name is {name}. " + f"I like {name} very much. " * 30
        return [UserItem("1", long), AgentItem("2", f"Hello {name}.")]

    async def first_word(history: list[Item]) -> float:
        started = time.perf_counter()
        async with aclosing(llm.generate(INSTRUCTIONS, history, [])) as stream:
            await anext(stream)
        return time.perf_counter() - started

    talks = {name: opening(name) for name in ("Ann", "Bob", "Cid")}
    cold = [await first_word([*talk, UserItem("3", "Hello.")]) for talk in talks.values()]
    for _ in range(3):  # a busy machine may spoil one try
        warm = [await first_word([*talk, UserItem("3", "And now?")]) for talk in talks.values()]
        if sum(warm) < 0.6 * sum(cold):
            return
    pytest.fail(f"first words after {cold} s cold and {warm} s warm")


async def test_a_text_that_is_too_long_is_shortened(llm: LLM) -> None:
    history: list[Item] = [UserItem("1", "word " * 13000)]
    assert await reply(llm, history)
    history += [AgentItem("2", "All right."), UserItem("3", "Hello.")]
    assert text_of(await reply(llm, history))


class SmallContext:
    """A runtime that reads at most ``size`` characters."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.tries = 0

    async def stream(
        self, messages: Sequence[Message], options: JsonObject, *, max_tokens: int
    ) -> AsyncGenerator[str | TokenUsage]:
        self.tries += 1
        if sum(len(str(message["content"])) for message in messages) > self.size:
            raise SessionError("request exceeds the available context size", kind=ErrorKind.RETRY)
        yield "Yes."


@pytest.mark.parametrize(("size", "tries"), [(4000, 1), (1700, 2), (1000, 3), (10, 3)])
async def test_a_history_that_does_not_fit_is_shortened_further(size: int, tries: int) -> None:
    runtime = SmallContext(size)
    model = LocalLLM(cast("Llama", runtime), "small context")
    talk: list[Item] = [UserItem("1", "1,2,3," * 4000), AgentItem("2", "Well."), UserItem("3", "?")]
    if size > MIN_CHARACTERS:
        assert text_of(await reply(model, talk)) == "Yes."
    else:
        with pytest.raises(SessionError, match="context size"):
            await reply(model, talk)
    assert runtime.tries == tries


async def test_a_tool_may_return_more_than_the_model_can_read(llm: LLM) -> None:
    history: list[Item] = [
        UserItem("1", "Please set a timer for ten minutes."),
        ToolCallItem("2", "call_1", "set_timer", '{"minutes": 10}'),
        ToolResultItem("3", "call_1", "The timer is running. " * 1500),
    ]
    assert text_of(await reply(llm, history, [TIMER]))


async def test_instructions_that_do_not_fit_are_an_error(llm: LLM) -> None:
    with pytest.raises(SessionError, match="context size"):
        await llm.prepare("word " * 20000, [])
    with pytest.raises(SessionError, match="context size"):
        await anext(llm.generate("word " * 20000, [UserItem("1", "Hi.")], []))


def test_a_long_history_keeps_its_end() -> None:
    turns: list[Item] = [UserItem(str(n), f"{n} " + "x" * 900) for n in range(40)]
    messages = _prompt.chat_messages(turns)
    assert sum(len(str(message["content"])) for message in messages) <= _prompt.MAX_CHARACTERS
    assert str(messages[-1]["content"]).startswith("39 ")
    long = _prompt.chat_messages([UserItem("1", "a" * 20000 + "z"), UserItem("2", "Hello.")])
    assert [len(str(message["content"])) for message in long][1:] == [6]
    assert str(long[0]["content"]).startswith("aaa")
    assert str(long[0]["content"]).endswith("aaz")
    assert "[17001 characters left out]" in str(long[0]["content"])
    [chinese] = _prompt.chat_messages([UserItem("1", "\u4f60\u597d" * 16000)])
    assert len(str(chinese["content"])) < _prompt.MAX_MESSAGE_CHARACTERS / 3


async def test_a_tool_is_called_and_its_result_is_only_spoken(llm: LLM) -> None:
    history: list[Item] = [UserItem("1", "Please set a timer for ten minutes.")]
    outputs = await reply(llm, history, [TIMER])
    [call] = [output for output in outputs if isinstance(output, ToolRequest)]
    assert call.name == "set_timer"
    assert text_of(outputs) == ""
    history += [
        ToolCallItem("2", call.call_id, call.name, call.arguments),
        ToolResultItem("3", call.call_id, "the timer is running"),
    ]
    outputs = await reply(llm, history, [TIMER])
    assert not [output for output in outputs if isinstance(output, ToolRequest)]
    # The text is not checked, because a model of this size reports a result by luck.
    assert any(letter.isalpha() for letter in text_of(outputs))
    assert "{" not in text_of(outputs)


def test_a_file_that_is_not_a_model_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DUOLOGUE_CACHE", str(tmp_path / "cache"))
    with pytest.raises(ConfigError, match="there is no file"):
        engine.load_gguf(tmp_path / "nothing.gguf")
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"not a model")
    with pytest.raises(GgufError, match=r"broken\.gguf can't be the language model: it is no GGUF"):
        engine.load_gguf(broken)
    unknown = tmp_path / "unknown.gguf"
    unknown.write_bytes(gguf())
    with pytest.raises(SessionError, match=r"unknown\.gguf \(0\.0 GB\) can't be loaded"):
        engine.load_gguf(unknown)
