"""Running code that is not ours, such as tools, without letting it hold up an end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine

log = logging.getLogger(__name__)

GRACE_S = 0.3
"""How long a cancelled piece of user code may take to end before it is left behind."""


async def bounded[T](code: Coroutine[object, object, T], name: str) -> T:
    """Await ``code``; when cancelled, cancel it and wait at most 0.3 s for it to end.

    Code that refuses to end is left behind with an error in the log: it is the only task that may
    outlive a session, and only then.
    """
    task = asyncio.ensure_future(code)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        if not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=GRACE_S)
            if not task.done():
                log.error("%s ignores its cancellation and was left running", name)
        raise
