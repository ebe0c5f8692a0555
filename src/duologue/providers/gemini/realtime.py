"""`Realtime` of Google: Gemini Live over a WebSocket."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Literal

from duologue.clock import Clock
from duologue.extras import require
from duologue.items import Json
from duologue.pipeline.earshot_vad import EarshotVAD
from duologue.pipeline.parts import VAD
from duologue.providers.checks import one_of, rate
from duologue.providers.gemini.access import access_of
from duologue.providers.gemini.codec import Codec
from duologue.providers.gemini.config import (
    AutomaticActivity,
    Compression,
    LiveConfig,
    Proactivity,
    Resolution,
    Thinking,
    Transcription,
    TurnDetection,
)
from duologue.providers.gemini.errors import (
    close_error,
    context_full,
    hopeless,
    http_error,
    resumption_refused,
)
from duologue.providers.gemini.models import traits_of
from duologue.providers.gemini.profile import profile_of
from duologue.providers.gemini.resumption import Resumption
from duologue.providers.gemini.setup_json import check_extra
from duologue.providers.gemini.vertex import Vertex
from duologue.providers.websocket import WebSocketWire
from duologue.realtime.codec import Connection, SessionSetup
from duologue.realtime.commands import CancelReply
from duologue.realtime.errors import ConfigError, ErrorKind, SessionError, UnsupportedError
from duologue.realtime.life import Link
from duologue.realtime.reconnect import ReconnectPolicy
from duologue.realtime.session import Realtime as BaseRealtime
from duologue.realtime.wire_connection import WireConnection
from duologue.video import SceneChange, VideoFrame, encode_jpeg

PING_EVERY_S = 20.0
PONG_S = 60.0
"""Google's servers take up to half a minute to answer a ping of a connection that is well."""
ACKNOWLEDGED_S = 8.0
"""A dead line is noticed by this instead, as long as there is sound to send."""
_SOON_S = 20.0
"""A session that was resumed and is ended within so many seconds has reached a limit of its own."""
_MOST_REFUSED = 3
"""So often a session goes on that the service has ended for something that it was sent."""
_SPARE_S = 5.0
"""Sound that may wait for a slow connection beyond what is kept for a new one, in seconds."""
_SIDES: Mapping[Resolution | None, int] = {None: 768, "low": 384, "medium": 768, "high": 1024}
"""Longer side of a picture in pixels: a tile of Gemini's is 768 wide, ``low`` has a quarter."""


class Realtime(BaseRealtime):
    """A Gemini model that hears, sees and speaks, on the Gemini API or on Vertex AI.

    ``api_key`` is read from ``GEMINI_API_KEY`` or ``GOOGLE_API_KEY`` when not given; instead of it
    ``token`` is an ephemeral one, or ``vertex`` a Google Cloud project. ``language`` is BCP 47.
    ``video``: ``images`` sends ``fps`` pictures a second, scaled to what ``media_resolution`` uses;
    with ``skip_unchanged`` only those that differ, but one in 10 s. ``turn_detection`` is the
    server's; ``vad`` finds here, sooner, when the person speaks (None takes `EarshotVAD`).
    ``tell_cuts``: the model is told in words what of its messages was not heard.
    ``input_transcription`` None: the history will not have the person's words. ``compression``
    None: the service ends a session after 15 minutes, with video after 2, and the next one is given
    the history. ``labels`` are of the Gemini API.
    ``config`` is merged into the setup deep and last, for what has no argument here
    (``safetySettings``, ``{"tools": [{"googleSearch": {}}]}``).
    ``reconnect`` is `ReconnectPolicy` with its defaults when None. Other None are left to the
    server.

    Raises `ConfigError` for values that can't work, and without a key.
    """

    def __init__(
        self,
        model: str = "gemini-3.8-live",
        voice: str | None = None,
        *,
        video: Literal["images", "off"] = "images",
        fps: float = 1.0,
        media_resolution: Resolution | None = None,
        skip_unchanged: bool = False,
        language: str | None = None,
        turn_detection: TurnDetection = AutomaticActivity(),  # noqa: B008 - frozen
        input_transcription: Transcription | None = Transcription(),  # noqa: B008 - frozen
        output_transcription: Transcription | None = Transcription(),  # noqa: B008 - frozen
        thinking: Thinking | None = None,
        proactivity: Proactivity | None = None,
        affective_dialog: bool = False,
        compression: Compression | None = Compression(),  # noqa: B008 - frozen
        temperature: float | None = None,
        top_p: float | None = None,
        top_k: int | None = None,
        max_output_tokens: int | None = None,
        seed: int | None = None,
        labels: Mapping[str, str] | None = None,
        tell_cuts: bool = True,
        vad: VAD | None = None,
        api_key: str | None = None,
        token: str | None = None,
        vertex: Vertex | None = None,
        base_url: str | None = None,
        api_version: str | None = None,
        config: Mapping[str, Json] | None = None,
        reconnect: ReconnectPolicy | None = None,
        clock: Clock | None = None,
    ) -> None:
        one_of("video", video, ("images", "off"))
        rate("fps", fps)
        self._config = LiveConfig(
            model=model,
            voice=voice,
            language=language,
            media_resolution=media_resolution,
            turn_detection=turn_detection,
            input_transcription=input_transcription,
            output_transcription=output_transcription,
            thinking=thinking,
            proactivity=proactivity,
            affective_dialog=affective_dialog,
            compression=compression,
            temperature=temperature,
            top_p=top_p,
            top_k=top_k,
            max_output_tokens=max_output_tokens,
            seed=seed,
            labels=labels or {},
        )
        asks_alpha = affective_dialog or proactivity is not None
        self._access = access_of(
            api_key=api_key,
            token=token,
            vertex=vertex,
            base_url=base_url,
            api_version=api_version,
            alpha=asks_alpha and traits_of(model).alpha,
        )
        self._vertex = vertex is not None
        if self._vertex and labels:
            raise ConfigError("Vertex AI takes no labels: leave them out")
        self._extra = dict(config or {})
        check_extra(self._extra)
        self._tell_cuts = tell_cuts
        self._longest_side = _SIDES[media_resolution]
        self._scene = SceneChange() if skip_unchanged else None
        self._scene_of: object = None
        """The connection that has seen the scene."""
        self.skipped_video = 0
        """Pictures that were not sent because they showed nothing new."""
        profile = profile_of(
            self._config, video=video != "off", told_cuts=tell_cuts, vertex=self._vertex
        )
        super().__init__(
            profile,
            fps=fps,
            reconnect=reconnect or ReconnectPolicy(),
            clock=clock,
            vad=vad or EarshotVAD("gemini"),
        )
        if profile.manual_turns:
            self._policy.person.program_ends_turns()
        self._refused = 0
        self._resumption = Resumption(lambda: self._policy.setup().history)

    async def prepare(self, setup: SessionSetup) -> None:
        """Import what the transport needs, in a thread; raises `MissingExtraError`."""
        await asyncio.to_thread(require, "websockets.asyncio.client", "gemini")
        await asyncio.to_thread(self._access.prepare)

    def open(self, setup: SessionSetup) -> Connection:
        """Make the next connection."""
        codec = Codec(
            self._config,
            self._resumption,
            model=self._access.model(self._config.model),
            told_cuts=self._tell_cuts,
            transparent=self._vertex,
            extra=self._extra,
        )
        return WireConnection[bytes](
            lambda: WebSocketWire(
                self._access.url,
                headers=self._access.headers,
                refused=http_error,
                closed=partial(self._closed, codec, self.clock.now()),
                extra="gemini",
                ping_every=PING_EVERY_S,
                pong_within=PONG_S,
                acknowledged_within=ACKNOWLEDGED_S,
            ),
            codec,
            setup,
            encode_picture=partial(encode_jpeg, longest=self._longest_side),
            audio_limit_s=self._policy.person.keep_s + _SPARE_S,
        )

    def send_video(self, frame: VideoFrame, *, now: bool = False) -> None:
        """As `Realtime.send_video`; a picture that shows nothing new may be left out."""
        scene, link = self._scene, self._policy.life.link
        if scene is not None and link is not None and self.profile.video:
            if link is not self._scene_of:
                scene.forget()  # The next connection may know nothing of it.
                self._scene_of = link
            if not scene.changed(frame, self.clock.now()) and not now:
                self.skipped_video += 1
                return
        super().send_video(frame, now=now)

    def interrupt(self, *, keep_results: bool = False) -> int:
        """As `Realtime.interrupt`; with `ManualTurns` the person's turn begins, whatever runs."""
        epoch = super().interrupt(keep_results=keep_results)
        if self.profile.manual_turns and self._policy.live:
            self._policy.transmit(CancelReply(""))
        return epoch

    def end_turn(self, *, reply: bool = True) -> None:
        """As `Realtime.end_turn`; raises `UnsupportedError` without ``reply``.

        Does nothing while the turn that was ended before waits for its answer.
        """
        if not reply:
            raise UnsupportedError(f"{self.profile.model} answers every turn that was ended")
        match self._policy.life.link:
            case Link(connection=WireConnection(codec=Codec(awaits_answer=True))):
                return
        super().end_turn()

    def _closed(self, codec: Codec, opened: float, code: int, reason: str) -> SessionError:
        error = close_error(code, reason)
        refused = resumption_refused(code, reason)
        if codec.resuming and code == 1011 and self.connected and not self.one_at_a_time:
            # Reported of the service: it does not resume what another connection still holds.
            self.one_at_a_time = True
        elif codec.resuming and refused:
            # It does not know the handle (any more): a new session is given the history instead.
            self._resumption.forget()
            error.kind = ErrorKind.RECYCLE
        elif context_full(reason) or (
            codec.restored and refused and self.clock.now() - opened < _SOON_S
        ):
            # The session itself is over, and would be again.
            self._resumption.forget()
        if error.kind is ErrorKind.FATAL and codec.started and not hopeless(reason):
            # Reported of sessions that were well, after results of tools and after changes of the
            # connection: they go on by another one.
            self._refused += 1
            if self._refused <= _MOST_REFUSED:
                error.kind = ErrorKind.RECYCLE
        return error
