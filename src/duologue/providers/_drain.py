"""Read the end of a streamed response, so that its connection can be used again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

DRAIN_S = 0.1
"""Seconds within which a response should end after its last event."""


async def drain(events: AsyncIterator[object], error: type[Exception]) -> None:
    """Read the end of a response whose last event has come.

    The next request then uses the same connection. One that has to be closed with its response
    costs a handshake, for which a person would wait.

    Args:
        events: What is left of the response.
        error: What the HTTP client raises; a lost connection no longer matters.
    """
    with suppress(TimeoutError, error):
        async with asyncio.timeout(DRAIN_S):
            async for _ in events:
                pass
