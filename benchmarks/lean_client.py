"""A client of picows, orjson and pybase64: the least that Python can do for a session.

It has no task, no queue and no framework; only what a provider's protocol demands. On uvloop, where
that is installed. picows is a dependency of development only.
"""

from __future__ import annotations

import asyncio
import ssl
from importlib.util import find_spec
from typing import TYPE_CHECKING

import orjson
import pybase64

from benchmarks.baseline_client import Pace, Samples
from benchmarks.wire_formats import Dialect

if find_spec("picows") is not None:
    from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect
elif not TYPE_CHECKING:
    WSListener = object


def is_installed() -> bool:
    """Return whether this client can run here."""
    return find_spec("picows") is not None


class LeanClient(WSListener):
    """A session over a WebSocket."""

    def __init__(
        self, dialect: Dialect, url: str, pace: Pace, trust: ssl.SSLContext | None = None
    ) -> None:
        super().__init__()
        self._dialect = dialect
        self._url = url
        self._trust = trust
        self.pace = pace

    async def run(self, frames: int) -> None:
        transport, _ = await ws_connect(lambda: self, self._url, ssl_context=self._trust)
        self.pace.call(frames, self._send)
        await asyncio.sleep(frames / 50 + 0.1)
        transport.disconnect()

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport
        if self._dialect.first:
            transport.send(WSMsgType.TEXT, self._dialect.first)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type not in {WSMsgType.TEXT, WSMsgType.BINARY}:
            return
        audio = self._dialect.reply_audio(orjson.loads(frame.get_payload_as_memoryview()))
        if audio is not None:
            self.pace.take(pybase64.b64decode(audio))

    def _send(self, samples: Samples) -> None:
        audio = pybase64.b64encode(samples.tobytes()).decode()
        self._transport.send(WSMsgType.TEXT, self._dialect.hear(audio))
