"""How a session gets in: by an API key, by an ephemeral token, or with Vertex AI."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import urlsplit, urlunsplit

from duologue._net import split_address
from duologue.errors import ConfigError
from duologue.providers._validate import check_secret
from duologue.providers.gemini._vertex import BearerTokens, Vertex

BASE_URL = "https://generativelanguage.googleapis.com"
_GEMINI_SERVICE = "google.ai.generativelanguage.{}.GenerativeService.BidiGenerateContent"
_VERTEX_SERVICE = "google.cloud.aiplatform.{}.LlmBidiService/BidiGenerateContent"
_TOKEN_PREFIX = "auth_tokens/"  # noqa: S105 - how one begins


class Auth(Protocol):
    """Where a session is, and by which right."""

    @property
    def url(self) -> str:
        """The address of the WebSocket."""
        ...

    def resource_name(self, name: str) -> str:
        """The model's full name."""
        ...

    def prepare(self) -> None:
        """Import what is needed; raises `MissingExtraError`."""

    async def headers(self) -> Mapping[str, str]:
        """The HTTP headers of the next connection. Raises `SessionError`."""
        ...


@dataclass(frozen=True, slots=True)
class ApiKeyAuth:
    """The Gemini API, by a key, or by an ephemeral ``token`` (which wants ``v1alpha``)."""

    base_url: str = field(repr=False)
    """Address of the service, perhaps with a user name and a password."""
    version: str
    key: str = field(default="", repr=False)
    token: str = field(default="", repr=False)

    @property
    def url(self) -> str:
        """The address of the WebSocket."""
        service = _GEMINI_SERVICE.format(self.version) + ("Constrained" if self.token else "")
        return _socket_url(self.base_url, service)

    def resource_name(self, name: str) -> str:
        """The model's full name."""
        return name if "/" in name else f"models/{name}"

    def prepare(self) -> None:
        """Nothing is needed."""

    async def headers(self) -> Mapping[str, str]:
        """The key or the token."""
        if self.token:
            return {"Authorization": f"Token {self.token}"}
        return {"x-goog-api-key": self.key}


@dataclass(frozen=True, slots=True)
class VertexAuth:
    """Vertex AI, by a bearer token that is had anew when it has expired."""

    vertex: Vertex
    base_url: str = field(repr=False)
    """Address of the service, perhaps with a user name and a password."""
    version: str
    bearer_tokens: BearerTokens = field(repr=False)

    @property
    def url(self) -> str:
        """The address of the WebSocket."""
        return _socket_url(self.base_url, _VERTEX_SERVICE.format(self.version))

    def resource_name(self, name: str) -> str:
        """The model's full name."""
        return self.vertex.resource_name(name)

    def prepare(self) -> None:
        """Import google-auth."""
        self.bearer_tokens.prepare()

    async def headers(self) -> Mapping[str, str]:
        """A bearer token; it is looked for, and had anew, in a thread."""
        return await self.bearer_tokens.headers()


def resolve_auth(
    *,
    api_key: str | None,
    token: str | None,
    vertex: Vertex | None,
    base_url: str | None,
    api_version: str | None,
    needs_alpha: bool = False,
) -> Auth:
    """The access that these say, or the environment; raises `ConfigError` for more or less.

    ``alpha``: what is asked for is in ``v1alpha`` of the Gemini API only.
    """
    if sum(given is not None for given in (api_key, token, vertex)) > 1:
        raise ConfigError("give one of api_key, token and vertex")
    if api_version is not None and not api_version.isalnum():
        raise ConfigError(f"api_version takes one such as v1 or v1beta, not {api_version!r}")
    if vertex is not None:
        address = base_url or os.environ.get("GOOGLE_VERTEX_BASE_URL") or f"https://{vertex.host}"
        bearer = BearerTokens(vertex.credentials)
        # The version that Google's own package takes there.
        return VertexAuth(vertex, _check_base_url(address), api_version or "v1beta1", bearer)
    address = _check_base_url(base_url or os.environ.get("GOOGLE_GEMINI_BASE_URL") or BASE_URL)
    if token is not None:
        token = check_secret("token", token)
        if not token.startswith(_TOKEN_PREFIX):
            raise ConfigError(f"token takes an ephemeral token: {_TOKEN_PREFIX}...")
        return ApiKeyAuth(address, api_version or "v1alpha", token=token)
    key = api_key or os.environ.get("GEMINI_API_KEY") or os.environ.get("GOOGLE_API_KEY") or ""
    key = check_secret("api_key", key)
    if not key:
        raise ConfigError("no API key: set GEMINI_API_KEY, or give api_key, token or vertex")
    if key.startswith(_TOKEN_PREFIX):
        raise ConfigError("this is an ephemeral token: give it as token, not as api_key")
    return ApiKeyAuth(address, api_version or ("v1alpha" if needs_alpha else "v1"), key=key)


def _socket_url(base_url: str, service: str) -> str:
    address = urlsplit(base_url)
    scheme = "wss" if address.scheme == "https" else "ws"
    return urlunsplit((scheme, address.netloc, f"{address.path}/ws/{service}", "", ""))


def _check_base_url(base_url: str) -> str:
    address = split_address("base_url", base_url, ("http", "https"), BASE_URL)
    if address.query or address.fragment:
        raise ConfigError(f"base_url takes an address such as {BASE_URL}, without a query")
    return base_url.rstrip("/")
