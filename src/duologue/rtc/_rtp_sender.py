"""Send packets that are already encoded past aiortc's sending task, but keep its reports."""

from __future__ import annotations

import asyncio
import struct
import time
from secrets import randbelow
from typing import Never

from aiortc import MediaStreamTrack, RTCRtpSender
from aiortc.rtcdtlstransport import RTCDtlsTransport

from duologue.rtc import _aiortc

_HEADER = struct.Struct("!BBHII")


class IdleTrack(MediaStreamTrack):
    """Keeps aiortc's own sending task idle, because our packets do not pass through it."""

    kind = "audio"

    async def recv(self) -> Never:
        """Wait forever; aiortc cancels this when the sender stops."""
        while True:
            await asyncio.Event().wait()


class RtpSender:
    """Sends RTP packets over a connected transport and counts them.

    Args:
        sender: aiortc's sender, whose transport and reports are used.
        payload_type: Payload type of the packets.
        mid: Id of the header extension and the media id that it carries; None if none was
            negotiated.
    """

    __slots__ = (
        "_extension",
        "_first_byte",
        "_payload_type",
        "_sender",
        "_source",
        "_transport",
        "octets",
        "packets",
        "sequence",
    )

    def __init__(
        self, sender: RTCRtpSender, payload_type: int, mid: tuple[int, str] | None
    ) -> None:
        self._sender = sender
        self._transport: RTCDtlsTransport = sender.transport
        self._source: int = sender._ssrc
        self._payload_type = payload_type
        self._first_byte = 0x80
        self._extension = b""
        if mid is not None and 0 < mid[0] < 15 and 0 < len(mid[1].encode()) <= 16:
            # One-byte header extension (RFC 8285, section 4.2) with the media id (RFC 8843).
            name = mid[1].encode()
            element = bytes([mid[0] << 4 | len(name) - 1]) + name
            element += bytes(-len(element) % 4)
            self._extension = struct.pack("!HH", 0xBEDE, len(element) // 4) + element
            self._first_byte = 0x90
        # Start low, because an early wrap can break the far side's decryption (RFC 3711, 3.3.1).
        self.sequence = randbelow(0x8000)
        self.packets = 0
        self.octets = 0

    def send(self, payload: bytes, timestamp: int) -> None:
        """Send a packet before returning; ``timestamp`` is in 48 kHz samples.

        Raises:
            ConnectionError: The transport is closed.
        """
        header = _HEADER.pack(
            self._first_byte, self._payload_type, self.sequence, timestamp, self._source
        )
        self.sequence = (self.sequence + 1) & 0xFFFF
        _aiortc.send_packet(self._transport, header + self._extension + payload)
        self.packets = (self.packets + 1) & 0xFFFFFFFF
        self.octets = (self.octets + len(payload)) & 0xFFFFFFFF
        _aiortc.set_sender_statistics(
            self._sender, self.packets, self.octets, timestamp, time.time()
        )
