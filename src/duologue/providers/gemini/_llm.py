"""Gemini as a text model, by Google's own SDK."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, cast

from duologue._optional import import_optional
from duologue.errors import ErrorKind, SessionError
from duologue.items import Item
from duologue.json_types import JsonObject
from duologue.pipeline.interfaces import LLMOutput
from duologue.providers._json_fields import object_field, object_list, optional_str
from duologue.providers._one_retry import RequestFailed, attempt_twice, refusal, retry_wait
from duologue.providers._options import text
from duologue.providers._sdk_server import KEY_PLACEHOLDER, SDKServer
from duologue.providers._validate import check_mapping, check_range
from duologue.providers.gemini._text_contents import declarations, text_contents
from duologue.providers.gemini._text_stream import TextStream
from duologue.providers.gemini._text_thinking import Thinking, ThinkingPolicy
from duologue.realtime.commands import ToolSpec
from duologue.realtime.network import ApiKey

if TYPE_CHECKING:
    import httpx2
    from google import genai
    from google.genai.errors import APIError
    from google.genai.types import GenerateContentResponse

EXTRA = "gemini-text"
_FATAL_PHRASES = ("api key", "billing", "location is not supported", "has been suspended")
"""Words of errors with the status 400 or 429 that any other request would get too."""


class LLM:
    """A Gemini text model as an `LLM` (extra ``gemini-text``), by Google's own SDK.

    A request that is refused because the service is busy is repeated once if it asks to wait 2 s or
    less; otherwise the error is raised at once.

    Args:
        model: The model's name, such as ``gemini-3.5-flash``.
        api_key: A key of the Gemini API, or a function that returns one for each request; read from
            ``GEMINI_API_KEY`` or ``GOOGLE_API_KEY`` when not given. Your own server needs none.
        base_url: The server; read from ``GOOGLE_GEMINI_BASE_URL`` when not given, and Google's own
            by default.
        max_output_tokens: Tokens of one reply at most, thoughts included.
        thinking: ``off``, as little as the model can; ``minimal``, ``low``, ``medium``, ``high`` or
            ``xhigh``; a number of tokens, for Gemini 2.5; None: the model's own default.
        tools_reliable: Whether the model's tool calls can be trusted.
        headers: Additional headers of each request.
        proxy: Address of an HTTP proxy; None uses that of the environment.
        ssl_context: Trusted certificates and our own; the system's if None.
        options: Fields of every request with the names of the API, merged into it deep and last.
        timeout: Seconds until the response, and between two parts of it.

    Raises:
        ConfigError: An argument is invalid, or Google's own server has no key.
    """

    def __init__(
        self,
        model: str,
        *,
        api_key: ApiKey | None = None,
        base_url: str | None = None,
        max_output_tokens: int = 4096,
        thinking: Thinking = "off",
        tools_reliable: bool = True,
        headers: Mapping[str, str] | None = None,
        proxy: str | None = None,
        ssl_context: ssl.SSLContext | None = None,
        options: JsonObject | None = None,
        timeout: float = 30.0,
    ) -> None:
        text("the name of a model")("model", model)
        check_range("max_output_tokens", max_output_tokens, 1, 1_000_000, integer=True)
        self._model = model
        self._max_output_tokens = max_output_tokens
        self._thinking = ThinkingPolicy(model, thinking)
        self._tools_reliable = tools_reliable
        if options is not None:
            check_mapping("options", options)
        self._options = dict(options or {})
        self._server = SDKServer(
            default_url="https://generativelanguage.googleapis.com",
            url_variable="GOOGLE_GEMINI_BASE_URL",
            key_variables=("GEMINI_API_KEY", "GOOGLE_API_KEY"),
            extra=EXTRA,
            base_url=base_url,
            api_key=api_key,
            headers=headers,
            proxy=proxy,
            ssl_context=ssl_context,
            timeout=timeout,
        )
        self._client: genai.Client | None = None

    @property
    def model(self) -> str:
        """The model's name."""
        return self._model

    @property
    def tools_reliable(self) -> bool:
        """Whether its tool calls can be trusted."""
        return self._tools_reliable

    async def prepare(self, instructions: str, tools: Sequence[ToolSpec]) -> None:
        """Import the SDK in a thread (1 to 2 s).

        Raises:
            MissingExtraError: The SDK is not installed.
        """
        await self._get_client()

    async def close(self) -> None:
        """Close the HTTP connections; the next request opens new ones."""
        client, self._client = self._client, None
        if client is not None:
            client.close()
        await self._server.close()

    def generate(
        self, instructions: str, history: Sequence[Item], tools: Sequence[ToolSpec]
    ) -> AsyncGenerator[LLMOutput]:
        """Stream the next turn: text as it arrives, then tool calls, then token usage.

        Closing the generator closes the HTTP response.

        Raises:
            SessionError: The service or the model refused, in its own words, or can't be reached.
        """

        def attempt() -> AsyncGenerator[LLMOutput]:
            thinking = self._thinking
            contents = text_contents(history, thinking.signatures, thinking.unsigned)
            config: dict[str, object] = {"max_output_tokens": self._max_output_tokens}
            if instructions.strip():
                config["system_instruction"] = instructions
            if tools:
                config["tools"] = declarations(tools)
            if thinking.config:
                config["thinking_config"] = thinking.config
            return self._request(contents, config)

        def adapt(failure: RequestFailed) -> bool:
            return failure.status == 400 and self._thinking.refused(str(failure.error))

        return attempt_twice(attempt, adapt)

    async def _request(
        self, contents: Sequence[dict[str, object]], config: dict[str, object]
    ) -> AsyncGenerator[LLMOutput]:
        """Send one request and yield its outputs; any failure is a `RequestFailed`."""
        client = await self._get_client()
        sdk = import_optional("google.genai.errors", EXTRA)
        opened: list[httpx2.Response] = []
        reply = TextStream()

        async def begin() -> tuple[
            AsyncIterator[GenerateContentResponse], GenerateContentResponse | None
        ]:
            # The SDK sends the request when the first chunk is wanted.
            chunks = await client.aio.models.generate_content_stream(
                model=self._model,
                contents=contents,  # type: ignore[arg-type]
                config=config,  # type: ignore[arg-type]
            )
            return chunks, await anext(chunks, None)

        try:
            chunks, chunk = await self._server.call(begin, opened)
            while chunk is not None:
                for output in reply.push(chunk):
                    yield output
                chunk = await anext(chunks, None)
            for output in reply.end():
                yield output
        except sdk.APIError as error:
            raise self._status_failure(error) from error
        except SessionError as error:
            raise RequestFailed(error) from error.__cause__
        except ValueError as error:
            unreadable = SessionError(
                "the server sent no answer of the Gemini API", code="protocol"
            )
            raise RequestFailed(unreadable) from error
        except Exception as error:
            if not self._server.is_transport_error(error):
                raise
            failure = self._server.transport_error(error, began=bool(opened))
            wait = None if opened or self._server.is_timeout(error) else 0.0
            raise RequestFailed(failure, wait) from error
        finally:
            # At once, also when the generator is closed: the model stops writing.
            for response in opened:
                await response.aclose()
        for call_id, signature in reply.signatures.items():
            self._thinking.keep(call_id, signature)

    def _status_failure(self, error: APIError) -> RequestFailed:
        """Return what a refusal of the service means, or an error chunk in the stream."""
        status = error.code if isinstance(error.code, int) else 0
        found: object = getattr(error.response, "headers", None)
        headers = cast("Mapping[str, str]", found) if found is not None else {}
        redirect = self._server.redirect(status, headers)
        if redirect is not None:
            return RequestFailed(redirect, status=status)
        body = cast("JsonObject", error.details) if isinstance(error.details, dict) else {}
        wait = retry_wait(status, headers)
        if wait == 0.0:
            wait = _retry_delay(body)
        message = error.message if isinstance(error.message, str) else ""
        code = error.status if isinstance(error.status, str) else ""
        refused = refusal(status, message, code, wait)
        words = refused.args[0].lower()
        if status in (400, 429) and any(phrase in words for phrase in _FATAL_PHRASES):
            refused.kind = ErrorKind.FATAL
            wait = wait if status == 429 else None
        return RequestFailed(refused, wait, status)

    async def _get_client(self) -> genai.Client:
        if self._client is not None:
            return self._client
        sdk = await asyncio.to_thread(import_optional, "google.genai", EXTRA)
        http_client = await self._server.http_client()
        # In a thread, because it reads certificates for requests that it will not make.
        client: genai.Client = await asyncio.to_thread(
            sdk.Client,
            vertexai=False,
            api_key=KEY_PLACEHOLDER,
            http_options={
                "base_url": self._server.base_url,
                "httpx_async_client": http_client,
                "extra_body": self._options or None,
            },
        )
        self._client = client
        return client


def _retry_delay(body: JsonObject) -> float:
    """Return the seconds that an error asks to wait (google.rpc.RetryInfo); 0 without them."""
    for detail in object_list(object_field(body, "error"), "details"):
        found = re.fullmatch(r"(\d+(?:\.\d+)?)s", optional_str(detail, "retryDelay") or "")
        if found is not None:
            return float(found[1])
    return 0.0
