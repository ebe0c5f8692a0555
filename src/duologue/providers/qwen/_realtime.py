"""`Realtime` of Qwen Omni: speech to speech, over a WebSocket."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial

from duologue._net import hostname_of
from duologue.errors import ConfigError
from duologue.providers._jpeg import fit_jpeg
from duologue.providers._options import takes
from duologue.providers.qwen._capabilities import capabilities_of
from duologue.providers.qwen._codec import Codec, EventSocket, Message, qwen_codec
from duologue.providers.qwen._config import QwenConfig
from duologue.providers.qwen._endpoints import DEFAULT_REGION, session_url, workspace_and_region
from duologue.providers.qwen._errors import close_error, http_error
from duologue.providers.qwen._keepalive import KeepAlive
from duologue.providers.qwen._session_json import QwenSession
from duologue.realtime import codec as protocols
from duologue.realtime.codec import Connection, SessionSetup, Wire
from duologue.realtime.commands import ToolSpec
from duologue.realtime.network import NetworkRealtime
from duologue.realtime.observer import SessionObserver
from duologue.realtime.reconnect import ReconnectPolicy
from duologue.vad.earshot import EarshotVAD

MAX_JPEG_BYTES = 190_000
"""Maximum bytes of an image: the service accepts 256 KB as base64 (Model Studio, client events)."""
_HOST_VARIABLES = ("DASHSCOPE_WEBSOCKET_BASE_URL", "DASHSCOPE_HTTP_BASE_URL", "DASHSCOPE_BASE_URL")
"""Variables with an address where the key of Alibaba's SDK or compatible API is valid."""


class Realtime(NetworkRealtime[Message]):
    """A speech-to-speech model of the Qwen Omni family.

    The arguments are the fields of `QwenConfig`, and are described in docs/providers/qwen.md.

    Raises:
        ConfigError: A value is invalid, or there is no key.
    """

    @takes(QwenConfig)
    def __init__(self, config: QwenConfig) -> None:
        self._config = config
        self._session_json = QwenSession(config)
        key = config.api_key or os.environ.get("DASHSCOPE_API_KEY") or ""
        if isinstance(key, str) and not key.strip():
            raise ConfigError("no API key: set DASHSCOPE_API_KEY, or give api_key")
        workspace = config.workspace or os.environ.get("DASHSCOPE_WORKSPACE")
        region = config.region or os.environ.get("DASHSCOPE_REGION")
        if config.base_url is None and region is None:
            known, region = workspace_and_region([os.environ.get(name) for name in _HOST_VARIABLES])
            workspace = workspace or known
        url = session_url(
            config.model, base_url=config.base_url, workspace=workspace, region=region
        )
        self._workspace = workspace
        self._location = hostname_of(url) or url
        if config.base_url is None:
            self._location = f"{region or DEFAULT_REGION} ({self._location})"
        encode = partial(fit_jpeg, max_side=config.max_image_side, max_bytes=MAX_JPEG_BYTES)
        super().__init__(
            capabilities_of(config, video=config.video != "off"),
            base_url=url,
            api_key=key,
            headers=config.headers,
            proxy=config.proxy,
            ssl_context=config.ssl_context,
            encode_image=encode,
            extra="qwen",
            fps=config.fps,
            clock=config.clock,
            reconnect=config.reconnect or ReconnectPolicy(),
            vad=config.vad or EarshotVAD("qwen"),
        )
        roll_over = partial(self.roll_over, reason="the service closes quiet sessions")
        self._keepalive = KeepAlive(
            self.clock,
            self.send_audio,
            is_connected=lambda: self.connected,
            roll_over=roll_over if config.idle == "roll_over" else None,
        )

    async def prepare(self, setup: SessionSetup) -> None:
        """Import the transport's dependencies in a thread.

        Raises:
            MissingExtraError: A package is not installed.
            ConfigError: There are tools besides ``enable_search``.
        """
        self._session_json.build(setup)
        await super().prepare(setup)

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
        return self._keepalive.watch(super().open(setup))

    def make_codec(self, setup: SessionSetup) -> Codec:
        """Make the codec of the next connection."""
        del setup
        return qwen_codec(self._session_json)

    def make_wire(self, codec: protocols.Codec[Message], setup: SessionSetup) -> Wire[Message]:
        """Make the wire of the next connection."""
        del codec, setup
        return EventSocket(
            self.base_url,
            headers=self.make_headers,
            http_error=partial(http_error, where=self._location),
            close_error=partial(close_error, where=self._location),
            proxy=self.proxy,
            ssl_context=self.ssl_context,
            extra="qwen",
        )

    async def make_headers(self) -> Mapping[str, str]:
        """Return the headers of the next connection."""
        bearer = {"Authorization": f"Bearer {await self.find_key()}"}
        workspace = {"X-DashScope-WorkSpace": self._workspace} if self._workspace else {}
        return {**bearer, **workspace, **self.headers}
