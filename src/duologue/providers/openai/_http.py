"""A server that speaks OpenAI's HTTP API: its address, its key, and one careful retry."""

from __future__ import annotations

import asyncio
import json
import os
import ssl
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from duologue._net import (
    check_headers,
    check_proxies,
    check_route,
    check_secret,
    extend_path,
    redirect_error,
    split_address,
    without_password,
)
from duologue._optional import import_optional
from duologue.errors import ConfigError, ErrorKind, SessionError
from duologue.json_types import JsonObject
from duologue.providers._one_retry import (
    CONNECT_TIMEOUT_S,
    MAX_RETRY_WAIT_S,
    RETRY_WAIT_S,
    refusal,
    retry_wait,
)
from duologue.providers._trusted_certificates import trusted_certificates
from duologue.providers.openai._chat_stream import error_text
from duologue.realtime.network import ApiKey, resolve_key

if TYPE_CHECKING:
    import httpx

_BASE_URL = "https://api.openai.com/v1"

_MAX_ERROR_BYTES = 64 * 1024
"""Bytes of an error's body that are read."""


class OpenAIServer:
    """Sends requests to one server.

    Args:
        base_url: The server; ``OPENAI_BASE_URL`` or OpenAI's own if None.
        api_key: A key, or a function that returns one for each request; ``OPENAI_API_KEY`` if None.
        headers: Additional headers of each request.
        proxy: Address of an HTTP proxy; None uses that of the environment.
        ssl_context: Trusted certificates and our own; the system's if None.
        timeout: Seconds until the response, and between two parts of it.

    Raises:
        ConfigError: An argument is invalid, or OpenAI's own server has no key.
    """

    def __init__(
        self,
        *,
        base_url: str | None,
        api_key: ApiKey | None,
        headers: Mapping[str, str] | None,
        proxy: str | None,
        ssl_context: ssl.SSLContext | None,
        timeout: float,
    ) -> None:
        key = api_key or os.environ.get("OPENAI_API_KEY") or ""
        if not callable(key):
            key = check_secret("api_key", key)
        check_route(proxy, ssl_context, socks=False)
        own_server = base_url or os.environ.get("OPENAI_BASE_URL")
        if not key and not own_server:
            raise ConfigError("no API key: set OPENAI_API_KEY, or give api_key or base_url")
        if own_server:
            split_address("base_url", own_server, ("http", "https"), "http://127.0.0.1:11434/v1")
        self._base_url = own_server or _BASE_URL
        self._api_key: ApiKey = key or "none"
        self._headers = check_headers("headers", headers)
        self._proxy = proxy
        self._ssl_context = ssl_context
        self._timeout = timeout
        self._client: httpx.AsyncClient | None = None

    async def close(self) -> None:
        """Close the HTTP connections; the next request opens new ones."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    @asynccontextmanager
    async def post(self, path: str, request: JsonObject) -> AsyncGenerator[httpx.Response]:
        """Yield the response to ``request``, which is retried once if the server is busy.

        Raises:
            SessionError: The server refused, with its own message, or can't be reached.
        """
        httpx = import_optional("httpx", "openai")
        client = await self._get_client()
        url, body = extend_path(self._base_url, path), json.dumps(request).encode()
        again = True
        while True:
            key = await resolve_key(self._api_key)
            headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
            call = client.build_request(
                "POST", url, content=body, headers={**headers, **self._headers}
            )
            try:
                response = await client.send(call, stream=True)
            except httpx.TimeoutException as error:
                raise self.connection_error("does not answer", error) from error
            except httpx.HTTPError as error:
                if not again:
                    raise self.connection_error("can't be reached", error) from error
                wait = 0.0
            else:
                if response.is_success:
                    break
                wait = await self._wait_after_refusal(response, again=again)
            again = False
            await asyncio.sleep(max(wait, RETRY_WAIT_S))
        try:
            yield response
        finally:
            await response.aclose()

    async def _wait_after_refusal(self, response: httpx.Response, *, again: bool) -> float:
        """Close the response; return the seconds to wait before a retry, or raise its error."""
        try:
            body = await _read_start(response)
        finally:
            await response.aclose()
        wait = retry_wait(response.status_code, response.headers)
        if again and wait is not None and wait <= MAX_RETRY_WAIT_S:
            return wait
        raise _status_error(response, body, wait)

    def connection_error(self, trouble: str, error: Exception) -> SessionError:
        """Return the error of a connection that had ``trouble``."""
        return SessionError(
            f"{self.shown_url} {trouble}: {error or type(error).__name__}",
            code="connection",
            kind=ErrorKind.RETRY,
        )

    @property
    def shown_url(self) -> str:
        """The address without its password, for errors."""
        return without_password(self._base_url)

    async def _get_client(self) -> httpx.AsyncClient:
        if self._client is None:
            httpx = import_optional("httpx", "openai")
            check_proxies()
            trusted = self._ssl_context or await trusted_certificates(httpx.create_ssl_context)
            self._client = httpx.AsyncClient(
                timeout=httpx.Timeout(self._timeout, connect=min(self._timeout, CONNECT_TIMEOUT_S)),
                proxy=self._proxy,
                verify=trusted,
            )
        return self._client


async def _read_start(response: httpx.Response) -> bytes:
    """Return the body of an error, or as much as came of it; longer ones are no error's."""
    body = bytearray()
    with suppress(import_optional("httpx", "openai").HTTPError):
        async for piece in response.aiter_bytes():
            body += piece
            if len(body) > _MAX_ERROR_BYTES:
                break
    return bytes(body)


def _status_error(response: httpx.Response, body: bytes, wait: float | None) -> SessionError:
    """Return the error of an HTTP status, with the server's own message if it gave one."""
    status = response.status_code
    if "location" in response.headers and response.is_redirect:
        return redirect_error(response.url.host, status, response.headers["location"])
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError):
        parsed = body.decode(errors="replace")
    error = parsed.get("error", parsed) if isinstance(parsed, dict) else None
    code = error.get("code") if isinstance(error, dict) else None
    return refusal(status, error_text(parsed), str(code or ""), wait)
