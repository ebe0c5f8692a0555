"""`Realtime` of OpenAI: speech to speech, over WebRTC or a WebSocket."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from typing import cast
from urllib.parse import quote

from duologue._net import extend_path, split_address
from duologue.errors import ConfigError
from duologue.providers._jpeg import fit_jpeg
from duologue.providers._openai_protocol.codec import Codec, Message
from duologue.providers._openai_protocol.dialect import Dialect
from duologue.providers._openai_protocol.errors import close_error, http_error
from duologue.providers._openai_protocol.tagged_requests import TaggedRequests
from duologue.providers._openai_protocol.websocket import EventSocket
from duologue.providers._options import takes
from duologue.providers.openai._capabilities import capabilities_of
from duologue.providers.openai._config import RealtimeConfig
from duologue.providers.openai._session_json import OpenAISession
from duologue.realtime import codec as protocols
from duologue.realtime.codec import Connection, SessionSetup, Wire
from duologue.realtime.network import NetworkRealtime
from duologue.realtime.reconnect import ReconnectPolicy
from duologue.realtime.wire_connection import WireConnection
from duologue.vad.earshot import EarshotVAD
from duologue.video import VideoFrame

BASE_URL = "https://api.openai.com/v1"

MAX_JPEG_BYTES = 180_000
"""Size of an image that, as base64, fits into a message of WebRTC's data channel."""


class Realtime(NetworkRealtime[Message]):
    """A speech-to-speech model of OpenAI, or of a server that speaks its protocol.

    The arguments are the fields of `RealtimeConfig`, and are described in docs/providers/openai.md.

    Raises:
        ConfigError: A value is invalid, or there is no key.
        MissingExtraError: ``transport="webrtc"`` without the extra ``webrtc``.
    """

    @takes(RealtimeConfig)
    def __init__(self, config: RealtimeConfig) -> None:
        self._config = config
        key = config.api_key or os.environ.get("OPENAI_API_KEY") or ""
        if isinstance(key, str) and not key.strip():
            raise ConfigError("no API key: set OPENAI_API_KEY, or give api_key")
        is_rtc = config.transport == "webrtc"
        super().__init__(
            capabilities_of(config, video=config.video != "off"),
            base_url=_check_base_url(
                config.base_url or os.environ.get("OPENAI_BASE_URL") or BASE_URL
            ),
            api_key=key,
            headers=config.headers,
            proxy=config.proxy,
            ssl_context=config.ssl_context,
            transport=(
                "duologue.providers._openai_protocol.webrtc"
                if is_rtc
                else "websockets.asyncio.client"
            ),
            extra="openai,webrtc" if is_rtc else "openai",
            fps=config.fps,
            clock=config.clock,
            reconnect=config.reconnect or ReconnectPolicy(),
            vad=config.vad or EarshotVAD("openai"),
        )

    def open(self, setup: SessionSetup) -> Connection:
        """Make the next connection."""
        codec = self.make_codec(setup)
        # The size of a message, and so of an image, is known only once a connection is open.
        images = _ImageEncoder(
            self._config.max_image_side,
            MAX_JPEG_BYTES if self._config.transport == "webrtc" else None,
        )
        return WireConnection[Message](
            partial(self._make_wire, codec, setup, images),
            codec,
            setup,
            encode_image=images.encode if self._config.video == "images" else None,
            audio_limit_s=self.input_backlog_s,
        )

    def make_codec(self, setup: SessionSetup) -> Codec:
        """Make the codec of the next connection."""
        del setup
        return Codec(
            Dialect(
                OpenAISession(self._config),
                requests=TaggedRequests(self._config.output),
                input_rate=self._config.rate,
                output_rate=self._config.rate,
                law=self._config.law,
            ),
            transport=self._config.transport,
            images_kept=self._config.images_kept,
            video_track=self._config.video == "track",
            now=self.unix_time,
        )

    def make_wire(self, codec: protocols.Codec[Message], setup: SessionSetup) -> Wire[Message]:
        """Make the wire of the next connection."""
        images = _ImageEncoder(self._config.max_image_side, None)
        return self._make_wire(cast("Codec", codec), setup, images)

    def _make_wire(self, codec: Codec, setup: SessionSetup, images: _ImageEncoder) -> Wire[Message]:
        if self._config.transport == "websocket":
            query = f"model={quote(self._config.model, safe='')}"
            return EventSocket(
                "ws" + self._url("/realtime", query).removeprefix("http"),
                headers=self.make_headers,
                http_error=http_error,
                close_error=close_error,
                proxy=self.proxy,
                ssl_context=self.ssl_context,
                extra="openai",
                on_server_time=codec.set_server_time,
            )
        from duologue.providers._openai_protocol.webrtc import WebRTCWire

        return WebRTCWire(
            self._url("/realtime/calls"),
            headers=self.make_headers,
            session=OpenAISession(self._config).build(setup),
            video=self._config.video == "track",
            ice_servers=tuple(self._config.ice_servers),
            proxy=self.proxy,
            ssl_context=self.ssl_context,
            on_message_limit=images.set_message_limit,
            on_server_time=codec.set_server_time,
            clock=self.clock,
        )

    def _url(self, path: str, query: str = "") -> str:
        return extend_path(self.base_url, path, query)


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
