"""The HTTP doors of the simulator: the WebSocket, calls, and ephemeral keys."""

from __future__ import annotations

import time
from typing import Protocol
from urllib.parse import urlsplit

import orjson
from aiohttp import web

from duologue.items import Json
from duologue.rtc.config import PeerError
from duologue.simulator.fields import Object, int_at, read_json, text_at
from duologue.simulator.http_service import Handler, guarded
from duologue.simulator.openai.configuration import Configuration, check_session
from duologue.simulator.openai.keys import Keys, bearer
from duologue.simulator.openai.rtc_call import RtcCall
from duologue.simulator.openai.shapes import (
    Nullable,
    RefusedError,
    Table,
    Text,
    Whole,
    check,
    missing,
)
from duologue.simulator.socket_line import MOST_BYTES, SocketLine

MODEL = "gpt-realtime-2.1"
"""The model of a call that names none."""

_LOOPBACK = ("localhost", "127.0.0.1", "::1")

_REASONS = {
    401: ("invalid_api_key", "Incorrect API key provided."),
    404: ("model_not_found", "The model does not exist or you do not have access to it."),
    429: ("rate_limit_exceeded", "Rate limit reached for requests."),
    500: ("server_error", "The server had an error while processing your request."),
    503: ("server_overloaded", "The server is overloaded or not ready yet."),
}
_MESSAGES = {
    "insufficient_quota": "You exceeded your current quota, please check your plan and billing "
    "details.",
}
_EXPIRES = Table(optional={"anchor": Text(("created_at",)), "seconds": Whole(10, 7200)})


class House(Protocol):
    """What is behind the doors."""

    keys: Keys
    unknown_models: frozenset[str]

    def refusal(self) -> tuple[int, str] | None:
        """The status and code by which the next connection is refused, if it is."""

    def configure(self, model: str, session: Json) -> Configuration:
        """The session object of a new session. Raises `RefusedError`."""
        ...

    def socket_line(self, websocket: web.WebSocketResponse, request: web.Request) -> SocketLine:
        """The line of a new session."""
        ...

    async def hold(self, line: SocketLine, configuration: Configuration) -> None:
        """Hold a session until its end."""

    async def call(self, offer: str, configuration: Configuration) -> tuple[RtcCall, str]:
        """Begin a call; its answer. Raises `PeerError`."""
        ...

    async def hang_up(self, call_id: str) -> bool:
        """End a call; False when there is none of that name."""
        ...


def application(house: House) -> web.Application:
    """Everything that the simulator answers to."""
    doors = _Doors(house)
    app = web.Application(client_max_size=MOST_BYTES)
    for method, path, handler in (
        ("GET", "/v1/realtime", doors.connect),
        ("POST", "/v1/realtime/calls", doors.call),
        ("POST", "/v1/realtime/calls/{id}/hangup", doors.hang_up),
        ("POST", "/v1/realtime/client_secrets", doors.secret),
        ("OPTIONS", "/v1/{any:.*}", _preflight),
    ):
        app.router.add_route(method, path, guarded(_errors, handler))
    return app


class _HttpError(Exception):
    def __init__(self, status: int, code: str = "", message: str = "") -> None:
        super().__init__(status)
        known = _REASONS.get(status, ("error", f"The simulator answers {status}."))
        self.status = status
        self.code = code or known[0]
        self.message = message or _MESSAGES.get(self.code, known[1])


async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Errors as OpenAI writes them; and pages of this machine may look at the answers."""
    try:
        response = await handler(request)
    except _HttpError as error:
        kind = "server_error" if error.status >= 500 else "invalid_request_error"
        if error.code == "insufficient_quota":
            kind = "insufficient_quota"
        response = _error(error.status, kind, error.code, error.message, None)
    except RefusedError as refusal:
        response = _error(400, refusal.kind, refusal.code, refusal.message, refusal.param)
    origin = request.headers.get("Origin", "")
    if not response.prepared and urlsplit(origin).hostname in _LOOPBACK:
        response.headers["Access-Control-Allow-Origin"] = origin
        response.headers["Access-Control-Allow-Headers"] = "authorization, content-type"
        response.headers["Access-Control-Expose-Headers"] = "Location"
    return response


async def _preflight(_: web.Request) -> web.StreamResponse:
    return web.Response(status=204)


def _error(status: int, kind: str, code: str, message: str, param: str | None) -> web.Response:
    body = {"error": {"message": message, "type": kind, "param": param, "code": code}}
    return _json(status, body)


def _json(status: int, body: object) -> web.Response:
    return web.Response(status=status, body=orjson.dumps(body), content_type="application/json")


class _Doors:
    def __init__(self, house: House) -> None:
        self._house = house

    async def connect(self, request: web.Request) -> web.StreamResponse:
        """A session over a WebSocket."""
        session = self._admit(request)
        model = request.query.get("model") or text_at(session, "model")
        if not model:
            raise _HttpError(400, "missing_model", "You must provide a model parameter.")
        configuration = self._house.configure(self._known(model), session)
        websocket = web.WebSocketResponse(
            max_msg_size=MOST_BYTES, compress=True, timeout=2.0, protocols=("realtime",)
        )
        await websocket.prepare(request)
        await self._house.hold(self._house.socket_line(websocket, request), configuration)
        return websocket

    async def call(self, request: web.Request) -> web.StreamResponse:
        """A session over WebRTC."""
        session = self._admit(request)
        sent: Json = None
        if request.content_type == "multipart/form-data":
            form = await request.post()
            offer = _part(form.get("sdp"))
            if form.get("session") is not None:
                sent = check_session(_parsed(_part(form.get("session"))))
        else:
            offer = await request.text()
        if not offer:
            raise missing("sdp")
        merged: Object = {**session, **(sent if isinstance(sent, dict) else {})}
        model = text_at(merged, "model") or request.query.get("model") or MODEL
        configuration = self._house.configure(self._known(model), merged)
        try:
            call, answer = await self._house.call(offer, configuration)
        except (PeerError, ValueError) as error:
            raise RefusedError("invalid_offer", f"Invalid SDP offer: {error}", "sdp") from None
        return web.Response(
            status=201,
            text=answer,
            content_type="application/sdp",
            headers={"Location": f"/v1/realtime/calls/{call.id}"},
        )

    async def hang_up(self, request: web.Request) -> web.StreamResponse:
        """The end of a call."""
        self._admit(request)
        if not await self._house.hang_up(request.match_info["id"]):
            raise _HttpError(404, "call_id_not_found", "No session found for this call_id.")
        return web.Response(status=200)

    async def secret(self, request: web.Request) -> web.StreamResponse:
        """A new ephemeral key."""
        self._admit(request)
        body = _parsed(await request.text() or "{}")
        if not isinstance(body, dict):
            raise RefusedError("invalid_json", "The body is not a JSON object.")
        expires = check(Nullable(_EXPIRES), body.get("expires_after"), "expires_after")
        session = body.get("session")
        configuration = self._house.configure(text_at(session, "model") or MODEL, session)
        seconds = int_at(expires, "seconds", default=600)
        answer = {
            "value": self._house.keys.give(seconds, session or {}),
            "expires_at": int(time.time()) + seconds,
            "session": configuration.value,
        }
        return _json(200, answer)

    def _admit(self, request: web.Request) -> Object:
        """The session that the key brings. Raises what becomes an HTTP error."""
        refused = self._house.refusal()
        if refused is not None:
            raise _HttpError(*refused)
        headers = request.headers
        key = bearer(headers.get("Authorization", ""), headers.get("Sec-WebSocket-Protocol", ""))
        if not key:
            raise _HttpError(401, "missing_api_key", "Missing bearer authentication in header.")
        session = self._house.keys.admit(key)
        if session is None:
            raise _HttpError(401)
        return session

    def _known(self, model: str) -> str:
        if model in self._house.unknown_models:
            raise _HttpError(404)
        return model


def _part(value: str | bytes | bytearray | web.FileField | None) -> str:
    match value:
        case None:
            return ""
        case str():
            return value
        case bytes() | bytearray():
            return value.decode()
        case _:
            return value.file.read().decode()


def _parsed(text: str) -> Json:
    try:
        return read_json(text)
    except ValueError:
        raise RefusedError("invalid_json", "We could not parse the JSON body.") from None
