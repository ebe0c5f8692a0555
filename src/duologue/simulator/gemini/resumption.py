"""Handles by which sessions go on, and what they stand for."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from duologue.clock import Clock
from duologue.simulator.fields import Object
from duologue.simulator.gemini.answer import Emit
from duologue.simulator.gemini.conversation import Conversation
from duologue.simulator.gemini.shapes import INTERNAL, POLICY, RefusedError

MOST_HANDLES = 500

VALID_S = 7200.0
"""A handle is good for two hours: https://ai.google.dev/gemini-api/docs/live-session."""


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """A session as it was when a handle was given; times in s of the clock."""

    session_id: str
    model: str
    conversation: Conversation
    began: float
    video_since: float | None
    made: float


class Handles:
    """The handles that a simulator has given out.

    ``exclusive``: a session can't go on while it has an open connection.
    """

    def __init__(self, clock: Clock, *, valid_s: float = VALID_S, exclusive: bool = False) -> None:
        self._clock = clock
        self._valid_s = valid_s
        self._exclusive = exclusive
        self._open: Counter[str] = Counter()
        self._snapshots: dict[str, Snapshot] = {}
        self._stale: dict[str, None] = {}

    def give(self, snapshot: Snapshot) -> str:
        """A new handle."""
        handle = secrets.token_urlsafe(36)
        self._snapshots[handle] = snapshot
        while len(self._snapshots) > MOST_HANDLES:
            self._forget(next(iter(self._snapshots)))
        return handle

    def take(self, handle: str) -> Snapshot:
        """What a handle stands for. Raises `RefusedError`."""
        snapshot = self._snapshots.get(handle)
        if snapshot is not None and self._clock.now() - snapshot.made <= self._valid_s:
            if self._exclusive and self._open[snapshot.session_id]:
                raise RefusedError("Internal error encountered.", INTERNAL)
            return snapshot
        if snapshot is not None or handle in self._stale:
            raise RefusedError("BidiGenerateContent session not found", POLICY)
        raise RefusedError("Invalid session handle")

    def opened(self, session_id: str) -> None:
        """A session has a connection more."""
        self._open[session_id] += 1

    def closed(self, session_id: str) -> None:
        """A session has a connection less."""
        self._open[session_id] -= 1
        if self._open[session_id] <= 0:
            del self._open[session_id]

    def forget(self) -> None:
        """All handles given so far are stale."""
        for handle in [*self._snapshots]:
            self._forget(handle)

    def _forget(self, handle: str) -> None:
        del self._snapshots[handle]
        self._stale[handle] = None
        while len(self._stale) > MOST_HANDLES:
            del self._stale[next(iter(self._stale))]


class Resumption:
    """Tells the client whether its session can be resumed, and by which handle.

    ``snapshot`` makes one of the session as it is.
    """

    def __init__(self, handles: Handles, emit: Emit, snapshot: Callable[[], Snapshot]) -> None:
        self._handles = handles
        self._emit = emit
        self._snapshot = snapshot
        self._resumable = False
        self._transparent: bool | None = None

    def begin(self, *, transparent: bool) -> None:
        """The client wants to know."""
        self._transparent = transparent

    def tell(self, messages: int, *, resumable: bool) -> None:
        """Tell a new handle, or once that there is none; ``messages`` is the client's last one."""
        if self._transparent is None or not (resumable or self._resumable):
            return
        self._resumable = resumable
        told: Object = {}
        if resumable:
            told = {"newHandle": self._handles.give(self._snapshot()), "resumable": True}
            if self._transparent:
                told["lastConsumedClientMessageIndex"] = str(messages)
        # What is false or empty is left out by proto JSON: not resumable is an empty object.
        self._emit("sessionResumptionUpdate", {"sessionResumptionUpdate": told})
