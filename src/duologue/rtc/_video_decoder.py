"""Decode a caller's video: VP8 only, with limits on size, rate and queue."""

from __future__ import annotations

import asyncio
import logging
import queue
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import av

from duologue.rtc.sdp import VP8

logger = logging.getLogger(__name__)

MAX_PIXELS = 1920 * 1088
"""Most pixels of a frame; a larger frame, and all that refer to it, are dropped before decoding."""

MAX_FRAMES_PER_S = 60
"""Most frames decoded each second; one second's worth may arrive at once."""

MAX_UNDECODED = 30
"""Most frames that may wait for the decoder; further packets are dropped."""


def vp8_key_size(data: bytes) -> tuple[int, int] | None:
    """Return the width and height in the header of a VP8 frame (RFC 6386, section 9.1).

    Return None for a frame that refers to earlier frames and so has their size, and ``(0, 0)`` for
    a broken frame.
    """
    if not data:
        return 0, 0
    if data[0] & 1:
        return None
    if len(data) < 10 or data[3:6] != b"\x9d\x01\x2a":
        return 0, 0
    width, height = struct.unpack_from("<HH", data, 6)
    return width & 0x3FFF, height & 0x3FFF


class VideoDecoder:
    """Decodes the frames that aiortc assembles, in a thread of its own.

    aiortc's own decoder trusts any size: 400 bytes that claim 16383 x 16383 make it allocate 400
    MB.

    Args:
        loop: The event loop of ``on_frame``.
        on_frame: Called on the event loop with the newest decoded frame.
        on_drop: Called in the decoder's thread for each dropped frame.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        on_frame: Callable[[av.VideoFrame], None],
        on_drop: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._on_frame = on_frame
        self._on_drop = on_drop
        self._codec: Any = None
        self._decodable = False
        self._frame_budget = float(MAX_FRAMES_PER_S)
        self._budget_at = time.monotonic()
        self._newest: av.VideoFrame | None = None
        self._scheduled = False

    def run(self, frames: queue.Queue[Any], key_frame_needed: threading.Event) -> None:
        """Decode frames until None comes; set ``key_frame_needed`` to request a key frame."""
        while (item := frames.get()) is not None:
            if None in frames.queue:
                return  # the call is over, and its event loop waits for this thread
            codec, frame = item
            if not self._decode(codec.name, frame.data, frame.timestamp, key_frame_needed):
                self._on_drop()

    def _decode(
        self, name: str, data: bytes, timestamp: int, key_frame_needed: threading.Event
    ) -> bool:
        size = vp8_key_size(data) if name.upper() == VP8 else (0, 0)
        if size is not None:
            self._decodable = 0 < size[0] * size[1] <= MAX_PIXELS
        # Frames that refer to a dropped one can't be decoded either.
        self._decodable = self._decodable and self._within_rate()
        if not self._decodable:
            return False
        if self._codec is None:
            self._codec = av.CodecContext.create("libvpx", "r")
        packet = av.Packet(data)
        packet.pts = timestamp
        try:
            frames = self._codec.decode(packet)
        except (av.FFmpegError, ValueError):
            self._decodable = False
            key_frame_needed.set()
            return False
        for decoded in frames:
            self._deliver(decoded)
        return True

    def _within_rate(self) -> bool:
        now = time.monotonic()
        self._frame_budget = min(
            MAX_FRAMES_PER_S, self._frame_budget + (now - self._budget_at) * MAX_FRAMES_PER_S
        )
        self._budget_at = now
        if self._frame_budget < 1:
            return False
        self._frame_budget -= 1
        return True

    def _deliver(self, frame: av.VideoFrame) -> None:
        self._newest = frame
        if self._scheduled:
            return
        self._scheduled = True
        with suppress(RuntimeError):  # The event loop may have ended.
            self._loop.call_soon_threadsafe(self._deliver_newest)

    def _deliver_newest(self) -> None:
        self._scheduled = False
        frame, self._newest = self._newest, None
        if frame is not None:
            self._on_frame(frame)
