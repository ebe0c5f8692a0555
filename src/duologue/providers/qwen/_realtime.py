"""`Realtime` of Qwen Omni: speech to speech, over a WebSocket."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Literal
from urllib.parse import urlsplit

from duologue._net import check_headers
from duologue._optional import import_optional
from duologue.clock import Clock
from duologue.errors import ConfigError
from duologue.json_types import Json
from duologue.providers._jpeg import fit_jpeg
from duologue.providers._validate import check_positive, check_secret
from duologue.providers.qwen._capabilities import capabilities_of
from duologue.providers.qwen._codec import EventSocket, Message, qwen_codec
from duologue.providers.qwen._config import QwenConfig, ServerVAD, Transcription, TurnDetection
from duologue.providers.qwen._endpoints import DEFAULT_REGION, session_url, workspace_and_region
from duologue.providers.qwen._errors import close_error, http_error
from duologue.providers.qwen._keepalive import KeepAlive
from duologue.providers.qwen._models import OUTPUT_RATE
from duologue.providers.qwen._session_json import QwenSession
from duologue.realtime.codec import Connection, SessionSetup, Wire
from duologue.realtime.commands import ToolSpec
from duologue.realtime.observer import SessionObserver
from duologue.realtime.realtime import Realtime as BaseRealtime
from duologue.realtime.reconnect import ReconnectPolicy
from duologue.realtime.wire_connection import WireConnection
from duologue.vad.earshot import EarshotVAD
from duologue.vad.vad import VAD

MAX_JPEG_BYTES = 190_000
"""Maximum bytes of an image: the service accepts 256 KB as base64 (Model Studio, client events)."""
_HOST_VARIABLES = ("DASHSCOPE_WEBSOCKET_BASE_URL", "DASHSCOPE_HTTP_BASE_URL", "DASHSCOPE_BASE_URL")
"""Variables with an address for which the key of Alibaba's SDK or compatible API is valid."""
MAX_IMAGE_SIDE = 1920
"""Maximum of an image's longer side in pixels: the service accepts 1080p."""


class Realtime(BaseRealtime):
    """A speech-to-speech model of the Qwen Omni family.

    ``workspace`` and ``region`` say which gateway it is reached by, ``base_url`` another address
    (``wss://host/api-ws/v1/realtime``); a key is good in one region only. They are read from
    ``DASHSCOPE_WORKSPACE`` and ``DASHSCOPE_REGION`` when not given, ``api_key`` from
    ``DASHSCOPE_API_KEY``. Without a region it is that of the host which Alibaba's SDK is set to use
    (``DASHSCOPE_WEBSOCKET_BASE_URL``, ``DASHSCOPE_HTTP_BASE_URL``, ``DASHSCOPE_BASE_URL``), and
    else ``cn-beijing``. ``video``: ``images`` sends ``fps`` images a second, their longer side at
    most ``longest_side`` pixels, ``off`` none. ``transcription`` None: the history will not have
    the person's words. ``enable_search`` lets the model search the web, and excludes tools.
    ``session`` is merged into the session object deep and last, for what has no argument here
    (``search_options``). ``idle``: what keeps a session open in which nobody speaks, ``silence``
    that is sent, or a ``roll_over`` to a new connection. ``vad`` measures the person's voice for
    barge-in; None uses `EarshotVAD`. ``reconnect`` is `ReconnectPolicy` with its defaults when
    None. Other None are left to the service.

    Raises `ConfigError` for values that can't work, and without a key.
    """

    def __init__(
        self,
        model: str = "qwen3.5-omni-plus-realtime",
        voice: str | None = None,
        *,
        fps: float = 1.0,
        video: Literal["images", "off"] = "images",
        api_key: str | None = None,
        workspace: str | None = None,
        region: str | None = None,
        base_url: str | None = None,
        turn_detection: TurnDetection = ServerVAD(),  # noqa: B008 - frozen
        transcription: Transcription | None = Transcription(),  # noqa: B008 - frozen
        output_rate: int = OUTPUT_RATE,
        temperature: float | None = None,
        top_p: float | None = None,
        top_k: int | None = None,
        max_tokens: int | None = None,
        repetition_penalty: float | None = None,
        presence_penalty: float | None = None,
        seed: int | None = None,
        smooth_output: bool | None = None,
        enable_search: bool = False,
        session: Mapping[str, Json] | None = None,
        longest_side: int = 1280,
        idle: Literal["silence", "roll_over"] = "silence",
        headers: Mapping[str, str] | None = None,
        vad: VAD | None = None,
        reconnect: ReconnectPolicy | None = None,
        clock: Clock | None = None,
    ) -> None:
        check_positive("fps", fps)
        if video not in ("images", "off"):
            raise ConfigError(f"video must be images or off, not {video!r}")
        if idle not in ("silence", "roll_over"):
            raise ConfigError(f"idle must be silence or roll_over, not {idle!r}")
        if not 16 <= longest_side <= MAX_IMAGE_SIDE:
            raise ConfigError(
                f"longest_side must be between 16 and {MAX_IMAGE_SIDE}, not {longest_side}"
            )
        self._config = QwenConfig(
            model=model,
            voice=voice,
            output_rate=output_rate,
            turn_detection=turn_detection,
            transcription=transcription,
            temperature=temperature,
            top_p=top_p,
            top_k=top_k,
            max_tokens=max_tokens,
            repetition_penalty=repetition_penalty,
            presence_penalty=presence_penalty,
            seed=seed,
            smooth_output=smooth_output,
            enable_search=enable_search,
        )
        key = check_secret("api_key", api_key or os.environ.get("DASHSCOPE_API_KEY") or "")
        if not key:
            raise ConfigError("no API key: set DASHSCOPE_API_KEY, or give api_key")
        workspace = workspace or os.environ.get("DASHSCOPE_WORKSPACE")
        region = region or os.environ.get("DASHSCOPE_REGION")
        if base_url is None and region is None:
            known, region = workspace_and_region([os.environ.get(name) for name in _HOST_VARIABLES])
            workspace = workspace or known
        self._url = session_url(model, base_url=base_url, workspace=workspace, region=region)
        self._location = urlsplit(self._url).hostname or self._url
        if base_url is None:
            self._location = f"{region or DEFAULT_REGION} ({self._location})"
        self._headers = {"Authorization": f"Bearer {key}"}
        if workspace:
            self._headers["X-DashScope-WorkSpace"] = workspace
        self._headers.update(check_headers("headers", headers))
        self._session_json = QwenSession(self._config, dict(session or {}))
        self._video = video
        self._longest_side = longest_side
        profile = capabilities_of(self._config, video=video != "off")
        super().__init__(
            profile,
            fps=fps,
            reconnect=reconnect or ReconnectPolicy(),
            clock=clock,
            vad=vad or EarshotVAD("qwen"),
        )
        change = partial(self.roll_over, reason="the service closes quiet sessions")
        self._keepalive = KeepAlive(
            self.clock,
            self.send_audio,
            is_connected=lambda: self.connected,
            roll_over=change if idle == "roll_over" else None,
        )

    async def prepare(self, setup: SessionSetup) -> None:
        """Import the transport's dependencies in a thread.

        Raises:
            MissingExtraError: A package is not installed.
            ConfigError: There are tools besides ``enable_search``.
        """
        self._session_json.build(setup)
        await asyncio.to_thread(import_optional, "websockets.asyncio.client", "qwen")

    async def run(self, setup: SessionSetup, listener: SessionObserver) -> None:
        """Run the session; see `duologue.realtime.Realtime.run`."""
        self._keepalive.start()
        try:
            await super().run(setup, listener)
        finally:
            self._keepalive.close()

    def update_tools(self, tools: Sequence[ToolSpec]) -> None:
        """Change the tools of the session. Raise `ConfigError` besides ``enable_search``."""
        if tools:
            self._session_json.check_tools()
        super().update_tools(tools)

    def open(self, setup: SessionSetup) -> Connection:
        """Make the next connection."""
        encode = partial(fit_jpeg, max_side=self._longest_side, max_bytes=MAX_JPEG_BYTES)
        connection = WireConnection[Message](
            self._websocket_wire,
            qwen_codec(self._session_json),
            setup,
            encode_image=encode if self._video == "images" else None,
            audio_limit_s=self.input_backlog_s,
        )
        return self._keepalive.watch(connection)

    def _websocket_wire(self) -> Wire[Message]:
        return EventSocket(
            self._url,
            headers=self._headers,
            http_error=partial(http_error, where=self._location),
            close_error=partial(close_error, where=self._location),
            extra="qwen",
        )
