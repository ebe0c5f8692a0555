"""The HTTP route of the simulator: a WebSocket at one path."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from typing import Protocol
from uuid import uuid4

import orjson
from aiohttp import web

from duologue.simulators._openai_protocol.auth import bearer_key
from duologue.simulators._websocket_channel import MAX_MESSAGE_BYTES, WebSocketChannel
from duologue.simulators.qwen._session_object import QwenSessionObject

PATH = "/api-ws/v1/realtime"

_REASONS = {
    400: ("InvalidParameter", "The model is missing: add ?model= to the address."),
    401: ("InvalidApiKey", "Invalid API-key provided."),
    404: ("ModelNotFound", "The model does not exist or you have no access to it."),
    429: ("Throttling.RateQuota", "Requests rate limit exceeded, please try again later."),
    500: ("InternalError", "An internal error has occured, please try again later."),
    503: ("ServiceUnavailable", "The service is unavailable, please try again later."),
}

type Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class ServiceApi(Protocol):
    """What the route needs of the simulator."""

    key: str
    unknown_models: frozenset[str]

    def refusal(self) -> tuple[int, str] | None:
        """Return status and code with which the next connection is refused, or None.

        The code is empty where the service has its usual one.
        """

    def open_channel(
        self, websocket: web.WebSocketResponse, request: web.Request
    ) -> WebSocketChannel:
        """Return the channel of a new session."""
        ...

    async def run_session(
        self, channel: WebSocketChannel, configuration: QwenSessionObject
    ) -> None:
        """Run a session until it ends."""


def application(api: ServiceApi) -> web.Application:
    """Return the application with all routes of the simulator."""

    async def connect(request: web.Request) -> web.StreamResponse:
        refused = _find_refusal(api, request)
        if refused is not None:
            return _error_response(*refused)
        websocket = web.WebSocketResponse(
            max_msg_size=MAX_MESSAGE_BYTES, compress=True, timeout=2.0
        )
        await websocket.prepare(request)
        configuration = QwenSessionObject(request.query["model"])
        await api.run_session(api.open_channel(websocket, request), configuration)
        return websocket

    app = web.Application()
    app.router.add_get(PATH, connect)
    return app


def _find_refusal(api: ServiceApi, request: web.Request) -> tuple[int, str] | None:
    refused = api.refusal()
    if refused is not None:
        return refused
    key = bearer_key(request.headers.get("Authorization", ""), "")
    if not hmac.compare_digest(key.encode(), api.key.encode()):
        return 401, ""
    model = request.query.get("model", "")
    if not model:
        return 400, ""
    return (404, "") if model in api.unknown_models else None


def _error_response(status: int, code: str) -> web.Response:
    """Return a refusal in the form of the service."""
    known = _REASONS.get(status, ("Error", f"The simulator answers {status}."))
    body = {"code": code or known[0], "message": known[1], "request_id": str(uuid4())}
    return web.Response(status=status, body=orjson.dumps(body), content_type="application/json")
