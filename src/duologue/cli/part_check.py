"""Try the parts of a pipeline before the first conversation, so that a wrong key is found at once.

A speech-to-speech model checks itself (`Realtime.check`). A part has no such method, so each is
used as briefly as it can be: a recogniser and a voice that keep a connection are connected, and a
text model is asked for a word, which costs a few tokens. Parts without a connection, such as
those of this process, are not tried.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from duologue.errors import ConfigError, ErrorKind, SessionError
from duologue.items import UserItem

if TYPE_CHECKING:
    from duologue.pipeline.interfaces import LLM

CHECK_S = 10.0
"""Seconds in which a connection must be there."""

SETTLE_S = 0.3
"""Seconds that it must stay, because some services refuse a key by a message."""


async def check_connection(
    option: str, run: Coroutine[Any, Any, None], connected: Callable[[], bool]
) -> str:
    """Run the connection of a part until it is there; return a warning, "" if there is none.

    Args:
        option: The option that named the part, for errors.
        run: Runs the connection until cancelled.
        connected: Returns whether it is there.

    Raises:
        ConfigError: The service refuses the key, or an option.
    """
    running = asyncio.ensure_future(run)
    deadline = asyncio.get_running_loop().time() + CHECK_S
    try:
        while not connected():
            left = deadline - asyncio.get_running_loop().time()
            if running.done():
                running.result()
            if left <= 0:
                return f"{option}: no connection within {CHECK_S:g} s"
            await asyncio.wait({running}, timeout=min(left, 0.02))
        await asyncio.wait({running}, timeout=SETTLE_S)
        if running.done():
            running.result()
    except SessionError as error:
        return _report(option, error)
    finally:
        running.cancel()
        await asyncio.wait({running})
    return ""


async def check_llm(option: str, llm: LLM) -> str:
    """Ask a text model for a word; return a warning, "" if there is none.

    Raises:
        ConfigError: The service refuses the key, or the model.
    """
    question = UserItem("check", "Say OK.", "person")
    try:
        async with asyncio.timeout(CHECK_S), aclosing(llm.generate("", [question], [])) as outputs:
            async for _ in outputs:
                break
    except TimeoutError:
        return f"{option}: no reply within {CHECK_S:g} s"
    except SessionError as error:
        return _report(option, error)
    return ""


def _report(option: str, error: SessionError) -> str:
    if error.kind is ErrorKind.FATAL:
        raise ConfigError(f"{option}: {error}") from None
    return f"{option}: {error}"
