"""`OpenAISimulator`: a server on this machine that speaks OpenAI's Realtime protocol."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path

from duologue.clock import Clock
from duologue.extras import require
from duologue.items import Json
from duologue.simulator.brains import BrainFactory, brain_of
from duologue.simulator.faults import Fault, FaultPlan
from duologue.simulator.script import Script
from duologue.testing.scripted import Reply

require("aiohttp", "simulate")
require("orjson", "simulate")
require("pybase64", "simulate")
require("aiortc", "simulate")

from aiohttp import web  # noqa: E402

from duologue.simulator.http_service import HttpService  # noqa: E402
from duologue.simulator.line import EventLine  # noqa: E402
from duologue.simulator.openai.configuration import Configuration  # noqa: E402
from duologue.simulator.openai.doors import application  # noqa: E402
from duologue.simulator.openai.event_session import SessionOptions  # noqa: E402
from duologue.simulator.openai.keys import Keys  # noqa: E402
from duologue.simulator.openai.rtc_call import RtcCall  # noqa: E402
from duologue.simulator.openai.session import Session  # noqa: E402
from duologue.simulator.socket_line import SocketLine  # noqa: E402

logger = logging.getLogger(__name__)

KEY = "sk-simulator"
"""The key that is good unless you say another."""


class OpenAISimulator(HttpService[Session]):
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
        super().__init__(
            brain_of(brain, replies=replies, transcripts=transcripts, profile=profile, clock=clock),
            FaultPlan(faults),
            host=host,
            port=port,
            key=key,
            unknown_models=unknown_models,
            clock_scale=clock_scale,
            seed=seed,
            clock=clock,
        )
        script = self._brain.script
        self._options = SessionOptions(
            transcription_delay=transcription_delay or script.transcription_delay,
            paraphrase=paraphrase or script.paraphrase,
            max_session_s=max_session_s / clock_scale,
            keep_audio=keep_audio,
            loopback=self._brain.loopback,
        )
        self._calls: dict[str, RtcCall] = {}
        self._video_frames = 0
        self.keys = Keys(key, self._clock)

    def application(self) -> web.Application:
        """Everything that the service answers to."""
        return application(self)

    @property
    def url(self) -> str:
        """The ``base_url`` for a client."""
        return f"http://{self._named}:{self._port}/v1"

    @property
    def ws_url(self) -> str:
        """The address of the WebSocket, to be followed by ``?model=``."""
        return f"ws://{self._named}:{self._port}/v1/realtime"

    @property
    def video_frames(self) -> int:
        """Pictures that came by WebRTC video so far."""
        calls = [line for line in self._open if isinstance(line, RtcCall)]
        return self._video_frames + sum(call.peer.video_frames for call in calls)

    # House: what the doors need

    def configure(self, model: str, session: Json) -> Configuration:
        """The session object of a new session. Raises `RefusedError`."""
        configuration = Configuration(model, int(time.time() + self._options.max_session_s))
        if session:
            configuration.update(session, spoken=False)
        return configuration

    async def hold(self, line: SocketLine, configuration: Configuration) -> None:
        """Hold a session until its end."""
        await self.hold_on_line(line, self._session(line, configuration))

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
        self.keep(call, session)
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
            self._video_frames += call.peer.video_frames
            self.let_go(call, session)

    def _session(self, line: EventLine, configuration: Configuration) -> Session:
        return Session(
            self._brain.make(),
            configuration,
            self._options,
            line,
            self._clock,
            player=line.playout if isinstance(line, RtcCall) else None,
            expectations=self.expectations(),
        )

    async def end_line(self, line: EventLine) -> None:
        """End a session, because the service stops."""
        if isinstance(line, RtcCall):
            await line.hang_up()
        else:
            await super().end_line(line)
