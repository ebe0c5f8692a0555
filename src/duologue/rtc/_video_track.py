"""Send our own video: the newest frame, as soon as the encoder is free."""

from __future__ import annotations

import asyncio
from fractions import Fraction

import av
from aiortc import MediaStreamTrack

from duologue.clock import Clock
from duologue.video import VideoFrame

CLOCK_RATE = 90000
"""Clock rate of video over RTP in Hz (RFC 7741, section 4.1)."""


class VideoTrack(MediaStreamTrack):
    """A track that sends the frame last given to `show`.

    ``skipped`` counts frames for which the encoder had no time. VP8 supports only even sizes, so an
    odd last row or column is left out.
    """

    kind = "video"

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock
        self._started_at = clock.now()
        self._newest: VideoFrame | None = None
        self._frame_available = asyncio.Event()
        self.skipped = 0

    def show(self, frame: VideoFrame) -> None:
        """Send this frame next, in place of one that still waits."""
        self.skipped += self._newest is not None
        self._newest = frame
        self._frame_available.set()

    async def recv(self) -> av.VideoFrame:
        """Return the newest frame; aiortc's sender calls this again when it has sent one."""
        while (frame := self._newest) is None:
            self._frame_available.clear()
            await self._frame_available.wait()
        self._newest = None
        av_frame = await asyncio.to_thread(_to_av_frame, frame)
        av_frame.pts = int((self._clock.now() - self._started_at) * CLOCK_RATE)
        av_frame.time_base = Fraction(1, CLOCK_RATE)
        return av_frame


def _to_av_frame(frame: VideoFrame) -> av.VideoFrame:
    even = frame.pixels[: frame.height // 2 * 2, : frame.width // 2 * 2]
    av_frame = av.VideoFrame.from_ndarray(even.copy(), format="rgb24")
    return av_frame.reformat(format="yuv420p")
