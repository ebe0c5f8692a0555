"""The web app: a page to talk from, and a conversation for each who calls (extra ``server``)."""

from __future__ import annotations

from duologue._optional import optional

optional("starlette", "browser")
optional("uvicorn", "browser")
optional("websockets", "browser")

from duologue.server.app import create_call_app  # noqa: E402
from duologue.server.call_request import CallRequest  # noqa: E402
from duologue.server.call_socket import CallRefusedError  # noqa: E402
from duologue.server.calls import CallHandler, CallSignalling  # noqa: E402
from duologue.server.config import ServerConfig  # noqa: E402
from duologue.server.serving import listen, serve_app  # noqa: E402

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
