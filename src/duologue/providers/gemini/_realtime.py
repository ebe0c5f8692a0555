"""Gemini Live over a WebSocket."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import cast

from duologue.errors import ErrorKind, SessionError, UnsupportedError
from duologue.providers._options import takes
from duologue.providers.gemini._auth import resolve_auth
from duologue.providers.gemini._capabilities import capabilities_of
from duologue.providers.gemini._codec import Codec
from duologue.providers.gemini._config import LiveConfig, Resolution
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
from duologue.realtime import codec as protocols
from duologue.realtime.codec import SessionSetup, Wire
from duologue.realtime.commands import CancelReply
from duologue.realtime.network import NetworkRealtime
from duologue.realtime.reconnect import ReconnectPolicy
from duologue.realtime.websocket import WebSocketWire
from duologue.realtime.wire_connection import WireConnection
from duologue.vad.earshot import EarshotVAD
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


class Realtime(NetworkRealtime[bytes]):
    """A Gemini model that takes audio and images and speaks, on the Gemini API or Vertex AI.

    The arguments are the fields of `LiveConfig`, and are described in docs/providers/gemini.md.

    Raises:
        ConfigError: a value cannot work, or there is no key.
    """

    @takes(LiveConfig)
    def __init__(self, config: LiveConfig) -> None:
        self._config = config
        uses_alpha = config.affective_dialog or config.proactivity is not None
        self._auth = resolve_auth(
            api_key=config.api_key,
            token=config.token,
            vertex=config.vertex,
            base_url=config.base_url,
            api_version=config.api_version,
            needs_alpha=uses_alpha and model_traits(config.model).alpha,
            proxy=config.proxy,
            ssl_context=config.ssl_context,
        )
        check_extra(config.extra or {})
        self._scene = SceneChangeDetector() if config.skip_unchanged else None
        self._scene_connection: object = None
        """The connection that the last image was sent on."""
        self.skipped_images = 0
        """Images that were not sent because they showed nothing new."""
        capabilities = capabilities_of(
            config,
            video=config.video != "off",
            report_truncation=config.report_truncation,
            vertex=config.vertex is not None,
        )
        max_side = _MAX_IMAGE_SIDES[config.media_resolution]
        super().__init__(
            capabilities,
            base_url=self._auth.base_url,
            api_key=config.api_key if callable(config.api_key) else "",
            headers=config.headers,
            proxy=config.proxy,
            ssl_context=config.ssl_context,
            encode_image=partial(encode_jpeg, max_side=max_side),
            extra="gemini",
            fps=config.fps,
            clock=config.clock,
            reconnect=config.reconnect or ReconnectPolicy(),
            vad=config.vad or EarshotVAD("gemini"),
        )
        if capabilities.manual_turns:
            self.use_manual_turns()
        self._refused_count = 0
        self._resumption = Resumption(self.history)

    async def prepare(self, setup: SessionSetup) -> None:
        """Import what the transport needs, in a thread.

        Raises:
            MissingExtraError: a dependency is not installed.
        """
        await super().prepare(setup)
        await asyncio.to_thread(self._auth.prepare)

    async def check(self, setup: SessionSetup) -> SessionError | None:
        """Connect once and disconnect; see `Realtime.check`."""
        try:
            return await super().check(setup)
        finally:
            # A conversation must not resume the session of the check.
            self._resumption.forget()

    def make_codec(self, setup: SessionSetup) -> Codec:
        """Make the codec of the next connection."""
        del setup
        return Codec(
            self._config,
            self._resumption,
            model=self._auth.resource_name(self._config.model),
            report_truncation=self._config.report_truncation,
            transparent=self._config.vertex is not None,
        )

    def make_wire(self, codec: protocols.Codec[bytes], setup: SessionSetup) -> Wire[bytes]:
        """Make the wire of the next connection."""
        del setup
        return WebSocketWire(
            self._auth.url,
            headers=self.make_headers,
            http_error=http_error,
            close_error=partial(self._closed, cast("Codec", codec), self.clock.now()),
            proxy=self.proxy,
            ssl_context=self.ssl_context,
            extra="gemini",
            ping_interval=PING_INTERVAL_S,
            pong_timeout=PONG_TIMEOUT_S,
            ack_timeout=ACK_TIMEOUT_S,
        )

    async def make_headers(self) -> Mapping[str, str]:
        """Return the headers of the next connection: the key or token, and ``headers``."""
        if callable(self._config.api_key):
            credentials: Mapping[str, str] = {"x-goog-api-key": await self.find_key()}
        else:
            credentials = await self._auth.headers()
        return {**credentials, **self.headers}

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
        if self.capabilities.manual_turns:
            self._transmit_directly(CancelReply(""))
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

    def _closed(self, codec: Codec, opened: float, code: int, reason: str) -> SessionError:
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
