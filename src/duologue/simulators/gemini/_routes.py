"""The HTTP routes of the simulator: the WebSockets of both APIs, and ephemeral tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import orjson
from aiohttp import web

from duologue.json_types import JsonObject
from duologue.simulators._fields import read_json
from duologue.simulators._http_service import Handler, with_error_handler
from duologue.simulators._websocket_channel import MAX_MESSAGE_BYTES
from duologue.simulators.gemini._auth import BAD_KEY, BAD_TOKEN, NO_KEY, Auth
from duologue.simulators.gemini._json_shapes import POLICY, RefusedError
from duologue.simulators.gemini._setup import Setup, validate_setup
from duologue.simulators.gemini._websocket_channel import GeminiChannel

type AccessKind = Literal["key", "token", "vertex"]

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


class ServiceApi(Protocol):
    """The simulator as its routes use it."""

    auth: Auth
    unknown_models: frozenset[str]

    def refusal(self) -> tuple[int, str] | None:
        """Return the status and code that refuse the next connection; None to accept it."""

    def open_channel(self, websocket: web.WebSocketResponse, request: web.Request) -> GeminiChannel:
        """Return the channel of a new session."""
        ...

    async def run_session(self, channel: GeminiChannel, access: ClientAccess) -> None:
        """Run a session until it ends."""


@dataclass(frozen=True, slots=True)
class ClientAccess:
    """The API that a client has connected to, and the key or token that it sent."""

    api: ServiceApi
    kind: AccessKind
    version: str
    key: str

    def accept_setup(self, setup: JsonObject) -> Setup:
        """Check the key and return the setup: the client's own, or in part its token's.

        Raises `RefusedError`, also for a wrong key, because the service reports that only now.
        """
        if not self.key:
            raise RefusedError(NO_KEY, POLICY)
        if self.kind == "token":
            setup = self.api.auth.apply_token(self.key, setup)
        elif not self.api.auth.is_valid_key(self.key):
            raise RefusedError(BAD_KEY)
        return validate_setup(
            setup,
            vertex=self.kind == "vertex",
            version=self.version,
            unknown=self.api.unknown_models,
        )


def application(api: ServiceApi) -> web.Application:
    """Create the web application with all routes."""
    routes = _Routes(api)
    app = web.Application(client_max_size=MAX_MESSAGE_BYTES)
    for method, path, handler in (
        ("GET", f"{_API}BidiGenerateContent", routes.connect),
        ("GET", f"{_API}BidiGenerateContentConstrained", routes.connect_by_token),
        ("GET", _VERTEX, routes.connect_vertex),
        ("POST", f"/{{version:{_VERSIONS}}}/auth_tokens", routes.create_token),
        ("*", "/{any:.*}", _not_found),
    ):
        app.router.add_route(method, path, with_error_handler(_translate_errors, handler))
    return app


class _HttpError(Exception):
    def __init__(self, status: int, message: str = "") -> None:
        super().__init__(status)
        self.status = status
        self.message = message


async def _not_found(_: web.Request) -> web.StreamResponse:
    """Refuse a request for an unknown address."""
    raise _HttpError(404)


async def _translate_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn errors into responses as Google writes them."""
    try:
        return await handler(request)
    except _HttpError as error:
        return _error_response(error.status, error.message)
    except RefusedError as refusal:
        return _error_response(400, refusal.reason)
    except web.HTTPException as error:
        return _error_response(error.status, error.reason)


def _error_response(status: int, message: str) -> web.Response:
    name, default = _STATUS.get(status, ("UNKNOWN", f"The simulator answers {status}."))
    return _json_response(
        status, {"error": {"code": status, "message": message or default, "status": name}}
    )


def _json_response(status: int, body: object) -> web.Response:
    return web.Response(status=status, body=orjson.dumps(body), content_type="application/json")


class _Routes:
    def __init__(self, api: ServiceApi) -> None:
        self._api = api

    async def connect(self, request: web.Request) -> web.StreamResponse:
        """Serve a session of a client with the simulator's key."""
        key = request.headers.get("x-goog-api-key") or request.query.get("key", "")
        return await self._run_session(request, "key", key)

    async def connect_by_token(self, request: web.Request) -> web.StreamResponse:
        """Serve a session of a client with an ephemeral token."""
        kind, _, token = request.headers.get("Authorization", "").partition(" ")
        if kind.lower() != "token":
            token = request.query.get("access_token", "")
        return await self._run_session(request, "token", token.strip())

    async def connect_vertex(self, request: web.Request) -> web.StreamResponse:
        """Serve a session of Vertex AI, whose key is checked before the WebSocket opens."""
        kind, _, bearer = request.headers.get("Authorization", "").partition(" ")
        key = bearer.strip() if kind.lower() == "bearer" else ""
        key = key or request.headers.get("x-goog-api-key", "")
        if not self._api.auth.is_valid_key(key):
            raise _HttpError(401)
        return await self._run_session(request, "vertex", key)

    async def create_token(self, request: web.Request) -> web.StreamResponse:
        """Create an ephemeral token."""
        self._check_refusal()
        key = request.headers.get("x-goog-api-key") or request.query.get("key", "")
        if not key:
            raise _HttpError(403)
        if not self._api.auth.is_valid_key(key):
            raise _HttpError(400, BAD_KEY)
        try:
            body = read_json(await request.read() or b"{}")
        except ValueError:
            raise RefusedError("Invalid JSON payload received.") from None
        return _json_response(200, self._api.auth.create_token(body))

    async def _run_session(
        self, request: web.Request, kind: AccessKind, key: str
    ) -> web.StreamResponse:
        self._check_refusal()
        access = ClientAccess(self._api, kind, request.match_info["version"], key)
        websocket = web.WebSocketResponse(
            max_msg_size=MAX_MESSAGE_BYTES, compress=True, timeout=2.0
        )
        await websocket.prepare(request)
        await self._api.run_session(self._api.open_channel(websocket, request), access)
        return websocket

    def _check_refusal(self) -> None:
        refused = self._api.refusal()
        if refused is not None:
            raise _HttpError(refused[0])
