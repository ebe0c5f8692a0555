"""What came with a call: who asks, from where, and with what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRequest:
    """The request by which a page began a call.

    ``headers`` have names in lower case, and those of one name are joined by a comma. ``query`` is
    that of the page's own address; of several values of one name, the last counts. ``client`` is
    the IP address that the server sees, a proxy's where there is one. ``user``, ``session`` and
    ``state`` are what the middleware of the web app around has put into the scope of the request
    (Starlette: `AuthenticationMiddleware`, `SessionMiddleware`); None or empty without one.
    All are empty for a call that came by no web server.
    """

    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    query: Mapping[str, str] = field(default_factory=dict)
    cookies: Mapping[str, str] = field(default_factory=dict, repr=False)
    client: str | None = None
    user: object = None
    session: Mapping[str, object] = field(default_factory=dict, repr=False)
    state: Mapping[str, object] = field(default_factory=dict, repr=False)
