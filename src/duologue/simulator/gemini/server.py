"""`GeminiSimulator`: a server on this machine that speaks the Gemini Live protocol."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from pathlib import Path

from aiohttp import web

from duologue.clock import Clock
from duologue.realtime.errors import ConfigError
from duologue.simulator.brains import BrainFactory, brain_of
from duologue.simulator.faults import Fault, FaultPlan
from duologue.simulator.fields import Object
from duologue.simulator.gemini.doors import Door, application
from duologue.simulator.gemini.faults import PRESETS
from duologue.simulator.gemini.keys import Keys
from duologue.simulator.gemini.lifetime import Limits
from duologue.simulator.gemini.resumption import VALID_S, Handles
from duologue.simulator.gemini.session import Session, SessionOptions
from duologue.simulator.gemini.socket_line import GeminiLine
from duologue.simulator.http_service import HttpService
from duologue.simulator.script import Script
from duologue.testing.scripted import Reply

KEY = "gemini-simulator"
"""The key that is good unless you say another."""

AUDIO_S, VIDEO_S = 900.0, 120.0
"""How long a session without compression may be, without pictures and with them."""

API = "/ws/google.ai.generativelanguage.v1.GenerativeService.BidiGenerateContent"


class GeminiSimulator(HttpService[Session]):
    """Google's Gemini Live service on this machine; use as ``async with``.

    ``brain`` answers: ``echo`` (each turn's sound back), ``local`` (the engine inside, in the size
    ``profile``), ``loopback`` (the client's sound straight back, for measurements), a script or
    its file, or a function that makes a `Realtime` for each session. ``replies`` and
    ``transcripts`` are a script in short. ``faults`` are what goes wrong. ``seed`` makes delays
    come out the same.

    With ``tls`` it has a certificate of an authority made for it: ``ca_pem``, ``ssl_context``.
    ``binary_frames``: messages are sent as binary ones, as the service's. ``audio_pace``: sound is
    sent in bursts, so many times as fast as speech (0: at once). Connections end after
    ``max_connection_s``, told ``go_away_s`` before; sessions after ``max_session_s`` with 1011; in
    s, all divided by ``clock_scale``, and so are the limits of sessions without compression.
    ``transcription_delay`` in s. ``paraphrase``: the model does not say word for word what it is
    told to. With ``keep_audio`` the sessions' ``heard`` have their sound.
    ``resumes_open=False``: a session can't be resumed while an older connection of it is open.
    Raises `ConfigError`, and `MissingExtraError` without the extra ``simulate``.
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
        if audio_pace < 0:
            raise ConfigError(f"audio_pace takes a number from 0, not {audio_pace}")
        self._options = SessionOptions(
            transcription_delay=transcription_delay or self._brain.script.transcription_delay,
            keep_audio=keep_audio,
            loopback=self._brain.loopback,
            paraphrase=paraphrase or self._brain.script.paraphrase,
            audio_pace=audio_pace,
            limits=Limits(
                max_connection_s / clock_scale,
                go_away_s / clock_scale,
                max_session_s / clock_scale,
                AUDIO_S / clock_scale,
                VIDEO_S / clock_scale,
            ),
        )
        self._binary = binary_frames
        self.keys = Keys(key, self._clock)
        self.handles = Handles(
            self._clock, valid_s=VALID_S / clock_scale, exclusive=not resumes_open
        )
        self.ca_pem = b""
        """The certificate that a client is to trust, with ``tls``."""
        self.ssl_context: ssl.SSLContext | None = None
        """For a client, with ``tls``."""
        if tls:
            from duologue.simulator.tls import ThrowAwayCA

            authority = ThrowAwayCA()
            self.ca_pem = authority.pem
            self.ssl_context = authority.client_context()
            self._server_context = authority.server_context()

    def application(self) -> web.Application:
        """Everything that the service answers to."""
        return application(self)

    @property
    def url(self) -> str:
        """The ``base_url`` for a client."""
        scheme = "http" if self._server_context is None else "https"
        return f"{scheme}://{self._named}:{self._port}"

    @property
    def ws_url(self) -> str:
        """The address of the WebSocket."""
        return f"{self.url.replace('http', 'ws', 1)}{API}"

    def go_away(self, session: int = -1, *, time_left: float = 10.0) -> None:
        """Tell a client that its connection ends in so many seconds, and end it then."""
        self.sessions[session].go_away(time_left)

    def send(self, message: Object, session: int = -1) -> None:
        """Send a client a message as it is."""
        self.sessions[session].emit(next(iter(message), ""), message)

    def forget_handles(self) -> None:
        """All handles that were given are stale from now on."""
        self.handles.forget()

    # House: what the doors need

    def socket_line(self, websocket: web.WebSocketResponse, request: web.Request) -> GeminiLine:
        """The line of a new session."""
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the client has gone")
        return GeminiLine(
            websocket, transport, self._plan, self._clock, self._seed, binary=self._binary
        )

    async def hold(self, line: GeminiLine, door: Door) -> None:
        """Hold a session until its end; it counts as one once its setup is good."""
        session = Session(self._brain.make(), door, self.handles, self._options, line, self._clock)
        line.complain = session.complain
        session.taken = line.runner.saw

        def accepted() -> None:
            session.expect(self.expectations())
            self.keep(line, session)

        session.accepted = accepted
        self._open[line] = session
        try:
            await line.serve(session)
        finally:
            self.let_go(line, session)
