"""`Realtime` of OpenAI: speech to speech, over WebRTC or a WebSocket."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal
from urllib.parse import quote, urlsplit, urlunsplit

from duologue._net import check_headers, split_address
from duologue._optional import import_optional
from duologue.clock import Clock
from duologue.errors import ConfigError
from duologue.json_types import Json
from duologue.providers._jpeg import fit_jpeg
from duologue.providers._openai_protocol.codec import Codec, Message
from duologue.providers._openai_protocol.dialect import Dialect, Transport
from duologue.providers._openai_protocol.errors import close_error, http_error
from duologue.providers._openai_protocol.websocket import EventSocket
from duologue.providers._validate import check_positive, check_secret
from duologue.providers.openai._capabilities import capabilities_of
from duologue.providers.openai._config import (
    CustomVoice,
    Effort,
    NoiseReduction,
    RealtimeConfig,
    ServerVAD,
    Transcription,
    Truncation,
    TurnDetection,
)
from duologue.providers.openai._session_json import OpenAISession
from duologue.realtime.codec import Connection, SessionSetup, Wire
from duologue.realtime.realtime import Realtime as BaseRealtime
from duologue.realtime.reconnect import ReconnectPolicy
from duologue.realtime.wire_connection import WireConnection
from duologue.rtc.config import IceServer
from duologue.vad.earshot import EarshotVAD
from duologue.vad.vad import VAD
from duologue.video import VideoFrame

BASE_URL = "https://api.openai.com/v1"

MAX_JPEG_BYTES = 180_000
"""Size of an image that, as base64, fits into a message of WebRTC's data channel."""


class Realtime(BaseRealtime):
    """A speech-to-speech model of OpenAI, or of a server that speaks its protocol.

    ``transport``: ``webrtc`` (sound by RTP, made for lossy networks) or ``websocket``. ``video``:
    ``images`` sends ``fps`` pictures a second, ``off`` none; ``pictures_kept`` of them stay in the
    conversation, their longer side at most ``longest_side`` pixels. ``api_key`` and ``base_url``
    are read from ``OPENAI_API_KEY`` and ``OPENAI_BASE_URL`` when not given. ``transcription`` None:
    the history will not have the person's words. ``session`` is merged into the session object deep
    and last, for what has no argument here (``prompt``, ``tracing``). ``vad`` measures the person's
    voice for barge-in; None uses `EarshotVAD`. ``reconnect`` is `ReconnectPolicy` with its defaults
    when None. Other None are left to the server.

    Raises `ConfigError` for values that can't work, and without a key.
    """

    def __init__(
        self,
        model: str = "gpt-realtime-2.1",
        voice: str | CustomVoice = "marin",
        *,
        transport: Transport = "webrtc",
        video: Literal["images", "track", "off"] = "images",
        fps: float = 1.0,
        api_key: str | None = None,
        base_url: str | None = None,
        turn_detection: TurnDetection = ServerVAD(),  # noqa: B008 - frozen
        transcription: Transcription | None = Transcription(),  # noqa: B008 - frozen
        noise_reduction: NoiseReduction | None = None,
        speed: float | None = None,
        reasoning_effort: Effort | None = None,
        max_output_tokens: int | str | None = None,
        tool_choice: str | None = None,
        truncation: Truncation | None = None,
        parallel_tool_calls: bool | None = None,
        session: Mapping[str, Json] | None = None,
        pictures_kept: int = 20,
        longest_side: int = 1024,
        headers: Mapping[str, str] | None = None,
        ice_servers: Sequence[IceServer] = (),
        vad: VAD | None = None,
        reconnect: ReconnectPolicy | None = None,
        clock: Clock | None = None,
    ) -> None:
        if transport not in ("webrtc", "websocket"):
            raise ConfigError(f"transport must be webrtc or websocket, not {transport!r}")
        check_positive("fps", fps)
        if video not in ("images", "track", "off"):
            raise ConfigError(f"video must be images, track or off, not {video!r}")
        if video == "track" and transport != "webrtc":
            raise ConfigError("a video track needs transport='webrtc'; 'images' works with both")
        if pictures_kept < 1 or longest_side < 16:
            raise ConfigError("pictures_kept must be 1 or more, longest_side 16 or more")
        self._config = RealtimeConfig(
            model=model,
            voice=voice,
            turn_detection=turn_detection,
            transcription=transcription,
            noise_reduction=noise_reduction,
            speed=speed,
            reasoning_effort=reasoning_effort,
            max_output_tokens=max_output_tokens,
            tool_choice=tool_choice,
            truncation=truncation,
            parallel_tool_calls=parallel_tool_calls,
        )
        key = check_secret("api_key", api_key or os.environ.get("OPENAI_API_KEY") or "")
        if not key:
            raise ConfigError("no API key: set OPENAI_API_KEY, or give api_key")
        own = check_headers("headers", headers)
        self._headers = {"Authorization": f"Bearer {key}", **own}
        self._base_url = _check_base_url(base_url or os.environ.get("OPENAI_BASE_URL") or BASE_URL)
        self._transport: Transport = transport
        self._extra = dict(session or {})
        self._video = video
        self._images_kept = pictures_kept
        self._longest_side = longest_side
        self._ice_servers = tuple(ice_servers)
        profile = capabilities_of(self._config, video=video != "off")
        super().__init__(
            profile,
            fps=fps,
            reconnect=reconnect or ReconnectPolicy(),
            clock=clock,
            vad=vad or EarshotVAD("openai"),
        )

    async def prepare(self, setup: SessionSetup) -> None:
        """Import the transport's dependencies in a thread.

        Raises:
            MissingExtraError: A package is not installed.
        """
        rtc = self._transport == "webrtc"
        module = (
            "duologue.providers._openai_protocol.webrtc" if rtc else "websockets.asyncio.client"
        )
        await asyncio.to_thread(import_optional, module, "openai")

    def open(self, setup: SessionSetup) -> Connection:
        """Make the next connection."""
        builder = OpenAISession(self._config, self._transport, self._extra)
        codec = Codec(
            Dialect(builder),
            transport=self._transport,
            images_kept=self._images_kept,
            video_track=self._video == "track",
        )
        rtc = self._transport == "webrtc"
        images = _ImageEncoder(self._longest_side, MAX_JPEG_BYTES if rtc else None)
        connect = (
            partial(self._webrtc_wire, builder.build(setup), images, codec)
            if rtc
            else partial(self._websocket_wire, codec)
        )
        encode = images.encode if self._video == "images" else None
        return WireConnection[Message](
            connect,
            codec,
            setup,
            encode_image=encode,
            audio_limit_s=self.input_backlog_s,
        )

    def _webrtc_wire(
        self, session: Mapping[str, Json], images: _ImageEncoder, codec: Codec
    ) -> Wire[Message]:
        from duologue.providers._openai_protocol.webrtc import WebRTCWire

        return WebRTCWire(
            self._url("/realtime/calls"),
            headers=self._headers,
            session=session,
            video=self._video == "track",
            ice_servers=self._ice_servers,
            on_message_limit=images.set_message_limit,
            on_server_time=codec.set_server_time,
            clock=self.clock,
        )

    def _websocket_wire(self, codec: Codec) -> Wire[Message]:
        query = f"model={quote(self._config.model, safe='')}"
        address = self._url("/realtime", query)
        return EventSocket(
            "ws" + address.removeprefix("http"),
            headers=self._headers,
            http_error=http_error,
            close_error=close_error,
            extra="openai",
            on_server_time=codec.set_server_time,
        )

    def _url(self, path: str, query: str = "") -> str:
        base = urlsplit(self._base_url)
        query = "&".join(filter(None, (base.query, query)))
        return urlunsplit((base.scheme, base.netloc, base.path.rstrip("/") + path, query, ""))


@dataclass(slots=True)
class _ImageEncoder:
    """Encodes the images of one connection."""

    max_side: int
    max_bytes: int | None

    def set_message_limit(self, limit: int) -> None:
        """Set the size of a message, in bytes: base64 makes three bytes four, and an event
        surrounds it.
        """
        self.max_bytes = min(MAX_JPEG_BYTES, max(limit * 3 // 4 - 1024, 1))

    def encode(self, frame: VideoFrame) -> bytes:
        """Encode an image that fits."""
        return fit_jpeg(frame, max_side=self.max_side, max_bytes=self.max_bytes)


def _check_base_url(base_url: str) -> str:
    address = split_address("base_url", base_url, ("http", "https"), BASE_URL)
    if address.fragment:
        raise ConfigError("base_url must have no fragment: leave out the # and what follows it")
    return base_url
