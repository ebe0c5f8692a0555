"""The language model of the built-in engine, as an `LLM` of a pipeline."""

from __future__ import annotations

import logging
import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from duologue.errors import SessionError
from duologue.items import Item, ToolResultItem
from duologue.json_types import JsonObject
from duologue.pipeline.interfaces import LLMOutput, TextDelta, TokenUsage, ToolRequest
from duologue.providers.local import _prompt, _router
from duologue.providers.local._llama import NO_THOUGHTS, Llama, Message
from duologue.realtime.commands import ToolSpec

logger = logging.getLogger(__name__)

MAX_TOKENS = 120
"""Tokens of one turn at most: about 40 s of speech."""
MIN_CHARACTERS = 500
"""Characters of history to try at least; if these do not fit, the instructions are too long."""


class LocalLLM:
    """A GGUF model as an `LLM`.

    With tools, each turn is one JSON object that a schema constrains (see `router`); after a tool's
    result the turn can only speak, because small models would call again.

    Args:
        llama: The loaded model.
        model: Its name.
        tools_reliable: Whether its tool calls can be trusted, by measurement.
        repeat_penalty: Above 1 keeps it from looping.
        max_tokens: Tokens of one turn at most.
        temperature: Above 0 varies the replies.
        own_template: Whether the prompt is written by a template that this package does not know.
    """

    def __init__(
        self,
        llama: Llama,
        model: str,
        *,
        tools_reliable: bool = False,
        repeat_penalty: float = 1.0,
        max_tokens: int = MAX_TOKENS,
        temperature: float = 0.0,
        own_template: bool = False,
    ) -> None:
        self._llama = llama
        self._model = model
        self._tools_reliable = tools_reliable
        self._own_template = own_template
        self._options: JsonObject = {"temperature": temperature, "repeat_penalty": repeat_penalty}
        if own_template:
            self._options |= NO_THOUGHTS
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
        """Read the system prompt into the cache, so that the first reply starts 1 s sooner."""
        messages = [*_opening_messages(instructions, tools), _user_message("Hello.")]
        async with aclosing(self._llama.stream(messages, self._options, max_tokens=1)) as stream:
            async for _ in stream:
                pass

    async def prefill(
        self, instructions: str, history: Sequence[Item], tools: Sequence[ToolSpec]
    ) -> None:
        """Read a prompt into the cache, so that the next reply has less to read.

        Raises:
            SessionError: the model failed.
        """
        opening = _opening_messages(instructions, tools)
        reading = self._stream(opening, history, as_actions=bool(tools), max_tokens=1)
        async with aclosing(reading) as stream:
            async for _ in stream:
                pass

    async def generate(
        self, instructions: str, history: Sequence[Item], tools: Sequence[ToolSpec]
    ) -> AsyncGenerator[LLMOutput]:
        """Stream the next turn: text, or one tool call, then the tokens used.

        Closing the generator stops the generation at the next token.

        Raises:
            SessionError: the model failed.
        """
        opening = _opening_messages(instructions, tools)
        if not tools:
            spoken = False
            async with aclosing(self._stream(opening, history, as_actions=False)) as stream:
                async for chunk in stream:
                    if isinstance(chunk, TokenUsage):
                        self._warn_if_silent(chunk, spoken=spoken)
                        yield chunk
                    else:
                        spoken = True
                        yield TextDelta(chunk)
            return
        answers_tool = bool(history) and isinstance(history[-1], ToolResultItem)
        form: JsonObject = {
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

    def _warn_if_silent(self, usage: TokenUsage, *, spoken: bool) -> None:
        """Say why nothing was said, if the runtime kept all of a reply back as a thought."""
        if not spoken and usage.output >= self._max_tokens:
            logger.warning(
                "%s spent all %d tokens of its reply on thoughts: take a model that replies at "
                "once ('Instruct'), or raise max_output_tokens",
                self._model,
                self._max_tokens,
            )

    async def _stream(
        self,
        opening: list[Message],
        history: Sequence[Item],
        response_format: JsonObject | None = None,
        *,
        as_actions: bool,
        max_tokens: int | None = None,
    ) -> AsyncGenerator[str | TokenUsage]:
        """Stream a reply to as much of ``history`` as the model can read.

        The number of tokens in a text depends on its script, so the history is halved again
        whenever the model reports that it does not fit.

        Raises:
            SessionError: the model failed.
        """
        limit = _prompt.MAX_CHARACTERS
        while True:
            turns = _prompt.chat_messages(history, limit)
            if as_actions:
                turns = [_as_action(turn) for turn in turns]
            messages = [*opening, *turns]
            if self._own_template:
                messages = _prompt.alternate_roles(messages)
            options = self._options | (response_format or {})
            begun = False
            limit_tokens = max_tokens or self._max_tokens
            reading = self._llama.stream(messages, options, max_tokens=limit_tokens)
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
    """Return a message of the agent in the JSON form that it writes when it has tools."""
    if message["role"] != "assistant":
        return message
    return {"role": "assistant", "content": _router.say_action(str(message["content"]))}


def _user_message(text: str) -> Message:
    return {"role": "user", "content": text}
