"""A client of the simulated service for tests, built on a plain WebSocket."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import numpy as np
import websockets.asyncio.client

RATE = 16000
MODEL = "qwen3.5-omni-plus-realtime"
QUICK = {"type": "server_vad", "silence_duration_ms": 200}


def tone(seconds: float, rate: int = RATE) -> np.ndarray:
    at = np.arange(round(seconds * rate))
    return (6000 * np.sin(2 * np.pi * 300 / rate * at)).astype(np.int16)


def silence(seconds: float, rate: int = RATE) -> np.ndarray:
    return np.zeros(round(seconds * rate), np.int16)


def encode(samples: np.ndarray) -> str:
    return base64.b64encode(samples.tobytes()).decode()


class Client:
    """One connection; ``events`` has all that were received."""

    def __init__(self, socket: Any) -> None:
        self.socket = socket
        self.events: list[dict[str, Any]] = []

    @property
    def types(self) -> list[str]:
        return [event["type"] for event in self.events]

    async def until(self, *types: str, seconds: float = 60.0) -> dict[str, Any]:
        async with asyncio.timeout(seconds):
            while True:
                event = json.loads(await self.socket.recv())
                self.events.append(event)
                if event["type"] in types:
                    return event

    async def send(self, kind: str, **fields: object) -> None:
        await self.socket.send(json.dumps({"type": kind, **fields}))

    async def append(self, samples: np.ndarray, chunk: int = 1600) -> None:
        for begin in range(0, len(samples), chunk):
            await self.send(
                "input_audio_buffer.append", audio=encode(samples[begin : begin + chunk])
            )

    async def update(self, **fields: object) -> dict[str, Any]:
        await self.send("session.update", session=fields)
        return await self.until("session.updated", "error")

    async def error(self, kind: str, **fields: object) -> dict[str, Any]:
        """Send an event and return the error that it causes."""
        await self.send(kind, event_id="mine", **fields)
        return (await self.until("error"))["error"]

    def events_of(self, kind: str) -> list[dict[str, Any]]:
        """Return the events of a type that were received so far."""
        return [event for event in self.events if event["type"] == kind]

    async def receive_for(self, seconds: float = 1.0) -> None:
        """Receive events for ``seconds``."""
        with suppress(TimeoutError):
            await self.until("never", seconds=seconds)

    async def send_turn(self, seconds: float = 0.5) -> None:
        """Send a turn, and the silence that ends it."""
        await self.append(np.concatenate((tone(seconds), silence(0.6))))


def address(simulator: Any, model: str = MODEL) -> str:
    return f"{simulator.ws_url}?model={model}"


def open_socket(simulator: Any, model: str = MODEL, key: str = "") -> Any:
    return websockets.asyncio.client.connect(
        address(simulator, model),
        additional_headers={"Authorization": f"Bearer {key or simulator.key}"},
        max_size=None,
    )


@asynccontextmanager
async def open_session(
    simulator: Any, model: str = MODEL, **fields: object
) -> AsyncIterator[Client]:
    """Open a session; ``fields`` are set first."""
    async with open_socket(simulator, model) as socket:
        client = Client(socket)
        await client.until("session.created")
        if fields:
            updated = await client.update(**fields)
            assert updated["type"] == "session.updated", updated
        yield client
