"""The web app: a page to talk from, and a conversation for each who calls (extra ``server``)."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from duologue.extras import require

require("starlette", "browser")
require("uvicorn", "browser")
require("websockets", "browser")

from duologue.edges.call_request import CallRequest  # noqa: E402
from duologue.server.app import create_call_app  # noqa: E402
from duologue.server.calls import CallSignalling, Conduct  # noqa: E402
from duologue.server.config import ServerConfig  # noqa: E402
from duologue.server.line import CallRefusedError  # noqa: E402
from duologue.server.serving import listen, serve_app  # noqa: E402

if TYPE_CHECKING:
    from duologue.server.agents import (
        CallEnd,
        ConductCall,
        MakeAgent,
        OnEnd,
        create_app,
        serve,
    )

__all__ = [
    "CallEnd",
    "CallRefusedError",
    "CallRequest",
    "CallSignalling",
    "Conduct",
    "ConductCall",
    "MakeAgent",
    "OnEnd",
    "ServerConfig",
    "create_app",
    "create_call_app",
    "listen",
    "serve",
    "serve_app",
]


def __getattr__(name: str) -> object:
    """What needs WebRTC is loaded when it is asked for."""
    if name in ("CallEnd", "ConductCall", "MakeAgent", "OnEnd", "create_app", "serve"):
        return getattr(import_module("duologue.server.agents"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
