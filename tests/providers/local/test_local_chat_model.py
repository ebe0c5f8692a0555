"""`local.LLM`: any GGUF chat model as the language model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import cast

import pytest

pytest.importorskip("xllamacpp", reason="needs duologue[local]")

from duologue.errors import ConfigError, SessionError
from duologue.items import AgentItem, Item, SystemItem, ToolCallItem, ToolResultItem, UserItem
from duologue.json_types import JsonObject
from duologue.pipeline.interfaces import LLMOutput, TextDelta, TokenUsage, ToolRequest
from duologue.providers import local
from duologue.providers.local import _llama, _prompt, engine
from duologue.providers.local._llama import Llama, Message
from duologue.providers.local._llm import LocalLLM
from duologue.providers.parts import make_llm
from duologue.realtime.codec import SessionSetup
from duologue.realtime.commands import ToolSpec
from duologue.testing import run_virtual
from duologue.weights import GgufError, ModelFiles, Store, WeightsError
from gguf_files import CHAT, gguf, with_chat_template
from loopback_hub import LoopbackHub, loopback_hub

INSTRUCTIONS = "You are Ava of Hotel Sol. Breakfast is from seven to ten. The pool closes at nine."
TIMER = ToolSpec(
    "set_timer",
    "Set a timer.",
    {"type": "object", "properties": {"minutes": {"type": "integer"}}, "required": ["minutes"]},
)
NAME = "hf:acme/Toy-GGUF/toy-q4.gguf"

STRICT = (
    "{% set first = 1 if messages and messages[0]['role'] == 'system' else 0 %}"
    "{% for message in messages %}"
    "{% if loop.index0 >= first and (message['role'] == 'user') != (loop.index0 % 2 == first) %}"
    "{{ raise_exception('Conversation roles must alternate') }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n' }}{% endif %}"
)
"""Refuses two messages of one role in a row, and begins a thought in every prompt."""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DUOLOGUE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("DUOLOGUE_OFFLINE", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def hub(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    with loopback_hub(monkeypatch) as made:
        made.files = {"acme/Toy-GGUF/toy-q4.gguf": gguf()}
        yield made


class FakeLlama:
    """A runtime that replies with the same chunks each time."""

    made: list[FakeLlama]

    def __init__(self, path: Path, *, chat_template: str | None = None) -> None:
        self.path = path
        self.chat_template = chat_template
        self.requests: list[tuple[list[Message], JsonObject, int]] = []
        self.chunks: list[str | TokenUsage] = ["The pool ", "closes.", TokenUsage(9, 5)]
        FakeLlama.made.append(self)

    async def stream(
        self, messages: Sequence[Message], options: JsonObject, *, max_tokens: int
    ) -> AsyncGenerator[str | TokenUsage]:
        self.requests.append((list(messages), options, max_tokens))
        for chunk in self.chunks:
            yield chunk


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> list[FakeLlama]:
    """Replace the runtime; return what is loaded."""
    FakeLlama.made = []
    monkeypatch.setattr(engine, "Llama", FakeLlama)
    return FakeLlama.made


async def reply(
    llm: local.LLM | LocalLLM, history: Sequence[Item], tools: Sequence[ToolSpec] = ()
) -> list[LLMOutput]:
    async with aclosing(llm.generate(INSTRUCTIONS, history, tools)) as stream:
        return [output async for output in stream]


def text_of(outputs: list[LLMOutput]) -> str:
    return "".join(output.text for output in outputs if isinstance(output, TextDelta))


async def test_a_file_of_the_hub_is_fetched_and_loaded_at_first_use(
    hub: LoopbackHub, runtime: list[FakeLlama]
) -> None:
    llm = local.LLM(NAME, max_output_tokens=50, temperature=0.5, tools_reliable=True)
    assert llm.model == "toy-q4"
    assert llm.tools_reliable
    assert repr(llm) == f"LLM('{NAME}')"
    assert hub.requests == []
    outputs = await reply(llm, [UserItem("1", "When does the pool close?")])
    assert text_of(outputs) == "The pool closes."
    [loaded] = runtime
    assert loaded.path.name == "toy-q4.gguf"
    assert loaded.chat_template == CHAT["tokenizer.chat_template"]
    messages, options, max_tokens = loaded.requests[-1]
    assert messages[-1] == {"role": "user", "content": "When does the pool close?"}
    assert options["temperature"] == 0.5
    assert options["chat_template_kwargs"] == {"enable_thinking": False, "reasoning_effort": "low"}
    assert max_tokens == 50
    assert llm.tools_reliable
    await local.LLM(NAME).prefill(INSTRUCTIONS, [UserItem("1", "When")], [])
    assert runtime == [loaded]
    assert loaded.requests[-1][2] == 1


async def test_a_changed_file_is_refused(
    cache: Path, runtime: list[FakeLlama], tmp_path: Path
) -> None:
    file = tmp_path / "mine.gguf"
    file.write_bytes(gguf())
    await local.LLM(file).prepare(INSTRUCTIONS, [])
    file.write_bytes(gguf({**CHAT, "more": "x"}))
    with pytest.raises(WeightsError, match=r"has changed since its first use .* models forget"):
        await local.LLM(file).prepare(INSTRUCTIONS, [])


async def test_a_download_ends_with_the_task_that_wants_it(
    hub: LoopbackHub, runtime: list[FakeLlama], monkeypatch: pytest.MonkeyPatch
) -> None:
    began, ended = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def ensure(files: ModelFiles, source: object, **options: object) -> Path:
        loop.call_soon_threadsafe(began.set)
        stop = options["stop"]
        assert stop.wait(5)  # type: ignore[attr-defined]
        loop.call_soon_threadsafe(ended.set)
        raise WeightsError("stopped")

    monkeypatch.setattr(ModelFiles, "ensure", ensure)
    loading = asyncio.create_task(local.LLM(NAME).load())
    await began.wait()
    loading.cancel()
    await asyncio.wait_for(ended.wait(), 5)
    assert runtime == []


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ("huge", "'huge' is not one of tiny, small, better, hf:ORG/REPO/FILE.gguf, or the path"),
        ("hf:acme/toy", "must be hf:ORG/REPO/FILE"),
    ],
)
def test_what_names_no_model_is_refused_at_once(model: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        local.LLM(model)
    with pytest.raises(ConfigError, match=told):
        local.Realtime(llm=model)


def test_options_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match="temperature must be between 0 and 2"):
        local.LLM("tiny", temperature=3)
    with pytest.raises(ConfigError, match="max_output_tokens must be an integer between 1 and"):
        local.LLM("tiny", max_output_tokens=0)


def test_a_profile_is_a_model_too() -> None:
    assert local.LLM("better").model == "qwen2.5-coder-1.5b"
    assert local.LLM("better").tools_reliable
    assert not local.LLM("tiny").tools_reliable
    assert isinstance(make_llm("local:small"), local.LLM)
    assert make_llm(f"local:{NAME}").model == "toy-q4"


def test_the_engine_names_the_model_before_it_is_loaded() -> None:
    realtime = local.Realtime(llm=NAME)
    assert realtime.capabilities.model == "toy-q4"
    assert realtime.capabilities.tools == "experimental"
    trusted = local.Realtime(llm=local.LLM(NAME, tools_reliable=True))
    assert trusted.capabilities.tools == "reliable"


async def test_the_engine_reports_a_file_that_is_no_model(cache: Path, tmp_path: Path) -> None:
    file = tmp_path / "notes.gguf"
    file.write_text("notes")
    with pytest.raises(GgufError, match=r"notes\.gguf can't be the language model"):
        await local.LLM(file).load()
    with pytest.raises(ConfigError, match="there is no file"):
        await local.LLM(tmp_path / "none.gguf").load()


async def test_a_model_that_only_thinks_is_reported(
    cache: Path, runtime: list[FakeLlama], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "thinker.gguf"
    file.write_bytes(gguf())
    llm = local.LLM(file)
    await llm.load()
    runtime[0].chunks = [TokenUsage(9, 120)]
    await reply(llm, [UserItem("1", "Hello.")])
    assert "thinker spent all 120 tokens of its reply on thoughts" in caplog.text


def test_roles_alternate() -> None:
    def shape(history: Sequence[Item]) -> list[tuple[object, object]]:
        messages = [{"role": "system", "content": "Be kind."}, *_prompt.chat_messages(history)]
        found = _prompt.alternate_roles(cast("list[Message]", messages))
        return [(message["role"], message["content"]) for message in found]

    system = ("system", "Be kind.")
    assert shape([]) == [system, ("user", "Hello.")]
    assert shape([AgentItem("1", "Good day.")]) == [
        system,
        ("user", "Hello."),
        ("assistant", "Good day."),
        ("user", "Go on."),
    ]
    assert shape(
        [
            UserItem("1", "One."),
            UserItem("2", "Two."),
            AgentItem("3", "Three."),
            SystemItem("4", "Four."),
            UserItem("5", "Five."),
        ]
    ) == [system, ("user", "One.\nTwo."), ("assistant", "Three."), ("user", "Four.\nFive.")]
    assert _prompt.alternate_roles([]) == [{"role": "user", "content": "Hello."}]


@pytest.fixture(scope="module")
def strict(weights: Store, tmp_path_factory: pytest.TempPathFactory) -> Llama:
    """The model of `tiny` behind a template that is strict about roles, and begins with a thought.

    Loaded twice: the second time with a template that ends the thought.
    """
    file = tmp_path_factory.mktemp("models") / "strict.gguf"
    with_chat_template(weights.ensure("smollm2-135m"), file, STRICT)
    return Llama(file, chat_template=STRICT)


@pytest.mark.weights
async def test_a_strict_template_that_thinks_replies_at_once(strict: Llama) -> None:
    assert strict._prompt_end(Path("x")).endswith("<think>\n\n</think>")
    llm = LocalLLM(strict, "strict", own_template=True)
    greeted = [AgentItem("1", "Hotel Sol."), UserItem("2", "When does the pool close?")]
    outputs = await reply(llm, greeted)
    assert any(letter.isalpha() for letter in text_of(outputs))
    assert "think>" not in text_of(outputs)
    assert isinstance(outputs[-1], TokenUsage)
    asked: list[Item] = [UserItem("3", "Please set a timer for ten minutes.")]
    done: list[Item] = [
        *asked,
        ToolCallItem("4", "call_1", "set_timer", '{"minutes": 10}'),
        ToolResultItem("5", "call_1", "the timer is running"),
    ]
    # Which of the two a model of this size chooses behind a template that it was not trained on is
    # luck, but the schema leaves it no third.
    outputs = await reply(llm, asked, [TIMER])
    calls = [output for output in outputs if isinstance(output, ToolRequest)]
    assert bool(calls) != bool(text_of(outputs))
    assert all(call.name == "set_timer" and "minutes" in call.arguments for call in calls)
    outputs = await reply(llm, done, [TIMER])
    assert not [output for output in outputs if isinstance(output, ToolRequest)]
    assert any(letter.isalpha() for letter in text_of(outputs))
    assert "{" not in text_of(outputs)


@pytest.mark.weights
def test_a_template_that_can_not_be_used_is_an_error(weights: Store, tmp_path: Path) -> None:
    refuses = "{{ raise_exception('No talking.') }}"
    file = with_chat_template(weights.ensure("smollm2-135m"), tmp_path / "mute.gguf", refuses)
    with pytest.raises(SessionError, match=r"mute\.gguf") as caught:
        Llama(file, chat_template=refuses)
    assert "\n" not in str(caught.value)


@pytest.mark.weights
def test_a_file_of_the_hub_is_the_mind_of_the_engine(
    weights: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "weights").symlink_to(weights.root / "weights")
    monkeypatch.setenv("DUOLOGUE_CACHE", str(cache))
    with loopback_hub(monkeypatch) as hub:
        hub.files = {"acme/Toy-GGUF/toy-q4.gguf": weights.ensure("smollm2-135m")}

        async def prepare() -> local.Realtime:
            realtime = local.Realtime(llm=NAME)
            await realtime.prepare(SessionSetup(INSTRUCTIONS))
            return realtime

        assert run_virtual(prepare()).capabilities.model == "toy-q4"
    assert [entry.source for entry in ModelFiles(cache).entries()] == [NAME]


def test_the_runtime_stops_thoughts_by_a_template_that_renders() -> None:
    jinja2 = pytest.importorskip("jinja2", reason="needs jinja2")
    render = jinja2.Template(STRICT + _llama.CLOSE_THOUGHT).render
    prompt = render(messages=[], add_generation_prompt=True)
    assert prompt.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert render(messages=[], add_generation_prompt=False) == ""
