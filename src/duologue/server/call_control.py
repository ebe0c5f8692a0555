"""What an operator can do with a running call."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, runtime_checkable

from duologue.json_types import JsonObject


class CallControl(Protocol):
    """The handler of a call sets this (`CallSignalling.control`), for the REST API and the drain.

    All methods are called on the event loop.
    """

    def state(self) -> JsonObject:
        """Return the state and the counters of the call as JSON, without words and keys."""
        ...

    def say(self, text: str, *, interrupt: bool) -> None:
        """Let the agent speak exactly ``text``.

        Raises:
            DuologueError: The agent can't; the text says why.
        """

    def interrupt(self) -> None:
        """Stop what the agent is saying.

        Raises:
            DuologueError: The agent can't; the text says why.
        """

    async def end_soon(self, seconds: float) -> None:
        """Prepare the person for the end of the call in ``seconds``; cancelled at the end."""


@runtime_checkable
class FollowedCall(Protocol):
    """A `CallControl` that also reports what happens in the call, for the page of running calls."""

    def summary(self) -> JsonObject:
        """Return how the call goes, without words; nothing if it is not followed."""
        ...

    def changes(self, after: int) -> JsonObject:
        """Return what has happened since the answer of that version, with the words.

        Raises:
            DuologueError: The call is not followed; the text says why.
        """
        ...


class CallRecord(Protocol):
    """Follows one call of an edge for the program that serves it."""

    @property
    def control(self) -> CallControl:
        """What the REST API and the drain can do with the call."""
        ...

    @property
    def after_call(self) -> Callable[[], Awaitable[None]] | None:
        """What runs after the call, when its place is free again."""
        ...

    def agent_made(self, agent: object) -> None:
        """Record the agent of the call."""

    def call_failed(self, error: Exception) -> None:
        """Record the error that ended the call."""
