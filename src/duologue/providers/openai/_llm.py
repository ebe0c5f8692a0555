"""A text model behind the Chat Completions API: OpenAI, Ollama, llama.cpp, vLLM and others."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, Mapping, Sequence

from duologue._optional import import_optional
from duologue.errors import ErrorKind, SessionError
from duologue.items import Item
from duologue.json_types import JsonObject
from duologue.pipeline.interfaces import LLMOutput
from duologue.providers._drain import drain
from duologue.providers._openai_protocol.items import nested_tools
from duologue.providers._validate import check_mapping
from duologue.providers.openai._chat_messages import chat_messages
from duologue.providers.openai._chat_stream import ChatStream, ErrorChunk
from duologue.providers.openai._http import OpenAIServer
from duologue.realtime.commands import ToolSpec
from duologue.realtime.network import ApiKey


class LLM:
    """A text model as an `LLM` (extra ``openai``).

    A request to a busy server is retried once if the server asks to wait 2 s or less; otherwise the
    error is raised at once.

    Args:
        model: The model's name.
        base_url: The server, such as ``http://127.0.0.1:11434/v1``; read from ``OPENAI_BASE_URL``
            when not given, and OpenAI's own by default.
        api_key: A key, or a function that returns one for each request; read from
            ``OPENAI_API_KEY`` when not given. Your own server needs none.
        tools_reliable: Whether the model's tool calls can be trusted.
        headers: Additional headers of each request.
        proxy: Address of an HTTP proxy; None uses that of the environment.
        ssl_context: Trusted certificates and our own; the system's if None.
        options: Fields of every request, whatever their names (``temperature``, ``top_k``...).
        timeout: Seconds until the response, and between two parts of it.

    Raises:
        ConfigError: An argument is invalid, or OpenAI's own server has no key.
    """

    def __init__(
        self,
        model: str,
        base_url: str | None = None,
        api_key: ApiKey | None = None,
        *,
        tools_reliable: bool = True,
        headers: Mapping[str, str] | None = None,
        proxy: str | None = None,
        ssl_context: ssl.SSLContext | None = None,
        options: JsonObject | None = None,
        timeout: float = 30.0,
    ) -> None:
        self._model = model
        self._tools_reliable = tools_reliable
        if options is not None:
            check_mapping("options", options)
        self._options = dict(options or {})
        self._server = OpenAIServer(
            base_url=base_url,
            api_key=api_key,
            headers=headers,
            proxy=proxy,
            ssl_context=ssl_context,
            timeout=timeout,
        )

    @property
    def model(self) -> str:
        """The model's name."""
        return self._model

    @property
    def tools_reliable(self) -> bool:
        """Whether its tool calls can be trusted."""
        return self._tools_reliable

    async def prepare(self, instructions: str, tools: Sequence[ToolSpec]) -> None:
        """Import the HTTP client in a thread (0.1 s).

        Raises:
            MissingExtraError: httpx is not installed.
        """
        await asyncio.to_thread(import_optional, "httpx", "openai")

    async def close(self) -> None:
        """Close the HTTP connections; the next request opens new ones."""
        await self._server.close()

    async def generate(
        self, instructions: str, history: Sequence[Item], tools: Sequence[ToolSpec]
    ) -> AsyncGenerator[LLMOutput]:
        """Stream the next turn: text as it arrives, then tool calls, then token usage.

        Closing the generator closes the HTTP stream.

        Raises:
            SessionError: The server refused, with its own message, or can't be reached.
        """
        request: JsonObject = {
            "model": self._model,
            "messages": list(chat_messages(instructions, history)),
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if tools:
            request["tools"] = nested_tools(tools)
        request |= self._options
        chat = ChatStream()
        async with self._server.post("/chat/completions", request) as response:
            pieces = response.aiter_bytes()
            try:
                async for piece in pieces:
                    for output in chat.push(piece):
                        yield output
                    if chat.done:
                        break
            except ErrorChunk as error:
                raise SessionError(str(error), code=error.code, kind=ErrorKind.RETRY) from error
            except import_optional("httpx", "openai").HTTPError as error:
                raise self._server.connection_error("broke off", error) from error
            for output in chat.end():
                yield output
            if chat.done:
                await drain(pieces, import_optional("httpx", "openai").HTTPError)
        if not chat.recognized:
            raise SessionError(
                f"{self._server.shown_url} sent no answer of the Chat Completions API",
                kind=ErrorKind.RETRY,
            )
