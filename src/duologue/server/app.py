"""The web app: the page, its files, and the calls."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute

from duologue.server.calls import CallHandler, CallLimiter
from duologue.server.config import ServerConfig
from duologue.server.middleware import OriginMiddleware
from duologue.server.page import Page


def create_call_app(handler: CallHandler, config: ServerConfig | None = None) -> Starlette:
    """Create an ASGI app that runs ``handler`` for each admitted call.

    Routes: ``GET /`` is the page, ``GET /static/NAME`` its files, and ``GET /health`` the number of
    sessions, their limit, the delay of ticks (see `CallLimiter.tick_delay_ms`) and the number of
    refused calls as JSON. ``WS /call`` is one call; its end ends the session. ``POST
    /call`` returns the reason for which a call from that page would be refused, because a browser
    does not show the reason for a WebSocket.

    Args:
        handler: Handles one call, from its offer to its end.
        config: Addresses and limits; by default only this machine can call.
    """
    config = config or ServerConfig()
    calls = CallLimiter(handler, config)
    page = Page()

    async def health(request: Request) -> JSONResponse:
        return JSONResponse(
            {
                "status": "ok",
                "sessions": calls.sessions,
                "limit": config.max_sessions,
                "tick_delay_ms": round(calls.tick_delay_ms, 1),
                "refused": calls.refused,
            },
            headers={"cache-control": "no-store"},
        )

    async def may_call(request: Request) -> Response:
        return Response(status_code=204, headers={"cache-control": "no-store"})

    app = Starlette(
        routes=[
            Route("/", page.index),
            Route("/favicon.svg", page.icon),
            Route("/favicon.ico", page.icon),
            Route("/static/{name}", page.static),
            Route("/health", health),
            WebSocketRoute("/call", calls.serve),
            Route("/call", may_call, methods=["POST"]),
        ],
        middleware=[Middleware(OriginMiddleware, config=config)],
    )
    app.state.calls = calls
    return app
