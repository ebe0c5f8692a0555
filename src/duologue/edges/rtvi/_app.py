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
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from secrets import token_hex, token_urlsafe

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from duologue._optional import optional
from duologue.edges._agent_calls import AgentCalls, EdgeCall, JoiningAgent
from duologue.edges.rtvi._edge import Edge
from duologue.errors import ConfigError
from duologue.json_types import Json, JsonObject
from duologue.server.app import CallApp
from duologue.server.call_socket import BAD_TOKEN, FAILED, Refusal, RefusedError, call_request
from duologue.server.config import ServerConfig

with optional("browser"):
    from duologue.rtc.config import PeerConfig, PeerError

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
        self._edges: dict[str, Edge] = {}

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
            servers = await self._config.ice_servers_for(call_request(request))
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
            body = _read_body(await self._read_json(request), request)
            edge = self._edges.get(body.pc_id)
            if request.method == "PATCH":
                if edge is None:
                    raise _HttpError(404, "there is no such call")
                edge.add_candidates(body.candidates)
                await send(JSONResponse({"status": "success"}, headers=_headers(request)))
            elif edge is not None:
                answer = await edge.accept_offer(body.sdp, restart=body.restart)
                await send(_answer(request, answer, body.pc_id))
            else:
                await self._begin(request, body, send)
        except RefusedError as refused:
            await send(_refusal(request, refused.refusal))
        except _HttpError as error:
            await send(_error(request, error.status, str(error)))
        except PeerError as error:
            await send(_error(request, 400, str(error)))

    async def _begin(
        self, request: Request, body: _Body, send: Callable[[Response], Awaitable[None]]
    ) -> None:
        """Begin a call, answer its offer, and return when it has ended."""
        self._limiter.check_place()
        seen = call_request(request)
        edge = Edge(
            PeerConfig(
                video=True,
                ice_servers=await self._config.ice_servers_for(seen),
                udp_ports=self._config.udp_ports,
                public_addresses=self._config.public_addresses,
                loopback=self._config.is_from_this_machine(seen),
            ),
            request=seen,
            request_data=body.data,
        )
        pc_id = token_urlsafe(16)
        async with asyncio.TaskGroup() as tasks:
            call = tasks.create_task(self._run(edge), name="call")
            offer = tasks.create_task(_result_of(edge.accept_offer(body.sdp)), name="offer")
            await asyncio.wait({call, offer}, return_when=asyncio.FIRST_COMPLETED)
            if not offer.done():
                offer.cancel()
                await send(_refusal(request, call.result() or FAILED))
                return
            answer = offer.result()
            if isinstance(answer, PeerError):
                await send(_error(request, 400, str(answer)))
                return
            self._edges[pc_id] = edge
            try:
                await send(_answer(request, answer, pc_id))
                await call
            finally:
                del self._edges[pc_id]

    async def _run(self, edge: Edge) -> Refusal | None:
        """Run a call, and return why it ended if that was not the client's wish."""
        record = None if self._limiter.record is None else self._limiter.record(edge)
        call = EdgeCall(edge, record)
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


async def _result_of(work: Awaitable[str]) -> str | PeerError:
    try:
        return await work
    except PeerError as error:
        return error


def _read_body(body: Json, request: Request) -> _Body:
    if not isinstance(body, dict):
        raise _HttpError(422, "the body must be a JSON object")
    sdp, listed, pc_id = body.get("sdp"), body.get("candidates"), body.get("pc_id")
    known = pc_id if isinstance(pc_id, str) else ""
    if request.method == "PATCH" and isinstance(listed, list):
        return _Body(known, "", False, None, [_candidate(each) for each in listed])
    if request.method == "POST" and isinstance(sdp, str) and body.get("type") == "offer":
        data = body.get("requestData", body.get("request_data"))
        if data is None and "session_id" in request.path_params:
            data = _unpack(request.path_params["session_id"])
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


def _answer(request: Request, sdp: str, pc_id: str) -> Response:
    return JSONResponse({"sdp": sdp, "type": "answer", "pc_id": pc_id}, headers=_headers(request))


def _refusal(request: Request, refusal: Refusal) -> Response:
    return _error(request, _STATUS.get(refusal.code, 500), refusal.message)


def _error(request: Request, status: int, detail: str) -> Response:
    return JSONResponse({"detail": detail}, status, headers=_headers(request))
