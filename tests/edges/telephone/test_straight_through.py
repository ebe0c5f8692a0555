"""A call's G.711 goes to a model that takes it, and back, byte for byte."""

import asyncio
import base64
import json

import numpy as np
import pytest
import websockets
from starlette.applications import Starlette

from duologue import Agent, AudioFrame, _g711
from duologue.edges import telephone
from duologue.errors import ConfigError
from duologue.providers import openai
from duologue.testing import OpenAISimulator, Reply, TwilioCaller, virtual_time

URL = "https://talk.example.org"
TOKEN = "0123456789abcdef"  # noqa: S105
LAWS = {"pcmu": "mulaw", "pcma": "alaw"}


class Model:
    """A model that replies with given bytes, in pieces of odd sizes, once it has heard enough."""

    def __init__(self, reply, heard_bytes):
        self.reply, self.heard_bytes = reply, heard_bytes
        self.formats = []
        self.heard = b""
        self.truncations = []

    async def serve(self, socket):
        await socket.send(json.dumps({"type": "session.created", "session": {}}))
        async for message in socket:
            event = json.loads(message)
            match event["type"]:
                case "session.update":
                    audio = event["session"]["audio"]
                    self.formats.append([audio[way]["format"] for way in ("input", "output")])
                    updated = {"type": "session.updated", "session": event["session"]}
                    await socket.send(json.dumps(updated))
                case "input_audio_buffer.append":
                    before = len(self.heard)
                    self.heard += base64.b64decode(event["audio"])
                    if before < self.heard_bytes <= len(self.heard):
                        for answer in self.answers():
                            await socket.send(json.dumps(answer))
                case "conversation.item.truncate":
                    self.truncations.append(event["audio_end_ms"])

    def answers(self):
        yield {"type": "response.created", "response": {"id": "r"}}
        item = {"id": "i", "type": "message", "role": "assistant"}
        yield {"type": "response.output_item.added", "response_id": "r", "item": item}
        at = 0
        for number in range(10_000):
            piece = self.reply[at : at + 97 + number]
            if not piece:
                break
            at += len(piece)
            delta = base64.b64encode(piece).decode()
            yield {
                "type": "response.output_audio.delta",
                "event_id": f"event_{number}",
                "response_id": "r",
                "item_id": "i",
                "delta": delta,
            }
        yield {"type": "response.done", "response": {"id": "r", "status": "completed"}}


async def until(condition, seconds=20.0):
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


def app_of(**options):
    app, agents = Starlette(), []

    def make_agent(edge):
        model = openai.Realtime(transport="websocket", **options)
        agents.append(Agent(edge=edge, llm=model))
        return agents[-1]

    telephone.mount(app, make_agent, telephone.Twilio(URL, auth_token=TOKEN))
    return app, agents


@virtual_time
async def test_a_call_is_neither_resampled_nor_changed():
    rng = np.random.default_rng(3)
    spoken = bytes(range(256)) * 5 + rng.integers(0, 256, 8000).astype(np.uint8).tobytes()
    reply = bytes(range(256)) * 5 + rng.integers(0, 256, 8960).astype(np.uint8).tobytes()
    model = Model(reply, 24000)
    async with websockets.serve(model.serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        app, agents = app_of(
            base_url=f"http://127.0.0.1:{port}/v1", api_key="sk-test", audio_format="pcmu"
        )
        async with TwilioCaller(URL, auth_token=TOKEN, app=app) as call:
            await until(lambda: agents and agents[0].llm.connected)
            await call.say(AudioFrame(_g711.decode(spoken, "mulaw"), 8000))
            await until(lambda: call.played_samples >= len(reply))
            speech = agents[0]._live.session.playout.current
            assert await speech is speech
    assert model.formats == [[{"type": "audio/pcmu"}] * 2]
    assert spoken in model.heard
    assert _g711.encode(call.played.samples, "mulaw") == reply
    assert speech.played_ms == len(reply) // 8
    assert call.violations == []


@pytest.mark.parametrize("audio_format", ["pcmu", "pcma", "pcm"])
@virtual_time
async def test_a_conversation_in_each_format(audio_format):
    replies = [Reply("Good morning, this is the bakery.", seconds=2.0)]
    async with OpenAISimulator(replies=replies, transcripts=["Hello."]) as simulator:
        app, agents = app_of(
            base_url=simulator.url,
            api_key=simulator.key,
            audio_format=audio_format,
            turn_detection=openai.ServerVAD(silence_duration_ms=200),
        )
        voice = np.tile(np.repeat([8000, -8000], 20), 200).astype(np.int16)
        async with TwilioCaller(URL, auth_token=TOKEN, app=app) as call:
            await until(lambda: agents and agents[0].llm.connected)
            await call.say(AudioFrame(voice, 8000))
            await until(lambda: call.played_samples > 8000)
            agents[0].interrupt()
            await call.listen(0.5)
            [session] = simulator.sessions
            cuts = [e for e in session.events_in if e["type"] == "conversation.item.truncate"]
            heard_ms = call.played_samples / 8
    assert next(item.text for item in agents[0].conversation.items) == "Hello."
    [cut] = cuts  # in ms of the audio that came, whatever its rate
    assert heard_ms - 250 < cut["audio_end_ms"] <= heard_ms + 1
    assert call.violations == []


def test_webrtc_has_a_format_of_its_own():
    with pytest.raises(ConfigError, match="needs transport='websocket'"):
        openai.Realtime(transport="webrtc", audio_format="pcmu", api_key="sk-test")
    with pytest.raises(ConfigError, match="audio_format must be"):
        openai.Realtime(audio_format="opus", api_key="sk-test")
