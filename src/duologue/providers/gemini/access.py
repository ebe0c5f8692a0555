"""How a session gets in: by an API key, by an ephemeral token, or with Vertex AI."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import urlsplit, urlunsplit

from duologue.extras import require
from duologue.providers.gemini.models import bare_name
from duologue.realtime.errors import ConfigError, ErrorKind, SessionError

BASE_URL = "https://generativelanguage.googleapis.com"
_SERVICE = "google.ai.generativelanguage.{}.GenerativeService.BidiGenerateContent"
_VERTEX_SERVICE = "google.cloud.aiplatform.{}.LlmBidiService/BidiGenerateContent"
_SCOPE = "https://www.googleapis.com/auth/cloud-platform"


class Credentials(Protocol):
    """What google-auth calls credentials: a bearer token that can be had anew."""

    token: str | None

    @property
    def valid(self) -> bool:
        """The token is there, and has not expired."""
        ...

    def refresh(self, request: object) -> None:
        """Have a new token; blocks."""


@dataclass(frozen=True, slots=True)
class Vertex:
    """Gemini on Vertex AI: a Google Cloud project, and where it runs.

    ``credentials`` are those of google-auth; None takes what the machine has (application default
    credentials). Needs the extra ``vertex``. Raises `ConfigError`.
    """

    project: str
    location: str = "us-central1"
    credentials: Credentials | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not self.project or not self.location:
            raise ConfigError("Vertex takes a project and a location, such as us-central1")


class Access(Protocol):
    """Where a session is, and by which right."""

    @property
    def url(self) -> str:
        """The address of the WebSocket."""
        ...

    def model(self, name: str) -> str:
        """The model's full name."""
        ...

    async def headers(self) -> Mapping[str, str]:
        """The HTTP headers of the next connection. Raises `SessionError`."""
        ...


@dataclass(frozen=True, slots=True)
class KeyAccess:
    """The Gemini API, by a key, or by an ephemeral ``token`` (which wants ``v1alpha``)."""

    base_url: str
    version: str
    key: str = field(default="", repr=False)
    token: str = field(default="", repr=False)

    @property
    def url(self) -> str:
        """The address of the WebSocket."""
        service = _SERVICE.format(self.version) + ("Constrained" if self.token else "")
        return _socket_url(self.base_url, service)

    def model(self, name: str) -> str:
        """The model's full name."""
        return name if "/" in name else f"models/{name}"

    async def headers(self) -> Mapping[str, str]:
        """The key or the token."""
        if self.token:
            return {"Authorization": f"Token {self.token}"}
        return {"x-goog-api-key": self.key}


@dataclass(frozen=True, slots=True)
class VertexAccess:
    """Vertex AI, by a bearer token that is had anew when it has expired."""

    vertex: Vertex
    base_url: str
    version: str
    _found: list[Credentials] = field(default_factory=list, repr=False)

    @property
    def url(self) -> str:
        """The address of the WebSocket."""
        return _socket_url(self.base_url, _VERTEX_SERVICE.format(self.version))

    def model(self, name: str) -> str:
        """The model's full name."""
        if "/" in name and not name.startswith("models/"):
            return name
        place = f"projects/{self.vertex.project}/locations/{self.vertex.location}"
        return f"{place}/publishers/google/models/{bare_name(name)}"

    async def headers(self) -> Mapping[str, str]:
        """A bearer token; it is looked for, and had anew, in a thread."""
        return {"Authorization": f"Bearer {await asyncio.to_thread(self._token)}"}

    def _token(self) -> str:
        auth = require("google.auth", "vertex")
        transport = require("google.auth.transport.requests", "vertex")
        try:
            if not self._found:
                found = self.vertex.credentials
                self._found.append(found or auth.default(scopes=[_SCOPE])[0])
            credentials = self._found[0]
            if not credentials.valid:
                credentials.refresh(transport.Request())
        except (auth.exceptions.GoogleAuthError, OSError) as error:
            passing = getattr(error, "retryable", False)
            kind = ErrorKind.RETRY if passing else ErrorKind.FATAL
            raise SessionError(f"no credentials for Vertex AI: {error}", kind=kind) from error
        return credentials.token or ""


def access_of(
    *,
    api_key: str | None,
    token: str | None,
    vertex: Vertex | None,
    base_url: str | None,
    api_version: str | None,
) -> Access:
    """The access that these say, or the environment; raises `ConfigError` for more or less."""
    if sum(given is not None for given in (api_key, token, vertex)) > 1:
        raise ConfigError("give one of api_key, token and vertex")
    if vertex is not None:
        host = "aiplatform.googleapis.com"
        if vertex.location != "global":
            host = f"{vertex.location}-{host}"
        address = base_url or os.environ.get("GOOGLE_VERTEX_BASE_URL") or f"https://{host}"
        return VertexAccess(vertex, _checked(address), api_version or "v1")
    address = _checked(base_url or os.environ.get("GOOGLE_GEMINI_BASE_URL") or BASE_URL)
    if token is not None:
        if not token.startswith("auth_tokens/"):
            raise ConfigError("token takes an ephemeral token: auth_tokens/...")
        return KeyAccess(address, api_version or "v1alpha", token=token)
    key = api_key or os.environ.get("GEMINI_API_KEY") or os.environ.get("GOOGLE_API_KEY")
    if not key:
        raise ConfigError("no API key: set GEMINI_API_KEY, or give api_key, token or vertex")
    return KeyAccess(address, api_version or "v1", key=key)


def _socket_url(base_url: str, service: str) -> str:
    address = urlsplit(base_url)
    scheme = "wss" if address.scheme == "https" else "ws"
    return urlunsplit((scheme, address.netloc, f"{address.path}/ws/{service}", "", ""))


def _checked(base_url: str) -> str:
    address = urlsplit(base_url)
    if address.scheme not in ("http", "https") or not address.hostname:
        raise ConfigError(f"base_url takes an address such as {BASE_URL}, not {base_url!r}")
    return base_url.rstrip("/")
