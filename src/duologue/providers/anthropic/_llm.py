"""Claude as a text model, by Anthropic's own SDK."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Mapping, Sequence
from typing import TYPE_CHECKING, cast

from duologue._optional import import_optional
from duologue.errors import ErrorKind, SessionError
from duologue.items import Item
from duologue.json_types import JsonObject
from duologue.pipeline.interfaces import LLMOutput
from duologue.providers._json_fields import deep_merge, object_field, optional_str
from duologue.providers._one_retry import RequestFailed, attempt_twice, refusal, retry_wait
from duologue.providers._options import text
from duologue.providers._sdk_server import KEY_PLACEHOLDER, SDKServer
from duologue.providers._validate import check_choice, check_mapping, check_range
from duologue.providers.anthropic._message_stream import MessageStream
from duologue.providers.anthropic._messages import (
    CacheTime,
    Conversation,
    conversation,
    request_body,
)
from duologue.providers.anthropic._thinking import Thinking, ThinkingPolicy
from duologue.realtime.commands import ToolSpec
from duologue.realtime.network import ApiKey

if TYPE_CHECKING:
    import anthropic
    import httpx2

EXTRA = "anthropic"
_FATAL_TYPES = frozenset(
    ("authentication_error", "billing_error", "permission_error", "not_found_error")
)
"""Types of errors that any other request would get too."""
_FATAL_PHRASES = ("credit balance", "usage limit")


class LLM:
    """Claude as an `LLM` (extra ``anthropic``), by Anthropic's own SDK.

    A request that is refused because the service is busy is repeated once if it asks to wait 2 s or
    less; otherwise the error is raised at once.

    Args:
        model: The model's name, such as ``claude-haiku-4-5``.
        api_key: A key, or a function that returns one for each request; read from
            ``ANTHROPIC_API_KEY`` when not given. Your own server needs none.
        base_url: The server, without ``/v1``; read from ``ANTHROPIC_BASE_URL`` when not given, and
            Anthropic's own by default.
        max_output_tokens: Tokens of one reply at most, thoughts included.
        thinking: ``off``, as little as the model can; ``low``, ``medium``, ``high``, ``xhigh`` or
            ``max``; a number of tokens, for Claude 4.5 and before; None: the model's own default.
        cache: How long the service keeps the prompt that it has read, ``5m`` or ``1h``; None: it
            is read anew each time.
        tools_reliable: Whether the model's tool calls can be trusted.
        headers: Additional headers of each request.
        proxy: Address of an HTTP proxy; None uses that of the environment.
        ssl_context: Trusted certificates and our own; the system's if None.
        options: Fields of every request, merged into it deep and last.
        timeout: Seconds until the response, and between two parts of it.

    Raises:
        ConfigError: An argument is invalid, or Anthropic's own server has no key.
    """

    def __init__(
        self,
        model: str,
        *,
        api_key: ApiKey | None = None,
        base_url: str | None = None,
        max_output_tokens: int = 4096,
        thinking: Thinking = "off",
        cache: CacheTime | None = "5m",
        tools_reliable: bool = True,
        headers: Mapping[str, str] | None = None,
        proxy: str | None = None,
        ssl_context: ssl.SSLContext | None = None,
        options: JsonObject | None = None,
        timeout: float = 30.0,
    ) -> None:
        text("the name of a model")("model", model)
        check_range("max_output_tokens", max_output_tokens, 1, 1_000_000, integer=True)
        check_choice("cache", cache, ("5m", "1h", None))
        self._model = model
        self._max_output_tokens = max_output_tokens
        self._thinking = ThinkingPolicy(model, thinking)
        self._cache: CacheTime | None = cache
        self._tools_reliable = tools_reliable
        if options is not None:
            check_mapping("options", options)
        self._options = dict(options or {})
        self._server = SDKServer(
            default_url="https://api.anthropic.com",
            url_variable="ANTHROPIC_BASE_URL",
            key_variables=("ANTHROPIC_API_KEY",),
            extra=EXTRA,
            base_url=base_url,
            api_key=api_key,
            headers=headers,
            proxy=proxy,
            ssl_context=ssl_context,
            timeout=timeout,
        )
        self._client: anthropic.AsyncAnthropic | None = None

    @property
    def model(self) -> str:
        """The model's name."""
        return self._model

    @property
    def tools_reliable(self) -> bool:
        """Whether its tool calls can be trusted."""
        return self._tools_reliable

    async def prepare(self, instructions: str, tools: Sequence[ToolSpec]) -> None:
        """Import the SDK in a thread (1 s).

        Raises:
            MissingExtraError: The SDK is not installed.
        """
        await self._get_client()

    async def close(self) -> None:
        """Close the HTTP connections; the next request opens new ones."""
        self._client = None
        await self._server.close()

    def generate(
        self, instructions: str, history: Sequence[Item], tools: Sequence[ToolSpec]
    ) -> AsyncGenerator[LLMOutput]:
        """Stream the next turn: text as it arrives, then tool calls, then token usage.

        Closing the generator closes the HTTP response.

        Raises:
            SessionError: The service or the model refused, in its own words, or can't be reached.
        """
        with_thoughts = False

        def attempt() -> AsyncGenerator[LLMOutput]:
            nonlocal with_thoughts
            talk = conversation(history, self._thinking.kept)
            with_thoughts = talk.with_thoughts
            return self._request(self._body(instructions, talk, tools))

        def adapt(failure: RequestFailed) -> bool:
            words = str(failure.error)
            return failure.status == 400 and self._thinking.refused(
                words, with_thoughts=with_thoughts
            )

        return attempt_twice(attempt, adapt)

    def _body(self, instructions: str, talk: Conversation, tools: Sequence[ToolSpec]) -> JsonObject:
        """Return all fields of a request."""
        thinking = self._thinking.fields(calls_without_thoughts=talk.calls_without_thoughts)
        body: JsonObject = {
            "model": self._model,
            "max_tokens": self._max_output_tokens + self._thinking.budget,
            **request_body(instructions, talk, tools, self._cache),
            **thinking,
        }
        return deep_merge(body, self._options)

    async def _request(self, body: JsonObject) -> AsyncGenerator[LLMOutput]:
        """Send one request and yield its outputs; any failure is a `RequestFailed`."""
        client = await self._get_client()
        sdk = import_optional("anthropic", EXTRA)
        opened: list[httpx2.Response] = []
        message = MessageStream()
        try:
            events = aiter(await self._server.call(lambda: _create(client, body), opened))
            while not message.done:
                event = await anext(events, None)
                if event is None:
                    break
                for output in message.push(cast("JsonObject", event.to_dict())):
                    yield output
            for output in message.end():
                yield output
            await self._server.drain(events)
        except sdk.APIStatusError as error:
            raise self._status_failure(error) from error
        except sdk.APIConnectionError as error:
            cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
            failure = self._server.transport_error(cause, began=False)
            raise RequestFailed(failure, None if _is_timeout(error, sdk) else 0.0) from error
        except SessionError as error:
            raise RequestFailed(error) from error.__cause__
        except json.JSONDecodeError as error:
            unreadable = SessionError("the server sent an event that is no JSON", code="protocol")
            raise RequestFailed(unreadable) from error
        except Exception as error:
            if not self._server.is_transport_error(error):
                raise
            raise RequestFailed(self._server.transport_error(error, began=True)) from error
        finally:
            # At once, also when the generator is closed: the model stops writing.
            for response in opened:
                await response.aclose()
        if message.first_call_id is not None and message.thoughts:
            self._thinking.keep(message.first_call_id, message.thoughts)

    def _status_failure(self, error: anthropic.APIStatusError) -> RequestFailed:
        """Return what a refusal of the service means, or an error event in the stream."""
        status, headers = error.status_code, error.response.headers
        redirect = self._server.redirect(status, headers)
        if redirect is not None:
            return RequestFailed(redirect, status=status)
        body = cast("JsonObject", error.body) if isinstance(error.body, dict) else {}
        details = object_field(body, "error")
        kind = optional_str(details, "type") or ""
        message = optional_str(details, "message") or ""
        if not message and isinstance(error.body, str):
            message = error.body
        # An error within the stream comes with the status 200.
        wait = 0.0 if status == 200 else retry_wait(status, headers)
        found = refusal(status, message or kind, kind, wait)
        if kind in _FATAL_TYPES or any(words in found.args[0].lower() for words in _FATAL_PHRASES):
            found.kind, wait = ErrorKind.FATAL, None
        return RequestFailed(found, wait, status)

    async def _get_client(self) -> anthropic.AsyncAnthropic:
        if self._client is None:
            sdk = await asyncio.to_thread(import_optional, "anthropic", EXTRA)
            self._client = sdk.AsyncAnthropic(
                api_key=KEY_PLACEHOLDER,
                base_url=self._server.base_url,
                max_retries=0,
                http_client=await self._server.http_client(),
            )
        return self._client


def _create(
    client: anthropic.AsyncAnthropic, body: JsonObject
) -> Awaitable[AsyncIterable[anthropic.types.RawMessageStreamEvent]]:
    """Send a request whose fields are all in ``body``, which the SDK merges over its own."""
    return client.messages.create(model="", max_tokens=0, messages=(), stream=True, extra_body=body)


def _is_timeout(error: Exception, sdk: object) -> bool:
    return isinstance(error, sdk.APITimeoutError)  # type: ignore[attr-defined]
