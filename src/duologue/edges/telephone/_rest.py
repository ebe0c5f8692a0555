"""Send the requests of a carrier's REST interface, and check its keys and numbers."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from duologue._net import check_secret, hostname_of, one_line
from duologue._optional import optional
from duologue.edges.telephone.calls import TelephoneError
from duologue.errors import ConfigError
from duologue.json_types import Json, JsonObject

if TYPE_CHECKING:
    import httpx

TIMEOUT_S = 10.0
"""Seconds that a request may take."""

_NUMBER = re.compile(r"\+?[0-9]{2,20}|sips?:[\w.!~*'()%+-]+@[\w.:-]+")


@dataclass(frozen=True, slots=True)
class RestRequest:
    """A request: a form, or a JSON body, or neither."""

    method: Literal["POST", "PUT", "DELETE"]
    url: str
    headers: Mapping[str, str] = field(repr=False)
    form: Sequence[tuple[str, str]] | None = None
    json: JsonObject | None = None


async def send(request: RestRequest, *, gone: Sequence[int] = ()) -> Mapping[str, Json]:
    """Send a request and return the object of the response; an empty one for the statuses ``gone``.

    Raises:
        TelephoneError: The carrier refused, or could not be reached.
    """
    with optional("telephone"):
        import httpx

    host = hostname_of(request.url)
    try:
        async with httpx.AsyncClient(timeout=TIMEOUT_S, follow_redirects=False) as client:
            response = await client.request(
                request.method,
                request.url,
                headers=dict(request.headers),
                data=dict(request.form) if request.form is not None else None,
                json=request.json,
            )
    except httpx.HTTPError as error:
        reason = one_line(str(error)) or type(error).__name__
        raise TelephoneError(f"{host} could not be reached: {reason}") from error
    if response.status_code in gone:
        return {}
    body = _object(response)
    if response.status_code >= 300:
        words = one_line(_message(body)) or f"HTTP {response.status_code}"
        raise TelephoneError(f"{host} refused: {words}", status=response.status_code)
    return body


def _object(response: httpx.Response) -> Mapping[str, Json]:
    try:
        value: object = response.json()
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _message(body: Mapping[str, Json]) -> str:
    """Return the words of an error, wherever the carrier puts them."""
    match body:
        case {"errors": [{"detail": str(words)}, *_]} | {"errors": [{"title": str(words)}, *_]}:
            return words
        case {"message": str(words)} | {"detail": str(words)} | {"title": str(words)}:
            return words
        case {"error": str(words)} | {"error": {"message": str(words)}}:
            return words
        case _:
            return ""


def check_number(name: str, value: object) -> str:
    """Return a number to call.

    Raises:
        ConfigError: It is not a number such as +15551234567, nor a SIP address.
    """
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return value
    raise ConfigError(
        f"{name} must be a number such as +15551234567 or a SIP address, not {value!r:.60}"
    )


def read_key(name: str, value: str | None, variable: str) -> str | None:
    """Return a key that was given, or that of the environment; None without either.

    Args:
        name: Name of the argument, for the error.
        value: What was given.
        variable: The variable of the environment.

    Raises:
        ConfigError: It can't be a key; the error does not show it.
    """
    key = value if value is not None else os.environ.get(variable) or None
    return None if key is None else check_secret(name, key) or None


def require_key(name: str, value: str | None, variable: str) -> str:
    """Return a key that was given, or that of the environment; see `read_key`.

    Raises:
        ConfigError: There is none, or it can't be a key.
    """
    key = read_key(name, value, variable)
    if key is None:
        raise ConfigError(f"{name} is missing: pass it, or set {variable}")
    return key


def basic_auth(user: str, password: str) -> dict[str, str]:
    """Return the header of HTTP's basic authentication."""
    key = base64.b64encode(f"{user}:{password}".encode()).decode()
    return {"authorization": f"Basic {key}"}
