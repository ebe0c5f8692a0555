"""A server that a vendor's own SDK talks to: its address, its key, and how it is reached.

The SDKs get an HTTP client of ours, so that proxies, certificates, time limits and redirects are
the same for every provider, and so that an open response can be closed at once. They do not retry:
they would wait for up to a minute, while a person waits for a reply (see `_one_retry`).
"""

from __future__ import annotations

import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from duologue._net import (
    check_headers,
    check_proxies,
    check_route,
    check_secret,
    redirect_error,
    split_address,
    without_password,
)
from duologue._optional import import_optional
from duologue.errors import ConfigError, ErrorKind, SessionError
from duologue.providers._drain import drain
from duologue.providers._one_retry import CONNECT_TIMEOUT_S
from duologue.providers._trusted_certificates import trusted_certificates
from duologue.providers._validate import check_positive
from duologue.realtime.network import ApiKey, resolve_key

if TYPE_CHECKING:
    import httpx2

KEY_PLACEHOLDER = "the-key-of-this-request"
"""What an SDK gets as its key. It logs the headers that it makes; the key replaces this after."""


@dataclass(slots=True)
class _Call:
    """A request that an SDK makes.

    Attributes:
        key: The key.
        headers: What is added to its headers.
        timeout: Its time limits, which an SDK may take away.
        opened: Where its response is noted, because the SDK may not show it.
    """

    key: str
    headers: Mapping[str, str]
    timeout: Mapping[str, float | None]
    opened: list[httpx2.Response]


_current: ContextVar[_Call | None] = ContextVar("current", default=None)


class SDKServer:
    """The server of an SDK.

    Args:
        default_url: The vendor's own server.
        url_variable: Environment variable with another address.
        key_variables: Environment variables with the key, the usual one first.
        extra: The extra of this package that installs the SDK.
        base_url: The server; None takes the environment's, then the vendor's own.
        api_key: A key, or a function that returns one for each request; None takes the
            environment's.
        headers: Additional headers of each request.
        proxy: Address of an HTTP proxy; None uses that of the environment.
        ssl_context: Trusted certificates and our own; the system's if None.
        timeout: Seconds until the response, and between two parts of it.

    Raises:
        ConfigError: An argument is invalid, or the vendor's own server has no key.
    """

    def __init__(
        self,
        *,
        default_url: str,
        url_variable: str,
        key_variables: Sequence[str],
        extra: str,
        base_url: str | None,
        api_key: ApiKey | None,
        headers: Mapping[str, str] | None,
        proxy: str | None,
        ssl_context: ssl.SSLContext | None,
        timeout: float,
    ) -> None:
        found = (os.environ.get(variable) for variable in key_variables)
        key: ApiKey = api_key or next((value for value in found if value), "")
        if not callable(key):
            key = check_secret("api_key", key)
        check_route(proxy, ssl_context, socks=False)
        check_positive("timeout", timeout)
        own_server = base_url if base_url is not None else os.environ.get(url_variable)
        if own_server:
            parts = split_address("base_url", own_server, ("http", "https"), default_url)
            if parts.query or parts.fragment:
                raise ConfigError(
                    f"base_url must be an address such as {default_url}, with no query"
                )
        elif not key:
            raise ConfigError(f"no API key: set {key_variables[0]}, or give api_key or base_url")
        self.base_url = (own_server or default_url).rstrip("/")
        self._headers = check_headers("headers", headers)
        self._api_key: ApiKey = key or "none"
        self._extra = extra
        self._proxy = proxy
        self._ssl_context = ssl_context
        self._timeout = timeout
        self._client: httpx2.AsyncClient | None = None

    @property
    def shown_url(self) -> str:
        """The address without its password, for errors."""
        return without_password(self.base_url)

    async def http_client(self) -> httpx2.AsyncClient:
        """Return the HTTP client for the SDK, which is made at its first use.

        Raises:
            SessionError: The environment names a proxy that can't be used.
        """
        if self._client is None:
            httpx2 = import_optional("httpx2", self._extra)
            check_proxies()
            trusted = self._ssl_context or await trusted_certificates(httpx2.create_ssl_context)
            self._client = httpx2.AsyncClient(
                proxy=self._proxy,
                verify=trusted,
                follow_redirects=False,
                event_hooks={"request": [_add_headers], "response": [_note_response]},
            )
        return self._client

    async def call[T](
        self, request: Callable[[], Awaitable[T]], opened: list[httpx2.Response]
    ) -> T:
        """Make a request of the SDK, and add the response that it opens to ``opened``.

        Raises:
            SessionError: The function that was given as ``api_key`` failed.
        """
        key = await resolve_key(self._api_key)
        token = _current.set(_Call(key, self._headers, self._time_limits(), opened))
        try:
            return await request()
        finally:
            _current.reset(token)

    async def drain(self, events: AsyncIterator[object]) -> None:
        """Read the end of a response whose last event has come."""
        await drain(events, import_optional("httpx2", self._extra).HTTPError)

    def _time_limits(self) -> Mapping[str, float | None]:
        connect = min(self._timeout, CONNECT_TIMEOUT_S)
        return {"connect": connect} | dict.fromkeys(("read", "write", "pool"), self._timeout)

    async def close(self) -> None:
        """Close the HTTP connections; the next request opens new ones."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    def transport_error(self, error: Exception, *, began: bool) -> SessionError:
        """Return the error of a connection that failed.

        Args:
            error: What the HTTP client raised.
            began: Whether the response had begun.
        """
        trouble = "broke off" if began else "can't be reached"
        if self.is_timeout(error):
            trouble = "does not answer"
        return SessionError(
            f"{self.shown_url} {trouble}: {error or type(error).__name__}",
            code="connection",
            kind=ErrorKind.RETRY,
        )

    def redirect(self, status: int, headers: Mapping[str, str]) -> SessionError | None:
        """Return the error of a redirect; None if the response is something else."""
        if not 300 <= status < 400 or "location" not in headers:
            return None
        return redirect_error(urlsplit(self.base_url).hostname or "", status, headers["location"])

    def is_timeout(self, error: Exception) -> bool:
        """Return whether an error says that the server took too long."""
        return isinstance(error, import_optional("httpx2", self._extra).TimeoutException)

    def is_transport_error(self, error: Exception) -> bool:
        """Return whether an error is one of the HTTP client."""
        return isinstance(error, import_optional("httpx2", self._extra).HTTPError)


async def _add_headers(request: httpx2.Request) -> None:
    call = _current.get()
    if call is None:
        return
    for name, value in request.headers.items():
        if KEY_PLACEHOLDER in value:
            request.headers[name] = value.replace(KEY_PLACEHOLDER, call.key)
    request.headers.update(call.headers)
    request.extensions = {**request.extensions, "timeout": call.timeout}


async def _note_response(response: httpx2.Response) -> None:
    call = _current.get()
    if call is not None:
        call.opened.append(response)
