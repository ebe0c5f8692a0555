"""Qwen's codec in a test's hands."""

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


class QwenLine:
    """A codec and what goes through it, as objects."""

    def __init__(self, *, history=(), live=True, **config):
        self.codec = qwen_codec(QwenSession(QwenConfig(**config)))
        opening = self.codec.open(SessionSetup("be kind", (), history))
        self.opening = [json.loads(message) for message in opening]
        if live:
            self.get("session.created", session={})
            [self.started] = self.get("session.updated", session={})

    def send(self, command):
        return [json.loads(message) for message in self.codec.encode(command)]

    def bare(self, command):
        """What is sent, without ids of events."""
        sent = self.send(command)
        return [{key: event[key] for key in event if key != "event_id"} for event in sent]

    def get(self, kind, **fields):
        return list(self.codec.decode(json.dumps({"type": kind, **fields}).encode()))

    def pending(self):
        return [json.loads(message) for message in self.codec.pending()]

    def error(self, message, **more):
        """An error as the service tells it: it names neither a code nor an event."""
        error = {"type": "invalid_request_error", "message": message, **more}
        return self.get("error", error=error)

    def began(self, reply="resp", request_id=None, item=ITEM):
        assert self.get("response.created", response={"id": reply}) == [
            ReplyStarted(reply, request_id)
        ]
        if item:
            added = {"id": item, "type": "message", "role": "assistant"}
            self.get("response.output_item.added", response_id=reply, item=added)

    def sound(self, samples=240, reply="resp", item=ITEM):
        delta = base64.b64encode(np.ones(samples, "<i2").tobytes()).decode()
        return self.get("response.audio.delta", response_id=reply, item_id=item, delta=delta)

    def item_done(self, reply="resp", item=ITEM, **more):
        done = {"id": item, "type": "message", "role": "assistant", **more}
        return self.get("response.output_item.done", response_id=reply, item=done)

    def done(self, reply="resp", status="completed", **more):
        return self.get("response.done", response={"id": reply, "status": status, **more})

    def turn(self, item="u", end_ms=800):
        """A turn of the person that the service has found."""
        out = self.get("input_audio_buffer.speech_started", item_id=item, audio_start_ms=0)
        out += self.get("input_audio_buffer.speech_stopped", item_id=item, audio_end_ms=end_ms)
        return out + self.get("input_audio_buffer.committed", item_id=item)


def frame(samples, rate=16000):
    return AudioFrame(np.zeros(samples, np.int16), rate)
