"""Session resumption: handles, and the sessions that they stand for."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from duologue._bounded_dict import BoundedDict
from duologue.clock import Clock
from duologue.json_types import JsonObject
from duologue.simulators.gemini._conversation import Conversation
from duologue.simulators.gemini._json_shapes import INTERNAL, POLICY, RefusedError
from duologue.simulators.gemini._reply import Emit

MAX_HANDLES = 500

HANDLE_VALID_S = 7200.0
"""Seconds in which a handle is valid: https://ai.google.dev/gemini-api/docs/live-session."""


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """A session as it was when its handle was created; times in seconds of the clock."""

    session_id: str
    model: str
    conversation: Conversation
    session_began_at: float
    first_image_at: float | None
    created_at: float


class Handles:
    """The handles of a simulator.

    With ``exclusive``, a session can't be resumed while it has an open connection.
    """

    def __init__(
        self, clock: Clock, *, valid_s: float = HANDLE_VALID_S, exclusive: bool = False
    ) -> None:
        self._clock = clock
        self._valid_s = valid_s
        self._exclusive = exclusive
        self._open: Counter[str] = Counter()
        self._snapshots: BoundedDict[str, Snapshot] = BoundedDict(
            MAX_HANDLES, on_drop=lambda handle, _: self._mark_stale(handle)
        )
        self._stale: BoundedDict[str, None] = BoundedDict(MAX_HANDLES)

    def create(self, snapshot: Snapshot) -> str:
        """Create a handle."""
        handle = secrets.token_urlsafe(36)
        self._snapshots[handle] = snapshot
        return handle

    def resolve(self, handle: str) -> Snapshot:
        """Return the session that a handle stands for. Raises `RefusedError`."""
        snapshot = self._snapshots.get(handle)
        if snapshot is not None and self._clock.now() - snapshot.created_at <= self._valid_s:
            if self._exclusive and self._open[snapshot.session_id]:
                raise RefusedError("Internal error encountered.", INTERNAL)
            return snapshot
        if snapshot is not None or handle in self._stale:
            raise RefusedError("BidiGenerateContent session not found", POLICY)
        raise RefusedError("Invalid session handle")

    def connection_opened(self, session_id: str) -> None:
        """Count a new connection of the session."""
        self._open[session_id] += 1

    def connection_closed(self, session_id: str) -> None:
        """Count a closed connection of the session."""
        self._open[session_id] -= 1
        if self._open[session_id] <= 0:
            del self._open[session_id]

    def expire_all(self) -> None:
        """Make all handles stale."""
        for handle in [*self._snapshots]:
            self._expire(handle)

    def _expire(self, handle: str) -> None:
        del self._snapshots[handle]
        self._mark_stale(handle)

    def _mark_stale(self, handle: str) -> None:
        self._stale[handle] = None


class Resumption:
    """Tells the client whether its session can be resumed, and with which handle.

    ``snapshot`` returns the current state of the session.
    """

    def __init__(self, handles: Handles, emit: Emit, snapshot: Callable[[], Snapshot]) -> None:
        self._handles = handles
        self._emit = emit
        self._snapshot = snapshot
        self._resumable = False
        self._transparent: bool | None = None

    def enable(self, *, transparent: bool) -> None:
        """Send updates from now on."""
        self._transparent = transparent

    def send_update(self, messages: int, *, resumable: bool) -> None:
        """Send a new handle, or once that the session is not resumable.

        ``messages`` is the index of the client's last message.
        """
        if self._transparent is None or not (resumable or self._resumable):
            return
        self._resumable = resumable
        update: JsonObject = {}
        if resumable:
            update = {"newHandle": self._handles.create(self._snapshot()), "resumable": True}
            if self._transparent:
                update["lastConsumedClientMessageIndex"] = str(messages)
        # JSON of protobuf omits false and empty fields, so "not resumable" is an empty object.
        self._emit("sessionResumptionUpdate", {"sessionResumptionUpdate": update})
