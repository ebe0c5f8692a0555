"""Handles by which sessions go on, and what they stand for."""

from __future__ import annotations

import secrets
from collections import Counter
from dataclasses import dataclass

from duologue.clock import Clock
from duologue.simulator.gemini.conversation import Conversation
from duologue.simulator.gemini.shapes import INTERNAL, POLICY, RefusedError

MOST_HANDLES = 2000

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
