"""A text model behind the Chat Completions API: OpenAI's own, Ollama, llama.cpp, vLLM and so on."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Any

from duologue.extras import require
from duologue.items import Item, Json
from duologue.pipeline.parts import LLMOutput, TextDelta, TokenUsage, ToolRequest
from duologue.providers.addresses import split_address
from duologue.providers.checks import secret
from duologue.providers.openai.messages import chat_messages, tool_list
from duologue.realtime.commands import ToolSpec
from duologue.realtime.errors import ConfigError, ErrorKind, SessionError

_FATAL_STATUS = frozenset((401, 402, 403, 404))
"""Wrong key, no money, not allowed, no such model: trying again does not help."""


@dataclass(slots=True)
class _Call:
    """A tool call that is still being written."""

    call_id: str = ""
    name: str = ""
    arguments: str = ""


class LLM:
    """A text model as an `LLM`, by the official ``openai`` client (extra ``openai``).

    ``base_url`` is the server, such as ``http://127.0.0.1:11434/v1``; OpenAI's own by default.
    ``api_key`` is read from ``OPENAI_API_KEY`` when not given; a server of your own needs none.
    ``options`` go into every request as they are (``temperature``, ``max_completion_tokens``...).
    ``timeout`` is in seconds, without an answer or between two pieces of one.

    Raises `ConfigError` when OpenAI's own server is meant and there is no key.
    """

    def __init__(
        self,
        model: str,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        tools_reliable: bool = True,
        options: dict[str, Json] | None = None,
        timeout: float = 30.0,
    ) -> None:
        key = secret("api_key", api_key or os.environ.get("OPENAI_API_KEY") or "")
        own_server = base_url or os.environ.get("OPENAI_BASE_URL")
        if not key and not own_server:
            raise ConfigError("no API key: set OPENAI_API_KEY, or give api_key or base_url")
        if own_server:
            split_address("base_url", own_server, ("http", "https"), "http://127.0.0.1:11434/v1")
        self._model = model
        self._base_url = base_url
        self._api_key = key or "none"
        self._tools_reliable = tools_reliable
        self._options = dict(options or {})
        self._timeout = timeout
        self._client: Any = None

    @property
    def model(self) -> str:
        """The model's name."""
        return self._model

    @property
    def tools_reliable(self) -> bool:
        """Whether its tool calls can be trusted."""
        return self._tools_reliable

    async def prepare(self, instructions: str, tools: Sequence[ToolSpec]) -> None:
        """Import the client in a thread (0.5 s); raises `MissingExtraError` without the extra."""
        await asyncio.to_thread(require, "openai", "openai")

    async def close(self) -> None:
        """Close the HTTP connections; the next request opens new ones."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def generate(
        self, instructions: str, history: Sequence[Item], tools: Sequence[ToolSpec]
    ) -> AsyncGenerator[LLMOutput]:
        """Stream the next turn: words as they come, then tool calls, then the tokens used.

        Closing the generator closes the HTTP stream. Raises `SessionError` with the server's own
        words when it refuses or can't be reached.
        """
        openai = require("openai", "openai")
        request: dict[str, Json] = {
            "model": self._model,
            "messages": list(chat_messages(instructions, history)),
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if tools:
            request["tools"] = tool_list(tools)
        calls: dict[int, _Call] = {}
        usage: TokenUsage | None = None
        trouble = "can't be reached"
        try:
            stream = await self._open().chat.completions.create(**request, **self._options)
            trouble = "broke off"
            async with stream:
                async for chunk in stream:
                    if chunk.usage is not None:
                        used = chunk.usage
                        usage = TokenUsage(used.prompt_tokens or 0, used.completion_tokens or 0)
                    for choice in chunk.choices:
                        for part in choice.delta.tool_calls or ():
                            _extend(calls.setdefault(part.index, _Call()), part)
                        if choice.delta.content:
                            yield TextDelta(choice.delta.content)
        except openai.APIStatusError as error:
            fatal = error.status_code in _FATAL_STATUS
            raise SessionError(
                _words(error),
                code=str(error.code or error.status_code),
                kind=ErrorKind.FATAL if fatal else ErrorKind.RETRY,
            ) from error
        except openai.APIConnectionError as error:
            where = self._open().base_url
            raise SessionError(
                f"{where} {trouble}: {error.__cause__ or error}",
                code="connection",
                kind=ErrorKind.RETRY,
            ) from error
        except openai.APIError as error:  # an error in the middle of the stream
            raise SessionError(
                _words(error), code=str(error.code or ""), kind=ErrorKind.RETRY
            ) from error
        for index in sorted(calls):
            call = calls[index]
            yield ToolRequest(call.call_id or f"call_{index}", call.name, call.arguments or "{}")
        if usage is not None:
            yield usage

    def _open(self) -> Any:
        if self._client is None:
            self._client = require("openai", "openai").AsyncOpenAI(
                api_key=self._api_key,
                base_url=self._base_url,
                timeout=self._timeout,
                max_retries=1,
            )
        return self._client


def _extend(call: _Call, part: Any) -> None:
    """Add a piece of a call: the id and name come once, the arguments bit by bit."""
    call.call_id = part.id or call.call_id
    if part.function is not None:
        call.name = part.function.name or call.name
        call.arguments += part.function.arguments or ""


def _words(error: Any) -> str:
    """What the server said, else what the client says."""
    body = error.body
    said = body.get("message") if isinstance(body, dict) else None
    return str(said or error.message)
