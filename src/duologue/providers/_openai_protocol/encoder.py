"""Encode commands as events for the server."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import assert_never
from uuid import uuid4

from duologue._optional import optional
from duologue.json_types import JsonObject
from duologue.providers._openai_protocol.dialect import Dialect, ServerHistory
from duologue.providers._openai_protocol.responses import Responses
from duologue.providers._openai_protocol.sent_events import PING_ID
from duologue.providers._openai_protocol.uninterruptible import UninterruptibleReplies
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
from duologue.realtime.reply_slicer import ReplySlicer

with optional("openai"):
    import pybase64


class Encoder:
    """Encodes commands as events of the protocol.

    ``reply_slicer`` is given over WebRTC, where the server owns the playback buffer.
    """

    __slots__ = (
        "_conversation",
        "_dialect",
        "_reply_slicer",
        "_responses",
        "_uninterruptible",
        "cleared_replies",
        "instructions",
    )

    def __init__(
        self,
        dialect: Dialect,
        conversation: ServerHistory,
        responses: Responses,
        uninterruptible: UninterruptibleReplies,
        *,
        reply_slicer: ReplySlicer | None,
    ) -> None:
        self._dialect = dialect
        self._uninterruptible = uninterruptible
        self._conversation = conversation
        self._responses = responses
        self._reply_slicer = reply_slicer
        self.instructions = ""
        self.cleared_replies: deque[str] = deque(maxlen=64)
        """Replies whose buffered audio this client cleared."""

    def encode(self, command: Command) -> Sequence[JsonObject]:
        """Return the events that carry a command; audio is encoded elsewhere."""
        match command:
            case SendAudio():
                return ()
            case SendVideo(jpeg=jpeg):
                if jpeg is None:
                    return ()
                return self._conversation.add_image(uuid4().hex, pybase64.b64encode_as_string(jpeg))
            case EndTurn():
                return ({"type": "input_audio_buffer.commit"},)
            case ClearInput():
                return ({"type": "input_audio_buffer.clear"},)
            case AddItem(item=item, before=before):
                return self._conversation.put(item, before)
            case DeleteItem(item_id=item_id):
                self._responses.mark_truncated(item_id)
                return self._conversation.delete(item_id)
            case Truncate(item_id=item_id, played_ms=played_ms, heard_text=heard_text):
                self._responses.mark_truncated(item_id)
                return self._conversation.truncate(item_id, played_ms, heard_text)
            case SendToolResult():
                return self._conversation.add_tool_result(command)
            case UpdateSession():
                if command.instructions is not None:
                    self.instructions = command.instructions
                change = self._dialect.session.build_update(command)
                return ({"type": "session.update", "session": change},)
            case Ping():
                same = self._dialect.session.build_ping()
                return ({"event_id": PING_ID, "type": "session.update", "session": same},)
            case RequestReply(request_id=request_id, instructions=special):
                return (self._dialect.requests.reply(request_id, self.instructions, special),)
            case Say(request_id=request_id, text=text):
                self._responses.expect_verbatim(command)
                request = self._dialect.requests.say(request_id, text)
                return (*self._uninterruptible.protect(command), request)
            case CancelReply(reply_id=reply_id):
                return self._cancel(reply_id)
            case _:
                assert_never(command)

    def _cancel(self, reply_id: str) -> Sequence[JsonObject]:
        events: list[JsonObject] = []
        if reply_id in self._responses:
            self._responses.mark_cancelled(reply_id)
            events.append(self._dialect.requests.cancel(reply_id))
        if self._reply_slicer is not None:
            sounding = self._reply_slicer.playing_reply
            self.cleared_replies.append(reply_id)
            if sounding is None or sounding in self.cleared_replies:
                # Otherwise the buffer holds another reply, which continues.
                events.append({"type": "output_audio_buffer.clear"})
        return events
