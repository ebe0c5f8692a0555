"""The HTTP doors of the simulator: the WebSockets of both APIs, and ephemeral tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import orjson
from aiohttp import web

from duologue.simulator.fields import Object, read_json
from duologue.simulator.gemini.keys import BAD_KEY, BAD_TOKEN, NO_KEY, Keys
from duologue.simulator.gemini.setup import Setup, setup_of
from duologue.simulator.gemini.shapes import POLICY, RefusedError
from duologue.simulator.gemini.socket_line import GeminiLine
from duologue.simulator.http_service import Handler, guarded
from duologue.simulator.socket_line import MOST_BYTES

type Kind = Literal["key", "token", "vertex"]

_VERSIONS = "v1|v1beta|v1alpha"
_API = rf"/ws/google.ai.generativelanguage.{{version:{_VERSIONS}}}.GenerativeService."
_VERTEX = "/ws/google.cloud.aiplatform.{version:v1|v1beta1}.LlmBidiService/BidiGenerateContent"

_STATUS = {
    400: ("INVALID_ARGUMENT", "Request contains an invalid argument."),
    401: ("UNAUTHENTICATED", BAD_TOKEN),
    403: ("PERMISSION_DENIED", NO_KEY),
    404: ("NOT_FOUND", "Requested entity was not found."),
    429: ("RESOURCE_EXHAUSTED", "Resource has been exhausted (e.g. check quota)."),
    500: ("INTERNAL", "Internal error encountered."),
    503: ("UNAVAILABLE", "The service is currently unavailable."),
}


class House(Protocol):
    """What is behind the doors."""

    keys: Keys
    unknown_models: frozenset[str]

    def refusal(self) -> tuple[int, str] | None:
        """The status and code by which the next connection is refused, if it is."""

    def socket_line(self, websocket: web.WebSocketResponse, request: web.Request) -> GeminiLine:
        """The line of a new session."""
        ...

    async def hold(self, line: GeminiLine, door: Door) -> None:
        """Hold a session until its end."""


@dataclass(frozen=True, slots=True)
class Door:
    """By which way a client came in, and the key or token that it showed."""

    house: House
    kind: Kind
    version: str
    key: str

    def admit(self, setup: Object) -> Setup:
        """The setup that the client gets: its own, or in part its token's.

        Raises `RefusedError`, also for a wrong key: the service, too, says so only now.
        """
        if not self.key:
            raise RefusedError(NO_KEY, POLICY)
        if self.kind == "token":
            setup = self.house.keys.admit(self.key, setup)
        elif not self.house.keys.good(self.key):
            raise RefusedError(BAD_KEY)
        return setup_of(
            setup,
            vertex=self.kind == "vertex",
            version=self.version,
            unknown=self.house.unknown_models,
        )


def application(house: House) -> web.Application:
    """Everything that the simulator answers to."""
    doors = _Doors(house)
    app = web.Application(client_max_size=MOST_BYTES)
    for method, path, handler in (
        ("GET", f"{_API}BidiGenerateContent", doors.connect),
        ("GET", f"{_API}BidiGenerateContentConstrained", doors.connect_by_token),
        ("GET", _VERTEX, doors.connect_vertex),
        ("POST", f"/{{version:{_VERSIONS}}}/auth_tokens", doors.token),
        ("*", "/{any:.*}", _nothing),
    ):
        app.router.add_route(method, path, guarded(_errors, handler))
    return app


class _HttpError(Exception):
    def __init__(self, status: int, message: str = "") -> None:
        super().__init__(status)
        self.status = status
        self.message = message


async def _nothing(_: web.Request) -> web.StreamResponse:
    """Answer a request for an unknown address."""
    raise _HttpError(404)


async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Errors as Google writes them."""
    try:
        return await handler(request)
    except _HttpError as error:
        return _error(error.status, error.message)
    except RefusedError as refusal:
        return _error(400, refusal.reason)
    except web.HTTPException as error:
        return _error(error.status, error.reason)


def _error(status: int, message: str) -> web.Response:
    name, usual = _STATUS.get(status, ("UNKNOWN", f"The simulator answers {status}."))
    return _json(status, {"error": {"code": status, "message": message or usual, "status": name}})


def _json(status: int, body: object) -> web.Response:
    return web.Response(status=status, body=orjson.dumps(body), content_type="application/json")


class _Doors:
    def __init__(self, house: House) -> None:
        self._house = house

    async def connect(self, request: web.Request) -> web.StreamResponse:
        """A session with the simulator's key."""
        key = request.headers.get("x-goog-api-key") or request.query.get("key", "")
        return await self._hold(request, "key", key)

    async def connect_by_token(self, request: web.Request) -> web.StreamResponse:
        """A session with an ephemeral token."""
        kind, _, token = request.headers.get("Authorization", "").partition(" ")
        if kind.lower() != "token":
            token = request.query.get("access_token", "")
        return await self._hold(request, "token", token.strip())

    async def connect_vertex(self, request: web.Request) -> web.StreamResponse:
        """A session of the other API; its key is checked by HTTP."""
        kind, _, bearer = request.headers.get("Authorization", "").partition(" ")
        key = bearer.strip() if kind.lower() == "bearer" else ""
        key = key or request.headers.get("x-goog-api-key", "")
        if not self._house.keys.good(key):
            raise _HttpError(401)
        return await self._hold(request, "vertex", key)

    async def token(self, request: web.Request) -> web.StreamResponse:
        """A new ephemeral token."""
        self._refuse()
        key = request.headers.get("x-goog-api-key") or request.query.get("key", "")
        if not key:
            raise _HttpError(403)
        if not self._house.keys.good(key):
            raise _HttpError(400, BAD_KEY)
        try:
            body = read_json(await request.read() or b"{}")
        except ValueError:
            raise RefusedError("Invalid JSON payload received.") from None
        return _json(200, self._house.keys.give(body))

    async def _hold(self, request: web.Request, kind: Kind, key: str) -> web.StreamResponse:
        self._refuse()
        door = Door(self._house, kind, request.match_info["version"], key)
        websocket = web.WebSocketResponse(max_msg_size=MOST_BYTES, compress=True, timeout=2.0)
        await websocket.prepare(request)
        await self._house.hold(self._house.socket_line(websocket, request), door)
        return websocket

    def _refuse(self) -> None:
        refused = self._house.refusal()
        if refused is not None:
            raise _HttpError(refused[0])
