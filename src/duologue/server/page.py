"""Serve the files of the page from memory."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class _File:
    body: bytes
    kind: str
    tag: str


class Page:
    """Serves the files of ``static/`` only, because a path is a key and never a file name."""

    def __init__(self) -> None:
        self._files: dict[str, _File] = {}
        for source in files("duologue.server").joinpath("static").iterdir():
            kind = _TYPES.get("." + source.name.rpartition(".")[2])
            if kind is not None:
                body = source.read_bytes()
                tag = f'"{hashlib.sha256(body).hexdigest()[:24]}"'
                self._files[source.name] = _File(body, kind, tag)

    async def index(self, request: Request) -> Response:
        """Handle GET /: return the page itself."""
        return self._serve("index.html", request)

    async def icon(self, request: Request) -> Response:
        """Handle GET /favicon.svg."""
        return self._serve("favicon.svg", request)

    async def static(self, request: Request) -> Response:
        """Handle GET /static/NAME."""
        return self._serve(str(request.path_params["name"]), request)

    def _serve(self, name: str, request: Request) -> Response:
        file = self._files.get(name)
        if file is None:
            return PlainTextResponse("There is no such file.\n", 404)
        headers = {"etag": file.tag, "cache-control": "no-cache"}
        if request.headers.get("if-none-match") == file.tag:
            return Response(status_code=304, headers=headers)
        return Response(file.body, media_type=file.kind, headers=headers)
