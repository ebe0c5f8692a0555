"""The HTTP request that began a call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRequest:
    """The request of the page that began a call.

    ``headers`` have names in lower case; several headers of one name are joined by a comma.
    ``query`` is the query of the page's address; of several values of one name, the last counts.
    ``client`` is the IP address that the server sees, which is the proxy's if there is one.
    ``user``, ``session`` and ``state`` are what the middleware of the surrounding web app has put
    into the scope of the request (Starlette: `AuthenticationMiddleware`, `SessionMiddleware`); they
    are None or empty without it. All fields are empty for a call that began without a web server.
    """

    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    query: Mapping[str, str] = field(default_factory=dict)
    cookies: Mapping[str, str] = field(default_factory=dict, repr=False)
    client: str | None = None
    user: object = None
    session: Mapping[str, object] = field(default_factory=dict, repr=False)
    state: Mapping[str, object] = field(default_factory=dict, repr=False)
