"""`OpenAISimulator`: a server on this machine that speaks OpenAI's Realtime protocol."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path

from duologue._optional import optional
from duologue.clock import Clock
from duologue.json_types import Json
from duologue.simulators._backends import BackendFactory, resolve_backend
from duologue.simulators._fault_plan import FaultPlan
from duologue.simulators.faults import Fault
from duologue.simulators.script import Script
from duologue.testing.scripted import Reply

with optional("simulate"):
    from aiohttp import web

    from duologue.simulators._channel import EventChannel
    from duologue.simulators._http_service import HttpService
    from duologue.simulators._openai_protocol.auth import Auth
    from duologue.simulators._openai_protocol.event_session import SessionOptions
    from duologue.simulators._openai_protocol.session_object import OpenAISessionObject
    from duologue.simulators._speech.recognizers import (
        LocalRecognizer,
        Recognizer,
        ScriptedRecognizer,
    )
    from duologue.simulators._speech.voices import Voice, make_voice
    from duologue.simulators._websocket_channel import WebSocketChannel
    from duologue.simulators.openai._routes import application
    from duologue.simulators.openai._rtc_call import RtcCall
    from duologue.simulators.openai._session import OpenAISession
    from duologue.simulators.openai._transcription_session import TranscriptionSession


logger = logging.getLogger(__name__)

DEFAULT_KEY = "sk-simulator"
"""The API key that is valid by default."""


class OpenAISimulator(HttpService[OpenAISession | TranscriptionSession]):
    """OpenAI's Realtime service on this machine, over WebSocket and WebRTC; use as ``async with``.

    It has the speech API of `openai.TTS` too, with a tone or, behind ``local``, the built-in voice.

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
        clock_scale: Divides ``max_session_s``.
        max_session_s: Seconds after which a session ends.
        transcription_delay: Seconds by which transcripts are late.
        paraphrase: The model does not say verbatim text word for word.
        keep_audio: Keep the audio of ``user_turns`` of the sessions.
        unknown_models: Models that the service refuses.
        seed: Makes delays and losses the same in every run.
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
        max_session_s: float = 3600.0,
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
            FaultPlan(faults),
            host=host,
            port=port,
            key=key,
            unknown_models=unknown_models,
            clock_scale=clock_scale,
            seed=seed,
            clock=clock,
        )
        script = self._backend.script
        self._options = SessionOptions(
            transcription_delay=transcription_delay or script.transcription_delay,
            paraphrase=paraphrase or script.paraphrase,
            max_session_s=max_session_s / clock_scale,
            keep_audio=keep_audio,
            loopback=self._backend.loopback,
        )
        self._local = backend == "local"
        self._calls: dict[str, RtcCall] = {}
        self._video_frames = 0
        self.auth = Auth(key, self._clock)

    def application(self) -> web.Application:
        """Return the application with all routes of the service."""
        return application(self)

    @property
    def url(self) -> str:
        """The ``base_url`` for a client."""
        return f"http://{self._url_host}:{self._port}/v1"

    @property
    def ws_url(self) -> str:
        """The URL of the WebSocket, without ``?model=``."""
        return f"ws://{self._url_host}:{self._port}/v1/realtime"

    @property
    def video_frames(self) -> int:
        """Number of video frames received over WebRTC so far."""
        calls = [channel for channel in self._open if isinstance(channel, RtcCall)]
        return self._video_frames + sum(call.peer.video_frames for call in calls)

    # ServiceApi: what the routes need

    def make_session_object(self, model: str, session: Json) -> OpenAISessionObject:
        """Return the session object of a new session.

        Raises:
            RefusedError: The client's session object is wrong.
        """
        configuration = OpenAISessionObject(model, int(time.time() + self._options.max_session_s))
        if session:
            configuration.update(session, has_spoken=False)
        return configuration

    async def run_session(
        self, channel: WebSocketChannel, configuration: OpenAISessionObject
    ) -> None:
        """Run a session until it ends."""
        await self.run_on_channel(channel, self._make_session(channel, configuration))

    async def run_transcription(self, channel: WebSocketChannel) -> None:
        """Run a transcription session until it ends."""
        recognizer: Recognizer = (
            LocalRecognizer()
            if self._local
            else ScriptedRecognizer(self._backend.script.transcripts)
        )
        session = TranscriptionSession(
            channel, self._clock, recognizer, max_session_s=self._options.max_session_s
        )
        await self.run_on_channel(channel, session)

    def make_voice(self, rate: int) -> Voice:
        """Return the voice of the speech API, at ``rate`` Hz."""
        return make_voice("local" if self._local else "script", rate)

    async def start_call(
        self, offer: str, configuration: OpenAISessionObject
    ) -> tuple[RtcCall, str]:
        """Start a call, and return it with the SDP answer.

        Raises:
            PeerError: The offer is unsuitable.
            ValueError: The offer is not SDP.
        """
        call = RtcCall(self._plan, self._clock, self._seed, loopback=self._options.loopback)
        try:
            answer = await call.accept(offer)
        except BaseException:
            call.fault_runner.close()
            await call.hang_up()
            raise
        session = self._make_session(call, configuration)
        self.attach(call, session)
        self._calls[call.id] = call
        if self._tasks is not None:
            self._tasks.create_task(self._serve_call(call, session), name="simulator call")
        return call, answer

    async def hang_up(self, call_id: str) -> bool:
        """End a call; return False if there is no such call."""
        call = self._calls.pop(call_id, None)
        if call is None:
            return False
        await call.hang_up()
        return True

    async def _serve_call(self, call: RtcCall, session: OpenAISession) -> None:
        try:
            await call.serve(session)
        except Exception:
            logger.exception("a simulated call failed; the others continue")
        finally:
            self._calls.pop(call.id, None)
            self._video_frames += call.peer.video_frames
            self.release(call, session)

    def _make_session(
        self, channel: EventChannel, configuration: OpenAISessionObject
    ) -> OpenAISession:
        return OpenAISession(
            self._backend.make(),
            configuration,
            self._options,
            channel,
            self._clock,
            player=channel.output_buffer if isinstance(channel, RtcCall) else None,
            expectations=self.expectations(),
        )

    async def close_channel(self, channel: EventChannel) -> None:
        """Close a channel, because the service stops."""
        if isinstance(channel, RtcCall):
            await channel.hang_up()
        else:
            await super().close_channel(channel)
