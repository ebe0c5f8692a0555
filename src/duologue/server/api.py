"""The REST API for operators: list calls, look at one, follow it, say, interrupt, end.

It is behind the token of the server. Without a token it answers only where only this machine
can ask: on loopback, without a proxy in front.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from importlib.metadata import version

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from duologue._net import is_loopback
from duologue.json_types import Json, JsonObject
from duologue.server._api_schema import openapi_document
from duologue.server.calls import ApiReply, CallLimiter
from duologue.server.config import ServerConfig

MAX_BODY_BYTES = 16 * 1024
"""Most bytes of the body of a request."""

_NO_STORE = {"cache-control": "no-store"}

_PROMETHEUS_TEXT = "text/plain; version=0.0.4; charset=utf-8"


class CallApi:
    """The routes of the API.

    Args:
        calls: The calls to look at.
        config: Has the token.
    """

    def __init__(self, calls: CallLimiter, config: ServerConfig) -> None:
        self.metrics: Callable[[], bytes] | None = None
        """Returns what ``/metrics`` answers, in Prometheus' text format; None answers 404."""
        self.page: Callable[[], tuple[bytes, Mapping[str, str]]] | None = None
        """Returns the page of running calls, and its headers; browsers get it for ``/calls``. It
        is open to all, because it has no data: it asks the routes here for that."""
        self._calls = calls
        self._token = config.token
        self._path = config.path
        self._private = config.private

    def routes(self) -> Sequence[BaseRoute]:
        """Return the routes of the API and of its description."""
        return [
            Route("/openapi.json", self._describe),
            Route("/metrics", self._show_metrics),
            Route("/calls", self._paged(self._checked(self._list))),
            Route("/calls/{call_id}", self._paged(self._checked(self._show)), methods=["GET"]),
            Route("/calls/{call_id}/changes", self._checked(self._follow), methods=["GET"]),
            Route("/calls/{call_id}", self._checked(self._end), methods=["DELETE"]),
            Route("/calls/{call_id}/say", self._checked(self._say), methods=["POST"]),
            Route("/calls/{call_id}/interrupt", self._checked(self._interrupt), methods=["POST"]),
        ]

    def _checked(
        self, endpoint: Callable[[Request], Awaitable[ApiReply]]
    ) -> Callable[[Request], Awaitable[Response]]:
        async def check(request: Request) -> Response:
            if not self._may_ask(request):
                return _refusal()
            reply = await endpoint(request)
            if reply.body is None:
                return Response(status_code=reply.status, headers=_NO_STORE)
            return JSONResponse(reply.body, reply.status, headers=_NO_STORE)

        return check

    def _paged(
        self, endpoint: Callable[[Request], Awaitable[Response]]
    ) -> Callable[[Request], Awaitable[Response]]:
        async def choose(request: Request) -> Response:
            # Only a browser that opens an address asks for HTML.
            if self.page is not None and "text/html" in request.headers.get("accept", ""):
                body, headers = self.page()
                response = Response(body, headers={**headers})
            else:
                response = await endpoint(request)
            response.headers["vary"] = "accept"
            return response

        return choose

    def _may_ask(self, request: Request) -> bool:
        if self._token is None:
            client = request.client
            return self._private and (client is None or is_loopback(client.host))
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        same = hmac.compare_digest(token.strip().encode(errors="replace"), self._token.encode())
        return scheme.lower() == "bearer" and same

    async def _show_metrics(self, request: Request) -> Response:
        if self.metrics is None:
            return JSONResponse(_error("metrics are not switched on"), 404, headers=_NO_STORE)
        if not self._may_ask(request):
            return _refusal()
        shared = self._calls.shared
        text = self.render_own_metrics() if shared is None else await shared.metrics()
        return Response(text, media_type=_PROMETHEUS_TEXT, headers=_NO_STORE)

    def render_own_metrics(self) -> str:
        """Return the metrics of this process; empty if there are none."""
        return "" if self.metrics is None else self.metrics().decode()

    async def _describe(self, request: Request) -> JSONResponse:
        return JSONResponse(
            openapi_document(
                version("duologue"),
                request.scope.get("root_path", "") or self._path or "/",
                with_token=self._token is not None,
            )
        )

    async def _list(self, request: Request) -> ApiReply:
        return await self._calls.list_calls()

    async def _show(self, request: Request) -> ApiReply:
        return await self._calls.ask(_call_id(request), {"do": "show"})

    async def _follow(self, request: Request) -> ApiReply:
        after = request.query_params.get("after", "0")
        if not (after.isascii() and after.isdecimal() and len(after) < 16):
            return ApiReply(422, _error("after must be the version of the answer before, or 0"))
        return await self._calls.ask(_call_id(request), {"do": "follow", "after": int(after)})

    async def _end(self, request: Request) -> ApiReply:
        return await self._calls.ask(_call_id(request), {"do": "end"})

    async def _interrupt(self, request: Request) -> ApiReply:
        return await self._calls.ask(_call_id(request), {"do": "interrupt"})

    async def _say(self, request: Request) -> ApiReply:
        body = await _read_json(request)
        match body:
            case {"text": str(text), **rest} if text.strip() and len(text) <= 4000:
                interrupt = rest.get("interrupt", False)
                if isinstance(interrupt, bool):
                    what: JsonObject = {"do": "say", "text": text, "interrupt": interrupt}
                    return await self._calls.ask(_call_id(request), what)
            case _:
                pass
        return ApiReply(
            422, _error('send {"text": "1 to 4000 characters", "interrupt": false} as JSON')
        )


def _refusal() -> JSONResponse:
    return JSONResponse(
        _error("send the server's token: Authorization: Bearer TOKEN"),
        401,
        headers=_NO_STORE | {"www-authenticate": "Bearer"},
    )


def _call_id(request: Request) -> str:
    return str(request.path_params["call_id"])


def _error(text: str) -> JsonObject:
    return {"error": text}


async def _read_json(request: Request) -> Json:
    """Return the body as JSON; None if it is not JSON, or too long."""
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > MAX_BODY_BYTES:
            return None
    try:
        body: Json = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return body
