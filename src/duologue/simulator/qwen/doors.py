"""The HTTP door of the simulator: a WebSocket at one path."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from typing import Protocol
from uuid import uuid4

import orjson
from aiohttp import web

from duologue.simulator.openai.keys import bearer
from duologue.simulator.qwen.configuration import Configuration
from duologue.simulator.socket_line import MOST_BYTES, SocketLine

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


class House(Protocol):
    """What is behind the door."""

    key: str
    unknown_models: frozenset[str]

    def refusal(self) -> tuple[int, str] | None:
        """The status by which the next connection is refused, if it is, and a code or none."""

    def socket_line(self, websocket: web.WebSocketResponse, request: web.Request) -> SocketLine:
        """The line of a new session."""
        ...

    async def hold(self, line: SocketLine, configuration: Configuration) -> None:
        """Hold a session until its end."""


def application(house: House) -> web.Application:
    """Everything that the simulator answers to."""

    async def connect(request: web.Request) -> web.StreamResponse:
        refused = _refused(house, request)
        if refused is not None:
            return _error(*refused)
        websocket = web.WebSocketResponse(max_msg_size=MOST_BYTES, compress=True, timeout=2.0)
        await websocket.prepare(request)
        configuration = Configuration(request.query["model"])
        await house.hold(house.socket_line(websocket, request), configuration)
        return websocket

    app = web.Application()
    app.router.add_get(PATH, connect)
    return app


def _refused(house: House, request: web.Request) -> tuple[int, str] | None:
    refused = house.refusal()
    if refused is not None:
        return refused
    key = bearer(request.headers.get("Authorization", ""), "")
    if not hmac.compare_digest(key.encode(), house.key.encode()):
        return 401, ""
    model = request.query.get("model", "")
    if not model:
        return 400, ""
    return (404, "") if model in house.unknown_models else None


def _error(status: int, code: str) -> web.Response:
    """A refusal as the service writes it."""
    known = _REASONS.get(status, ("Error", f"The simulator answers {status}."))
    body = {"code": code or known[0], "message": known[1], "request_id": str(uuid4())}
    return web.Response(status=status, body=orjson.dumps(body), content_type="application/json")
