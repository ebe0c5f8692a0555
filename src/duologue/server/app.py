"""The web app: the page, its files, the calls, and what operators ask of them."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute

from duologue.json_types import JsonObject
from duologue.server.api import CallApi
from duologue.server.calls import CallHandler, CallLimiter
from duologue.server.config import ServerConfig
from duologue.server.middleware import Origin, OriginMiddleware
from duologue.server.page import Page

_NO_STORE = {"cache-control": "no-store"}


class CallApp(Starlette):
    """An ASGI app that takes calls; made by `create_call_app` and `duologue.hosting.create_app`.

    Mount it in an app of yours, or serve it by `serve_app`. Before the process ends, await `drain`:
    calls continue meanwhile. A server that closes WebSockets as soon as it gets SIGTERM, as uvicorn
    does, must not get the signal before that.
    """

    def __init__(self, handler: CallHandler, config: ServerConfig) -> None:
        self.calls = CallLimiter(handler, config)
        """Runs the calls, and counts them."""
        self.config = config
        """The configuration that the app was made with."""
        self.socket_origins: dict[str, frozenset[Origin]] = {}
        """Origins of other sites whose pages may open single WebSocket routes, by their paths."""
        page = Page()
        self.api = api = CallApi(self.calls, config)
        """The REST API of operators."""
        super().__init__(
            routes=[
                Route("/", page.index),
                Route("/favicon.svg", page.icon),
                Route("/favicon.ico", page.icon),
                Route("/static/{name}", page.static),
                Route("/health", self._health),
                Route("/ready", self._ready),
                WebSocketRoute("/call", self.calls.serve),
                Route("/call", self._may_call, methods=["POST"]),
                *api.routes(),
            ],
            middleware=[
                Middleware(OriginMiddleware, config=config, more_origins=self.socket_origins)
            ],
        )
        self.state.calls = self.calls

    @property
    def draining(self) -> bool:
        """Whether `drain` has been called: no further call is admitted."""
        return self.calls.draining

    @property
    def loading(self) -> bool:
        """Whether calls are refused for now; set it while weights are loaded, for example."""
        return self.calls.loading

    @loading.setter
    def loading(self, loading: bool) -> None:
        self.calls.loading = loading

    async def drain(self, within_s: float | None = None, *, warn_s: float | None = None) -> None:
        """Admit no further call, and return once all calls have ended; ``/ready`` answers 503.

        May be called again with less time, while another call of it waits.

        Args:
            within_s: Seconds that calls may continue; then they end with close code 1012, on which
                the page calls again. By default `ServerConfig.drain_s`.
            warn_s: Seconds before that at which the page and the handler of each call are warned
                (`CallControl.end_soon`). By default `ServerConfig.warn_s`; at most half of
                ``within_s``.
        """
        await self.calls.drain(
            self.config.drain_s if within_s is None else within_s,
            warn_s=self.config.warn_s if warn_s is None else warn_s,
        )

    async def _health(self, request: Request) -> JSONResponse:
        """Answer that the event loop turns, with the numbers of calls."""
        return JSONResponse(await self.calls.health(), headers=_NO_STORE)

    async def _ready(self, request: Request) -> JSONResponse:
        """Answer whether a call would be admitted; ``?full=ok`` counts a full one as ready.

        A load balancer that has nowhere else to send a caller should ask with ``?full=ok``, so that
        the page can say that all places are taken.
        """
        health = await self.calls.health()
        reason = self.calls.not_ready(health)
        if reason in ("full", "late") and request.query_params.get("full") == "ok":
            reason = None
        body: JsonObject = {"ready": reason is None, "reason": reason}
        body |= {name: health[name] for name in ("sessions", "limit")}
        if reason is None:
            return JSONResponse(body, headers=_NO_STORE)
        return JSONResponse(body, 503, headers=_NO_STORE | {"retry-after": "5"})

    async def _may_call(self, request: Request) -> Response:
        return Response(status_code=204, headers=_NO_STORE)


def create_call_app(handler: CallHandler, config: ServerConfig | None = None) -> CallApp:
    """Create an ASGI app that runs ``handler`` for each admitted call.

    Routes: ``GET /`` is the page, ``GET /static/NAME`` its files, and ``GET /health`` the number of
    sessions, their limit, the delay of ticks (see `CallLimiter.tick_delay_ms`) and the number of
    refused calls as JSON. ``GET /ready`` answers 200 if a call would be admitted, else 503 with the
    reason: ``draining``, ``loading``, ``full`` or ``late``. ``WS /call`` is one call; its end ends
    the session. ``POST /call`` returns the reason for which a call from that page would be refused,
    because a browser does not show the reason for a WebSocket. ``/calls`` is the REST API for
    operators, described by ``GET /openapi.json``.

    Args:
        handler: Handles one call, from its offer to its end.
        config: Addresses and limits; by default only this machine can call.
    """
    return CallApp(handler, config or ServerConfig())
