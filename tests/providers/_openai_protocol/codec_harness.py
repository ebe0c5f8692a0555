"""A harness for tests of the OpenAI codec."""

import base64
import json
from dataclasses import replace

import numpy as np

from duologue.items import AgentItem, SystemItem, ToolCallItem, ToolResultItem, UserItem
from duologue.providers._openai_protocol.codec import Codec
from duologue.providers._openai_protocol.dialect import Dialect
from duologue.providers.openai._config import RealtimeConfig
from duologue.providers.openai._session_json import OpenAISession
from duologue.realtime.codec import SessionSetup
from duologue.realtime.outputs import ReplyStarted

HISTORY = [
    SystemItem("s", "Guests like tea."),
    UserItem("u", "Hello."),
    UserItem("none", None),
    AgentItem("a", "Hi, and"),
    ToolCallItem("t", "call", "time", "{}"),
    ToolResultItem("r", "call", "noon", failed=True),
]
ITEM = "item_1"


class CodecHarness:
    """A codec whose messages go in and out as objects."""

    def __init__(
        self, transport="websocket", *, history=(), confirmed=True, config=None, **options
    ):
        builder = OpenAISession(replace(config or RealtimeConfig(), transport=transport))
        self.codec = Codec(Dialect(builder), transport=transport, **options)
        setup = SessionSetup("be kind", (), history)
        self.opening = [json.loads(message) for message in self.codec.open(setup)]
        if confirmed:
            assert self.receive("session.created", session={}) or transport == "websocket"
            self.receive("session.updated", session={})

    def send(self, command):
        return [json.loads(message) for message in self.codec.encode(command)]

    def send_without_ids(self, command):
        """Encode a command; return the events without their ids."""
        return [without_id(event) for event in self.send(command)]

    def receive(self, kind, **fields):
        return list(self.codec.decode(json.dumps({"type": kind, **fields}).encode()))

    def pending(self):
        return [json.loads(message) for message in self.codec.pending()]

    def start_reply(self, reply="resp", request_id=None, item=ITEM):
        metadata = {"request_id": request_id} if request_id else None
        started = self.receive("response.created", response={"id": reply, "metadata": metadata})
        assert started == [ReplyStarted(reply, request_id)]
        if item:
            added = {"id": item, "type": "message", "role": "assistant"}
            self.receive("response.output_item.added", response_id=reply, item=added)
        return started

    def receive_audio(self, samples, reply="resp", item=ITEM, **more):
        delta = base64.b64encode(np.asarray(samples, "<i2").tobytes()).decode()
        return self.receive(
            "response.output_audio.delta", response_id=reply, item_id=item, delta=delta, **more
        )

    def receive_text(self, text, reply="resp", item=ITEM):
        kind = "response.output_audio_transcript.delta"
        return self.receive(kind, response_id=reply, item_id=item, delta=text)

    def finish_reply(self, reply="resp", status="completed", **more):
        return self.receive("response.done", response={"id": reply, "status": status, **more})

    def receive_error(self, event_id=None, code="odd", message="No."):
        error = {"type": "invalid_request_error", "code": code, "message": message}
        return self.receive("error", error={**error, "event_id": event_id})


def without_id(event):
    return {key: value for key, value in event.items() if key != "event_id"}
