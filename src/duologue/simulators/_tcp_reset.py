"""Ends TCP connections with a reset."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress
from typing import cast


def reset(transport: asyncio.Transport) -> None:
    """End the connection with a RST; do nothing if it has ended already."""
    found = cast("socket.socket | None", transport.get_extra_info("socket"))
    if found is not None:
        # With a linger time of 0 the kernel sends a RST instead of a FIN. Either side may have
        # closed the
        # socket already; then there is nothing to reset.
        with suppress(OSError):
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
