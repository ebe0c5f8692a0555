"""Send and receive texts on a data channel through bounded queues."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from aiortc import RTCDataChannel

from duologue.rtc.config import MessageTooLongError

MAX_UNSENT = 256 * 1024
"""Most bytes that may wait on the data channel; further messages are dropped and counted."""

MAX_EARLY = 64
"""Most messages kept until the channel opens; the oldest is dropped and counted."""


class TextChannel:
    """Sends and receives texts on the data channel named ``label`` once it exists."""

    __slots__ = ("_changed", "_channel", "_early", "_label", "_on_text", "dropped")

    def __init__(self, label: str, on_text: Callable[[str], None]) -> None:
        self._label = label
        self._on_text = on_text
        self._channel: RTCDataChannel | None = None
        self._early: deque[str] = deque()
        self._changed = asyncio.Event()
        self.dropped = 0
        """Texts dropped because too many bytes or messages waited."""

    def adopt(self, channel: RTCDataChannel) -> None:
        """Use ``channel`` if it has the right label and is the first with it."""
        if channel.label != self._label or self._channel is not None:
            return
        self._channel = channel
        channel.on("message", self._receive)
        channel.on("open", self._send_early)
        channel.on("close", self._changed.set)
        channel.on("bufferedamountlow", self._changed.set)
        if channel.readyState == "open":
            self._send_early()

    def send(self, text: str) -> bool:
        """Send a text, or keep it until the channel opens; return False if it was dropped.

        Raises:
            MessageTooLongError: The text is longer than the far side accepts.
        """
        channel = self._channel
        if channel is None or channel.readyState == "connecting":
            if len(self._early) >= MAX_EARLY:
                self._early.popleft()
                self.dropped += 1
            self._early.append(text)
            return True
        if channel.readyState != "open" or channel.bufferedAmount > MAX_UNSENT:
            self.dropped += 1
            return False
        try:
            channel.send(text)
        except ValueError as error:
            raise MessageTooLongError(str(error)) from None
        return True

    async def drain(self, max_bytes: int) -> bool:
        """Wait until the channel is open and at most ``max_bytes`` bytes wait on it.

        Only one caller may wait at a time.

        Returns:
            False, at once, if the channel is closed.
        """
        while True:
            channel = self._channel
            if channel is not None:
                if channel.readyState in ("closing", "closed"):
                    return False
                if channel.readyState == "open" and channel.bufferedAmount <= max_bytes:
                    return True
                channel.bufferedAmountLowThreshold = max_bytes
            self._changed.clear()
            await self._changed.wait()

    def _send_early(self) -> None:
        self._changed.set()
        while self._early:
            self.send(self._early.popleft())

    def _receive(self, message: str | bytes) -> None:
        if isinstance(message, str):
            self._on_text(message)
