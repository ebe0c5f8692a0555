"""`GeminiSimulator`: a local server that speaks the Gemini Live protocol."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from pathlib import Path

from aiohttp import web

from duologue.clock import Clock
from duologue.errors import ConfigError
from duologue.json_types import JsonObject
from duologue.simulators._backends import BackendFactory, resolve_backend
from duologue.simulators._fault_plan import FaultPlan
from duologue.simulators._http_service import HttpService
from duologue.simulators.faults import Fault
from duologue.simulators.gemini._auth import Auth
from duologue.simulators.gemini._lifetime import Limits
from duologue.simulators.gemini._resumption import HANDLE_VALID_S, Handles
from duologue.simulators.gemini._routes import ClientAccess, application
from duologue.simulators.gemini._session import GeminiSession, SessionOptions
from duologue.simulators.gemini._websocket_channel import GeminiChannel
from duologue.simulators.gemini.faults import PRESETS
from duologue.simulators.script import Script
from duologue.testing.scripted import Reply

DEFAULT_KEY = "gemini-simulator"
"""The valid key unless another is given."""

MAX_AUDIO_SESSION_S, MAX_VIDEO_SESSION_S = 900.0, 120.0
"""Maximum seconds of a session without compression, without images and with them."""

API_PATH = "/ws/google.ai.generativelanguage.v1.GenerativeService.BidiGenerateContent"
"""The path of the WebSocket that `GeminiSimulator.ws_url` names."""


class GeminiSimulator(HttpService[GeminiSession]):
    """A local Gemini Live service. Use as ``async with``.

    Args:
        backend: What replies: ``echo`` (each turn's audio), ``local`` (the built-in engine),
            ``loopback`` (the client's audio straight back, for measurements), a script or its file,
            or a function that makes a `Realtime` for each session.
        replies: The replies of a script, instead of ``backend``.
        transcripts: The user's transcripts of that script.
        host: Address to listen on.
        port: Port to listen on; 0 for a free one.
        key: The valid API key.
        faults: The faults to inject, also by name.
        profile: Size of the built-in engine.
        tls: Serve TLS with a certificate of a temporary authority, see `ca_pem`.
        binary_frames: Whether messages are sent in binary frames, as the service does.
        audio_pace: How many times as fast as speech audio is sent; 0 sends it at once.
        clock_scale: Divisor of the three times that follow, and of the limits of sessions without
            compression.
        max_connection_s: Seconds after which a connection ends.
        go_away_s: Seconds before that end in which the client is warned.
        max_session_s: Seconds after which a connection ends with code 1011.
        transcription_delay: Delay of the user's transcripts in seconds.
        paraphrase: Whether the model says instructed text in its own words.
        keep_audio: Whether the sessions' ``user_turns`` include their audio.
        resumes_open: Whether a session can be resumed while it has an open connection.
        unknown_models: Models that are refused.
        seed: Seed of random delays.
        clock: The clock; the event loop's by default.

    Raises:
        ConfigError: An argument is invalid.
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
        tls: bool = False,
        binary_frames: bool = True,
        audio_pace: float = 4.0,
        clock_scale: float = 1.0,
        max_connection_s: float = 600.0,
        go_away_s: float = 10.0,
        max_session_s: float = 3480.0,
        transcription_delay: float = 0.0,
        paraphrase: bool = False,
        keep_audio: bool = False,
        resumes_open: bool = True,
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
        if audio_pace < 0:
            raise ConfigError(f"audio_pace must be 0 or more, not {audio_pace}")
        self._options = SessionOptions(
            transcription_delay=transcription_delay or self._backend.script.transcription_delay,
            keep_audio=keep_audio,
            loopback=self._backend.loopback,
            paraphrase=paraphrase or self._backend.script.paraphrase,
            audio_pace=audio_pace,
            limits=Limits(
                max_connection_s / clock_scale,
                go_away_s / clock_scale,
                max_session_s / clock_scale,
                MAX_AUDIO_SESSION_S / clock_scale,
                MAX_VIDEO_SESSION_S / clock_scale,
            ),
        )
        self._binary = binary_frames
        self.auth = Auth(key, self._clock)
        self.handles = Handles(
            self._clock, valid_s=HANDLE_VALID_S / clock_scale, exclusive=not resumes_open
        )
        self.ca_pem = b""
        """The certificate authority for a client, with ``tls``."""
        self.ssl_context: ssl.SSLContext | None = None
        """An ``ssl`` context for a client, with ``tls``."""
        if tls:
            from duologue.simulators._test_ca import TemporaryCA

            authority = TemporaryCA()
            self.ca_pem = authority.pem
            self.ssl_context = authority.client_context()
            self._server_context = authority.server_context()

    def application(self) -> web.Application:
        """Create the web application with all routes."""
        return application(self)

    @property
    def url(self) -> str:
        """The ``base_url`` for a client."""
        scheme = "http" if self._server_context is None else "https"
        return f"{scheme}://{self._url_host}:{self._port}"

    @property
    def ws_url(self) -> str:
        """The address of the WebSocket."""
        return f"{self.url.replace('http', 'ws', 1)}{API_PATH}"

    def go_away(self, session: int = -1, *, time_left: float = 10.0) -> None:
        """Tell a client that its connection ends in ``time_left`` seconds, and end it then."""
        self.sessions[session].go_away(time_left)

    def send(self, message: JsonObject, session: int = -1) -> None:
        """Send a client an arbitrary message."""
        self.sessions[session].emit(next(iter(message), ""), message)

    def forget_handles(self) -> None:
        """Make all handles stale that were created so far."""
        self.handles.expire_all()

    # ServiceApi: called by the routes

    def open_channel(self, websocket: web.WebSocketResponse, request: web.Request) -> GeminiChannel:
        """Return the channel of a new session."""
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the client has gone")
        return GeminiChannel(
            websocket, transport, self._plan, self._clock, self._seed, binary=self._binary
        )

    async def run_session(self, channel: GeminiChannel, access: ClientAccess) -> None:
        """Run a session until it ends; it is listed in `sessions` once its setup is accepted."""

        def setup_accepted(session: GeminiSession) -> None:
            session.set_expectations(self.expectations())
            self.attach(channel, session)

        session = GeminiSession(
            self._backend.make(),
            access,
            self.handles,
            self._options,
            channel,
            self._clock,
            setup_accepted,
        )
        channel.attach(session)
        self._open[channel] = session
        try:
            await channel.serve(session)
        finally:
            self.release(channel, session)
