"""`LLM` of the built-in engine: a profile's model, or any GGUF chat model, loaded at first use."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from pathlib import Path

from duologue.errors import ConfigError
from duologue.items import Item
from duologue.pipeline.interfaces import LLMOutput
from duologue.providers._validate import check_range
from duologue.providers.local import engine
from duologue.providers.local._llm import MAX_TOKENS
from duologue.providers.local._virtual_time_llm import ClockHoldingLLM
from duologue.realtime.commands import ToolSpec
from duologue.weights import parse_source


class LLM:
    """A language model in this process, as an `LLM` of a pipeline or of `Realtime`.

    It is loaded, and fetched if need be, by the first `prepare` or `generate`. All that name the
    same file share it. A GGUF file must be a chat model: its own chat template writes the prompts.
    The SHA-256 of the file is recorded at its first use; another file of that name is refused from
    then on. Thoughts are switched off, because a person would wait for them.

    Args:
        model: ``tiny``, ``small`` or ``better``; ``hf:ORG/REPO/FILE.gguf``, with ``@REVISION``
            behind it if you like; or the path of a GGUF file.
        tools_reliable: Whether its tool calls can be trusted: True if you have tried it. A profile
            knows it by itself.
        temperature: From 0 (the same reply each time) to 2. Not for profiles.
        max_output_tokens: Tokens of one reply at most; 120 are about 40 s of speech. Not for
            profiles.
        offline: Fetch nothing.

    Raises:
        ConfigError: an argument is out of its range, or ``model`` is none of these.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        tools_reliable: bool = False,
        temperature: float = 0.0,
        max_output_tokens: int = MAX_TOKENS,
        offline: bool = False,
    ) -> None:
        check_range("temperature", temperature, 0.0, 2.0)
        check_range("max_output_tokens", max_output_tokens, 1, 4096, integer=True)
        self._temperature = temperature
        self._max_tokens = max_output_tokens
        self._source = check_model(model)
        self._offline = offline
        self._tools_reliable = tools_reliable
        self._loaded: ClockHoldingLLM | None = None
        self._profile = engine.PROFILES.get(model) if isinstance(model, str) else None
        self._name = (
            parse_source(model).stem if self._profile is None else self._profile.llm_weights
        )

    def __repr__(self) -> str:
        return f"LLM({str(self._source)!r})"

    @property
    def model(self) -> str:
        """The model's name: that of the file."""
        return self._name if self._loaded is None else self._loaded.model

    @property
    def tools_reliable(self) -> bool:
        """Whether its tool calls can be trusted."""
        if self._loaded is not None:
            return self._loaded.tools_reliable
        return self._tools_reliable if self._profile is None else self._profile.tools_reliable

    async def load(self) -> None:
        """Fetch the model if it is missing, and load it; do nothing if that is done.

        Raises:
            ConfigError: there is no file of that path.
            WeightsError: the file can't be fetched, has changed since its first use, or is no chat
                model.
            SessionError: the runtime can't load it.
        """
        await self._load()

    async def prepare(self, instructions: str, tools: Sequence[ToolSpec]) -> None:
        """Load the model, and read the instructions into the prompt cache."""
        await (await self._load()).prepare(instructions, tools)

    async def prefill(
        self, instructions: str, history: Sequence[Item], tools: Sequence[ToolSpec]
    ) -> None:
        """Read a prompt into the cache, so that the next reply has less to read."""
        await (await self._load()).prefill(instructions, history, tools)

    async def generate(
        self, instructions: str, history: Sequence[Item], tools: Sequence[ToolSpec]
    ) -> AsyncGenerator[LLMOutput]:
        """Stream the next turn: text, or one tool call, then the tokens used.

        Raises:
            SessionError: the model failed.
        """
        loaded = await self._load()
        async with aclosing(loaded.generate(instructions, history, tools)) as stream:
            async for output in stream:
                yield output

    async def _load(self) -> ClockHoldingLLM:
        if self._loaded is None:
            stop = threading.Event()
            try:
                loaded = await asyncio.to_thread(self._load_in_thread, stop)
            except asyncio.CancelledError:
                stop.set()  # a thread can't be cancelled
                raise
            self._loaded = loaded
        return self._loaded

    def _load_in_thread(self, stop: threading.Event) -> ClockHoldingLLM:
        if self._profile is not None:
            _, llm = engine.load_llm(self._profile, offline=self._offline)
            return ClockHoldingLLM(llm)
        return ClockHoldingLLM(
            engine.load_gguf(
                self._source,
                offline=self._offline,
                tools_reliable=self._tools_reliable,
                temperature=self._temperature,
                max_tokens=self._max_tokens,
                stop=stop,
            )
        )


def check_model(model: str | Path) -> str | Path:
    """Return ``model`` if it is a profile, ``hf:ORG/REPO/FILE.gguf``, or looks like a path.

    Raises:
        ConfigError: it is none of these.
    """
    if isinstance(model, str) and model not in engine.PROFILES:
        where = parse_source(model)
        if isinstance(where, Path) and not (where.suffix or "/" in model or where.exists()):
            raise ConfigError(
                f"{model!r} is not one of {', '.join(engine.PROFILES)}, hf:ORG/REPO/FILE.gguf, or "
                "the path of a GGUF file"
            )
    return model
