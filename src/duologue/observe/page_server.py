"""Serve the pages of recorded calls on this machine."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path

from duologue._optional import optional
from duologue.errors import ConfigError
from duologue.observe.call import RecordedCall, is_call, read_call, read_calls
from duologue.observe.pages import call_page, list_page
from duologue.observe.recorder import AUDIO_FILE

with optional("server"):
    import uvicorn
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.requests import Request
    from starlette.responses import FileResponse, HTMLResponse, PlainTextResponse, Response
    from starlette.routing import Route

_HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": (
        "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
        "media-src 'self' data:; img-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


def view_app(path: str | Path) -> Starlette:
    """Create an ASGI app with the pages of the calls in a folder, or of the one call that it is.

    Calls that are recorded later are listed too. The app has no access control of its own, and
    answers only to the names of this machine.

    Raises:
        ConfigError: There is no recorded call.
    """
    root = Path(path)
    only = is_call(root) or root.is_file()
    read_calls(root)

    def find(name: str) -> RecordedCall | None:
        if only:
            call = read_call(root)
            return call if name == call.name else None
        # A name is looked up in the folder, so that none can leave it.
        found = next((entry for entry in root.iterdir() if entry.name == name), None)
        try:
            return read_call(found) if found is not None and is_call(found) else None
        except ConfigError:
            return None  # It can't be read; the list leaves it out, too.

    async def index(request: Request) -> Response:
        if only:
            call = await asyncio.to_thread(read_call, root)
            page = await asyncio.to_thread(call_page, call, audio=f"calls/{call.name}/{AUDIO_FILE}")
        else:
            calls = await asyncio.to_thread(read_calls, root)
            page = await asyncio.to_thread(list_page, calls)
        return HTMLResponse(page, headers=_HEADERS)

    async def one(request: Request) -> Response:
        call = await asyncio.to_thread(find, request.path_params["name"])
        if call is None:
            return PlainTextResponse("There is no such call.\n", 404, headers=_HEADERS)
        page = await asyncio.to_thread(
            call_page, call, audio=f"{call.name}/{AUDIO_FILE}", back="../"
        )
        return HTMLResponse(page, headers=_HEADERS)

    async def audio(request: Request) -> Response:
        call = await asyncio.to_thread(find, request.path_params["name"])
        if call is None or not (call.path / AUDIO_FILE).is_file():
            return PlainTextResponse("There is no such call.\n", 404, headers=_HEADERS)
        # It answers ranges, so that playback can begin anywhere.
        return FileResponse(call.path / AUDIO_FILE, media_type="audio/ogg", headers=_HEADERS)

    return Starlette(
        routes=[
            Route("/", index),
            Route("/calls/{name}", one),
            Route(f"/calls/{{name}}/{AUDIO_FILE}", audio),
        ],
        middleware=[
            Middleware(TrustedHostMiddleware, allowed_hosts=["localhost", "127.0.0.1", "[::1]"])
        ],
    )


async def serve_calls(
    path: str | Path, port: int = 0, *, ready: Callable[[str], None] | None = None
) -> None:
    """Serve the pages on 127.0.0.1 until cancelled or stopped by a signal.

    Args:
        path: The folder of a call, or of many.
        port: The port; 0 takes a free one.
        ready: Called once with the address to open.

    Raises:
        ConfigError: There is no recorded call, or the port can't be used.
    """
    app = view_app(path)
    try:
        listener = socket.create_server(("127.0.0.1", port))
    except OSError as error:
        reason = (error.strerror or str(error)).partition(" (while")[0]
        raise ConfigError(
            f"can't listen on port {port} ({reason}): choose another port, or 0 for a free one"
        ) from error
    with listener:
        config = uvicorn.Config(app, log_level="warning", lifespan="off")
        server = uvicorn.Server(config)
        if ready is not None:
            ready(f"http://localhost:{listener.getsockname()[1]}/")
        await server.serve(sockets=[listener])
