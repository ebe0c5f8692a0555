"""Sessions of a pipeline by the library and by hand: ``python -m benchmarks.speech_clients JSON``.

`benchmarks.speech_parts` starts it. Each session has a recogniser (Deepgram Flux), a voice
(Cartesia) and a scripted language model behind the Chat Completions API: three connections. The
person speaks for a second of every five. *by hand* are three clients of websockets, orjson,
pybase64 and httpx with a task each, which hand each other texts: no playout, no history, no
reconnects, no barge-in.
"""

from __future__ import annotations

import asyncio
import gc
import os
import re
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import httpx
import numpy as np
import orjson
import pybase64
from websockets.asyncio.client import connect

from benchmarks.agent_client import FedEdge, feed
from benchmarks.baseline_client import TICK_S
from duologue.agent.agent import Agent
from duologue.audio import AudioFrame
from duologue.providers import cartesia, deepgram, openai
from duologue.vad.energy import EnergyVAD

type Kind = Literal["raw", "ours"]

RATE, VOICE_RATE = 16000, 24000
CYCLE_S, SPEECH_S = 5.0, 1.0
CONNECT_S = 0.02
"""Seconds between the starts of two sessions."""
_CLAUSE = re.compile(r"[^,.!?]+[,.!?]+\s")


@dataclass(frozen=True, slots=True)
class Order:
    """What to run: addresses and keys by service, and for how long."""

    kind: Kind
    addresses: Mapping[str, tuple[str, str]]
    sessions: int
    warm_s: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Window:
    """What was measured: CPU of a session in % of a core, and seconds of the agent's audio that the
    session that got least received, and that a session received on average.
    """

    cpu: float
    least_audio_s: float
    audio_s: float


def person(session: int, sessions: int) -> AudioFrame:
    """Return a cycle of the person's audio; the sessions speak one after the other."""
    samples = np.zeros(int(CYCLE_S * RATE), np.int16)
    period = np.repeat([8000, -8000], RATE // 400).astype(np.int16)
    length = int(SPEECH_S * RATE)
    samples[:length] = np.resize(period, length)
    samples = np.roll(samples, int(CYCLE_S * session / sessions * 50) * RATE // 50)
    return AudioFrame(samples, RATE)


class BareSession:
    """Three clients by hand."""

    def __init__(self, order: Order, audio: AudioFrame) -> None:
        self._order = order
        self._audio = audio
        self.samples = 0
        """Samples of the agent's audio."""

    async def run(self, began: float) -> None:
        stt_url, stt_key = self._order.addresses["deepgram"]
        tts_url, tts_key = self._order.addresses["cartesia"]
        chat_url, _ = self._order.addresses["chat"]
        listen = (
            f"{stt_url}/v2/listen?model=flux-general-en&encoding=linear16&sample_rate={RATE}"
            "&eot_threshold=0.7&eager_eot_threshold=0.4"
        )
        speak = f"{tts_url}/tts/websocket"
        car = {"Authorization": f"Bearer {tts_key}", "Cartesia-Version": "2026-03-01"}
        dg = {"Authorization": f"Token {stt_key}"}
        async with (
            connect(listen, additional_headers=dg, compression=None) as stt,
            connect(speak, additional_headers=car, compression=None, max_size=None) as tts,
            httpx.AsyncClient() as http,
            asyncio.TaskGroup() as tasks,
        ):

            async def send_audio() -> None:
                frames = self._audio.samples.reshape(-1, RATE // 50)
                loop = asyncio.get_running_loop()
                index = 0
                while True:
                    await asyncio.sleep(max(0.0, began + index * TICK_S - loop.time()))
                    await stt.send(frames[index % len(frames)].tobytes())
                    index += 1

            async def hear() -> None:
                async for message in stt:
                    event = orjson.loads(message)
                    if event.get("event") == "EagerEndOfTurn":
                        tasks.create_task(think(event["transcript"]))

            async def think(text: str) -> None:
                request = {"model": "m", "messages": [{"role": "user", "content": text}]}
                context, held = os.urandom(16).hex(), ""
                async with http.stream("POST", f"{chat_url}/chat/completions", json=request) as got:
                    async for line in got.aiter_lines():
                        if line.startswith("data: {"):
                            held += orjson.loads(line[6:])["choices"][0]["delta"]["content"]
                            while match := _CLAUSE.match(held):
                                await say(context, match.group(), more=True)
                                held = held[match.end() :]
                await say(context, held, more=False)

            async def say(context: str, text: str, *, more: bool) -> None:
                request = {
                    "context_id": context,
                    "model_id": "sonic-3",
                    "transcript": text,
                    "continue": more,
                    "voice": {"mode": "id", "id": "v"},
                    "output_format": {
                        "container": "raw",
                        "encoding": "pcm_s16le",
                        "sample_rate": VOICE_RATE,
                    },
                    "add_timestamps": True,
                    "max_buffer_delay_ms": 0,
                }
                await tts.send(orjson.dumps(request).decode())

            async def listen_to_voice() -> None:
                async for message in tts:
                    event = orjson.loads(message)
                    if event["type"] == "chunk":
                        pcm = np.frombuffer(pybase64.b64decode(event["data"]), "<i2")
                        self.samples += len(pcm)

            for job in (send_audio(), hear(), listen_to_voice()):
                tasks.create_task(job)


class OurEdge(FedEdge):
    """An edge without cost that counts the audio."""

    output_rate = VOICE_RATE

    def __init__(self) -> None:
        super().__init__()
        self.samples = 0

    def play(self, frame: AudioFrame | None) -> None:
        if frame is not None:
            self.samples += len(frame)


class OurSession:
    """An agent with the library's parts."""

    def __init__(self, order: Order, audio: AudioFrame) -> None:
        self._order = order
        self._audio = audio
        self._edge = OurEdge()

    @property
    def samples(self) -> int:
        """Samples of the agent's audio that reached the edge."""
        return self._edge.samples

    async def run(self, began: float) -> None:
        at = self._order.addresses
        agent = Agent(
            edge=self._edge,
            llm=openai.LLM("m", *at["chat"]),
            stt=deepgram.STT(base_url=at["deepgram"][0], api_key=at["deepgram"][1]),
            tts=cartesia.TTS("v", base_url=at["cartesia"][0], api_key=at["cartesia"][1]),
            vad=EnergyVAD(),
        )
        feed(self._edge, self._audio, began)
        async with agent.join():
            await asyncio.Event().wait()


async def measure(order: Order) -> Window:
    """Run all sessions, and measure them from ``warm_s`` after the last began."""
    kind = OurSession if order.kind == "ours" else BareSession
    sessions = [kind(order, person(n, order.sessions)) for n in range(order.sessions)]
    loop = asyncio.get_running_loop()
    began = loop.time() + order.sessions * CONNECT_S + 0.5
    tasks = []
    for number, session in enumerate(sessions):
        start = began + number * TICK_S / order.sessions
        tasks.append(asyncio.create_task(session.run(start)))
        await asyncio.sleep(CONNECT_S)
    gc.collect()
    await asyncio.sleep(began + order.warm_s - loop.time())
    before = [session.samples for session in sessions]
    cpu, begin = time.process_time(), time.perf_counter()
    await asyncio.sleep(order.seconds)
    cpu, seconds = time.process_time() - cpu, time.perf_counter() - begin
    for task in tasks:
        if task.done():
            task.result()
    after = [session.samples for session in sessions]
    audio = [(b - a) / VOICE_RATE for a, b in zip(before, after, strict=True)]
    return Window(cpu / seconds / order.sessions * 100, min(audio), sum(audio) / len(audio))


def main() -> None:
    order = Order(**orjson.loads(sys.argv[1]))
    with asyncio.Runner() as runner:
        window = runner.run(measure(order))
        sys.stdout.buffer.write(orjson.dumps(window) + b"\n")
        sys.stdout.flush()
        os._exit(0)  # Hanging up in order would take longer than the measurement.


if __name__ == "__main__":
    main()
