"""A codec of Nova Sonic in a test's hands, between commands and the service's events."""

import base64
import json

import numpy as np

from duologue.audio import AudioFrame
from duologue.providers.aws._codec import Codec
from duologue.providers.aws._config import RealtimeConfig
from duologue.providers.aws._signals import Flush, StreamAccepted
from duologue.realtime.codec import SessionSetup
from duologue.realtime.commands import RequestReply, SendAudio
from duologue.realtime.outputs import ReplyDone, ReplyStarted

NOVA_1 = "amazon.nova-sonic-v1:0"
SILENCE = AudioFrame(np.zeros(320, np.int16), 16000)


class Line:
    """A codec, and what goes through it as (name, fields)."""

    def __init__(
        self, *, history=(), tools=(), instructions="be kind", sound=True, accepted=True, **config
    ):
        self.codec = Codec(RealtimeConfig(**config))
        self.sent = []
        self.count = 0
        setup = SessionSetup(instructions, tools, history)
        self.opening = self._out(self.codec.open(setup))
        self.started = self.tell(StreamAccepted(480.0)) if accepted else []
        self.beginning = self.send(SendAudio(SILENCE)) if sound else []

    def _out(self, messages):
        self.nudged = any(isinstance(message, Flush) for message in messages)
        told = [json.loads(message) for message in messages if isinstance(message, bytes)]
        found = [next(iter(one["event"].items())) for one in told]
        self.sent += found
        return found

    def send(self, command):
        return self._out(self.codec.encode(command))

    def sound(self, seconds):
        """Let time pass, which a codec knows by the sound it sends."""
        sent = []
        for _ in range(round(seconds / 0.02)):
            sent += self.send(SendAudio(SILENCE))
        return [one for one in sent if one[0] != "audioInput"]

    def tell(self, message):
        outputs = list(self.codec.decode(message))
        self.answers = self._out(self.codec.pending())
        return outputs

    def get(self, name, **fields):
        return self.tell(json.dumps({"event": {name: fields}}).encode())

    def block(self, kind, role, stop, *content, stage=None, end=True):
        """A whole block: of text, of sound, or a call."""
        self.count += 1
        content_id = f"content_{self.count}"
        more = {}
        if stage is not None:
            more["additionalModelFields"] = json.dumps({"generationStage": stage})
        outputs = self.get("contentStart", contentId=content_id, type=kind, role=role, **more)
        for one in content:
            match kind:
                case "TEXT":
                    outputs += self.get("textOutput", contentId=content_id, role=role, content=one)
                case "AUDIO":
                    data = base64.b64encode(np.full(one, 7, "<i2").tobytes()).decode()
                    outputs += self.get("audioOutput", contentId=content_id, content=data)
                case "TOOL":
                    outputs += self.get("toolUse", contentId=content_id, **one)
        if end:
            outputs += self.get("contentEnd", contentId=content_id, type=kind, stopReason=stop)
        return outputs

    def planned(self, text):
        return self.block("TEXT", "ASSISTANT", "PARTIAL_TURN", text, stage="SPECULATIVE")

    def audio(self, *samples, stop="END_TURN", end=True):
        return self.block("AUDIO", "ASSISTANT", stop, *samples, end=end)

    def said(self, text, stop="PARTIAL_TURN"):
        return self.block("TEXT", "ASSISTANT", stop, text, stage="FINAL")

    def heard(self, *texts):
        return self.block("TEXT", "USER", "PARTIAL_TURN", *texts, stage="FINAL")

    def interrupted(self):
        return self.said('{ "interrupted" : true }', "INTERRUPTED")

    def call(self, call_id="call", name="weather", content="{}"):
        fields = {"toolUseId": call_id, "toolName": name, "content": content}
        return self.block("TOOL", "TOOL", "TOOL_USE", fields)

    def reply(self, *sentences, samples=2400):
        """A whole reply, as it was made; its id."""
        outputs = []
        for index, sentence in enumerate(sentences):
            outputs += self.planned(sentence)
            last = index == len(sentences) - 1
            outputs += self.audio(samples, stop="END_TURN" if last else "PARTIAL_TURN")
        (started,) = (one for one in outputs if isinstance(one, ReplyStarted))
        assert ReplyDone(started.reply_id) in outputs
        return started.reply_id


def names(sent):
    return [name for name, _ in sent]


def texts(sent):
    """What is written, block by block, as (role, interactive, text)."""
    found = []
    roles = {}
    for name, fields in sent:
        if name == "contentStart" and fields["type"] == "TEXT":
            roles[fields["contentName"]] = len(found)
            found.append([fields["role"], fields["interactive"], ""])
        elif name == "textInput":
            found[roles[fields["contentName"]]][2] += fields["content"]
    return [tuple(one) for one in found]


def asked(line, request_id="r1", instructions=None):
    """What is written to have a reply."""
    return texts(line.send(RequestReply(request_id, instructions)))
