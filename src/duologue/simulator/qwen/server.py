"""`QwenSimulator`: a server on this machine that speaks Qwen Omni's realtime protocol."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from duologue.clock import Clock
from duologue.extras import require
from duologue.simulator.brains import BrainFactory, brain_of
from duologue.simulator.faults import Fault, FaultPlan
from duologue.simulator.script import Script
from duologue.testing.scripted import Reply

require("aiohttp", "simulate")
require("aiortc", "simulate")
require("orjson", "simulate")
require("pybase64", "simulate")

from aiohttp import web  # noqa: E402

from duologue.simulator.http_service import HttpService  # noqa: E402
from duologue.simulator.qwen.configuration import Configuration  # noqa: E402
from duologue.simulator.qwen.doors import PATH, application  # noqa: E402
from duologue.simulator.qwen.faults import PRESETS  # noqa: E402
from duologue.simulator.qwen.session import QwenOptions, QwenSession  # noqa: E402
from duologue.simulator.socket_line import SocketLine  # noqa: E402

KEY = "sk-simulator"
"""The key that is good unless you say another."""


class QwenSimulator(HttpService[QwenSession]):
    """Qwen Omni's realtime service on this machine; use as ``async with``.

    ``brain`` answers: ``echo`` (each turn's sound back), ``local`` (the engine inside, in the size
    ``profile``), ``loopback`` (the client's sound straight back, for measurements), a script or
    its file, or a function that makes a `Realtime` for each session. ``replies`` and
    ``transcripts`` are a script in short. ``faults`` are what goes wrong. ``seed`` makes delays
    come out the same.

    ``transcription_delay``, ``max_session_s`` and ``idle_s`` in s; the latter two are divided by
    ``clock_scale``. A session ends after ``idle_s`` without an event of the client; pings are
    none. Without ``done_after_cancel`` a response that the client has cancelled is not told to be
    done. With ``keep_audio`` the sessions' ``heard`` have their sound. ``paraphrase``: the model
    does not say word for word what it is told to. Raises `ConfigError`, and `MissingExtraError`
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
        max_session_s: float = 7200.0,
        idle_s: float = 300.0,
        done_after_cancel: bool = True,
        transcription_delay: float = 0.0,
        paraphrase: bool = False,
        keep_audio: bool = False,
        unknown_models: Sequence[str] = (),
        seed: int = 1,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(
            brain_of(brain, replies=replies, transcripts=transcripts, profile=profile, clock=clock),
            FaultPlan(faults, PRESETS),
            host=host,
            port=port,
            key=key,
            unknown_models=unknown_models,
            clock_scale=clock_scale,
            seed=seed,
            clock=clock,
        )
        script = self._brain.script
        self._options = QwenOptions(
            transcription_delay=transcription_delay or script.transcription_delay,
            paraphrase=paraphrase or script.paraphrase,
            max_session_s=max_session_s / clock_scale,
            keep_audio=keep_audio,
            loopback=self._brain.loopback,
            idle_s=idle_s / clock_scale,
            done_after_cancel=done_after_cancel,
        )

    def application(self) -> web.Application:
        """Everything that the service answers to."""
        return application(self)

    @property
    def url(self) -> str:
        """The address without a path."""
        return f"http://{self._named}:{self._port}"

    @property
    def ws_url(self) -> str:
        """The address of the WebSocket, to be followed by ``?model=``."""
        return f"ws://{self._named}:{self._port}{PATH}"

    # House: what the door needs

    async def hold(self, line: SocketLine, configuration: Configuration) -> None:
        """Hold a session until its end."""
        session = QwenSession(
            self._brain.make(),
            configuration,
            self._options,
            line,
            self._clock,
            expectations=self.expectations(),
        )
        await self.hold_on_line(line, session)
