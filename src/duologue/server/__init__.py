"""The web app: a page to talk from, and the calls of its callers (extra ``server``)."""

from __future__ import annotations

from duologue._optional import optional

with optional("browser"):
    import websockets  # noqa: F401 - checked early

    from duologue.server.app import create_call_app
    from duologue.server.call_request import CallRequest
    from duologue.server.call_socket import CallRefusedError
    from duologue.server.calls import CallHandler, CallSignalling
    from duologue.server.config import ServerConfig
    from duologue.server.serving import listen, serve_app


__all__ = [
    "CallRefusedError",
    "CallRequest",
    "CallSignalling",
    "CallHandler",
    "ServerConfig",
    "create_call_app",
    "listen",
    "serve_app",
]
