"""Drives a Nova Sonic codec with commands and with events of the service."""

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


class CodecHarness:
    """A codec, and what goes through it as (name, fields)."""

    def __init__(
        self, *, history=(), tools=(), instructions="be kind", audio=True, accepted=True, **config
    ):
        self.codec = Codec(RealtimeConfig(**config))
        self.sent = []
        self.count = 0
        setup = SessionSetup(instructions, tools, history)
        self.opening = self.record(self.codec.open(setup))
        self.started = self.receive(StreamAccepted(480.0)) if accepted else []
        self.audio_start = self.send(SendAudio(SILENCE)) if audio else []

    def record(self, messages):
        self.flushed = any(isinstance(message, Flush) for message in messages)
        told = [json.loads(message) for message in messages if isinstance(message, bytes)]
        found = [next(iter(one["event"].items())) for one in told]
        self.sent += found
        return found

    def send(self, command):
        return self.record(self.codec.encode(command))

    def send_silence(self, seconds):
        """Let time pass, which the codec measures by the audio it sends."""
        sent = []
        for _ in range(round(seconds / 0.02)):
            sent += self.send(SendAudio(SILENCE))
        return [one for one in sent if one[0] != "audioInput"]

    def receive(self, message):
        outputs = list(self.codec.decode(message))
        self.sent_now = self.record(self.codec.pending())
        return outputs

    def receive_event(self, name, **fields):
        return self.receive(json.dumps({"event": {name: fields}}).encode())

    def receive_block(self, kind, role, stop, *content, stage=None, end=True):
        """Receive a whole block of text or audio, or a tool call."""
        self.count += 1
        content_id = f"content_{self.count}"
        more = {}
        if stage is not None:
            more["additionalModelFields"] = json.dumps({"generationStage": stage})
        outputs = self.receive_event(
            "contentStart", contentId=content_id, type=kind, role=role, **more
        )
        for one in content:
            match kind:
                case "TEXT":
                    outputs += self.receive_event(
                        "textOutput", contentId=content_id, role=role, content=one
                    )
                case "AUDIO":
                    data = base64.b64encode(np.full(one, 7, "<i2").tobytes()).decode()
                    outputs += self.receive_event("audioOutput", contentId=content_id, content=data)
                case "TOOL":
                    outputs += self.receive_event("toolUse", contentId=content_id, **one)
        if end:
            outputs += self.receive_event(
                "contentEnd", contentId=content_id, type=kind, stopReason=stop
            )
        return outputs

    def receive_planned(self, text):
        return self.receive_block("TEXT", "ASSISTANT", "PARTIAL_TURN", text, stage="SPECULATIVE")

    def receive_audio(self, *samples, stop="END_TURN", end=True):
        return self.receive_block("AUDIO", "ASSISTANT", stop, *samples, end=end)

    def receive_spoken(self, text, stop="PARTIAL_TURN"):
        return self.receive_block("TEXT", "ASSISTANT", stop, text, stage="FINAL")

    def receive_transcript(self, *texts):
        return self.receive_block("TEXT", "USER", "PARTIAL_TURN", *texts, stage="FINAL")

    def receive_interruption(self):
        return self.receive_spoken('{ "interrupted" : true }', "INTERRUPTED")

    def receive_call(self, call_id="call", name="weather", content="{}"):
        fields = {"toolUseId": call_id, "toolName": name, "content": content}
        return self.receive_block("TOOL", "TOOL", "TOOL_USE", fields)

    def receive_reply(self, *sentences, samples=2400):
        """Receive a whole reply with its audio; return its id."""
        outputs = []
        for index, sentence in enumerate(sentences):
            outputs += self.receive_planned(sentence)
            last = index == len(sentences) - 1
            outputs += self.receive_audio(samples, stop="END_TURN" if last else "PARTIAL_TURN")
        (started,) = (one for one in outputs if isinstance(one, ReplyStarted))
        assert ReplyDone(started.reply_id) in outputs
        return started.reply_id


def event_names(sent):
    return [name for name, _ in sent]


def sent_texts(sent):
    """Return the texts that were sent, block by block, as (role, interactive, text)."""
    found = []
    roles = {}
    for name, fields in sent:
        if name == "contentStart" and fields["type"] == "TEXT":
            roles[fields["contentName"]] = len(found)
            found.append([fields["role"], fields["interactive"], ""])
        elif name == "textInput":
            found[roles[fields["contentName"]]][2] += fields["content"]
    return [tuple(one) for one in found]


def request_reply(harness, request_id="r1", instructions=None):
    """Request a reply; return the texts that were sent for it."""
    return sent_texts(harness.send(RequestReply(request_id, instructions)))
