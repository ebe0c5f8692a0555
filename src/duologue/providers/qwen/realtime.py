"""`Realtime` of Qwen Omni: speech to speech, over a WebSocket."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Literal
from urllib.parse import urlsplit

from duologue.clock import Clock
from duologue.extras import require
from duologue.items import Json
from duologue.pipeline.earshot_vad import EarshotVAD
from duologue.pipeline.parts import VAD
from duologue.providers.addresses import checked_headers
from duologue.providers.checks import rate, secret
from duologue.providers.jpeg import fitting_jpeg
from duologue.providers.qwen.codec import EventSocket, Message, qwen_codec
from duologue.providers.qwen.config import QwenConfig, ServerVAD, Transcription, TurnDetection
from duologue.providers.qwen.errors import close_error, http_error
from duologue.providers.qwen.hosts import DEFAULT_REGION, place_of, session_url
from duologue.providers.qwen.idle import Idle
from duologue.providers.qwen.models import OUTPUT_RATE
from duologue.providers.qwen.profile import profile_of
from duologue.providers.qwen.session_json import QwenSession
from duologue.realtime.codec import Connection, SessionSetup, Wire
from duologue.realtime.commands import ToolSpec
from duologue.realtime.errors import ConfigError
from duologue.realtime.listener import Listener
from duologue.realtime.reconnect import ReconnectPolicy
from duologue.realtime.session import Realtime as BaseRealtime
from duologue.realtime.wire_connection import WireConnection

MOST_JPEG = 190_000
"""Bytes of a picture: the service takes 256 KB as base64 (Model Studio, client events)."""
_HOSTS = ("DASHSCOPE_WEBSOCKET_BASE_URL", "DASHSCOPE_HTTP_BASE_URL", "DASHSCOPE_BASE_URL")
"""Variables with the address for which the key of Alibaba's SDK or compatible API is valid."""
MOST_PIXELS = 1920
"""The longer side of a picture at most: the service takes 1080p."""

_SPARE_S = 5.0
"""Sound that may wait for a slow connection beyond what is kept for a new one, in seconds."""


class Realtime(BaseRealtime):
    """A speech-to-speech model of the Qwen Omni family.

    ``workspace`` and ``region`` say which gateway it is reached by, ``base_url`` another address
    (``wss://host/api-ws/v1/realtime``); a key is good in one region only. They are read from
    ``DASHSCOPE_WORKSPACE`` and ``DASHSCOPE_REGION`` when not given, ``api_key`` from
    ``DASHSCOPE_API_KEY``. Without a region it is that of the host which Alibaba's SDK is set to
    use (``DASHSCOPE_WEBSOCKET_BASE_URL``, ``DASHSCOPE_HTTP_BASE_URL``, ``DASHSCOPE_BASE_URL``), and
    else ``cn-beijing``. ``video``: ``images`` sends ``fps`` images a second, their longer side
    at most ``longest_side`` pixels, ``off`` none. ``transcription`` None: the history will not have
    the person's words. ``enable_search`` lets the model search the web, and excludes tools.
    ``session`` is merged into the session object deep and last, for what has no argument here
    (``search_options``). ``idle``: what keeps a session open in which nobody speaks, ``silence``
    that is sent, or a ``roll_over`` to a new connection. ``vad`` measures the person's voice for
    barge-in; None uses `EarshotVAD`. ``reconnect`` is `ReconnectPolicy` with its
    defaults when None. Other None are left to the service.

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
        rate("fps", fps)
        if video not in ("images", "off"):
            raise ConfigError(f"video takes images or off, not {video!r}")
        if idle not in ("silence", "roll_over"):
            raise ConfigError(f"idle takes silence or roll_over, not {idle!r}")
        if not 16 <= longest_side <= MOST_PIXELS:
            raise ConfigError(f"longest_side takes 16 to {MOST_PIXELS}, not {longest_side}")
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
        key = secret("api_key", api_key or os.environ.get("DASHSCOPE_API_KEY") or "")
        if not key:
            raise ConfigError("no API key: set DASHSCOPE_API_KEY, or give api_key")
        workspace = workspace or os.environ.get("DASHSCOPE_WORKSPACE")
        region = region or os.environ.get("DASHSCOPE_REGION")
        if base_url is None and region is None:
            known, region = place_of([os.environ.get(name) for name in _HOSTS])
            workspace = workspace or known
        self._url = session_url(model, base_url=base_url, workspace=workspace, region=region)
        self._where = urlsplit(self._url).hostname or self._url
        if base_url is None:
            self._where = f"{region or DEFAULT_REGION} ({self._where})"
        self._headers = {"Authorization": f"Bearer {key}"}
        if workspace:
            self._headers["X-DashScope-WorkSpace"] = workspace
        self._headers.update(checked_headers("headers", headers))
        self._session = QwenSession(self._config, dict(session or {}))
        self._video = video
        self._longest_side = longest_side
        profile = profile_of(self._config, video=video != "off")
        super().__init__(
            profile,
            fps=fps,
            reconnect=reconnect or ReconnectPolicy(),
            clock=clock,
            vad=vad or EarshotVAD("qwen"),
        )
        change = partial(self._policy.life.roll_over, "the service closes quiet sessions")
        self._idle = Idle(
            self.clock,
            self._policy.hear,
            live=lambda: self.connected,
            roll_over=change if idle == "roll_over" else None,
        )

    async def prepare(self, setup: SessionSetup) -> None:
        """Import what the socket needs, in a thread; raises `MissingExtraError`.

        Raises `ConfigError` for tools beside a search.
        """
        self._session.whole(setup)
        await asyncio.to_thread(require, "websockets.asyncio.client", "qwen")

    async def run(self, setup: SessionSetup, listener: Listener) -> None:
        """Live till the session ends; see `duologue.realtime.session.Realtime.run`."""
        self._idle.begin()
        try:
            await super().run(setup, listener)
        finally:
            self._idle.close()

    def update_tools(self, tools: Sequence[ToolSpec]) -> None:
        """Change the tools in mid-session; raises `ConfigError` beside a search."""
        if tools:
            self._session.check_tools()
        super().update_tools(tools)

    def open(self, setup: SessionSetup) -> Connection:
        """Make the next connection."""
        encode = partial(fitting_jpeg, longest=self._longest_side, most=MOST_JPEG)
        connection = WireConnection[Message](
            self._socket,
            qwen_codec(self._session),
            setup,
            encode_picture=encode if self._video == "images" else None,
            audio_limit_s=self._policy.person.keep_s + _SPARE_S,
        )
        return self._idle.watch(connection)

    def _socket(self) -> Wire[Message]:
        return EventSocket(
            self._url,
            headers=self._headers,
            refused=partial(http_error, where=self._where),
            closed=partial(close_error, where=self._where),
            extra="qwen",
        )
