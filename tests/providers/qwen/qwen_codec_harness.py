"""A harness for tests of Qwen's codec."""

import base64
import json

import numpy as np
import pytest

pytest.importorskip("orjson", reason="the qwen extra is not installed")
pytest.importorskip("pybase64", reason="the qwen extra is not installed")

from duologue.audio import AudioFrame
from duologue.providers.qwen._codec import qwen_codec
from duologue.providers.qwen._config import QwenConfig
from duologue.providers.qwen._session_json import QwenSession
from duologue.realtime.codec import SessionSetup
from duologue.realtime.outputs import ReplyStarted

OLD = "qwen3-omni-flash-realtime"
ITEM = "item_1"


class QwenCodecHarness:
    """A codec whose messages go in and out as objects."""

    def __init__(self, *, history=(), confirmed=True, **config):
        self.codec = qwen_codec(QwenSession(QwenConfig(**config)))
        opening = self.codec.open(SessionSetup("be kind", (), history))
        self.opening = [json.loads(message) for message in opening]
        if confirmed:
            self.receive("session.created", session={})
            [self.started] = self.receive("session.updated", session={})

    def send(self, command):
        return [json.loads(message) for message in self.codec.encode(command)]

    def send_without_ids(self, command):
        """Encode a command; return the events without their ids."""
        sent = self.send(command)
        return [{key: event[key] for key in event if key != "event_id"} for event in sent]

    def receive(self, kind, **fields):
        return list(self.codec.decode(json.dumps({"type": kind, **fields}).encode()))

    def pending(self):
        return [json.loads(message) for message in self.codec.pending()]

    def receive_error(self, message, **more):
        """Receive an error as the service sends it, with neither a code nor an event."""
        error = {"type": "invalid_request_error", "message": message, **more}
        return self.receive("error", error=error)

    def start_reply(self, reply="resp", request_id=None, item=ITEM):
        assert self.receive("response.created", response={"id": reply}) == [
            ReplyStarted(reply, request_id)
        ]
        if item:
            added = {"id": item, "type": "message", "role": "assistant"}
            self.receive("response.output_item.added", response_id=reply, item=added)

    def receive_audio(self, samples=240, reply="resp", item=ITEM):
        delta = base64.b64encode(np.ones(samples, "<i2").tobytes()).decode()
        return self.receive("response.audio.delta", response_id=reply, item_id=item, delta=delta)

    def finish_item(self, reply="resp", item=ITEM, **more):
        done = {"id": item, "type": "message", "role": "assistant", **more}
        return self.receive("response.output_item.done", response_id=reply, item=done)

    def finish_reply(self, reply="resp", status="completed", **more):
        return self.receive("response.done", response={"id": reply, "status": status, **more})

    def receive_turn(self, item="u", end_ms=800):
        """Receive a user turn that the service detected."""
        out = self.receive("input_audio_buffer.speech_started", item_id=item, audio_start_ms=0)
        out += self.receive("input_audio_buffer.speech_stopped", item_id=item, audio_end_ms=end_ms)
        return out + self.receive("input_audio_buffer.committed", item_id=item)


def frame(samples, rate=16000):
    return AudioFrame(np.zeros(samples, np.int16), rate)
