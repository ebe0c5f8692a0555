"""The HTTP request that began a call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRequest:
    """The page's request that began a call.

    All fields are empty for a call that began without a web server.

    Args:
        headers: Headers with names in lower case; several headers of one name are joined by a
            comma.
        query: Query of the page's address; the last value of a name counts.
        cookies: Cookies of the request.
        client: IP address that the server sees, which is the proxy's if there is one.
        user: The user whom the middleware of the surrounding web app found (Starlette:
            `AuthenticationMiddleware`); None without it.
        session: The session of the web app (Starlette: `SessionMiddleware`).
        state: The state that the web app's middleware has put into the request's scope.
    """

    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    query: Mapping[str, str] = field(default_factory=dict)
    cookies: Mapping[str, str] = field(default_factory=dict, repr=False)
    client: str | None = None
    user: object = None
    session: Mapping[str, object] = field(default_factory=dict, repr=False)
    state: Mapping[str, object] = field(default_factory=dict, repr=False)
