"""Test clients of the simulated Gemini service: the official SDK, and a plain WebSocket."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import numpy as np
import orjson
import websockets.asyncio.client
import websockets.exceptions
from gemini_sdk_scenarios import certify, kinds_of
from google import genai
from google.genai import types

RATE = 16000
MODEL = "gemini-3.8-live"
QUICK = {"automatic_activity_detection": {"silence_duration_ms": 200}}


def tone(seconds: float) -> np.ndarray:
    at = np.arange(round(seconds * RATE))
    return (6000 * np.sin(2 * np.pi * 300 / RATE * at)).astype(np.int16)


def silence(seconds: float) -> np.ndarray:
    return np.zeros(round(seconds * RATE), np.int16)


class Client:
    """One session of the SDK; ``messages`` are all that it received."""

    def __init__(self, session: Any) -> None:
        self.session = session
        self.messages: list[Any] = []
        self.kinds: list[str] = []
        self.fields: set[str] = set()
        inner = session._ws

        async def recv(decode: bool | None = None) -> bytes:
            raw = await inner.recv(decode=decode)
            message = orjson.loads(raw)
            self.fields |= certify(message)
            self.kinds += kinds_of(message)
            return raw

        session._ws = _CertifyingSocket(inner, recv)

    async def receive(self) -> Any:
        message = await self.session._receive()
        self.messages.append(message)
        return message

    async def until(self, *kinds: str, seconds: float = 60.0) -> Any:
        """Receive until a message of one of these kinds."""
        async with asyncio.timeout(seconds):
            while True:
                seen = len(self.kinds)
                message = await self.receive()
                if set(self.kinds[seen:]) & set(kinds):
                    return message

    async def receive_for(self, seconds: float = 1.0) -> None:
        """Receive for that time."""
        with suppress(TimeoutError):
            await self.until("never", seconds=seconds)

    async def send_audio(self, samples: np.ndarray, chunk: int = 1600) -> None:
        for begin in range(0, len(samples), chunk):
            data = samples[begin : begin + chunk].tobytes()
            blob = types.Blob(data=data, mime_type="audio/pcm;rate=16000")
            await self.session.send_realtime_input(audio=blob)

    async def send_turn(self, seconds: float = 0.5) -> None:
        """Send a turn, and the silence that ends it."""
        await self.send_audio(np.concatenate((tone(seconds), silence(0.6))))

    @property
    def user_transcript(self) -> str:
        """The received transcript of the user."""
        return "".join(
            message.server_content.input_transcription.text
            for message in self.messages
            if message.server_content and message.server_content.input_transcription
        )

    @property
    def transcript(self) -> str:
        """The received transcript of the model."""
        return "".join(
            message.server_content.output_transcription.text
            for message in self.messages
            if message.server_content and message.server_content.output_transcription
        )

    @property
    def audio(self) -> np.ndarray:
        """The received audio of the model."""
        data = b"".join(message.data for message in self.messages if message.data)
        return np.frombuffer(data, "<i2")

    def count(self, kind: str) -> int:
        return self.kinds.count(kind)


class _CertifyingSocket:
    def __init__(self, inner: Any, recv: Any) -> None:
        self._inner = inner
        self.recv = recv

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def sdk(simulator: Any, key: str = "", **options: Any) -> genai.Client:
    arguments = {"ssl": simulator.ssl_context, "max_size": None}
    return genai.Client(
        api_key=key or simulator.key,
        vertexai=False,
        http_options=types.HttpOptions(
            base_url=simulator.url, async_client_args=arguments, **options
        ),
    )


PATH = "/ws/google.ai.generativelanguage.{}.GenerativeService.BidiGenerateContent"


class PlainClient:
    """A session on a plain WebSocket, which sends messages unchanged."""

    def __init__(self, socket: Any) -> None:
        self.socket = socket
        self.fields: set[str] = set()

    async def send(self, message: object) -> None:
        await self.socket.send(orjson.dumps(message).decode())

    async def receive(self) -> dict[str, Any]:
        data = await self.socket.recv(decode=False)
        message: dict[str, Any] = orjson.loads(data)
        self.fields |= certify(message)
        return message

    async def until(self, kind: str, seconds: float = 60.0) -> dict[str, Any]:
        async with asyncio.timeout(seconds):
            while True:
                message = await self.receive()
                if kind in kinds_of(message):
                    return message

    async def send_turn(self, seconds: float = 0.5) -> None:
        """Send a turn, and the silence that ends it."""
        data = np.concatenate((tone(seconds), silence(0.6))).tobytes()
        blob = {"mimeType": "audio/pcm;rate=16000", "data": base64.b64encode(data).decode()}
        await self.send({"realtimeInput": {"audio": blob}})

    async def receive_close(self, seconds: float = 60.0) -> tuple[int, str]:
        """Receive until the connection closes; return the close code and the reason."""
        async with asyncio.timeout(seconds):
            try:
                while True:
                    await self.receive()
            except websockets.exceptions.ConnectionClosed as closed:
                return (closed.rcvd.code, closed.rcvd.reason) if closed.rcvd else (1006, "")


@asynccontextmanager
async def raw(
    simulator: Any, path: str = "", headers: dict[str, str] | None = None
) -> AsyncIterator[PlainClient]:
    """Connect a plain WebSocket, with the valid key unless other headers are given."""
    url = f"{simulator.url.replace('http', 'ws', 1)}{path or PATH.format('v1beta')}"
    sent_headers = {"x-goog-api-key": simulator.key} if headers is None else headers
    async with websockets.connect(
        url, additional_headers=sent_headers, ssl=simulator.ssl_context, max_size=None
    ) as socket:
        yield PlainClient(socket)


def setup(model: str = MODEL, **fields: Any) -> dict[str, Any]:
    return {"setup": {"model": f"models/{model}", **fields}}


@asynccontextmanager
async def started(simulator: Any, model: str = MODEL, **fields: Any) -> AsyncIterator[PlainClient]:
    """Connect a plain WebSocket and send a setup that is accepted."""
    async with raw(simulator) as client:
        await client.send(setup(model, **fields))
        assert "setupComplete" in await client.receive()
        yield client


@asynccontextmanager
async def connected(
    simulator: Any, *, model: str = MODEL, version: str | None = None, key: str = "", **config: Any
) -> AsyncIterator[Client]:
    """Connect with the SDK; the session has transcripts, and turns end after 0.2 s of silence."""
    options = {} if version is None else {"api_version": version}
    live_config = {
        "response_modalities": ["AUDIO"],
        "input_audio_transcription": {},
        "output_audio_transcription": {},
        "realtime_input_config": QUICK,
        **config,
    }
    live_config = {name: value for name, value in live_config.items() if value is not None}
    client = sdk(simulator, key, **options)
    async with client.aio.live.connect(model=model, config=live_config) as session:
        assert session.setup_complete is not None
        yield Client(session)
