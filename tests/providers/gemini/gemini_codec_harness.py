"""A Gemini codec under test; everything it sends is validated with Google's own types."""

import base64
import json

import numpy as np
import pytest

pytest.importorskip("websockets", reason="the gemini extra is not installed")
pytest.importorskip("google.genai", reason="google-genai is not installed")

from google.genai import types

from duologue.audio import AudioFrame
from duologue.providers.gemini._codec import Codec
from duologue.providers.gemini._config import LiveConfig
from duologue.providers.gemini._resumption import Resumption
from duologue.realtime.codec import SessionSetup
from duologue.realtime.commands import SendAudio
from duologue.realtime.outputs import ReplyAudio, ReplyStarted, SessionStarted
from duologue.simulators.gemini._schema import read_message

MODEL = "gemini-3.8-live"
OLD = "gemini-2.5-flash-native-audio-preview-12-2025"
TEXT_ONLY = "gemini-3.1-flash-live-preview"


def validated(message):
    """Return the message, which Google's types and the simulator's table accept under the same
    names.
    """
    assert len(message) == 1
    plain = dict(message)
    if "setup" in plain:
        setup = dict(plain["setup"])
        # Google's package fills this in by hand: its type for the setup lacks the field.
        types.RealtimeInputConfig.model_validate(setup.pop("realtimeInputConfig"))
        plain = {"setup": setup}
    types.LiveClientMessage.model_validate(plain)
    assert read_message(message) == message
    return message


class Harness:
    """A codec, with its input and output as objects."""

    def __init__(
        self,
        model=MODEL,
        *,
        history=(),
        tools=(),
        live=True,
        resumption=None,
        options=None,
        **config,
    ):
        self.history = list(history)
        self.resumption = resumption or Resumption(lambda: self.history)
        config = LiveConfig(model=model, **config)
        self.codec = Codec(config, self.resumption, model=f"models/{model}", **(options or {}))
        setup = SessionSetup("be kind", tuple(tools), tuple(history))
        (self.opening,) = [validated(json.loads(one)) for one in self.codec.open(setup)]
        self.started = self.receive(setupComplete={}) if live else []
        if live:
            assert isinstance(self.started[0], SessionStarted)

    def send(self, command):
        return [validated(json.loads(message)) for message in self.codec.encode(command)]

    def pending(self):
        return [validated(json.loads(message)) for message in self.codec.pending()]

    def receive(self, **message):
        return list(self.codec.decode(json.dumps(message).encode()))

    def content(self, **fields):
        return self.receive(serverContent=fields)

    def audio(self, samples=(1, 2, 3), rate=";rate=24000"):
        return self.content(modelTurn=turn(pcm_part(samples, rate)))

    def text(self, text):
        return self.content(outputTranscription={"text": text})

    def begin_reply(self, samples=(1, 2, 3)):
        """Begin a reply with audio; return its `ReplyStarted` and `ReplyAudio`."""
        started, audio = self.audio(samples)
        assert isinstance(started, ReplyStarted)
        assert isinstance(audio, ReplyAudio)
        assert audio.reply_id == started.reply_id
        return started, audio

    def generated(self):
        return self.content(generationComplete=True)

    def interrupted(self):
        return self.content(interrupted=True)

    def completed(self, **fields):
        return self.content(turnComplete=True, **fields)

    def handle(self, value="h", **more):
        return self.receive(sessionResumptionUpdate={"newHandle": value, "resumable": True, **more})

    def send_audio(self, seconds=0.02, level=0):
        """Send the next input audio."""
        return self.send(
            SendAudio(AudioFrame(np.full(round(seconds * 16000), level, np.int16), 16000))
        )


def turn(*parts):
    return {"role": "model", "parts": list(parts)}


def pcm_part(samples, rate=";rate=24000"):
    data = np.asarray(samples, "<i2").tobytes()
    return {"inlineData": {"mimeType": f"audio/pcm{rate}", "data": encoded(data)}}


def encoded(data):
    return base64.b64encode(data).decode()


def kinds(messages):
    """Return the kinds of messages; for `realtimeInput` its field, such as ``audio``."""
    names = []
    for message in messages:
        (name,) = message
        names.append(next(iter(message[name])) if name == "realtimeInput" else name)
    return names


def texts(message):
    """Return the texts of a `clientContent`, by role."""
    turns = message["clientContent"]["turns"]
    return [(turn["role"], part.get("text", "?")) for turn in turns for part in turn["parts"]]
