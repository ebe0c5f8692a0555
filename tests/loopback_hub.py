"""A model hub on this machine, for the usual client: files, keys, gates, broken downloads."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

COMMIT = "5" * 40
_RESOLVE = re.compile(r"/([\w.-]+/[\w.-]+)/resolve/([\w.-]+)/(.+)")
_LIST = re.compile(r"/api/models/([\w.-]+/[\w.-]+)(?:/tree/[\w.-]+.*|/revision/[\w.-]+)?")


@dataclass(eq=False)
class LoopbackHub:
    """One hub.

    Attributes:
        address: What HF_ENDPOINT must be.
        files: Content by ``ORG/REPO/FILE``: bytes, or the path of a file.
        gated: Repositories whose terms must be accepted.
        keys: Keys that are accepted; any other is refused.
        private: Repositories that need a key.
        status: Answer everything with this status.
        drop_after: Close each connection after this many bytes of a file.
        announced: Hashes to announce instead of the right ones.
        requests: Method, path and range of each request.
    """

    address: str = ""
    files: dict[str, bytes | Path] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    keys: set[str] = field(default_factory=set)
    private: set[str] = field(default_factory=set)
    status: int | None = None
    drop_after: int | None = None
    announced: dict[str, str] = field(default_factory=dict)
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)

    def content(self, name: str) -> bytes:
        found = self.files[name]
        return found if isinstance(found, bytes) else found.read_bytes()

    @cached_property
    def handler(self) -> type[BaseHTTPRequestHandler]:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                self._answer(with_body=False)

            def do_GET(self) -> None:
                self._answer(with_body=True)

            def _answer(self, *, with_body: bool) -> None:
                hub.requests.append((self.command, self.path, self.headers.get("range")))
                key = (self.headers.get("authorization") or "").removeprefix("Bearer ")
                if hub.status is not None:
                    self._fail(hub.status)
                elif key and key not in hub.keys:
                    self._fail(401, message="Invalid credentials in Authorization header")
                elif found := _RESOLVE.fullmatch(self.path):
                    self._resolve(*found.groups(), key=key, with_body=with_body)
                elif found := _LIST.fullmatch(self.path):
                    self._list(found.group(1))
                else:
                    self._fail(404)

            def _resolve(
                self, repo: str, revision: str, file: str, *, key: str, with_body: bool
            ) -> None:
                name = f"{repo}/{file}"
                if not any(known.startswith(f"{repo}/") for known in hub.files):
                    self._fail(401 if not key else 404, "" if not key else "RepoNotFound")
                elif repo in hub.private and not key:
                    self._fail(401)
                elif repo in hub.gated:
                    self._fail(403 if key else 401, "GatedRepo")
                elif revision not in ("main", COMMIT, "v1"):
                    self._fail(404, "RevisionNotFound")
                elif name not in hub.files:
                    self._fail(404, "EntryNotFound")
                else:
                    self._send(name, with_body=with_body)

            def _send(self, name: str, *, with_body: bool) -> None:
                content = hub.content(name)
                etag = hub.announced.get(name) or hashlib.sha256(content).hexdigest()
                start = 0
                if asked := self.headers.get("range"):
                    start = int(asked.removeprefix("bytes=").rstrip("-"))
                self.send_response(206 if asked else 200)
                self.send_header("ETag", f'"{etag}"')
                self.send_header("X-Repo-Commit", COMMIT)
                self.send_header("Content-Length", str(len(content) - start))
                if asked:
                    whole = f"bytes {start}-{len(content) - 1}/{len(content)}"
                    self.send_header("Content-Range", whole)
                self.end_headers()
                if not with_body:
                    return
                end = len(content) if hub.drop_after is None else start + hub.drop_after
                self.wfile.write(content[start:end])
                self.close_connection = end < len(content)

            def _list(self, repo: str) -> None:
                names = [name for name in hub.files if name.startswith(f"{repo}/")]
                paths = [name.removeprefix(f"{repo}/") for name in names]
                body: object
                if "/tree/" in self.path:
                    body = [{"type": "file", "path": path, "size": 1, "oid": "0"} for path in paths]
                else:
                    siblings = [{"rfilename": path} for path in paths]
                    body = {"id": repo, "sha": COMMIT, "siblings": siblings}
                data = json.dumps(body).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def _fail(self, status: int, code: str = "", message: str = "") -> None:
                self.send_response(status)
                if code:
                    self.send_header("X-Error-Code", code)
                if message:
                    self.send_header("X-Error-Message", message)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        return Handler


@contextmanager
def loopback_hub(monkeypatch: pytest.MonkeyPatch | None = None) -> Iterator[LoopbackHub]:
    """Serve a hub; with ``monkeypatch``, make the client in this process use it."""
    hub = LoopbackHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), hub.handler)
    hub.address = f"http://127.0.0.1:{server.server_port}"
    if monkeypatch is not None:
        from huggingface_hub import constants

        monkeypatch.setattr(constants, "ENDPOINT", hub.address)
        template = hub.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HTTPS_PROXY", "HTTP_PROXY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", "/nowhere/token")
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
