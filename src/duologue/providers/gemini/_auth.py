"""Where a Gemini session connects, and the credentials it sends."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import urlsplit, urlunsplit

from duologue._net import check_secret, split_address
from duologue.errors import ConfigError
from duologue.providers.gemini._vertex import BearerTokens, Vertex
from duologue.realtime.network import ApiKey

BASE_URL = "https://generativelanguage.googleapis.com"
_GEMINI_SERVICE = "google.ai.generativelanguage.{}.GenerativeService.BidiGenerateContent"
_VERTEX_SERVICE = "google.cloud.aiplatform.{}.LlmBidiService/BidiGenerateContent"
_TOKEN_PREFIX = "auth_tokens/"  # noqa: S105 - how one begins


class Auth(Protocol):
    """The address of the service and the credentials for it."""

    @property
    def base_url(self) -> str:
        """Address of the service; it may contain a user name and a password."""
        ...

    @property
    def url(self) -> str:
        """The WebSocket address."""
        ...

    def resource_name(self, name: str) -> str:
        """Return the full resource name of the model called ``name``."""
        ...

    def prepare(self) -> None:
        """Import optional dependencies.

        Raises:
            MissingExtraError: a dependency is not installed.
        """

    async def headers(self) -> Mapping[str, str]:
        """Return the HTTP headers for the next connection.

        Raises:
            SessionError: no credentials are available.
        """
        ...


@dataclass(frozen=True, slots=True)
class ApiKeyAuth:
    """Access to the Gemini API with a key, or with an ephemeral ``token`` (``v1alpha`` only)."""

    base_url: str = field(repr=False)
    """Address of the service; it may contain a user name and a password."""
    version: str
    key: str = field(default="", repr=False)
    token: str = field(default="", repr=False)

    @property
    def url(self) -> str:
        """The WebSocket address."""
        service = _GEMINI_SERVICE.format(self.version) + ("Constrained" if self.token else "")
        return _socket_url(self.base_url, service)

    def resource_name(self, name: str) -> str:
        """Return the full resource name of the model called ``name``."""
        return name if "/" in name else f"models/{name}"

    def prepare(self) -> None:
        """Do nothing: a key needs no further dependency."""

    async def headers(self) -> Mapping[str, str]:
        """Return the header that carries the key or the token."""
        if self.token:
            return {"Authorization": f"Token {self.token}"}
        return {"x-goog-api-key": self.key}


@dataclass(frozen=True, slots=True)
class VertexAuth:
    """Access to Vertex AI with a bearer token, which is refreshed when it has expired."""

    vertex: Vertex
    base_url: str = field(repr=False)
    """Address of the service; it may contain a user name and a password."""
    version: str
    bearer_tokens: BearerTokens = field(repr=False)

    @property
    def url(self) -> str:
        """The WebSocket address."""
        return _socket_url(self.base_url, _VERTEX_SERVICE.format(self.version))

    def resource_name(self, name: str) -> str:
        """Return the full resource name of the model called ``name``."""
        return self.vertex.resource_name(name)

    def prepare(self) -> None:
        """Import google-auth."""
        self.bearer_tokens.prepare()

    async def headers(self) -> Mapping[str, str]:
        """Return the header with a bearer token, which a thread obtains and refreshes."""
        return await self.bearer_tokens.headers()


def resolve_auth(
    *,
    api_key: ApiKey | None,
    token: str | None,
    vertex: Vertex | None,
    base_url: str | None,
    api_version: str | None,
    needs_alpha: bool = False,
    proxy: str | None = None,
    ssl_context: ssl.SSLContext | None = None,
) -> Auth:
    """Choose the credentials from the arguments and the environment.

    Args:
        api_key: A key of the Gemini API, or a function that returns one, which is not called here;
            by default from ``GEMINI_API_KEY`` or ``GOOGLE_API_KEY``.
        token: An ephemeral token of the Gemini API.
        vertex: A Google Cloud project; the session then uses Vertex AI.
        base_url: Address of the service; None takes the environment's, then Google's.
        api_version: Version of the API; None chooses it.
        needs_alpha: The session uses features that only ``v1alpha`` of the Gemini API has.
        proxy: Address of a proxy for requests of Google's credentials.
        ssl_context: Trusted certificates for those requests.

    Raises:
        ConfigError: none or more than one of the three credentials is given, or a value is invalid.
    """
    if sum(given is not None for given in (api_key, token, vertex)) > 1:
        raise ConfigError("give one of api_key, token and vertex")
    if api_version is not None and not api_version.isalnum():
        raise ConfigError(f"api_version must be one such as v1 or v1beta, not {api_version!r}")
    if vertex is not None:
        address = base_url or os.environ.get("GOOGLE_VERTEX_BASE_URL") or f"https://{vertex.host}"
        bearer = BearerTokens(vertex.credentials, proxy=proxy, ssl_context=ssl_context)
        # The version that Google's own package uses on Vertex AI.
        return VertexAuth(vertex, _check_base_url(address), api_version or "v1beta1", bearer)
    address = _check_base_url(base_url or os.environ.get("GOOGLE_GEMINI_BASE_URL") or BASE_URL)
    if token is not None:
        token = check_secret("token", token)
        if not token.startswith(_TOKEN_PREFIX):
            raise ConfigError(f"token must be an ephemeral token: {_TOKEN_PREFIX}...")
        return ApiKeyAuth(address, api_version or "v1alpha", token=token)
    version = api_version or ("v1alpha" if needs_alpha else "v1")
    if callable(api_key):
        return ApiKeyAuth(address, version)
    key = api_key or os.environ.get("GEMINI_API_KEY") or os.environ.get("GOOGLE_API_KEY") or ""
    key = check_secret("api_key", key)
    if not key:
        raise ConfigError("no API key: set GEMINI_API_KEY, or give api_key, token or vertex")
    if key.startswith(_TOKEN_PREFIX):
        raise ConfigError("this is an ephemeral token: give it as token, not as api_key")
    return ApiKeyAuth(address, version, key=key)


def _socket_url(base_url: str, service: str) -> str:
    address = urlsplit(base_url)
    scheme = "wss" if address.scheme == "https" else "ws"
    return urlunsplit((scheme, address.netloc, f"{address.path}/ws/{service}", "", ""))


def _check_base_url(base_url: str) -> str:
    address = split_address("base_url", base_url, ("http", "https"), BASE_URL)
    if address.query or address.fragment:
        raise ConfigError(f"base_url must be an address such as {BASE_URL}, without a query")
    return base_url.rstrip("/")
