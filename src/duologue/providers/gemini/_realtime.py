"""Gemini Live over a WebSocket."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Literal

from duologue._optional import import_optional
from duologue.clock import Clock
from duologue.errors import ConfigError, ErrorKind, SessionError, UnsupportedError
from duologue.json_types import Json
from duologue.providers._validate import check_choice, check_positive
from duologue.providers.gemini._auth import resolve_auth
from duologue.providers.gemini._capabilities import capabilities_of
from duologue.providers.gemini._codec import Codec
from duologue.providers.gemini._config import (
    AutomaticActivity,
    Compression,
    LiveConfig,
    Proactivity,
    Resolution,
    Thinking,
    Transcription,
    TurnDetection,
)
from duologue.providers.gemini._errors import (
    close_error,
    http_error,
    is_context_full,
    is_permanent,
    is_resumption_refused,
)
from duologue.providers.gemini._models import model_traits
from duologue.providers.gemini._resumption import Resumption
from duologue.providers.gemini._setup_json import check_extra
from duologue.providers.gemini._vertex import Vertex
from duologue.realtime.codec import Connection, SessionSetup
from duologue.realtime.commands import CancelReply
from duologue.realtime.realtime import Realtime as BaseRealtime
from duologue.realtime.reconnect import ReconnectPolicy
from duologue.realtime.websocket import WebSocketWire
from duologue.realtime.wire_connection import WireConnection
from duologue.vad.earshot import EarshotVAD
from duologue.vad.vad import VAD
from duologue.video import SceneChangeDetector, VideoFrame, encode_jpeg

PING_INTERVAL_S = 20.0
PONG_TIMEOUT_S = 60.0
"""Google's servers take up to 30 s to answer a ping on a working connection."""
ACK_TIMEOUT_S = 8.0
"""Seconds without an acknowledgement of sent data after which a connection is dead."""
_MIN_RESUMED_S = 20.0
"""A resumed session that ends within this many seconds has reached a limit of its own."""
_MAX_REFUSED = 3
"""How often a session reconnects after the service refused something that it was sent."""
_MAX_IMAGE_SIDES: Mapping[Resolution | None, int] = {
    None: 768,
    "low": 384,
    "medium": 768,
    "high": 1024,
}
"""Longer side of an image in pixels: a tile of Gemini's is 768 wide, ``low`` uses a quarter."""


class Realtime(BaseRealtime):
    """A Gemini model that takes audio and images and speaks, on the Gemini API or Vertex AI.

    Give one of ``api_key``, ``token`` and ``vertex``. None leaves an option to the server unless
    the list says otherwise.

    Args:
        model: Name of the model.
        voice: Name of a voice.
        video: ``images`` sends camera images as JPEG, ``off`` sends none.
        fps: Images a second.
        media_resolution: How much detail of an image the model sees; images are scaled to what it
            uses.
        skip_unchanged: Send only images that differ from the last one, but one every 10 s.
        language: BCP 47 code of the language that the model speaks.
        turn_detection: `AutomaticActivity` (the server ends turns) or `ManualTurns`.
        input_transcription: Hints for the transcripts of the user. None switches them off, and the
            history then lacks the user's words.
        output_transcription: Hints for the transcripts of the model. None switches them off.
        thinking: How much the model thinks before it speaks.
        proactivity: Let the model ignore input that is not meant for it.
        affective_dialog: Let the model adapt its voice to the person's.
        compression: How the service shortens a long context. With None it ends a session after 15
            minutes, with video after 2, and the next session is given the history.
        temperature: 0 to 2.
        top_p: 0 to 1.
        top_k: 1 to 1000.
        max_output_tokens: Tokens of one reply at most.
        seed: Seed of the sampling.
        labels: Labels for billing; the Gemini API only.
        report_truncation: Tell the model in text what the person did not hear of its messages.
        vad: Detects speech locally, sooner than the server; None uses `EarshotVAD`.
        api_key: Key of the Gemini API; by default from ``GEMINI_API_KEY`` or ``GOOGLE_API_KEY``.
        token: Ephemeral token of the Gemini API.
        vertex: Google Cloud project; the session then uses Vertex AI.
        base_url: Address of the service; None uses the environment's, then Google's.
        api_version: Version of the API; None chooses it.
        config: JSON merged into the setup, deep and last, for what has no option here
            (``safetySettings``, ``{"tools": [{"googleSearch": {}}]}``).
        reconnect: How to reconnect; None uses `ReconnectPolicy` with its defaults.
        clock: Source of time.

    Raises:
        ConfigError: a value cannot work, or there is no key.
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
        report_truncation: bool = True,
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
        check_choice("video", video, ("images", "off"))
        check_positive("fps", fps)
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
        self._auth = resolve_auth(
            api_key=api_key,
            token=token,
            vertex=vertex,
            base_url=base_url,
            api_version=api_version,
            needs_alpha=asks_alpha and model_traits(model).alpha,
        )
        self._vertex = vertex is not None
        if self._vertex and labels:
            raise ConfigError("Vertex AI does not support labels: leave them out")
        self._extra = dict(config or {})
        check_extra(self._extra)
        self._report_truncation = report_truncation
        self._max_image_side = _MAX_IMAGE_SIDES[media_resolution]
        self._scene = SceneChangeDetector() if skip_unchanged else None
        self._scene_connection: object = None
        """The connection that the last image was sent on."""
        self.skipped_images = 0
        """Images that were not sent because they showed nothing new."""
        profile = capabilities_of(
            self._config,
            video=video != "off",
            report_truncation=report_truncation,
            vertex=self._vertex,
        )
        super().__init__(
            profile,
            fps=fps,
            reconnect=reconnect or ReconnectPolicy(),
            clock=clock,
            vad=vad or EarshotVAD("gemini"),
        )
        if profile.manual_turns:
            self.use_manual_turns()
        self._refused_count = 0
        self._resumption = Resumption(self.history)

    async def prepare(self, setup: SessionSetup) -> None:
        """Import what the transport needs, in a thread.

        Raises:
            MissingExtraError: a dependency is not installed.
        """
        await asyncio.to_thread(import_optional, "websockets.asyncio.client", "gemini")
        await asyncio.to_thread(self._auth.prepare)

    def open(self, setup: SessionSetup) -> Connection:
        """Return the next connection."""
        codec = Codec(
            self._config,
            self._resumption,
            model=self._auth.resource_name(self._config.model),
            report_truncation=self._report_truncation,
            transparent=self._vertex,
            extra=self._extra,
        )
        return WireConnection[bytes](
            lambda: WebSocketWire(
                self._auth.url,
                headers=self._auth.headers,
                http_error=http_error,
                close_error=partial(self._close_error, codec, self.clock.now()),
                extra="gemini",
                ping_interval=PING_INTERVAL_S,
                pong_timeout=PONG_TIMEOUT_S,
                ack_timeout=ACK_TIMEOUT_S,
            ),
            codec,
            setup,
            encode_image=partial(encode_jpeg, max_side=self._max_image_side),
            audio_limit_s=self.input_backlog_s,
        )

    def send_video(self, frame: VideoFrame, *, in_order: bool = False) -> None:
        """Send a camera image as `Realtime.send_video` does, or skip it if it shows nothing new."""
        scene, connection = self._scene, self.connection
        if scene is not None and connection is not None and self.capabilities.video:
            if connection is not self._scene_connection:
                scene.reset()  # The next connection may not have seen the last image.
                self._scene_connection = connection
            if not scene.has_changed(frame, self.clock.now()) and not in_order:
                self.skipped_images += 1
                return
        super().send_video(frame, in_order=in_order)

    def interrupt(self, *, keep_results: bool = False) -> int:
        """Interrupt as `Realtime.interrupt` does; `ManualTurns` also begins a user turn."""
        epoch = super().interrupt(keep_results=keep_results)
        if self.capabilities.manual_turns and self.connection is not None:
            self.connection.transmit(CancelReply(""))
        return epoch

    def end_turn(self, *, reply: bool = True) -> None:
        """End the user turn as `Realtime.end_turn` does.

        Does nothing while the reply to the previous turn is awaited.

        Raises:
            UnsupportedError: ``reply`` is False, because the model replies to every turn.
        """
        if not reply:
            raise UnsupportedError(f"{self.capabilities.model} replies to every turn that is ended")
        match self.connection:
            case WireConnection(codec=Codec(awaits_reply=True)):
                return
        super().end_turn()

    def _close_error(self, codec: Codec, opened: float, code: int, reason: str) -> SessionError:
        error = close_error(code, reason)
        refused = is_resumption_refused(code, reason)
        if (
            codec.awaits_resumption
            and code == 1011
            and self.connected
            and not self.single_connection
        ):
            # Seen in practice: the service does not resume a session that another connection holds.
            self.single_connection = True
        elif codec.awaits_resumption and refused:
            # The server does not know the handle (any more): start a new session with the history.
            self._resumption.forget()
            error.kind = ErrorKind.RECYCLE
        elif is_context_full(reason) or (
            codec.resumes_session and refused and self.clock.now() - opened < _MIN_RESUMED_S
        ):
            # The session itself has ended, and would end again if it were resumed.
            self._resumption.forget()
        if error.kind is ErrorKind.FATAL and codec.is_started and not is_permanent(reason):
            # Seen in practice on healthy sessions, after tool results and after changes of the
            # connection:
            # another connection works.
            self._refused_count += 1
            if self._refused_count <= _MAX_REFUSED:
                error.kind = ErrorKind.RECYCLE
        return error
