"""A WebRTC client of the simulated service for tests, built on aiortc and the official SDK."""

from __future__ import annotations

import asyncio
import fractions
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import av
import numpy as np
from aiortc import (
    MediaStreamTrack,
    RTCConfiguration,
    RTCPeerConnection,
    RTCSessionDescription,
    VideoStreamTrack,
)
from openai_client import MODEL, sdk
from sdk_types import check_against_sdk

RATE = 48000


class Microphone(MediaStreamTrack):
    """Sends a tone in real time while ``on``."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self.speaking = False
        self._began: float | None = None
        self._frames = 0

    async def recv(self) -> av.AudioFrame:
        if self._began is None:
            self._began = time.monotonic()
        await asyncio.sleep(max(0.0, self._began + self._frames * 0.02 - time.monotonic()))
        at = np.arange(960) + self._frames * 960
        tone = (8000 * np.sin(2 * np.pi * 300 / RATE * at)).astype(np.int16)
        samples = tone if self.speaking else np.zeros(960, np.int16)
        frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate, frame.pts = RATE, self._frames * 960
        frame.time_base = fractions.Fraction(1, RATE)
        self._frames += 1
        return frame


class Camera(VideoStreamTrack):
    async def recv(self) -> av.VideoFrame:
        pts, base = await self.next_timestamp()
        frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 90, np.uint8), format="bgr24")
        frame.pts, frame.time_base = pts, base
        return frame


class Call:
    """One call.

    ``events`` has all events that were received, ``frames`` the time of each audio frame and
    whether
    it was loud.
    """

    def __init__(self) -> None:
        self.connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.channel = self.connection.createDataChannel("oai-events")
        self.microphone = Microphone()
        self.connection.addTrack(self.microphone)
        self.events: list[dict[str, Any]] = []
        self.frames: list[tuple[float, bool]] = []
        self.id = ""
        self.answer = ""
        self._came: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._listening: list[asyncio.Task[None]] = []
        self.channel.on("message", lambda text: self._came.put_nowait(json.loads(text)))
        self.connection.on("track", self._listen)

    @property
    def types(self) -> list[str]:
        return [event["type"] for event in self.events]

    def send(self, kind: str, **fields: object) -> None:
        self.channel.send(json.dumps({"type": kind, **fields}))

    async def until(self, *types: str, seconds: float = 8.0) -> dict[str, Any]:
        async with asyncio.timeout(seconds):
            while True:
                event = await self._came.get()
                check_against_sdk(event)
                self.events.append(event)
                if event["type"] in types:
                    return event

    async def speak(self, seconds: float = 0.3) -> None:
        self.microphone.speaking = True
        await asyncio.sleep(seconds)
        self.microphone.speaking = False

    def _listen(self, track: MediaStreamTrack) -> None:
        async def listen() -> None:
            while True:
                frame = await track.recv()
                loud = bool(np.abs(frame.to_ndarray()).max() > 1000)
                self.frames.append((time.monotonic(), loud))

        self._listening.append(asyncio.ensure_future(listen()))

    async def close(self) -> None:
        for task in self._listening:
            task.cancel()
        await asyncio.gather(*self._listening, return_exceptions=True)
        await self.connection.close()


@asynccontextmanager
async def open_call(
    simulator: Any,
    *,
    video: bool = False,
    change: Callable[[str], str] = lambda sdp: sdp,
    **session: object,
) -> AsyncIterator[Call]:
    call = Call()
    if video:
        call.connection.addTrack(Camera())
    try:
        await call.connection.setLocalDescription(await call.connection.createOffer())
        async with sdk(simulator) as openai:
            answer = await openai.realtime.calls.create(
                sdp=change(call.connection.localDescription.sdp),
                session={"type": "realtime", "model": MODEL, **session},
            )
        assert answer.response.status_code == 201
        call.id = answer.response.headers["location"].rpartition("/")[2]
        call.answer = answer.text
        await call.connection.setRemoteDescription(RTCSessionDescription(answer.text, "answer"))
        await call.until("session.created")
        yield call
    finally:
        await call.close()
