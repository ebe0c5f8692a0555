"""The webhook and the socket of a carrier, for a web app."""

# A call makes two requests:
#
#     carrier ──POST /telephone/twilio──────▶ webhook   signed; the answer names the socket, and
#                                                       carries the facts of the call, signed by us
#     carrier ──WS /telephone/twilio/media──▶ socket    signed; `start` brings the facts back
#
# A request without a right signature is refused before anything is made: no agent, no session with
# a model. So is a socket whose stream was not begun by a webhook of ours, and one over the limit,
# which is the page's where there is one.

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket

from duologue._bounded_dict import BoundedDict
from duologue.edges._agent_calls import (
    POLICY_VIOLATION,
    AgentCalls,
    JoiningAgent,
    ServerSocket,
    limiter_of,
    serve_socket,
)
from duologue.edges.telephone._stream import CarrierCodec, StreamFailed, StreamStarted
from duologue.edges.telephone.calls import TelephoneError
from duologue.edges.telephone.carrier import Carrier, WebhookRequest
from duologue.edges.telephone.media_stream import MediaStream
from duologue.errors import ConfigError, DuologueError
from duologue.server.call_control import CallRecord
from duologue.server.call_socket import RefusedError
from duologue.server.calls import CallLimiter
from duologue.server.middleware import refuse_websocket

logger = logging.getLogger(__name__)

type MakePhoneAgent = Callable[[MediaStream], JoiningAgent | Awaitable[JoiningAgent | None]]
"""Makes the agent for one call; a plain or an ``async`` function.

An ``async`` function may also conduct the whole call itself, and return None.

It gets the edge of the call, and with it the caller's number and parameters (`MediaStream.call`).
"""

MAX_BODY = 64 * 1024
"""Most bytes of a webhook's body."""

START_S = 5.0
"""Seconds from the opening of a socket to the message that starts the stream."""

_HANG_UP_S = 3.0
"""Seconds that ending a call by REST may take."""
_MAX_EARLY = 256
"""Most calls that have been answered, by a person or a machine, and have no socket yet."""
_LOG_INTERVAL_S = 60.0
"""Seconds between two log lines about requests without a right signature."""


def mount(
    app: Starlette,
    make_agent: MakePhoneAgent,
    carrier: Carrier,
    *,
    max_calls: int | None = None,
) -> None:
    """Add a carrier's webhook and socket to an app.

    Args:
        app: An app of `duologue.hosting.create_app`, with which calls share their limit, or one of
            your own.
        make_agent: Gets the `MediaStream` of a call and returns the `Agent` that joins it.
        carrier: The account, such as ``Twilio("https://talk.example.org")``.
        max_calls: Most calls at once, for an app of your own; 8 for each core by default.

    Raises:
        ConfigError: An argument can't work.
    """
    app.router.routes.extend(_routes(make_agent, carrier, limiter_of(app, max_calls)))


def routes(
    make_agent: MakePhoneAgent, carrier: Carrier, *, max_calls: int | None = None
) -> list[BaseRoute]:
    """Return a carrier's webhook and socket as routes for an app of your own; see `mount`."""
    return _routes(make_agent, carrier, limiter_of(None, max_calls))


def _routes(make_agent: MakePhoneAgent, carrier: Carrier, limiter: CallLimiter) -> list[BaseRoute]:
    if not isinstance(carrier, Carrier):
        raise ConfigError(
            f"carrier must be an account such as telephone.Twilio(...), not {carrier!r:.80}"
        )
    calls = _PhoneCalls(AgentCalls(make_agent), carrier, limiter)
    return [
        Route(carrier.path, calls.webhook, methods=["GET", "POST"]),
        WebSocketRoute(f"{carrier.path}/media", calls.media),
    ]


class _PhoneCalls:
    """The calls of one carrier."""

    def __init__(
        self, calls: AgentCalls[MediaStream], carrier: Carrier, limiter: CallLimiter
    ) -> None:
        self._calls = calls
        self._carrier = carrier
        self._limiter = limiter
        self._logged_at = float("-inf")
        self._edges: dict[str, MediaStream] = {}
        self._early = BoundedDict[str, str](_MAX_EARLY)
        """Who answered, by the ids of calls whose socket is not here yet."""

    async def webhook(self, request: Request) -> Response:
        """Answer a webhook of the carrier."""
        carrier = self._carrier
        body = await _read_body(request)
        if body is None:
            return PlainTextResponse("too long\n", 413)
        query = request.url.query
        signed = WebhookRequest(
            method=request.method,
            url=carrier.webhook_url + (f"?{query}" if query else ""),
            headers=dict(request.headers),
            body=body,
        )
        if not carrier.check_webhook(signed):
            self._log_refused("webhook", carrier.webhook_url)
            return PlainTextResponse("the signature is missing or wrong\n", 403)
        detected = carrier.answer_detected(signed)
        if detected is not None:
            edge = self._edges.get(detected.call_id)
            if edge is None:
                self._early[detected.call_id] = detected.answered_by
            else:
                edge.report_answered_by(detected.answered_by)
        try:
            self._limiter.check_place()
        except RefusedError:
            admitted = False
        else:
            admitted = True
        try:
            answer = await carrier.answer(signed, admitted=admitted)
        except (TelephoneError, ConfigError) as error:
            logger.warning("a call of %s was not answered: %s", carrier.name, error)
            return PlainTextResponse("the call could not be answered\n", 502)
        return Response(answer.body, answer.status, media_type=answer.media_type)

    async def media(self, websocket: WebSocket) -> None:
        """Serve the socket of one call until the call has ended."""
        carrier = self._carrier
        headers = dict(websocket.headers)
        if not carrier.check_socket(headers):
            self._log_refused("socket", carrier.stream_url)
            await refuse_websocket(websocket, "the signature is missing or wrong\n")
            return
        await serve_socket(
            websocket,
            self._limiter,
            lambda socket: self._begin(socket, headers),
            self._run_call,
            begin_s=START_S,
        )

    async def _begin(self, socket: ServerSocket, headers: dict[str, str]) -> MediaStream | None:
        """Return the edge of a stream that a webhook of ours has begun; refuse another one."""
        carrier = self._carrier
        codec = carrier.codec()
        call = None
        try:
            started = await _receive_start(socket, codec)
            call = None if started is None else carrier.identify(started, headers)
        finally:
            if call is None:
                self._log_refused("stream", carrier.stream_url)
        if call is None:
            await socket.close(
                POLICY_VIOLATION, "this stream was not begun by a webhook of this server"
            )
            return None
        control = carrier.control(call)
        return MediaStream(socket, codec, call, control=control, reorder=carrier.reorder)

    async def _run_call(
        self, socket: ServerSocket, edge: MediaStream, record: CallRecord | None
    ) -> None:
        call = edge.call
        control = self._carrier.control(call)
        self._edges[call.id] = edge
        early = self._early.pop(call.id, "")
        if early:
            edge.report_answered_by(early)
        try:
            failure = await self._calls.run(edge, record)
            if failure is not None:
                await socket.refuse(failure)
        finally:
            if self._edges.get(call.id) is edge:
                del self._edges[call.id]
            await socket.close()
            ended = self._carrier.hangs_up_with_socket or edge.caller_left or edge.transferred
            if control is not None and not ended:
                with suppress(DuologueError, TimeoutError):
                    async with asyncio.timeout(_HANG_UP_S):
                        await control.hang_up()

    def _log_refused(self, what: str, address: str) -> None:
        """Log a refusal, at most once a minute, because strangers can cause them."""
        now = time.monotonic()
        if now - self._logged_at >= _LOG_INTERVAL_S:
            self._logged_at = now
            logger.warning(
                "refused a %s of %s without a right signature: if it was the carrier, compare "
                "the address that it calls with %s, and the keys",
                what,
                self._carrier.name,
                address,
            )


async def _read_body(request: Request) -> bytes | None:
    """Return the body; None if it is too long."""
    body = b""
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY:
                return None
    except ClientDisconnect:
        return None
    return body


async def _receive_start(socket: ServerSocket, codec: CarrierCodec) -> StreamStarted | None:
    """Return the start of the stream; None if the socket ends before it."""
    while (message := await socket.receive()) is not None:
        for event in codec.receive(message):
            match event:
                case StreamStarted():
                    return event
                case StreamFailed(message=words):
                    logger.warning("a stream failed: %s", words)
                    return None
                case _:
                    pass
    return None
