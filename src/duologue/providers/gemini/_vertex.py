"""Gemini on Vertex AI: a Google Cloud project and its bearer tokens."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Protocol

from duologue._net import one_line
from duologue._optional import import_optional
from duologue.errors import ConfigError, ErrorKind, SessionError
from duologue.providers.gemini._models import bare_name

_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_TIMEOUT_S = 20.0
_MULTI_REGIONS = ("us", "eu")
"""Locations that cover several regions, and have another form of address."""


class Credentials(Protocol):
    """Credentials of google-auth: a bearer token that can be refreshed."""

    token: str | None

    @property
    def valid(self) -> bool:
        """Whether there is a token that has not expired."""
        ...

    def refresh(self, request: object) -> None:
        """Obtain a new token; blocks."""


@dataclass(frozen=True, slots=True)
class Vertex:
    """Gemini on Vertex AI. Needs the extra ``vertex``.

    Args:
        project: Id of the Google Cloud project.
        location: Where it runs.
        credentials: Credentials of google-auth; None uses the application default credentials.

    Raises:
        ConfigError: an id is empty or has invalid characters.
    """

    project: str
    location: str = "us-central1"
    credentials: Credentials | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not self.project or not self.location:
            raise ConfigError("Vertex needs a project and a location, such as us-central1")
        for name in (self.project, self.location):
            if not all(letter.isalnum() or letter in "-.:_" for letter in name):
                raise ConfigError(f"Vertex: project and location must be ids, not {name!r}")

    @property
    def host(self) -> str:
        """Host name of the service: https://cloud.google.com/vertex-ai/docs/general/locations."""
        if self.location == "global":
            return "aiplatform.googleapis.com"
        if self.location in _MULTI_REGIONS:
            return f"aiplatform.{self.location}.rep.googleapis.com"
        return f"{self.location}-aiplatform.googleapis.com"

    def resource_name(self, name: str) -> str:
        """Return the full resource name of the model called ``name``."""
        if name.startswith("projects/"):
            return name
        place = f"projects/{self.project}/locations/{self.location}"
        if name.startswith("publishers/"):
            return f"{place}/{name}"
        return f"{place}/publishers/google/models/{bare_name(name)}"


class BearerTokens:
    """Obtains bearer tokens and refreshes them when they have expired, in a thread."""

    def __init__(
        self,
        credentials: Credentials | None,
        *,
        proxy: str | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._credentials = credentials
        self._proxy = proxy
        self._ssl_context = ssl_context

    @staticmethod
    def prepare() -> None:
        """Import optional dependencies.

        Raises:
            MissingExtraError: a dependency is not installed.
        """
        import_optional("google.auth", "vertex")
        import_optional("httpx", "vertex")

    async def headers(self) -> Mapping[str, str]:
        """Return the headers for the next connection.

        Raises:
            SessionError: there are no credentials, or no token.
        """
        return await asyncio.to_thread(self._headers)

    def _headers(self) -> Mapping[str, str]:
        auth = import_optional("google.auth", "vertex")
        try:
            if self._credentials is None:
                self._credentials = auth.default(scopes=[_SCOPE])[0]
            credentials = self._credentials
            if not credentials.valid:
                credentials.refresh(_http_transport(auth, self._proxy, self._ssl_context))
        except (auth.exceptions.GoogleAuthError, OSError) as error:
            # A failed request may succeed later, so the session must retry.
            passing = isinstance(error, OSError | auth.exceptions.TransportError)
            passing = passing or getattr(error, "retryable", False) is True
            raise _credentials_error(str(error), transient=passing) from error
        if not credentials.token:
            raise _credentials_error("google-auth returned no token", transient=False)
        headers = {"Authorization": f"Bearer {credentials.token}"}
        project = getattr(credentials, "quota_project_id", None)
        if isinstance(project, str):
            headers["x-goog-user-project"] = project
        return headers


@dataclass(frozen=True, slots=True)
class _Response:
    """An HTTP response in the form that google-auth expects."""

    status: int
    headers: Mapping[str, str]
    data: bytes


class _Request(Protocol):
    """The function that google-auth makes HTTP requests with."""

    def __call__(
        self,
        url: str,
        method: str = "GET",
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        **options: object,
    ) -> _Response: ...


def _http_transport(
    auth: ModuleType, proxy: str | None = None, ssl_context: ssl.SSLContext | None = None
) -> _Request:
    """Return a transport on httpx; google-auth's own ones need packages outside the extra."""
    httpx = import_optional("httpx", "vertex")
    options: dict[str, object] = {}
    if proxy is not None:
        options["proxy"] = proxy
    if ssl_context is not None:
        options["verify"] = ssl_context

    def request(
        url: str,
        method: str = "GET",
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        **_: object,
    ) -> _Response:
        try:
            found = httpx.request(
                method,
                url,
                content=body,
                headers=dict(headers or {}),
                timeout=timeout or _TIMEOUT_S,
                **options,
                follow_redirects=False,  # The other host would get the credentials.
            )
        except (httpx.HTTPError, httpx.InvalidURL, ImportError, ValueError) as error:
            raise auth.exceptions.TransportError(error) from error
        return _Response(found.status_code, found.headers, found.content)

    return request


def _credentials_error(why: str, *, transient: bool) -> SessionError:
    kind = ErrorKind.RETRY if transient else ErrorKind.FATAL
    return SessionError(f"no credentials for Vertex AI: {one_line(why)}", kind=kind)
