"""Requests that the server has not answered yet, matched with its responses and errors."""

from __future__ import annotations

from collections.abc import Sequence

from duologue._bounded_dict import BoundedDict
from duologue.realtime.outputs import ReplyRefused

_MAX_REQUESTS = 256
"""Maximum number of tracked requests; the oldest is dropped beyond it."""


class PendingRequests:
    """Matches responses and errors with the requests that caused them.

    With ``correlates_errors`` the server names the request itself. Otherwise responses arrive in
    the order of their requests, except that the automatic reply to a user turn that has ended
    meanwhile comes first. Since a session sends one request at a time, a new request shows that the
    earlier ones were lost.
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
        """Whether the server has ever returned the id of a request."""
        self._requests: BoundedDict[str, str] = BoundedDict(_MAX_REQUESTS)
        self._automatic_replies = 0
        self._held_refusals: list[ReplyRefused] = []

    def add(self, request_id: str) -> str:
        """Record a request that is being sent, and return the id of its event."""
        event_id = f"request_{request_id}"
        if not self._correlates_errors:
            # Drop requests that were lost silently, or the next response would be matched with
            # them.
            self._requests.clear()
        self._requests[event_id] = request_id
        # A request is only sent when no automatic response is outstanding.
        self._automatic_replies = 0
        return event_id

    def match_response(self, named: str | None) -> str | None:
        """Return the request that a new response answers, if any; ``named`` is the id that it
        carries.
        """
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
        """Record the end of a user turn, and return the refusals that waited for it."""
        self._automatic_replies += reply_follows
        held, self._held_refusals = self._held_refusals, []
        return held

    def drop_automatic_reply(self) -> bool:
        """Drop the automatic reply that the server refused; return False if none was due."""
        owed = self._automatic_replies > 0
        self._automatic_replies -= owed
        return owed

    def pop_refused(self, event_id: str) -> str | None:
        """Remove the request whose event was refused, and return it; None for another event."""
        return self._requests.pop(event_id, None)

    def pop_oldest(self) -> str | None:
        """Remove the request that has waited longest, and return it."""
        if not self._requests:
            return None
        return self._requests.pop(next(iter(self._requests)))

    def pop_failed(self) -> str | None:
        """Remove the request that an unspecific error must be about, and return it.

        Return None if the server names the request in its errors, or owes a reply to a user turn.
        """
        return None if self._correlates_errors or self._automatic_replies else self.pop_oldest()

    def hold_refusal(self, refusal: ReplyRefused) -> None:
        """Keep a refusal until the user turn that caused it is over."""
        self._held_refusals.append(refusal)
