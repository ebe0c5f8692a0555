"""`QwenSimulator`: a server on this machine that speaks Qwen Omni's realtime protocol."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from duologue._optional import optional
from duologue.clock import Clock
from duologue.simulators._backends import BackendFactory, resolve_backend
from duologue.simulators._fault_plan import FaultPlan
from duologue.simulators.faults import Fault
from duologue.simulators.script import Script
from duologue.testing.scripted import Reply

with optional("simulate"):
    import aiortc  # noqa: F401 - checked early
    from aiohttp import web

    from duologue.simulators._http_service import HttpService
    from duologue.simulators._websocket_channel import WebSocketChannel
    from duologue.simulators.qwen._routes import PATH, application
    from duologue.simulators.qwen._session import QwenOptions, QwenSession
    from duologue.simulators.qwen._session_object import QwenSessionObject
    from duologue.simulators.qwen.faults import PRESETS


DEFAULT_KEY = "sk-simulator"
"""The API key that is valid by default."""


class QwenSimulator(HttpService[QwenSession]):
    """Qwen Omni's realtime service on this machine; use as ``async with``.

    Args:
        backend: What replies: ``echo`` (the audio of each turn again), ``local`` (the built-in
            engine), ``loopback`` (the client's audio straight back, for measurements), a script or
            its file, or a function that makes a `Realtime` for each session.
        replies: Replies of a script, in place of ``backend``.
        transcripts: Transcripts of that script.
        host: The address to listen on.
        port: The port to listen on; 0 takes a free one.
        key: The API key that is valid.
        faults: What goes wrong: faults, or names of presets.
        profile: Size of the built-in engine.
        clock_scale: Divides ``max_session_s`` and ``idle_s``.
        max_session_s: Seconds after which a session ends.
        idle_s: Seconds without an event of the client after which a session ends. Pings are not
            events.
        done_after_cancel: Send ``response.done`` for a reply that the client has cancelled.
        transcription_delay: Seconds by which transcripts are late.
        paraphrase: The model does not say verbatim text word for word.
        keep_audio: Keep the audio of ``user_turns`` of the sessions.
        unknown_models: Models that the service refuses.
        seed: Makes delays the same in every run.
        clock: The clock of all times.

    Raises:
        ConfigError: An option is wrong, or the port is in use.
        MissingExtraError: The extra ``simulate`` is not installed.
    """

    def __init__(
        self,
        backend: str | Path | Script | BackendFactory = "echo",
        *,
        replies: Sequence[Reply | str] | None = None,
        transcripts: Sequence[str] = (),
        host: str = "127.0.0.1",
        port: int = 0,
        key: str = DEFAULT_KEY,
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
            resolve_backend(
                backend, replies=replies, transcripts=transcripts, profile=profile, clock=clock
            ),
            FaultPlan(faults, PRESETS),
            host=host,
            port=port,
            key=key,
            unknown_models=unknown_models,
            clock_scale=clock_scale,
            seed=seed,
            clock=clock,
        )
        script = self._backend.script
        self._options = QwenOptions(
            transcription_delay=transcription_delay or script.transcription_delay,
            paraphrase=paraphrase or script.paraphrase,
            max_session_s=max_session_s / clock_scale,
            keep_audio=keep_audio,
            loopback=self._backend.loopback,
            idle_s=idle_s / clock_scale,
            done_after_cancel=done_after_cancel,
        )

    def application(self) -> web.Application:
        """Return the application with all routes of the service."""
        return application(self)

    @property
    def url(self) -> str:
        """The address without a path."""
        return f"http://{self._url_host}:{self._port}"

    @property
    def ws_url(self) -> str:
        """The URL of the WebSocket, without ``?model=``."""
        return f"ws://{self._url_host}:{self._port}{PATH}"

    # ServiceApi: what the route needs

    async def run_session(
        self, channel: WebSocketChannel, configuration: QwenSessionObject
    ) -> None:
        """Run a session until it ends."""
        session = QwenSession(
            self._backend.make(),
            configuration,
            self._options,
            channel,
            self._clock,
            expectations=self.expectations(),
        )
        await self.run_on_channel(channel, session)
