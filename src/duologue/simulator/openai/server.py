"""`OpenAISimulator`: a server on this machine that speaks OpenAI's Realtime protocol."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from duologue.clock import Clock, LoopClock
from duologue.extras import require
from duologue.items import Json
from duologue.realtime.errors import ConfigError
from duologue.simulator.brains import BrainFactory, brain_of
from duologue.simulator.expectations import Expectations
from duologue.simulator.faults import Fault, FaultPlan
from duologue.simulator.script import Script
from duologue.testing.scripted import Reply

require("aiohttp", "simulate")
require("orjson", "simulate")
require("pybase64", "simulate")
require("aiortc", "simulate")

from aiohttp import web  # noqa: E402

from duologue.simulator.line import EventLine  # noqa: E402
from duologue.simulator.openai.configuration import Configuration  # noqa: E402
from duologue.simulator.openai.doors import application  # noqa: E402
from duologue.simulator.openai.event_session import SessionOptions  # noqa: E402
from duologue.simulator.openai.keys import Keys  # noqa: E402
from duologue.simulator.openai.rtc_call import RtcCall  # noqa: E402
from duologue.simulator.openai.session import Session  # noqa: E402
from duologue.simulator.openai.shapes import RefusedError  # noqa: E402
from duologue.simulator.socket_line import SocketLine  # noqa: E402

logger = logging.getLogger(__name__)

KEY = "sk-simulator"
"""The key that is good unless you say another."""

MOST_KEPT = 256
"""Sessions that are kept to be looked at; the oldest go."""

MOST_CALLS = 64
"""Sessions at once; the next is refused with 429."""


class OpenAISimulator:
    """OpenAI's Realtime service on this machine, over WebSocket and WebRTC; use as ``async with``.

    ``brain`` answers: ``echo`` (each turn's sound back), ``local`` (the engine inside, in the size
    ``profile``), ``loopback`` (the client's sound straight back, for measurements), a script or
    its file, or a function that makes a `Realtime` for each session. ``replies`` and
    ``transcripts`` are a script in short. ``faults`` are what goes wrong. ``seed`` makes delays
    and losses come out the same.

    ``transcription_delay`` and ``max_session_s`` in s; the latter is divided by ``clock_scale``.
    With ``keep_audio`` the sessions' ``heard`` have their sound. ``paraphrase``: the model does
    not say word for word what it is told to. Raises `ConfigError`, and `MissingExtraError`
    without the extra ``simulate``.
    """

    def __init__(
        self,
        brain: str | Path | Script | BrainFactory = "echo",
        *,
        replies: Sequence[Reply | str] | None = None,
        transcripts: Sequence[str] = (),
        host: str = "127.0.0.1",
        port: int = 0,
        key: str = KEY,
        faults: Sequence[Fault | str] = (),
        profile: str = "tiny",
        clock_scale: float = 1.0,
        max_session_s: float = 3600.0,
        transcription_delay: float = 0.0,
        paraphrase: bool = False,
        keep_audio: bool = False,
        unknown_models: Sequence[str] = (),
        seed: int = 1,
        clock: Clock | None = None,
    ) -> None:
        if clock_scale <= 0:
            raise ConfigError(f"clock_scale takes a number above 0, not {clock_scale}")
        self.key = key
        self.sessions: list[Session] = []
        """The sessions so far, in order; of very many the newest."""
        self.failures: list[str] = []
        """What scripts expected and did not get, each with its place in the script."""
        self.unknown_models = frozenset(unknown_models)
        self._clock: Clock = clock or LoopClock()
        self._brain = brain_of(
            brain, replies=replies, transcripts=transcripts, profile=profile, clock=clock
        )
        script = self._brain.script
        self._options = SessionOptions(
            transcription_delay=transcription_delay or script.transcription_delay,
            paraphrase=paraphrase or script.paraphrase,
            max_session_s=max_session_s / clock_scale,
            keep_audio=keep_audio,
            loopback=self._brain.loopback,
        )
        self._plan = FaultPlan(faults)
        self._host = host
        self._port = port
        self._seed = seed
        self._lines: list[EventLine] = []
        self._calls: dict[str, RtcCall] = {}
        self._open: set[EventLine] = set()
        self._stack = AsyncExitStack()
        self._tasks: asyncio.TaskGroup | None = None
        self.keys = Keys(key, self._clock)

    async def __aenter__(self) -> Self:
        if self._brain.prepare is not None:
            await self._brain.prepare()
        runner = web.AppRunner(
            application(self), access_log=None, shutdown_timeout=1.0, handle_signals=False
        )
        try:
            self._tasks = await self._stack.enter_async_context(asyncio.TaskGroup())
            self._stack.push_async_callback(runner.cleanup)
            self._stack.push_async_callback(self._end_sessions)
            await runner.setup()
            site = web.TCPSite(runner, self._host, self._port)
            try:
                await site.start()
            except OSError as error:
                reason = (error.strerror or str(error)).lower()
                raise ConfigError(
                    f"can't listen on {self._host} port {self._port}: {reason}"
                ) from error
            self._port = int(runner.addresses[0][1])
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # The group is not told what happened inside: it would wrap it.
        await self._stack.aclose()

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._port

    @property
    def _named(self) -> str:
        """The host as an address has it."""
        return f"[{self._host}]" if ":" in self._host else self._host

    @property
    def url(self) -> str:
        """The ``base_url`` for a client."""
        return f"http://{self._named}:{self._port}/v1"

    @property
    def ws_url(self) -> str:
        """The address of the WebSocket, to be followed by ``?model=``."""
        return f"ws://{self._named}:{self._port}/v1/realtime"

    @property
    def faults(self) -> Sequence[Fault]:
        """What goes wrong; may be set at any time, also by names."""
        return self._plan.faults

    @faults.setter
    def faults(self, faults: Sequence[Fault | str]) -> None:
        self._plan.set(faults)

    @property
    def fired(self) -> Sequence[object]:
        """The faults' actions that have happened so far."""
        return self._plan.fired

    @property
    def video_frames(self) -> int:
        """Pictures that came by WebRTC video so far."""
        calls = [line for line in self._lines if isinstance(line, RtcCall)]
        return sum(call.peer.video_frames for call in calls)

    async def kill(self, session: int = -1) -> None:
        """Cut a session's connection: a TCP reset, or WebRTC's sockets without a farewell."""
        self._lines[session].cut()
        await asyncio.sleep(0)

    async def drop_all(self) -> None:
        """Cut every connection, as a power failure would."""
        for line in [*self._open]:
            line.cut()
        await asyncio.sleep(0)

    # House: what the doors need

    def refusal(self) -> tuple[int, str] | None:
        """The status and code by which the next connection is refused, if it is."""
        fault = self._plan.handshake()
        if fault is not None:
            return fault.status, fault.code
        return (429, "rate_limit_exceeded") if len(self._open) >= MOST_CALLS else None

    def configure(self, model: str, session: Json) -> Configuration:
        """The session object of a new session. Raises `RefusedError`."""
        configuration = Configuration(model, int(time.time() + self._options.max_session_s))
        if session:
            configuration.update(session, spoken=False)
        return configuration

    def socket_line(self, websocket: web.WebSocketResponse, request: web.Request) -> SocketLine:
        """The line of a new session."""
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the client has gone")
        return SocketLine(websocket, transport, self._plan, self._clock, self._seed)

    async def hold(self, line: SocketLine, configuration: Configuration) -> None:
        """Hold a session until its end."""
        session = self._session(line, configuration)
        try:
            await line.serve(session)
        finally:
            self._close(line, session)

    async def call(self, offer: str, configuration: Configuration) -> tuple[RtcCall, str]:
        """Begin a call; its answer. Raises `PeerError`, or ``ValueError``."""
        call = RtcCall(self._plan, self._clock, self._seed, loopback=self._options.loopback)
        try:
            answer = await call.accept(offer)
        except BaseException:
            call.runner.close()
            await call.hang_up()
            raise
        session = self._session(call, configuration)
        self._calls[call.id] = call
        if self._tasks is not None:
            self._tasks.create_task(self._hold_call(call, session), name="simulator call")
        return call, answer

    async def hang_up(self, call_id: str) -> bool:
        """End a call; False when there is none of that name."""
        call = self._calls.pop(call_id, None)
        if call is None:
            return False
        await call.hang_up()
        return True

    async def _hold_call(self, call: RtcCall, session: Session) -> None:
        try:
            await call.serve(session)
        except Exception:
            logger.exception("a simulated call failed; the others go on")
        finally:
            self._calls.pop(call.id, None)
            self._close(call, session)

    def _session(self, line: EventLine, configuration: Configuration) -> Session:
        script = self._brain.script
        expectations = None
        if script.expectations:
            expectations = Expectations(script.expectations, self.failures, self._clock)
        session = Session(
            self._brain.make(),
            configuration,
            self._options,
            line,
            self._clock,
            player=line.playout if isinstance(line, RtcCall) else None,
            expectations=expectations,
        )
        line.complain = lambda error: session.refuse(
            RefusedError(error.code, error.message, kind="server_error")
        )
        session.taken = line.runner.saw
        self.sessions.append(session)
        self._lines.append(line)
        del self.sessions[:-MOST_KEPT], self._lines[:-MOST_KEPT]
        self._open.add(line)
        return session

    def _close(self, line: EventLine, session: Session) -> None:
        session.close()
        line.runner.close()
        self._open.discard(line)

    async def _end_sessions(self) -> None:
        for line in [*self._open]:
            if isinstance(line, RtcCall):
                await line.hang_up()
            elif line.deaf_until > self._clock.now():
                line.cut()
            else:
                line.close(1001, "the simulator stops")
