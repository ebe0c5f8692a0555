"""What the voices and recognisers of all vendors share: their options, and how they are reached."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from types import MappingProxyType
from urllib.parse import urlencode, urlsplit, urlunsplit

from duologue._net import (
    check_headers,
    check_route,
    check_secret,
    is_loopback,
    one_line,
    split_address,
)
from duologue._optional import import_optional
from duologue.clock import Clock, LoopClock
from duologue.errors import ConfigError, ErrorKind, SessionError
from duologue.providers._json_fields import MalformedError
from duologue.providers._options import ServiceOptions, option
from duologue.realtime.network import ApiKey, resolve_key
from duologue.realtime.websocket import WebSocketWire, close_error, http_error

_SCHEMES = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}

type Query = Sequence[tuple[str, str | int | float | bool | None]]
"""Parameters of an address; None leaves one out."""


@dataclass(frozen=True)
class SpeechOptions(ServiceOptions):
    """Options of every voice and recogniser."""

    _: KW_ONLY
    api_key: ApiKey | None = option(
        None,
        "key, or a function that returns one for each connection",
        shown="from the environment",
        secret=True,
    )


@dataclass(frozen=True)
class Vendor:
    """What is the same for everybody who uses a vendor.

    Args:
        name: The vendor's name, in errors.
        url: Its address.
        variables: Environment variables with the key, the usual one first.
        auth: Returns the headers for a key.
        headers: Headers of each connection.
        errors: Kinds of its errors, by its own code, by HTTP status or close code.
        extra: The extra of this package that it needs.
    """

    name: str
    url: str
    variables: Sequence[str]
    auth: Callable[[str], Mapping[str, str]]
    errors: Mapping[str, ErrorKind]
    extra: str
    headers: Mapping[str, str] = MappingProxyType({})


class SpeechService:
    """A vendor's service, as the options of a voice or recogniser reach it.

    Raises:
        ConfigError: An option is invalid, or there is no key for a service that is not on this
            machine.
    """

    def __init__(
        self, vendor: Vendor, options: SpeechOptions, *, base_url: str | None = None
    ) -> None:
        name, url, variables = vendor.name, vendor.url, vendor.variables
        base_url = base_url or options.base_url
        proxy, ssl_context = options.proxy, options.ssl_context
        if base_url is not None:
            split_address("base_url", base_url, tuple(_SCHEMES), url)
        check_route(proxy, ssl_context)
        self.name = name
        self.base_url = (base_url or url).rstrip("/")
        found = (os.environ.get(variable) for variable in variables)
        key: ApiKey = options.api_key or next((value for value in found if value), "")
        if not key and not is_loopback(urlsplit(self.base_url).hostname or ""):
            raise ConfigError(f"no API key: set {variables[0]}, or give api_key")
        self._api_key = key if callable(key) else check_secret("api_key", key)
        self._auth = vendor.auth
        self._headers = {**vendor.headers, **check_headers("headers", options.headers)}
        self._proxy = proxy
        self._ssl_context = ssl_context
        self._errors = vendor.errors
        self._extra = vendor.extra
        self.clock: Clock = options.clock or LoopClock()

    def websocket(self, path: str, query: Query = ()) -> WebSocketWire:
        """Return a WebSocket to a path of the service."""
        import_optional("orjson", self._extra)
        parts = urlsplit(self.base_url)
        text = urlencode(
            [(name, _text_of(value)) for name, value in query if value is not None], safe=","
        )
        url = urlunsplit((_SCHEMES[parts.scheme], parts.netloc, parts.path + path, text, ""))
        return WebSocketWire(
            url,
            headers=self._make_headers,
            http_error=self._http_error,
            close_error=self._close_error,
            proxy=self._proxy,
            ssl_context=self._ssl_context,
            extra=self._extra,
        )

    def error(self, code: str, message: str, default: ErrorKind = ErrorKind.RETRY) -> SessionError:
        """Return the error for the vendor's code and message."""
        text = one_line(message) or code or "an error without a message"
        kind = self._errors.get(code, default)
        return SessionError(f"{self.name}: {text}", code=code, kind=kind)

    async def _make_headers(self) -> Mapping[str, str]:
        key = await resolve_key(self._api_key)
        return {**(self._auth(key) if key else {}), **self._headers}

    def _http_error(self, status: int, body: bytes) -> SessionError:
        error = http_error(status, _message_of(body) or body)
        kind = self._errors.get(str(status), error.kind)
        return SessionError(f"{self.name}: {error}", code=str(status), kind=kind)

    def _close_error(self, code: int, reason: str) -> SessionError:
        error = close_error(code, reason)
        kind = self._errors.get(str(code), error.kind)
        return SessionError(f"{self.name}: {error}", code=str(code), kind=kind)


def _text_of(value: str | float) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _message_of(body: bytes) -> bytes:
    """Return the vendor's words in a JSON body; nothing if there are none."""
    from duologue.providers._json_text import decode_object

    try:
        value = decode_object(body)
    except MalformedError:
        return b""
    for key in ("message", "err_msg", "detail", "error", "title"):
        found = value.get(key)
        if isinstance(found, dict):
            found = found.get("message")
        if isinstance(found, str) and found:
            return found.encode()
    return b""
