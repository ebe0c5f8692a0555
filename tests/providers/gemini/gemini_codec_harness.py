"""A Gemini codec in a test's hands; all that it sends is held to Google's own types."""

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
from duologue.simulators.gemini._json_shapes import read_object
from duologue.simulators.gemini._schema import CLIENT

MODEL = "gemini-3.8-live"
OLD = "gemini-2.5-flash-native-audio-preview-12-2025"
TEXT_ONLY = "gemini-3.1-flash-live-preview"


def certified(message):
    """The message, which Google's types and the simulator's table take, by no other names."""
    assert len(message) == 1
    plain = dict(message)
    if "setup" in plain:
        setup = dict(plain["setup"])
        # The package puts this into the setup by hand: its type for the whole has no such field.
        types.RealtimeInputConfig.model_validate(setup.pop("realtimeInputConfig"))
        plain = {"setup": setup}
    types.LiveClientMessage.model_validate(plain)
    assert read_object(CLIENT, message) == message
    return message


class Line:
    """A codec and what goes through it, as objects."""

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
        (self.opening,) = [certified(json.loads(one)) for one in self.codec.open(setup)]
        self.started = self.get(setupComplete={}) if live else []
        if live:
            assert isinstance(self.started[0], SessionStarted)

    def send(self, command):
        return [certified(json.loads(message)) for message in self.codec.encode(command)]

    def pending(self):
        return [certified(json.loads(message)) for message in self.codec.pending()]

    def get(self, **message):
        return list(self.codec.decode(json.dumps(message).encode()))

    def content(self, **fields):
        return self.get(serverContent=fields)

    def sound(self, samples=(1, 2, 3), rate=";rate=24000"):
        return self.content(modelTurn=turn(pcm_part(samples, rate)))

    def words(self, text):
        return self.content(outputTranscription={"text": text})

    def began(self, samples=(1, 2, 3)):
        """A reply begins with sound: its `ReplyStarted` and the first piece."""
        started, audio = self.sound(samples)
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
        return self.get(sessionResumptionUpdate={"newHandle": value, "resumable": True, **more})

    def hears(self, seconds=0.02, level=0):
        """The person's next sound."""
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
    """What messages are, of `realtimeInput` also which: ``audio``, ``activityStart``, ..."""
    names = []
    for message in messages:
        (name,) = message
        names.append(next(iter(message[name])) if name == "realtimeInput" else name)
    return names


def texts(message):
    """The words of a `clientContent`, by role."""
    turns = message["clientContent"]["turns"]
    return [(turn["role"], part.get("text", "?")) for turn in turns for part in turn["parts"]]
