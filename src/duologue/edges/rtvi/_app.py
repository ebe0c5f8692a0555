"""The HTTP requests of RTVI's clients, for a web app."""

# A call makes several requests, and has no socket:
#
#     client ──POST /api/offer {sdp}──────────▶ the call begins; the response is the answer
#     client ──PATCH /api/offer {candidates}──▶ addresses that the client found after its offer
#     client ◀──────── WebRTC: audio, video, a data channel with RTVI's messages ────────▶
#     client ──POST /api/offer {sdp, pc_id, restart_pc}──▶ the same call on a new connection
#
# The first request lasts as long as the call (its response is complete long before), so that no
# task outlives its owner, as with the WebSocket of the page.

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import json
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from secrets import token_hex, token_urlsafe

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from duologue._optional import optional
from duologue._user_code import log_failure
from duologue.edges._agent_calls import AgentCalls, EdgeCall, JoiningAgent
from duologue.edges.rtvi._edge import Edge
from duologue.errors import ConfigError
from duologue.json_types import Json, JsonObject
from duologue.rtc.call_request import CallRequest
from duologue.server.app import CallApp
from duologue.server.call_control import CallRecord
from duologue.server.call_socket import BAD_TOKEN, FAILED, Refusal, RefusedError, call_request
from duologue.server.calls import ApiReply
from duologue.server.config import ServerConfig

with optional("browser"):
    from duologue.rtc.config import IceServer, PeerConfig, PeerError

logger = logging.getLogger(__name__)

type MakeRtviAgent = Callable[[Edge], JoiningAgent | Awaitable[JoiningAgent | None]]
"""Makes the agent for one client; a plain or an ``async`` function."""


def mount(app: CallApp, make_agent: MakeRtviAgent, *, prefix: str = "") -> None:
    """Add the routes of RTVI's clients to an app: ``/api/offer``, ``/start`` and ``/sessions``.

    Clients share the app's limit of calls, its token, its names and origins, its ICE servers and
    its UDP ports.

    Args:
        app: An app of `duologue.hosting.create_app`.
        make_agent: Gets the `Edge` of a client and returns the `Agent` that joins it.
        prefix: Path in front of the routes, such as ``/rtvi``.

    Raises:
        ConfigError: An argument can't work.
    """
    if not isinstance(app, CallApp):
        raise ConfigError(f"app must be one of duologue.hosting.create_app, not {app!r:.80}")
    if prefix and not (prefix.startswith("/") and not prefix.endswith("/")):
        raise ConfigError(f"prefix must begin with / and not end with it, not {prefix!r}")
    app.router.routes.extend(_Routes(app, AgentCalls(make_agent)).routes(prefix))


@dataclass(frozen=True, slots=True)
class _Body:
    """A checked body of a request to ``/api/offer``."""

    pc_id: str
    sdp: str
    restart: bool
    data: Json
    candidates: Sequence[tuple[str, str | None, int | None]]


class _HttpError(Exception):
    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


_STATUS = {"token": 401, "refused": 403, "full": 503, "loading": 503, "restarting": 503}


class _Routes:
    """The requests of the clients of one app."""

    def __init__(self, app: CallApp, calls: AgentCalls[Edge]) -> None:
        self._config: ServerConfig = app.config
        self._limiter = app.calls
        self._calls = calls

    def routes(self, prefix: str) -> list[BaseRoute]:
        """Return the routes."""
        return [
            Route(f"{prefix}/start", self._start, methods=["POST", "OPTIONS"]),
            Route(f"{prefix}/api/offer", _Endpoint(self._signal)),
            Route(f"{prefix}/sessions/{{session_id}}/api/offer", _Endpoint(self._signal)),
        ]

    async def _start(self, request: Request) -> Response:
        """Answer ``startBot`` with the address of the offer and the ICE servers."""
        if request.method == "OPTIONS":
            return _preflight(request)
        try:
            self._check_token(request)
            body = await self._read_json(request)
            self._limiter.check_place()
            servers = await self._ice_servers_for(call_request(request))
        except RefusedError as refused:
            return _refusal(request, refused.refusal)
        except _HttpError as error:
            return _error(request, error.status, str(error))
        ice_servers = self._config.config_message(servers)["ice_servers"]
        data = body.get("body") if isinstance(body, dict) else None
        answer: JsonObject = {
            "sessionId": _pack(data),
            "iceConfig": {"iceServers": ice_servers},
        }
        return JSONResponse(answer, headers=_headers(request))

    async def _signal(self, request: Request, send: Callable[[Response], Awaitable[None]]) -> None:
        """Serve a request to ``/api/offer``; the one that begins a call lasts as long as it."""
        if request.method == "OPTIONS":
            await send(_preflight(request))
            return
        try:
            self._check_token(request)
            body = await self._read_json(request)
            offer = _read_body(body, request.method)
            if offer.pc_id or request.method == "PATCH":
                # The call may be one of another worker.
                call_id = offer.pc_id.partition(".")[0]
                message: JsonObject = {"method": request.method, "body": body}
                reply = await self._limiter.signal(call_id, message)
                if reply.status != 404 or request.method == "PATCH":
                    await send(JSONResponse(reply.body, reply.status, headers=_headers(request)))
                    return
            await self._begin(request, offer, send)
        except RefusedError as refused:
            await send(_refusal(request, refused.refusal))
        except _HttpError as error:
            await send(_error(request, error.status, str(error)))

    async def _begin(
        self, request: Request, offer: _Body, send: Callable[[Response], Awaitable[None]]
    ) -> None:
        """Begin a call, answer its offer, and return when it has ended."""
        self._limiter.check_place()
        seen = call_request(request)
        data = offer.data
        if data is None and "session_id" in request.path_params:
            data = _unpack(request.path_params["session_id"])
        edge = Edge(
            PeerConfig(
                video=True,
                ice_servers=await self._ice_servers_for(seen),
                udp_ports=self._config.udp_ports,
                public_addresses=self._config.public_addresses,
                loopback=self._config.is_from_this_machine(seen),
            ),
            request=seen,
            request_data=data,
        )
        record = None if self._limiter.record is None else self._limiter.record(edge)
        call = EdgeCall(edge, record)
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(self._run(call, edge, record), name="call")
            answering = tasks.create_task(_answer_to(edge, offer), name="offer")
            await asyncio.wait({running, answering}, return_when=asyncio.FIRST_COMPLETED)
            if not answering.done():
                answering.cancel()
                await send(_refusal(request, running.result() or FAILED))
                return
            reply = answering.result()
            if reply.status != 200 or reply.body is None:
                await send(JSONResponse(reply.body, reply.status, headers=_headers(request)))
                return
            # The id of the call leads to its worker, and the rest makes it a secret.
            pc_id = f"{call.call_id}.{token_urlsafe(16)}"
            handlers = self._limiter.signal_handlers
            handlers[call.call_id] = lambda message: _continue(edge, pc_id, message)
            try:
                answer = {**reply.body, "pc_id": pc_id}
                await send(JSONResponse(answer, headers=_headers(request)))
                await running
            finally:
                del handlers[call.call_id]

    async def _run(self, call: EdgeCall, edge: Edge, record: CallRecord | None) -> Refusal | None:
        """Run a call, and return why it ended if that was not the client's wish."""
        failure: Refusal | None = None

        async def work() -> None:
            nonlocal failure
            failure = await self._calls.run(edge, record)

        try:
            async with self._limiter.place(None, call):
                await call.run(work)
        except RefusedError as refused:
            return refused.refusal
        return failure

    async def _ice_servers_for(self, request: CallRequest) -> tuple[IceServer, ...]:
        try:
            return await self._config.ice_servers_for(request)
        except Exception as error:
            log_failure(logger, "ice_servers", error)
            raise RefusedError(FAILED) from error

    def _check_token(self, request: Request) -> None:
        expected = self._config.token
        if expected is None:
            return
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        same = hmac.compare_digest(token.strip().encode(errors="replace"), expected.encode())
        if scheme.lower() != "bearer" or not same:
            raise RefusedError(BAD_TOKEN)

    async def _read_json(self, request: Request) -> Json:
        data = bytearray()
        try:
            async for chunk in request.stream():
                data += chunk
                if len(data) > self._config.max_message_bytes:
                    raise _HttpError(413, "the body is too long")
            body: Json = json.loads(data) if data else None
        except ClientDisconnect:
            raise _HttpError(400, "the client has left") from None
        except (ValueError, RecursionError):
            raise _HttpError(400, "the body must be JSON") from None
        return body


class _Endpoint:
    """An ASGI app of a route whose work goes on after its response."""

    def __init__(
        self,
        serve: Callable[[Request, Callable[[Response], Awaitable[None]]], Awaitable[None]],
    ) -> None:
        self._serve = serve

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        if request.method not in ("POST", "PATCH", "OPTIONS"):
            await Response(status_code=405, headers={"allow": "POST, PATCH"})(scope, receive, send)
            return

        async def respond(response: Response) -> None:
            await response(scope, receive, send)

        await self._serve(request, respond)


async def _answer_to(edge: Edge, offer: _Body) -> ApiReply:
    """Return the HTTP response to an offer."""
    try:
        sdp = await edge.accept_offer(offer.sdp, restart=offer.restart)
    except PeerError as error:
        return ApiReply(400, {"detail": str(error)})
    return ApiReply(200, {"sdp": sdp, "type": "answer", "pc_id": offer.pc_id})


async def _continue(edge: Edge, pc_id: str, message: JsonObject) -> ApiReply:
    """Answer a later request of a call."""
    body, method = message.get("body"), message.get("method")
    try:
        offer = _read_body(body, method)
    except _HttpError as error:
        return ApiReply(error.status, {"detail": str(error)})
    if not hmac.compare_digest(offer.pc_id.encode(errors="replace"), pc_id.encode()):
        return ApiReply(404, {"detail": "there is no such call"})
    if method == "POST":
        return await _answer_to(edge, offer)
    try:
        edge.add_candidates(offer.candidates)
    except PeerError as error:
        return ApiReply(400, {"detail": str(error)})
    return ApiReply(200, {"status": "success"})


def _read_body(body: Json, method: Json) -> _Body:
    if not isinstance(body, dict):
        raise _HttpError(422, "the body must be a JSON object")
    sdp, listed, pc_id = body.get("sdp"), body.get("candidates"), body.get("pc_id")
    known = pc_id if isinstance(pc_id, str) else ""
    if method == "PATCH" and isinstance(listed, list):
        return _Body(known, "", False, None, [_candidate(each) for each in listed])
    if method == "POST" and isinstance(sdp, str) and body.get("type") == "offer":
        data = body.get("requestData", body.get("request_data"))
        return _Body(known, sdp, body.get("restart_pc") is True, data, ())
    raise _HttpError(422, "a POST brings an offer, and a PATCH brings candidates")


def _candidate(value: Json) -> tuple[str, str | None, int | None]:
    match value:
        case {"candidate": str(text), **rest}:
            mid, index = rest.get("sdp_mid"), rest.get("sdp_mline_index")
            return (
                text,
                mid if isinstance(mid, str) else None,
                index if isinstance(index, int) else None,
            )
        case _:
            raise _HttpError(422, "a candidate lacks its text")


def _pack(data: Json) -> str:
    """Return an id of a session that contains ``data``, so that any worker can read it."""
    packed = json.dumps([token_hex(4), data], separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(packed).decode().rstrip("=")


def _unpack(session_id: str) -> Json:
    try:
        value: Json = json.loads(
            base64.urlsafe_b64decode(session_id + "=" * (-len(session_id) % 4))
        )
    except (ValueError, RecursionError, binascii.Error):
        return None
    return value[1] if isinstance(value, list) and len(value) == 2 else None


def _headers(request: Request) -> dict[str, str]:
    """Return the headers for pages of other sites, whose origin the app has admitted already."""
    headers = {"cache-control": "no-store", "vary": "origin"}
    if (origin := request.headers.get("origin")) is not None:
        headers["access-control-allow-origin"] = origin
    return headers


def _preflight(request: Request) -> Response:
    return Response(
        status_code=204,
        headers=_headers(request)
        | {
            "access-control-allow-methods": "POST, PATCH",
            "access-control-allow-headers": "authorization, content-type",
            "access-control-max-age": "600",
        },
    )


def _refusal(request: Request, refusal: Refusal) -> Response:
    return _error(request, _STATUS.get(refusal.code, 500), refusal.message)


def _error(request: Request, status: int, detail: str) -> Response:
    return JSONResponse({"detail": detail}, status, headers=_headers(request))
