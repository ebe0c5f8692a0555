"""Wait until the caller has heard what the agent is saying."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from duologue.clock import Clock

logger = logging.getLogger(__name__)

_QUIET_S = 0.3
"""Seconds without new audio after which the agent is taken to have finished."""
_LAST_WORDS_S = 30.0
"""Most seconds to wait."""
_POLL_S = 0.05
"""Seconds between two looks."""


async def wait_for_last_words(
    clock: Clock,
    over: asyncio.Event,
    is_outstanding: Callable[[], bool],
    last_play: Callable[[], float],
) -> None:
    """Wait until all audio was heard and no more comes, the call is over, or 30 s have passed.

    Args:
        clock: Clock of the call.
        over: Set when the call is over.
        is_outstanding: Whether audio was given to the edge and not proven to be heard.
        last_play: When the edge got audio last.
    """
    try:
        async with asyncio.timeout(_LAST_WORDS_S):
            while not over.is_set() and (is_outstanding() or clock.now() - last_play() < _QUIET_S):
                await clock.sleep(_POLL_S)
    except TimeoutError:
        logger.warning("a call was ended before its last words were confirmed")
