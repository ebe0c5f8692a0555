"""When a refused HTTP request is sent again: once, and soon, because a person is waiting."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing

from duologue._net import http_status_text, one_line
from duologue.errors import ErrorKind, SessionError
from duologue.pipeline.interfaces import LLMOutput

MAX_RETRY_WAIT_S = 2.0
"""Maximum seconds that a busy server may ask to wait before one retry. If it asks for more, the
error is raised at once, because a person is waiting.
"""

RETRY_WAIT_S = 0.2
"""Seconds before the retry if the server names none."""

CONNECT_TIMEOUT_S = 5.0
"""Seconds within which a server has to accept a connection."""

_FATAL_STATUS = frozenset((401, 402, 403, 404))
"""Wrong key, no money, not allowed, no such model: retrying does not help."""


def retry_wait(status: int, headers: Mapping[str, str]) -> float | None:
    """Return the seconds to wait before a retry; None if there should be none.

    Args:
        status: The HTTP status of the response.
        headers: Its headers, which must be found in any case of letters.
    """
    if status not in (408, 409, 429) and status < 500:
        return None
    try:
        if "retry-after-ms" in headers:
            return max(0.0, float(headers["retry-after-ms"]) / 1000)
        return max(0.0, float(headers.get("retry-after", 0.0)))
    except ValueError:
        return float("inf")  # A date, which is longer than a person waits.


def refusal(status: int, message: str, code: str, wait: float | None) -> SessionError:
    """Return the error of an HTTP status.

    Args:
        status: The HTTP status.
        message: The server's own words; may be empty.
        code: The server's own code; may be empty.
        wait: Seconds that the server asks to wait, if it does.
    """
    text = one_line(message) or http_status_text(status)
    if wait is not None and MAX_RETRY_WAIT_S < wait < float("inf"):
        text = f"{text} (the server asks to retry in {wait:g} s)"
    kind = ErrorKind.FATAL if status in _FATAL_STATUS else ErrorKind.RETRY
    return SessionError(text, code=code or str(status), kind=kind)


class RequestFailed(Exception):  # noqa: N818 - says what happened
    """An attempt failed with ``error``; it may be repeated after ``wait`` seconds, unless None."""

    def __init__(self, error: SessionError, wait: float | None = None, status: int = 0) -> None:
        super().__init__(str(error))
        self.error = error
        self.wait = wait
        self.status = status


async def attempt_twice(
    attempt: Callable[[], AsyncGenerator[LLMOutput]],
    adapt: Callable[[RequestFailed], bool] = lambda failure: False,
) -> AsyncGenerator[LLMOutput]:
    """Yield what a request yields; repeat it once if it failed before it had yielded anything.

    Args:
        attempt: Starts a request, which raises `RequestFailed`.
        adapt: Changes the next request after a failure, and returns whether it is worth a try;
            it must return false in the end.

    Raises:
        SessionError: The request failed.
    """
    again = True
    while True:
        began = False
        try:
            async with aclosing(attempt()) as outputs:
                async for output in outputs:
                    began = True
                    yield output
            return
        except RequestFailed as failure:
            wait = 0.0
            if began or not adapt(failure):
                if began or not again or failure.wait is None or failure.wait > MAX_RETRY_WAIT_S:
                    raise failure.error from failure.__cause__
                again, wait = False, max(failure.wait, RETRY_WAIT_S)
        if wait:
            await asyncio.sleep(wait)
