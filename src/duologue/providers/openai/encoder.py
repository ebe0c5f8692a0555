"""Commands as events for the server."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import assert_never
from uuid import uuid4

from duologue.extras import require
from duologue.items import Json
from duologue.providers.openai.dialect import Dialect, ServerHistory
from duologue.providers.openai.guard import Guard
from duologue.providers.openai.outbox import PING_ID
from duologue.providers.openai.responses import Responses
from duologue.providers.openai.rtc_sound import RtcSound
from duologue.realtime.commands import (
    AddItem,
    CancelReply,
    ClearInput,
    Command,
    DeleteItem,
    EndTurn,
    Ping,
    RequestReply,
    Say,
    SendAudio,
    SendToolResult,
    SendVideo,
    Truncate,
    UpdateSession,
)

require("pybase64", "openai")

import pybase64  # noqa: E402

type JsonObject = dict[str, Json]


class Encoder:
    """Knows what a command is in the protocol.

    ``sound`` where the server owns the buffer of its sound (WebRTC).
    """

    __slots__ = ("_dialect", "_guard", "_items", "_responses", "_sound", "cleared", "instructions")

    def __init__(
        self,
        dialect: Dialect,
        items: ServerHistory,
        responses: Responses,
        guard: Guard,
        *,
        sound: RtcSound | None,
    ) -> None:
        self._dialect = dialect
        self._guard = guard
        self._items = items
        self._responses = responses
        self._sound = sound
        self.instructions = ""
        self.cleared: deque[str] = deque(maxlen=64)
        """Replies whose buffered sound was thrown away on our word."""

    def events(self, command: Command) -> Sequence[JsonObject]:
        """The events that carry a command; sound goes another way."""
        match command:
            case SendAudio():
                return ()
            case SendVideo(jpeg=jpeg):
                if jpeg is None:
                    return ()
                return self._items.show(uuid4().hex, pybase64.b64encode_as_string(jpeg))
            case EndTurn():
                return ({"type": "input_audio_buffer.commit"},)
            case ClearInput():
                return ({"type": "input_audio_buffer.clear"},)
            case AddItem(item=item, before=before):
                return self._items.put(item, before)
            case DeleteItem(item_id=item_id):
                self._responses.settle(item_id)
                return self._items.delete(item_id)
            case Truncate(item_id=item_id, played_ms=played_ms, heard_text=heard):
                self._responses.settle(item_id)
                return self._items.truncate(item_id, played_ms, heard)
            case SendToolResult():
                return self._items.answer(command)
            case UpdateSession():
                if command.instructions is not None:
                    self.instructions = command.instructions
                change = self._dialect.session.change(command)
                return ({"type": "session.update", "session": change},)
            case Ping():
                same = self._dialect.session.ping()
                return ({"event_id": PING_ID, "type": "session.update", "session": same},)
            case RequestReply(request_id=request_id, instructions=special):
                return (self._dialect.requests.reply(request_id, self.instructions, special),)
            case Say(request_id=request_id, text=wanted):
                self._responses.say(command)
                said = self._dialect.requests.say(request_id, wanted)
                return (*self._guard.say(command), said)
            case CancelReply(reply_id=reply_id):
                return self._cancel(reply_id)
            case _:
                assert_never(command)

    def _cancel(self, reply_id: str) -> Sequence[JsonObject]:
        events: list[JsonObject] = []
        if reply_id in self._responses:
            self._responses.cancel(reply_id)
            events.append(self._dialect.requests.cancel(reply_id))
        if self._sound is not None:
            sounding = self._sound.open
            self.cleared.append(reply_id)
            if sounding is None or sounding in self.cleared:
                # Otherwise the buffer holds another reply, which continues.
                events.append({"type": "output_audio_buffer.clear"})
        return events
