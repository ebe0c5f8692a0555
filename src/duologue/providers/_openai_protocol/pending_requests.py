"""Requests that are with the server, and which of them its answers are about."""

from __future__ import annotations

from collections.abc import Sequence

from duologue.realtime.outputs import ReplyRefused

_MAX_REQUESTS = 256
"""Requests that are followed at a time; the oldest is forgotten beyond it."""


class PendingRequests:
    """Which request a response answers, and which one an error refuses.

    Where the server ``tells_which``, it says so itself. Else responses come in the order in which
    they were asked for, but that a turn of the person that has ended meanwhile comes first; and as
    a session asks for one at a time, a new request says that nothing has come of the ones before.
    """

    __slots__ = (
        "_automatic_replies",
        "_correlates_errors",
        "_echoes_request_ids",
        "_held_refusals",
        "_requests",
    )

    def __init__(self, *, correlates_errors: bool) -> None:
        self._correlates_errors = correlates_errors
        self._echoes_request_ids = False
        """Whether the server has returned the name of a request."""
        self._requests: dict[str, str] = {}
        self._automatic_replies = 0
        self._held_refusals: list[ReplyRefused] = []

    def add(self, request_id: str) -> str:
        """A request is on its way; returns the id of its event."""
        event_id = f"request_{request_id}"
        if not self._correlates_errors:
            # What was lost without a word would else be taken for the one that is answered.
            self._requests.clear()
        self._requests[event_id] = request_id
        if len(self._requests) > _MAX_REQUESTS:
            del self._requests[next(iter(self._requests))]
        # Who asks does so when nothing comes by itself any more.
        self._automatic_replies = 0
        return event_id

    def match_response(self, named: str | None) -> str | None:
        """A response has begun, which carries that name: the request that it answers, if one."""
        if named is not None:
            self._echoes_request_ids = True
            self._requests.pop(f"request_{named}", None)
            return named
        if self._automatic_replies:
            self._automatic_replies -= 1
            return None
        if self._correlates_errors and self._echoes_request_ids:
            return None
        return self.pop_oldest()

    def turn_ended(self, *, reply_follows: bool) -> Sequence[ReplyRefused]:
        """A turn of the person is over; returns the refusals that had to wait for that."""
        self._automatic_replies += reply_follows
        held, self._held_refusals = self._held_refusals, []
        return held

    def drop_automatic_reply(self) -> bool:
        """Drop the automatic reply that the server refused; return False if none was due."""
        owed = self._automatic_replies > 0
        self._automatic_replies -= owed
        return owed

    def pop_refused(self, event_id: str) -> str | None:
        """The server does not take an event: the request that it was, if one."""
        return self._requests.pop(event_id, None)

    def pop_oldest(self) -> str | None:
        """The request that has waited longest; it is not waited for any more."""
        if not self._requests:
            return None
        return self._requests.pop(next(iter(self._requests)))

    def pop_failed(self) -> str | None:
        """Something has failed, nobody says what: the request that it was, if nothing else can be.

        Where the server tells which, or owes an answer to a turn of the person, it is none.
        """
        return None if self._correlates_errors or self._automatic_replies else self.pop_oldest()

    def hold_refusal(self, refusal: ReplyRefused) -> None:
        """Tell of a refusal when the person's turn is over, because it was the reason."""
        self._held_refusals.append(refusal)
