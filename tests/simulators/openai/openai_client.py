"""A client of the simulated service for tests, built on the official SDK."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import numpy as np
from openai import AsyncOpenAI
from sdk_types import check_against_sdk

RATE = 24000
MODEL = "gpt-realtime-2.1"
QUICK = {"type": "server_vad", "silence_duration_ms": 200}


def tone(seconds: float) -> np.ndarray:
    at = np.arange(round(seconds * RATE))
    return (6000 * np.sin(2 * np.pi * 300 / RATE * at)).astype(np.int16)


def silence(seconds: float) -> np.ndarray:
    return np.zeros(round(seconds * RATE), np.int16)


def encode(samples: np.ndarray) -> str:
    return base64.b64encode(samples.tobytes()).decode()


class Client:
    """One connection of the SDK; ``events`` has all that were received."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.events: list[Any] = []

    @property
    def types(self) -> list[str]:
        return [event.type for event in self.events]

    async def until(self, *types: str, seconds: float = 60.0) -> Any:
        async with asyncio.timeout(seconds):
            while True:
                raw = await self.connection.recv_bytes()
                check_against_sdk(json.loads(raw))
                event = self.connection.parse_event(raw)
                self.events.append(event)
                if event.type in types:
                    return event

    async def send(self, kind: str, **fields: object) -> None:
        await self.connection.send({"type": kind, **fields})

    async def append(self, samples: np.ndarray, chunk: int = 2400) -> None:
        for begin in range(0, len(samples), chunk):
            await self.send(
                "input_audio_buffer.append", audio=encode(samples[begin : begin + chunk])
            )

    async def update(self, **fields: object) -> Any:
        await self.send("session.update", session={"type": "realtime", **fields})
        return await self.until("session.updated", "error")

    async def error(self, kind: str, **fields: object) -> Any:
        """Send an event and return the error that it causes."""
        await self.send(kind, event_id="mine", **fields)
        error = (await self.until("error")).error
        assert error.event_id == "mine"
        return error

    def events_of(self, kind: str) -> list[Any]:
        """Return the events of a type that were received so far."""
        return [event for event in self.events if event.type == kind]

    async def receive_for(self, seconds: float = 1.0) -> None:
        """Receive events for ``seconds``."""
        with suppress(TimeoutError):
            await self.until("never", seconds=seconds)

    async def send_turn(self, seconds: float = 0.5) -> None:
        """Send a turn, and the silence that ends it."""
        await self.append(np.concatenate((tone(seconds), silence(0.6))))


def sdk(simulator: Any, key: str = "") -> AsyncOpenAI:
    return AsyncOpenAI(api_key=key or simulator.key, base_url=simulator.url, max_retries=0)


@asynccontextmanager
async def open_session(simulator: Any, **turns: object) -> AsyncIterator[Client]:
    """Open a session; ``turns`` are fields of ``audio.input`` that are set first."""
    async with sdk(simulator) as openai, openai.realtime.connect(model=MODEL) as connection:
        client = Client(connection)
        await client.until("session.created")
        if turns:
            await client.update(audio={"input": turns})
        yield client
