"""The web app: a page to talk from, and the calls of its callers (extra ``server``)."""

from __future__ import annotations

from duologue._optional import optional

with optional("browser"):
    # Import the packages themselves first, so that an error names the missing package.
    import starlette  # noqa: F401
    import uvicorn  # noqa: F401
    import websockets  # noqa: F401

    from duologue._json_logs import JsonLogFormatter
    from duologue.rtc.call_request import CallRequest
    from duologue.server._worker import worker_number
    from duologue.server.app import CallApp, create_call_app
    from duologue.server.call_control import CallControl
    from duologue.server.call_socket import CallRefusedError
    from duologue.server.calls import CallHandler, CallSignalling
    from duologue.server.config import ServerConfig
    from duologue.server.serving import listen, serve_app


__all__ = [
    "CallApp",
    "CallControl",
    "JsonLogFormatter",
    "CallRefusedError",
    "CallRequest",
    "CallSignalling",
    "CallHandler",
    "ServerConfig",
    "create_call_app",
    "listen",
    "serve_app",
    "worker_number",
]
