"""One client of RTVI over SmallWebRTC: the connection, and what its messages cause."""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.metadata import version
from secrets import token_hex
from typing import assert_never

import numpy as np

from duologue._optional import optional
from duologue._user_code import FailureReports, describe, run_contained
from duologue.audio import AudioFrame
from duologue.clock import Clock, LoopClock, Timer
from duologue.edges._websocket_messages import MessageBudget
from duologue.edges.protocol import AgentInput, EdgeStats
from duologue.edges.rtvi._messages import (
    CHANNEL,
    AppMessage,
    ClientReady,
    Digits,
    DisconnectBot,
    EventTranslator,
    FunctionResult,
    Ignored,
    MicrophoneStatus,
    RtviError,
    SendText,
    bot_ready,
    error_message,
    error_response,
    function_call,
    peer_left,
    read_message,
    rtvi_message,
    server_response,
)
from duologue.errors import ConfigError, DuologueError
from duologue.json_types import Json, JsonObject
from duologue.quality import Quality
from duologue.rtc.call_request import CallRequest
from duologue.server.call_socket import Refusal

with optional("browser"):
    from duologue.rtc.config import MessageTooLongError, PeerConfig, PeerError, PeerState
    from duologue.rtc.peer import Peer

logger = logging.getLogger(__name__)

READY_S = 10.0
"""Seconds from the connection to the client's message that it is ready."""

RETURN_S = 20.0
"""Seconds that a call waits for a client whose connection was lost."""

MAX_REQUESTS = 16
"""Most messages of the application, and calls of the client's functions, that run at once."""

MAX_SIGNALS = 32
"""Most offers and lists of candidates that may wait for a call."""

OFFERS_PER_S = 0.5
"""Most offers of one call a second, because each makes a connection."""

MAX_OFFERS = 10
"""Most offers at once, after a while without one."""

_GOODBYE_S = 0.1
"""Seconds that the last messages to a client may take."""

_ABOUT: JsonObject = {"library": "duologue", "library_version": version("duologue")}

type MessageHandler = Callable[[Json], Json | Awaitable[Json]]
"""Handles a message of the application, and returns the response; plain or ``async``."""


class ClientError(DuologueError):
    """A client does not answer, can't be reached, or refuses something."""


@dataclass(frozen=True, slots=True)
class _Offer:
    sdp: str
    restart: bool
    answer: asyncio.Future[str]


@dataclass(frozen=True, slots=True)
class _Candidates:
    candidates: Sequence[tuple[str, str | None, int | None]]


class Edge:
    """One client.

    Made for each client by `mount`, and passed to ``make_agent``.

    Args:
        config: How to connect.
        request: The HTTP request that began the call.
        request_data: What the client sent with its offer (``requestData``), or to ``/start``.
        clock: Clock of the conversation; by default that of the event loop.
    """

    def __init__(
        self,
        config: PeerConfig,
        *,
        request: CallRequest | None = None,
        request_data: Json = None,
        clock: Clock | None = None,
    ) -> None:
        self.request = request if request is not None else CallRequest()
        """The request that began the call: headers, query, cookies, and the user of the web app."""
        self.request_data = request_data
        """What the client sent with its offer; a claim, unless the token proves more."""
        self.end_reason: Refusal | None = None
        """Why the server ends the call."""
        self._config = replace(config, channel=CHANNEL)
        self._clock: Clock = clock or LoopClock()
        self._signals: asyncio.Queue[_Offer | _Candidates] = asyncio.Queue(MAX_SIGNALS)
        self._peer: Peer | None = None
        self._agent: AgentInput | None = None
        self._ready: Callable[[], None] | None = None
        self._tasks: asyncio.TaskGroup | None = None
        self._over = asyncio.Event()
        self._failure: str | None = None
        self._left = False
        self._timer: Timer | None = None
        self._muted = False
        self._budget = MessageBudget(self._clock.now())
        self._offers = MessageBudget(self._clock.now(), rate=OFFERS_PER_S, burst=MAX_OFFERS)
        self._translator = EventTranslator()
        self._handlers: dict[str, MessageHandler] = {}
        self._failures = FailureReports(self._clock.now)
        self._results: dict[str, asyncio.Future[Json]] = {}
        self._running = 0
        self._started = False
        self._dropped_events = 0
        self._ignored_messages = 0

    def __repr__(self) -> str:
        return f"<rtvi.Edge {self._peer.state if self._peer is not None else 'new'}>"

    @property
    def output_rate(self) -> int:
        """Rate in Hz of the frames that `play` accepts."""
        return self._config.send_rate

    @property
    def quality(self) -> Quality:
        """``estimated``, because a client of RTVI does not report what it has played."""
        return "estimated"

    @property
    def lead_ms(self) -> int:
        """0, because each frame is sent when `play` is called."""
        return 0

    @property
    def latency_ms(self) -> float:
        """Milliseconds from `play` to the ear, about: jitter buffer and device of a browser."""
        return 60.0

    @property
    def counters(self) -> dict[str, int]:
        """Counters of packets, video frames, messages and events."""
        peer = {} if self._peer is None else self._peer.counters
        return {
            **peer,
            "messages_ignored": self._ignored_messages,
            "events_dropped": self._dropped_events,
        }

    def stats(self) -> EdgeStats:
        """Return the counters that `Agent.stats` includes; `counters` has more."""
        counters = self.counters
        return EdgeStats(
            lost_packets=counters.get("lost", 0),
            dropped_video_packets=counters.get("video_dropped", 0),
            dropped_messages=counters.get("messages_dropped", 0),
            dropped_events=self._dropped_events,
        )

    def handle(self, name: str, handler: MessageHandler) -> None:
        """Answer messages of the application by a function.

        ``sendClientRequest(name, data)`` of the client gets what the function returns; an error of
        it becomes an error response, and the conversation continues.

        Args:
            name: Name of the message.
            handler: Gets the data of a message, and returns JSON or None.
        """
        if not callable(handler):
            raise ConfigError(f"handler must be a function, not {handler!r:.80}")
        self._handlers[name] = handler

    def send_message(self, data: Json) -> None:
        """Send a message of the application, which the client gets as ``serverMessage``."""
        self._send(rtvi_message("server-message", data))

    async def call_client(self, name: str, arguments: JsonObject, *, within: float = 10.0) -> Json:
        """Call a function that the client has registered (``registerFunctionCallHandler``).

        Args:
            name: Its name.
            arguments: Its arguments.
            within: Seconds in which it must return.

        Returns:
            What it returned.

        Raises:
            ClientError: It did not return in time, or too many such calls wait.
        """
        if len(self._results) >= MAX_REQUESTS:
            raise ClientError(f"over {MAX_REQUESTS} calls of the client's functions wait")
        call_id = token_hex(8)
        result: asyncio.Future[Json] = asyncio.get_running_loop().create_future()
        self._results[call_id] = result
        self._send(function_call(call_id, name, arguments))
        try:
            async with asyncio.timeout(within):
                return await result
        except TimeoutError:
            text = f"the client has not returned from {name} within {within:g} s"
            raise ClientError(text) from None
        finally:
            del self._results[call_id]

    async def run(self, agent: AgentInput, ready: Callable[[], None]) -> None:
        """Answer the client's offer, and carry the call until the client leaves.

        Raises:
            PeerError: No connection could be established, or it was lost and did not come back.
        """
        if self._started:
            raise ConfigError("an edge runs once: each client has an Edge of its own")
        self._started = True
        self._agent, self._ready = agent, ready
        if not agent.wants_video:
            self._config = replace(self._config, video=False)
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                working = tasks.create_task(self._follow_signals(), name="signals")
                await self._over.wait()
                working.cancel()
                raise _OverError
        except* _OverError:
            pass
        finally:
            self._tasks = None
            self._over.set()
            self._refuse_signals()
            self._cancel_timer()
            await self._say_goodbye()
        if self._failure is not None:
            raise PeerError(self._failure)

    def play(self, frame: AudioFrame | None) -> None:
        """Send the next 20 ms at once; None is silence."""
        if self._peer is not None:
            self._peer.send_audio(frame)

    def clear(self) -> None:
        """Drop audio that was accepted and not sent: the encoder's look-ahead of 6.5 ms."""
        if self._peer is not None:
            self._peer.flush()

    def send_event(self, event: Mapping[str, Json]) -> None:
        """Send the client what RTVI has for an event; drop and count what it does not read."""
        for message in self._translator.translate(event):
            if not self._send(message):
                self._dropped_events += 1

    async def explain(self, message: Mapping[str, Json]) -> None:
        """Send one of our own messages, as one of the application."""
        self.send_message(dict(message))

    async def accept_offer(self, sdp: str, *, restart: bool = False) -> str:
        """Answer an offer of the client: the first one, or one for a connection that was lost.

        Args:
            sdp: The offer.
            restart: Whether the client has made a new connection for it.

        Returns:
            The answer.

        Raises:
            PeerError: The offer can't be used, too many came, or the call is over.
        """
        if not self._offers.spend(self._clock.now()):
            raise PeerError("too many offers in one call: try again in a few seconds")
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._put(_Offer(sdp, restart, answer))
        return await answer

    def add_candidates(self, candidates: Sequence[tuple[str, str | None, int | None]]) -> None:
        """Add addresses that the client found after its offer.

        Args:
            candidates: Text, name of the media section and its number, of each.

        Raises:
            PeerError: Too many wait, or the call is over.
        """
        self._put(_Candidates(candidates))

    def _put(self, signal: _Offer | _Candidates) -> None:
        if self._over.is_set():
            raise PeerError("the call is over")
        try:
            self._signals.put_nowait(signal)
        except asyncio.QueueFull:
            raise PeerError("too many offers and candidates wait") from None

    def _refuse_signals(self) -> None:
        """Refuse the offers that wait, because the call is over."""
        while not self._signals.empty():
            match self._signals.get_nowait():
                case _Offer(answer=answer) if not answer.done():
                    answer.set_exception(PeerError("the call is over"))
                case _:
                    pass

    async def _follow_signals(self) -> None:
        while True:
            match await self._signals.get():
                case _Offer() as offer:
                    await self._answer(offer)
                case _Candidates(candidates):
                    for text, mid, index in candidates:
                        if self._peer is not None:
                            await self._peer.add_candidate(text, mid, index)

    async def _answer(self, offer: _Offer) -> None:
        old = self._peer
        failure = PeerError("the call is over")  # Unless this is cancelled, another one follows.
        try:
            answer = await self._accept(offer)
            if not offer.answer.done():
                offer.answer.set_result(answer)
        except PeerError as error:
            failure = error
            if old is None:
                self._end(str(error))
        finally:
            if not offer.answer.done():
                offer.answer.set_exception(failure)

    async def _accept(self, offer: _Offer) -> str:
        """Return the answer to an offer, which may need a new connection.

        Raises:
            PeerError: The offer can't be used; a connection that was there stays.
        """
        old = self._peer
        if old is not None and not offer.restart and old.state not in ("failed", "closed"):
            return await old.accept(offer.sdp)
        peer = self._peer = self._make_peer()
        try:
            answer = await peer.accept(offer.sdp)
        except PeerError:
            if old is not None:
                self._peer = old
                if old.state in ("failed", "closed") and self._timer is None:
                    self._end_after(RETURN_S, old.reason or "the connection was lost")
                await peer.close()
            raise
        except BaseException:
            if old is not None:
                await old.close()
            raise
        if old is not None:
            await old.close()
        return answer

    def _make_peer(self) -> Peer:
        agent = self._agent
        assert agent is not None  # noqa: S101 - `run` sets it before it reads signals

        def state_changed(state: PeerState, reason: str) -> None:
            # A client closes its old connection once it has made a new one.
            if self._peer is peer:
                self._state_changed(state, reason)

        peer = Peer(
            self._config,
            on_audio=self._receive_audio,
            on_video=agent.push_video if self._config.video else None,
            on_message=self._receive_message,
            on_state=state_changed,
            clock=self._clock,
        )
        return peer

    def _state_changed(self, state: PeerState, reason: str) -> None:
        match state:
            case "connected":
                self._cancel_timer()
                if self._ready is not None:
                    self._end_after(READY_S, "the client did not say that it is ready")
            case "failed" if self._ready is not None:
                self._end(reason)
            case "failed":
                self._end_after(RETURN_S, reason)
            case "closed":
                self._left = True
                self._end()
            case _:
                pass

    def _end_after(self, seconds: float, failure: str) -> None:
        self._cancel_timer()
        self._timer = self._clock.call_at(self._clock.now() + seconds, lambda: self._end(failure))

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end(self, failure: str | None = None) -> None:
        if not self._over.is_set():
            self._failure = failure
            self._over.set()

    def _receive_audio(self, frame: AudioFrame) -> None:
        if self._agent is None:
            return
        if self._muted:
            frame = AudioFrame(np.zeros(len(frame), np.int16), frame.rate)
        self._agent.push_audio(frame)

    def _receive_message(self, text: str) -> None:
        if not self._budget.spend(self._clock.now()):
            self._ignored_messages += 1
            return
        try:
            self._handle(text)
        except RtviError as error:
            self._ignored_messages += 1
            if error.id:
                self._send(error_response(error.id, str(error)))

    def _handle(self, text: str) -> None:
        agent = self._agent
        if agent is None or self._over.is_set():
            return
        message = read_message(text)
        match message:
            case ClientReady():
                self._client_ready(message, agent)
            case SendText(text=words):
                agent.push_text(words)
            case AppMessage():
                self._start_task(self._respond(message), message.id)
            case Digits(keys):
                for key in keys:
                    agent.push_digit(key)
            case FunctionResult(call_id, result):
                waiting = self._results.get(call_id)
                if waiting is not None and not waiting.done():
                    waiting.set_result(result)
            case MicrophoneStatus(enabled):
                self._muted = not enabled
            case DisconnectBot():
                self._end()
            case Ignored():
                pass
            case _:
                assert_never(message)

    def _client_ready(self, message: ClientReady, agent: AgentInput) -> None:
        self._translator.legacy = message.major == 1
        self._start_task(self._greet(message, agent), message.id)
        ready, self._ready = self._ready, None
        if ready is not None:
            self._cancel_timer()
            ready()

    async def _greet(self, message: ClientReady, agent: AgentInput) -> None:
        """Answer that the agent is ready once its model listens."""
        await agent.wait_until_listening()
        self._send(bot_ready(message, _ABOUT))

    def _start_task(self, work: Awaitable[None], request_id: str) -> None:
        if self._tasks is None or self._running >= MAX_REQUESTS:
            if inspect.iscoroutine(work):
                work.close()
            self._send(error_response(request_id, f"over {MAX_REQUESTS} messages wait: try again"))
            return
        self._running += 1

        async def run() -> None:
            try:
                await work
            except DuologueError as error:
                self._send(error_response(request_id, str(error)))
            finally:
                self._running -= 1

        self._tasks.create_task(run(), name="request")

    async def _respond(self, request: AppMessage) -> None:
        handler = self._handlers.get(request.name)
        if handler is None:
            self._send(error_response(request.id, f"nothing handles {request.name} here"))
            return
        try:
            result = handler(request.data)
            data = await run_contained(result) if isinstance(result, Awaitable) else result
            self._send(server_response(request, data))
        except Exception as error:  # noqa: BLE001 - any error of the program's
            self._failures.report(f"the handler of {request.name}", error)
            text = describe(error) if isinstance(error, DuologueError) else "it failed"
            self._send(error_response(request.id, text))

    def _send(self, message: Mapping[str, Json]) -> bool:
        peer = self._peer
        if peer is None:
            return False
        try:
            return peer.send_message(json.dumps(message, separators=(",", ":")))
        except MessageTooLongError as error:
            logger.info("a message to a client was dropped: %s", error)
            return False

    async def _say_goodbye(self) -> None:
        peer = self._peer
        if peer is None:
            return
        if not self._left and peer.state in ("connected", "interrupted"):
            text = self.end_reason.message if self.end_reason is not None else self._failure
            if text is not None:
                self._send(error_message(text, fatal=True))
            self._send(peer_left())
            with suppress(TimeoutError):
                async with asyncio.timeout(_GOODBYE_S):
                    await peer.drain(0)
        await peer.close()


class _OverError(Exception):
    """Ends the tasks of a call."""
