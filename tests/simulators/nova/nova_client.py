"""A test client of the simulated Nova Sonic: the official SDK, and a few helpers."""

from __future__ import annotations

import asyncio
import base64
import json
from contextlib import asynccontextmanager, suppress

import numpy as np
from aws_sdk_bedrock_runtime.client import AsyncBedrockRuntimeClient
from aws_sdk_bedrock_runtime.config import AsyncBedrockRuntimeConfig
from aws_sdk_bedrock_runtime.models import (
    BidirectionalInputPayloadPart,
    InvokeModelWithBidirectionalStreamInputChunk,
    InvokeModelWithBidirectionalStreamOperationInput,
)
from nova_transport import H2Transport

MODEL = "amazon.nova-2-sonic-v1:0"
NOVA_1 = "amazon.nova-sonic-v1:0"
QUICK = {"HIGH": 200, "MEDIUM": 200, "LOW": 200}
PROMPT = "prompt-1"
AUDIO = "audio-1"


def tone(seconds, rate=16000):
    at = np.arange(round(seconds * rate))
    return (6000 * np.sin(2 * np.pi * 300 / rate * at)).astype(np.int16)


def silence(seconds, rate=16000):
    return np.zeros(round(seconds * rate), np.int16)


def encode_base64(samples):
    return base64.b64encode(samples.astype("<i2").tobytes()).decode()


def audio_out(rate=24000, voice="matthew"):
    return {
        "mediaType": "audio/lpcm",
        "sampleRateHertz": rate,
        "sampleSizeBits": 16,
        "channelCount": 1,
        "voiceId": voice,
        "encoding": "base64",
        "audioType": "SPEECH",
    }


def audio_in(rate=16000):
    return {key: value for key, value in audio_out(rate).items() if key != "voiceId"}


def tool(name="weather"):
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    spec = {"name": name, "description": "d", "inputSchema": {"json": json.dumps(schema)}}
    return {"toolSpec": spec}


TEXT = {"mediaType": "text/plain"}


class Client:
    """One stream of the SDK; ``events`` are all that it received, as (name, fields)."""

    def __init__(self, stream):
        self.stream = stream
        self.output = None
        self.events = []
        self.count = 0

    @property
    def names(self):
        return [name for name, _ in self.events]

    def of(self, name):
        return [fields for one, fields in self.events if one == name]

    @property
    def blocks(self):
        """The received blocks in order: type, role or stage, text, stop reason."""
        found = []
        for name, fields in self.events:
            match name:
                case "contentStart":
                    extra = json.loads(fields.get("additionalModelFields", "{}"))
                    stage = extra.get("generationStage", "")
                    kind = " ".join(filter(None, (fields["type"], fields["role"], stage)))
                    found.append([kind, "", ""])
                case "textOutput":
                    found[-1][1] += fields["content"]
                case "toolUse":
                    found[-1][1] += fields["toolName"]
                case "contentEnd":
                    found[-1][2] = fields["stopReason"]
        return [tuple(one) for one in found]

    @property
    def audio(self):
        data = b"".join(base64.b64decode(one["content"]) for one in self.of("audioOutput"))
        return np.frombuffer(data, "<i2")

    async def send_raw(self, text):
        part = BidirectionalInputPayloadPart(bytes_=text.encode())
        async with asyncio.timeout(30):
            await self.stream.input_stream.send(
                InvokeModelWithBidirectionalStreamInputChunk(value=part)
            )

    async def send(self, name, **fields):
        await self.send_raw(json.dumps({"event": {name: fields}}))

    async def start(self, text="Be kind.", *, turns=None, audio=True, tools=None, **rates):
        await self.send("sessionStart", **session_start(turns))
        await self.send("promptStart", **prompt_start(tools, rates.get("output", 24000)))
        if text:
            await self.send_text(text, "SYSTEM")
        if audio:
            await self.start_audio(rates.get("input", 16000))

    async def start_audio(self, rate=16000):
        await self.send(
            "contentStart",
            promptName=PROMPT,
            contentName=AUDIO,
            type="AUDIO",
            interactive=True,
            role="USER",
            audioInputConfiguration=audio_in(rate),
        )

    async def send_text(self, text, role="USER", *, interactive=False):
        self.count += 1
        name = {"promptName": PROMPT, "contentName": f"text-{self.count}"}
        await self.send(
            "contentStart",
            **name,
            type="TEXT",
            interactive=interactive,
            role=role,
            textInputConfiguration=TEXT,
        )
        await self.send("textInput", **name, content=text)
        await self.send("contentEnd", **name)

    async def send_result(self, tool_use_id, output):
        self.count += 1
        name = {"promptName": PROMPT, "contentName": f"tool-{self.count}"}
        configuration = {
            "toolUseId": tool_use_id,
            "type": "TEXT",
            "textInputConfiguration": TEXT,
        }
        await self.send(
            "contentStart",
            **name,
            type="TOOL",
            interactive=False,
            role="TOOL",
            toolResultInputConfiguration=configuration,
        )
        await self.send("toolResult", **name, content=json.dumps(output))
        await self.send("contentEnd", **name)

    async def send_audio(self, samples, chunk=512):
        for begin in range(0, len(samples), chunk):
            content = encode_base64(samples[begin : begin + chunk])
            await self.send("audioInput", promptName=PROMPT, contentName=AUDIO, content=content)

    async def send_live(self, samples, rate=16000):
        """Send audio in real time."""
        step = rate // 50
        for begin in range(0, len(samples), step):
            await asyncio.sleep(0.02)
            await self.send_audio(samples[begin : begin + step], step)

    async def send_turn(self, seconds=0.5):
        """Send a turn, and the silence that ends it."""
        await self.send_audio(np.concatenate((tone(seconds), silence(0.4))))

    async def end(self):
        await self.send("contentEnd", promptName=PROMPT, contentName=AUDIO)
        await self.send("promptEnd", promptName=PROMPT)
        await self.send("sessionEnd")
        await self.stream.input_stream.close()

    async def receive(self):
        """Return the next event, as (name, fields); None at the end."""
        if self.output is None:
            _, self.output = await self.stream.await_output()
        chunk = await self.output.receive()
        if chunk is None:
            return None
        ((name, fields),) = json.loads(chunk.value.bytes_)["event"].items()
        self.events.append((name, fields))
        return name, fields

    async def until(self, *names, seconds=60.0, **fields):
        """Return the fields of the next event with one of these names, and with these fields."""
        async with asyncio.timeout(seconds):
            while True:
                event = await self.receive()
                if event is None:
                    return None
                if event[0] in names and all(event[1].get(k) == v for k, v in fields.items()):
                    return event[1]

    async def receive_reply(self):
        """Receive a reply until its last sentence has been spoken."""
        await self.until("contentEnd", type="AUDIO", stopReason="END_TURN")
        await self.until("contentEnd", type="TEXT", stopReason="END_TURN")
        await self.until("usageEvent")

    async def receive_for(self, seconds=1.0):
        """Receive for that time."""
        with suppress(TimeoutError):
            await self.until("never", seconds=seconds)

    async def error(self, seconds=600.0):
        """Return the exception with which the stream ends."""
        try:
            async with asyncio.timeout(seconds):
                while await self.receive() is not None:
                    pass
        except TimeoutError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever the SDK makes of it
            return error
        return None


def session_start(turns=None, **configuration):
    found = {"inferenceConfiguration": {"maxTokens": 1024, "topP": 0.9, "temperature": 0.7}}
    if turns:
        found["turnDetectionConfiguration"] = {"endpointingSensitivity": turns}
    return found | configuration


def prompt_start(tools=None, rate=24000, **configuration):
    found = {
        "promptName": PROMPT,
        "textOutputConfiguration": TEXT,
        "audioOutputConfiguration": audio_out(rate),
    }
    if tools:
        found["toolUseOutputConfiguration"] = {"mediaType": "application/json"}
        found["toolConfiguration"] = {"tools": tools}
    return found | configuration


async def sdk(simulator, transport, key=None, secret=None):
    keys = simulator.credentials
    configuration = await AsyncBedrockRuntimeConfig.resolve(
        region=keys.region,
        endpoint_uri=simulator.url,
        aws_access_key_id=key or keys.access_key,
        aws_secret_access_key=secret or keys.secret_key,
        transport=transport,
    )
    return AsyncBedrockRuntimeClient(configuration)


async def open_stream(client, model=MODEL):
    stream = await client.invoke_model_with_bidirectional_stream(
        InvokeModelWithBidirectionalStreamOperationInput(model_id=model)
    )
    return Client(stream)


@asynccontextmanager
async def connected(simulator, model=MODEL, *, start=True, **options):
    """Open a stream; ``options`` are those of `Client.start`."""
    async with H2Transport(simulator.ssl_context) as transport:
        client = await open_stream(await sdk(simulator, transport), model)
        client.transport = transport
        if start:
            await client.start(**options)
        yield client
