"""The HTTP routes of the simulator: the WebSocket, WebRTC calls, ephemeral keys, and speech."""

from __future__ import annotations

import time
from contextlib import aclosing
from typing import Protocol

import orjson
from aiohttp import web

from duologue._net import hostname_of, is_loopback
from duologue.json_types import Json, JsonObject
from duologue.rtc.config import PeerError
from duologue.simulators._fields import int_at, read_json, text_at
from duologue.simulators._http_service import Handler, with_error_handler
from duologue.simulators._openai_protocol.auth import Auth, bearer_key
from duologue.simulators._openai_protocol.refusals import RefusedError, check, missing
from duologue.simulators._openai_protocol.schema import EXPIRES_AFTER
from duologue.simulators._openai_protocol.session_object import OpenAISessionObject, check_session
from duologue.simulators._speech.voices import Voice
from duologue.simulators._websocket_channel import MAX_MESSAGE_BYTES, WebSocketChannel
from duologue.simulators.openai._rtc_call import RtcCall
from duologue.simulators.openai._speech_api import read_request, speech_body

DEFAULT_MODEL = "gpt-realtime-2.1"
"""The model of a call that names none."""


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


class ServiceApi(Protocol):
    """What the routes need of the simulator."""

    auth: Auth
    unknown_models: frozenset[str]

    def refusal(self) -> tuple[int, str] | None:
        """Return status and code with which the next connection is refused, or None."""

    def make_session_object(self, model: str, session: Json) -> OpenAISessionObject:
        """Return the session object of a new session.

        Raises:
            RefusedError: The client's session object is wrong.
        """
        ...

    def open_channel(
        self, websocket: web.WebSocketResponse, request: web.Request
    ) -> WebSocketChannel:
        """Return the channel of a new session."""
        ...

    async def run_session(
        self, channel: WebSocketChannel, configuration: OpenAISessionObject
    ) -> None:
        """Run a session until it ends."""

    async def run_transcription(self, channel: WebSocketChannel) -> None:
        """Run a transcription session until it ends."""

    def make_voice(self, rate: int) -> Voice:
        """Return the voice of the speech API, at ``rate`` Hz."""
        ...

    async def start_call(
        self, offer: str, configuration: OpenAISessionObject
    ) -> tuple[RtcCall, str]:
        """Start a call, and return it with the SDP answer.

        Raises:
            PeerError: The offer is unsuitable.
        """
        ...

    async def hang_up(self, call_id: str) -> bool:
        """End a call; return False if there is no such call."""
        ...


def application(api: ServiceApi) -> web.Application:
    """Return the application with all routes of the simulator."""
    routes = _Routes(api)
    app = web.Application(client_max_size=MAX_MESSAGE_BYTES)
    for method, path, handler in (
        ("GET", "/v1/realtime", routes.connect),
        ("POST", "/v1/realtime/calls", routes.call),
        ("POST", "/v1/realtime/calls/{id}/hangup", routes.hang_up),
        ("POST", "/v1/realtime/client_secrets", routes.create_secret),
        ("POST", "/v1/audio/speech", routes.speak),
        ("OPTIONS", "/v1/{any:.*}", _preflight),
    ):
        app.router.add_route(method, path, with_error_handler(_translate_errors, handler))
    return app


class _HttpError(Exception):
    def __init__(self, status: int, code: str = "", message: str = "") -> None:
        super().__init__(status)
        known = _REASONS.get(status, ("error", f"The simulator answers {status}."))
        self.status = status
        self.code = code or known[0]
        self.message = message or _MESSAGES.get(self.code, known[1])


async def _translate_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer errors in OpenAI's form, and let pages of this machine read all answers."""
    try:
        response = await handler(request)
    except _HttpError as error:
        kind = "server_error" if error.status >= 500 else "invalid_request_error"
        if error.code == "insufficient_quota":
            kind = "insufficient_quota"
        response = _error_response(error.status, kind, error.code, error.message, None)
    except RefusedError as refusal:
        response = _error_response(400, refusal.kind, refusal.code, refusal.message, refusal.param)
    origin = request.headers.get("Origin", "")
    if not response.prepared and is_loopback(hostname_of(origin)):
        response.headers["Access-Control-Allow-Origin"] = origin
        response.headers["Access-Control-Allow-Headers"] = "authorization, content-type"
        response.headers["Access-Control-Expose-Headers"] = "Location"
    return response


async def _preflight(_: web.Request) -> web.StreamResponse:
    return web.Response(status=204)


def _error_response(
    status: int, kind: str, code: str, message: str, param: str | None
) -> web.Response:
    body = {"error": {"message": message, "type": kind, "param": param, "code": code}}
    return _json_response(status, body)


def _json_response(status: int, body: object) -> web.Response:
    return web.Response(status=status, body=orjson.dumps(body), content_type="application/json")


class _Routes:
    def __init__(self, api: ServiceApi) -> None:
        self._api = api

    async def connect(self, request: web.Request) -> web.StreamResponse:
        """Run a session over a WebSocket."""
        session = self._authenticate(request)
        websocket = web.WebSocketResponse(
            max_msg_size=MAX_MESSAGE_BYTES, compress=True, timeout=2.0, protocols=("realtime",)
        )
        model = request.query.get("model") or text_at(session, "model")
        if not model and request.query.get("intent") == "transcription":
            await websocket.prepare(request)
            await self._api.run_transcription(self._api.open_channel(websocket, request))
            return websocket
        if not model:
            raise _HttpError(400, "missing_model", "You must provide a model parameter.")
        configuration = self._api.make_session_object(self._check_model(model), session)
        await websocket.prepare(request)
        await self._api.run_session(self._api.open_channel(websocket, request), configuration)
        return websocket

    async def call(self, request: web.Request) -> web.StreamResponse:
        """Start a session over WebRTC."""
        session = self._authenticate(request)
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
        merged: JsonObject = {**session, **(sent if isinstance(sent, dict) else {})}
        model = text_at(merged, "model") or request.query.get("model") or DEFAULT_MODEL
        configuration = self._api.make_session_object(self._check_model(model), merged)
        try:
            call, answer = await self._api.start_call(offer, configuration)
        except (PeerError, ValueError) as error:
            raise RefusedError("invalid_offer", f"Invalid SDP offer: {error}", "sdp") from None
        return web.Response(
            status=201,
            text=answer,
            content_type="application/sdp",
            headers={"Location": f"/v1/realtime/calls/{call.id}"},
        )

    async def hang_up(self, request: web.Request) -> web.StreamResponse:
        """End a call."""
        self._authenticate(request)
        if not await self._api.hang_up(request.match_info["id"]):
            raise _HttpError(404, "call_id_not_found", "No session found for this call_id.")
        return web.Response(status=200)

    async def create_secret(self, request: web.Request) -> web.StreamResponse:
        """Create an ephemeral key."""
        self._authenticate(request)
        body = _parsed(await request.text() or "{}")
        if not isinstance(body, dict):
            raise RefusedError("invalid_json", "The body is not a JSON object.")
        expires = check(EXPIRES_AFTER, body.get("expires_after"), "expires_after")
        session = body.get("session")
        configuration = self._api.make_session_object(
            text_at(session, "model") or DEFAULT_MODEL, session
        )
        seconds = int_at(expires, "seconds", default=600)
        answer = {
            "value": self._api.auth.create_key(seconds, session or {}),
            "expires_at": int(time.time()) + seconds,
            "session": configuration.value,
        }
        return _json_response(200, answer)

    async def speak(self, request: web.Request) -> web.StreamResponse:
        """Stream the audio of a text."""
        self._authenticate(request)
        speech = read_request(_parsed(await request.text()))
        self._check_model(speech.model)
        response = web.StreamResponse(headers={"Content-Type": speech.content_type})
        await response.prepare(request)
        voice = self._api.make_voice(speech.voice_rate)
        async with aclosing(speech_body(speech, voice)) as pieces:
            async for piece in pieces:
                await response.write(piece)
        await response.write_eof()
        return response

    def _authenticate(self, request: web.Request) -> JsonObject:
        """Return the session object that belongs to the key. Raises what becomes an HTTP error."""
        refused = self._api.refusal()
        if refused is not None:
            raise _HttpError(*refused)
        headers = request.headers
        key = bearer_key(
            headers.get("Authorization", ""), headers.get("Sec-WebSocket-Protocol", "")
        )
        if not key:
            raise _HttpError(401, "missing_api_key", "Missing bearer authentication in header.")
        session = self._api.auth.admit(key)
        if session is None:
            raise _HttpError(401)
        return session

    def _check_model(self, model: str) -> str:
        if model in self._api.unknown_models:
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
