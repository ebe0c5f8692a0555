"""A text model behind the Chat Completions API: OpenAI, Ollama, llama.cpp, vLLM and others."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from duologue._net import check_headers, check_proxies, check_secret, split_address
from duologue._optional import import_optional
from duologue.errors import ConfigError, ErrorKind, SessionError
from duologue.items import Item
from duologue.json_types import JsonObject
from duologue.pipeline.interfaces import LLMOutput
from duologue.providers._openai_protocol.items import nested_tools
from duologue.providers.openai._chat_messages import chat_messages
from duologue.providers.openai._chat_stream import ChatStream, ErrorChunk, error_text
from duologue.realtime.commands import ToolSpec
from duologue.realtime.network import ApiKey, resolve_key

_FATAL_STATUS = frozenset((401, 402, 403, 404))
"""Wrong key, no money, not allowed, no such model: retrying does not help."""

_MAX_RETRY_WAIT_S = 2.0
"""Maximum seconds that a busy server may ask to wait before one retry. If it asks for more, the
error is raised at once, because a person is waiting.
"""


_CONNECT_TIMEOUT_S = 5.0
"""Seconds within which a server has to accept a connection."""

_RETRY_WAIT_S = 0.2
"""Seconds before the retry if the server names none."""


class LLM:
    """A text model as an `LLM`, by the official ``openai`` client (extra ``openai``).

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
        key = api_key or os.environ.get("OPENAI_API_KEY") or ""
        if isinstance(key, str):
            key = check_secret("api_key", key)
        if proxy is not None:
            split_address("proxy", proxy, ("http", "https"), "http://proxy.example:3128")
        if ssl_context is not None and not isinstance(ssl_context, ssl.SSLContext):
            raise ConfigError(
                f"ssl_context must be an ssl.SSLContext, not {type(ssl_context).__name__}"
            )
        own_server = base_url or os.environ.get("OPENAI_BASE_URL")
        if not key and not own_server:
            raise ConfigError("no API key: set OPENAI_API_KEY, or give api_key or base_url")
        if own_server:
            split_address("base_url", own_server, ("http", "https"), "http://127.0.0.1:11434/v1")
        self._model = model
        self._base_url = base_url
        self._api_key: ApiKey = key or "none"
        self._headers = check_headers("headers", headers)
        self._proxy = proxy
        self._ssl_context = ssl_context
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
        """Import the client in a thread (0.5 s).

        Raises:
            MissingExtraError: The openai package is not installed.
        """
        await asyncio.to_thread(import_optional, "openai", "openai")

    async def close(self) -> None:
        """Close the HTTP connections; the next request opens new ones."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

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
        async with self._response(request) as response:
            try:
                async for piece in response.iter_bytes():
                    for output in chat.push(piece):
                        yield output
                    if chat.done:
                        break
            except ErrorChunk as error:
                raise SessionError(str(error), code=error.code, kind=ErrorKind.RETRY) from error
            except Exception as error:
                # Errors of the HTTP library, which differs between versions of the client.
                raise self._connection_error("broke off", error) from error
        for output in chat.end():
            yield output
        if not chat.recognized:
            raise SessionError(
                f"{self._get_client().base_url} sent no answer of the Chat Completions API",
                kind=ErrorKind.RETRY,
            )

    @asynccontextmanager
    async def _response(self, request: JsonObject) -> AsyncGenerator[Any]:
        """Yield the response to ``request``, which is retried once if the server is busy."""
        openai = import_optional("openai", "openai")
        # The client's own method would reject unknown fields.
        fields = {"model": self._model, "messages": [], "stream": True, "extra_body": request}
        again = True
        while True:
            self._get_client().api_key = await resolve_key(self._api_key)
            asking = self._get_client().chat.completions.with_streaming_response.create(**fields)
            try:
                response = await asking.__aenter__()
                break
            except openai.APIStatusError as error:
                wait = _retry_wait(error)
                if not again or wait is None or wait > _MAX_RETRY_WAIT_S:
                    raise _status_error(error, wait) from error
            except openai.APITimeoutError as error:
                raise self._connection_error("does not answer", error) from error
            except openai.APIConnectionError as error:
                if not again:
                    raise self._connection_error("can't be reached", error) from error
                wait = 0.0
            except openai.OpenAIError as error:
                raise SessionError(str(error), kind=ErrorKind.RETRY) from error
            again = False
            await asyncio.sleep(max(wait, _RETRY_WAIT_S))
        try:
            yield response
        finally:
            await asking.__aexit__(None, None, None)

    def _connection_error(self, trouble: str, error: Exception) -> SessionError:
        where = self._get_client().base_url
        return SessionError(
            f"{where} {trouble}: {error.__cause__ or error}",
            code="connection",
            kind=ErrorKind.RETRY,
        )

    def _get_client(self) -> Any:
        if self._client is None:
            openai = import_optional("openai", "openai")
            check_proxies()
            timeout = openai.Timeout(self._timeout, connect=min(self._timeout, _CONNECT_TIMEOUT_S))
            http: dict[str, object] = {}
            if self._proxy is not None:
                http["proxy"] = self._proxy
            if self._ssl_context is not None:
                http["verify"] = self._ssl_context
            self._client = openai.AsyncOpenAI(
                api_key="none",  # `_response` sets the key of each request
                base_url=self._base_url,
                timeout=timeout,
                default_headers=self._headers,
                http_client=openai.DefaultAsyncHttpxClient(timeout=timeout, **http)
                if http
                else None,
                max_retries=0,  # `_response` retries, with a short wait only
            )
        return self._client


def _retry_wait(error: Any) -> float | None:
    """Return the seconds to wait before a retry; None if there should be none."""
    if error.status_code not in (408, 409, 429) and error.status_code < 500:
        return None
    headers = error.response.headers
    try:
        if "retry-after-ms" in headers:
            return max(0.0, float(headers["retry-after-ms"]) / 1000)
        return max(0.0, float(headers.get("retry-after", 0.0)))
    except ValueError:
        return float("inf")  # A date, which is longer than a person waits.


def _status_error(error: Any, wait: float | None) -> SessionError:
    """Return the error of an HTTP status, with the server's message, or else the client's."""
    body = error.body
    message = error_text(body) or error.message
    if wait is not None and _MAX_RETRY_WAIT_S < wait < float("inf"):
        message = f"{message} (the server asks to retry in {wait:g} s)"
    code = body.get("code") if isinstance(body, dict) else None
    return SessionError(
        str(message),
        code=str(code or error.status_code),
        kind=ErrorKind.FATAL if error.status_code in _FATAL_STATUS else ErrorKind.RETRY,
    )
