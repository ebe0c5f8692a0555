"""The language model of the local engine, as a part of a pipeline."""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from duologue.errors import SessionError
from duologue.items import Item, ToolResultItem
from duologue.json_types import Json
from duologue.pipeline.interfaces import LLMOutput, TextDelta, TokenUsage, ToolRequest
from duologue.providers.local import _prompt, _router
from duologue.providers.local._llama import Llama, Message
from duologue.realtime.commands import ToolSpec

MAX_TOKENS = 120
"""Of one turn: about 40 s of speech."""
MIN_CHARACTERS = 500
"""Least characters of history to try; if these do not fit, the instructions are too long."""


class LocalLLM:
    """A GGUF model as an `LLM`; ``model`` is its name, ``tools_reliable`` from measurement.

    With tools, each turn is one JSON object held to a schema (see `router`); after a tool's
    result the turn can only speak, as small models would call again.
    """

    def __init__(
        self,
        llama: Llama,
        model: str,
        *,
        tools_reliable: bool = False,
        repeat_penalty: float = 1.0,
        max_tokens: int = MAX_TOKENS,
    ) -> None:
        self._llama = llama
        self._model = model
        self._tools_reliable = tools_reliable
        self._sampling: dict[str, Json] = {"temperature": 0.0, "repeat_penalty": repeat_penalty}
        self._max_tokens = max_tokens

    @property
    def model(self) -> str:
        """The model's name."""
        return self._model

    @property
    def tools_reliable(self) -> bool:
        """Whether its tool calls can be trusted."""
        return self._tools_reliable

    async def prepare(self, instructions: str, tools: Sequence[ToolSpec]) -> None:
        """Read the system prompt into the cache: the first reply then starts 1 s sooner."""
        messages = [*_opening_messages(instructions, tools), _user_message("Hello.")]
        async with aclosing(self._llama.stream(messages, self._sampling, max_tokens=1)) as stream:
            async for _ in stream:
                pass

    async def generate(
        self, instructions: str, history: Sequence[Item], tools: Sequence[ToolSpec]
    ) -> AsyncGenerator[LLMOutput]:
        """Stream the next turn: words, or one tool call, then the tokens used.

        Closing the generator stops the generation at the next token. Raises `SessionError`.
        """
        opening = _opening_messages(instructions, tools)
        if not tools:
            async with aclosing(self._stream(opening, history, as_actions=False)) as stream:
                async for chunk in stream:
                    yield chunk if isinstance(chunk, TokenUsage) else TextDelta(chunk)
            return
        answers_tool = bool(history) and isinstance(history[-1], ToolResultItem)
        form: dict[str, Json] = {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"schema": _router.turn_schema([] if answers_tool else tools)},
            }
        }
        reader = _router.TurnReader()
        async with aclosing(self._stream(opening, history, form, as_actions=True)) as stream:
            async for chunk in stream:
                if isinstance(chunk, TokenUsage):
                    if call := reader.call():
                        name, arguments = call
                        yield ToolRequest(f"call_{uuid.uuid4().hex[:12]}", name, arguments)
                    yield chunk
                elif words := reader.push(chunk):
                    yield TextDelta(words)

    async def _stream(
        self,
        opening: list[Message],
        history: Sequence[Item],
        response_format: dict[str, Json] | None = None,
        *,
        as_actions: bool,
    ) -> AsyncGenerator[str | TokenUsage]:
        """Stream an answer to as much of ``history`` as the model can read.

        How many tokens a text has depends on its script, so it is shortened further where the
        model says that it does not fit. Raises `SessionError`.
        """
        limit = _prompt.MAX_CHARACTERS
        while True:
            turns = _prompt.chat_messages(history, limit)
            if as_actions:
                turns = [_as_action(turn) for turn in turns]
            options = self._sampling | (response_format or {})
            begun = False
            reading = self._llama.stream([*opening, *turns], options, max_tokens=self._max_tokens)
            try:
                async with aclosing(reading) as stream:
                    async for chunk in stream:
                        begun = True
                        yield chunk
                return
            except SessionError as error:
                limit = sum(_prompt.weighted_length(str(turn["content"])) for turn in turns) // 2
                if begun or limit < MIN_CHARACTERS or "context size" not in str(error).lower():
                    raise


def _opening_messages(instructions: str, tools: Sequence[ToolSpec]) -> list[Message]:
    system = _prompt.system_text(instructions)
    if not tools:
        return [{"role": "system", "content": system}]
    system = f"{system}\n\n{_router.tool_text(tools)}"
    return [{"role": "system", "content": system}, *_router.examples()]


def _as_action(message: Message) -> Message:
    """What the agent said, in the form that it writes when it has tools."""
    if message["role"] != "assistant":
        return message
    return {"role": "assistant", "content": _router.say_action(str(message["content"]))}


def _user_message(text: str) -> Message:
    return {"role": "user", "content": text}
