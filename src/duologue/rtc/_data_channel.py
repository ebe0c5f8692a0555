"""The data channel as a bounded line of texts."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from aiortc import RTCDataChannel

from duologue.rtc.config import MessageTooLongError

MAX_UNSENT = 256 * 1024
"""Bytes that may wait on the data channel; a message that finds more is dropped and counted."""

MAX_EARLY = 64
"""Messages kept for a channel that is not open yet; the oldest is dropped and counted."""


class TextChannel:
    """Sends and takes texts on the data channel named ``label``, once there is one."""

    __slots__ = ("_changed", "_channel", "_early", "_label", "_on_text", "dropped")

    def __init__(self, label: str, on_text: Callable[[str], None]) -> None:
        self._label = label
        self._on_text = on_text
        self._channel: RTCDataChannel | None = None
        self._early: deque[str] = deque()
        self._changed = asyncio.Event()
        self.dropped = 0
        """Texts that were not sent because too much waited."""

    def adopt(self, channel: RTCDataChannel) -> None:
        """Use ``channel`` if it has the label and is the first that has."""
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
        """Send a text, or keep it till the channel opens; False if it was dropped.

        Raises `MessageTooLongError` for one that the far side does not take.
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
        """Wait till the channel is open and at most ``most`` bytes wait on it.

        Returns False, at once, for one that is closed. One caller at a time.
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
