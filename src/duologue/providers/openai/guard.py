"""Speech that the person's voice may not stop: the server is told so for as long as it lasts."""

from __future__ import annotations

from collections.abc import Sequence

from duologue.items import Json
from duologue.providers.openai.dialect import SessionBuilder
from duologue.providers.openai.hearing import Hearing
from duologue.realtime.commands import Say
from duologue.realtime.outputs import Output, ReplyDone, ReplyRefused, ReplyStarted

type JsonObject = dict[str, Json]


class Guard:
    """Switches the server's own interrupting off and on again around such speech."""

    __slots__ = ("_hearing", "_off", "_replies", "_requests", "_session", "_usual")

    def __init__(self, session: SessionBuilder, hearing: Hearing) -> None:
        self._session = session
        self._hearing = hearing
        self._requests: set[str] = set()
        self._replies: set[str] = set()
        self._usual: JsonObject | None = None
        self._off = False

    @property
    def active(self) -> bool:
        """Something is being said, or is about to be, that may not be stopped."""
        return bool(self._requests or self._replies)

    def say(self, command: Say) -> list[JsonObject]:
        """The events to be sent before that command's own."""
        if command.interruptible:
            return []
        self._requests.add(command.request_id)
        if self._off:
            return []
        # What the server was last heard to do may be what it was told here, and is told no more:
        # its answers are late. Nobody else changes it, so what was found first stays what is usual.
        usual = self._usual or self._hearing.detection
        if not isinstance(usual, dict) or usual.get("interrupt_response") is False:
            return []
        self._usual, self._off = usual, True
        return [self._update({**usual, "interrupt_response": False})]

    def follow(self, outputs: Sequence[Output]) -> list[JsonObject]:
        """The events to be sent because of what has ended, if anything has."""
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
        if self.active or not self._off:
            return []
        self._off = False
        return [self._update(self._usual)]

    def _update(self, detection: Json) -> JsonObject:
        return {"type": "session.update", "session": self._session.turn_detection(detection)}
