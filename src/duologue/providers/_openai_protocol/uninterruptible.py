"""Replies that the person's voice must not interrupt.

While such a reply is requested or in progress, the server's own interruption is switched off.
"""

from __future__ import annotations

from collections.abc import Sequence

from duologue.json_types import Json, JsonObject
from duologue.providers._openai_protocol.dialect import SessionBuilder
from duologue.providers._openai_protocol.input_turns import InputTurns
from duologue.realtime.commands import Say
from duologue.realtime.outputs import Output, ReplyDone, ReplyRefused, ReplyStarted


class UninterruptibleReplies:
    """Switches the server's interruption off and on again around uninterruptible replies."""

    __slots__ = (
        "_input_turns",
        "_is_suspended",
        "_normal_detection",
        "_replies",
        "_requests",
        "_session",
    )

    def __init__(self, session: SessionBuilder, input_turns: InputTurns) -> None:
        self._session = session
        self._input_turns = input_turns
        self._requests: set[str] = set()
        self._replies: set[str] = set()
        self._normal_detection: JsonObject | None = None
        self._is_suspended = False

    @property
    def active(self) -> bool:
        """Whether an uninterruptible reply is requested or in progress."""
        return bool(self._requests or self._replies)

    def protect(self, command: Say) -> list[JsonObject]:
        """Return the events to send before those of ``command``."""
        if command.interruptible:
            return []
        self._requests.add(command.request_id)
        if self._is_suspended:
            return []
        # The last turn detection that the server confirmed may be the one set here, and already
        # obsolete,
        # because confirmations arrive late. Nothing else changes it, so the one found first stays
        # valid.
        usual = self._normal_detection or self._input_turns.turn_detection
        if not isinstance(usual, dict) or usual.get("interrupt_response") is False:
            return []
        self._normal_detection, self._is_suspended = usual, True
        return [self._update_event({**usual, "interrupt_response": False})]

    def release_ended(self, outputs: Sequence[Output]) -> list[JsonObject]:
        """Return the events to send once the last uninterruptible reply has ended."""
        for output in outputs:
            match output:
                case ReplyStarted(reply_id=reply_id, request_id=str(request_id)):
                    if request_id in self._requests:
                        self._requests.discard(request_id)
                        self._replies.add(reply_id)
                case ReplyRefused(request_id=request_id):
                    self._requests.discard(request_id)
                case ReplyDone(reply_id=reply_id):
                    self._replies.discard(reply_id)
                case _:
                    pass
        if self.active or not self._is_suspended:
            return []
        self._is_suspended = False
        return [self._update_event(self._normal_detection)]

    def _update_event(self, detection: Json) -> JsonObject:
        return {"type": "session.update", "session": self._session.build_turn_detection(detection)}
