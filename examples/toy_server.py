"""The toy service that toy_provider.py talks to: it answers each turn by saying how long it was."""

import asyncio
import base64
import json
import math
from array import array

from websockets.asyncio.server import ServerConnection, serve

RATE = 16000
LOUD = 500
PAUSE_S = 0.5
"""Seconds of silence that end a turn."""


class Session:
    """One connection: finds turns by loudness, and makes one reply at a time."""

    def __init__(self, connection: ServerConnection) -> None:
        self.connection = connection
        self.count = 0
        self.turn = ""
        self.speech_s = self.silence_s = 0.0
        self.reply: asyncio.Task[None] | None = None

    async def run(self) -> None:
        request = self.connection.request
        if request is None or request.headers.get("Authorization") != "Bearer toy":
            await self.connection.close(4001, "the key is wrong")
            return
        async for text in self.connection:
            await self.receive(json.loads(text))
        if self.reply is not None:
            self.reply.cancel()

    async def send(self, kind: str, **fields: object) -> None:
        await self.connection.send(json.dumps({"type": kind, **fields}))

    async def receive(self, message: dict[str, str]) -> None:
        match message:
            case {"type": "setup"}:
                await self.send("ready")
            case {"type": "audio", "pcm": pcm}:
                await self.hear(array("h", base64.b64decode(pcm)))
            case {"type": "reply", "request": request}:
                self.speak("Yes, I am here.", request)
            case {"type": "cancel", "id": reply}:
                if self.reply is not None and self.reply.get_name() == reply:
                    self.reply.cancel()

    async def hear(self, samples: "array[int]") -> None:
        seconds = len(samples) / RATE
        if max(samples, default=0) > LOUD:
            if not self.turn:
                self.count += 1
                self.turn = f"turn {self.count}"
                await self.send("speech", id=self.turn)
            self.speech_s += seconds
            self.silence_s = 0.0
        elif self.turn:
            self.silence_s += seconds
            if self.silence_s >= PAUSE_S:
                await self.send("turn", id=self.turn, text=f"({self.speech_s:.1f} s)")
                self.speak(f"You spoke for {self.speech_s:.1f} seconds.", None)
                self.turn, self.speech_s = "", 0.0

    def speak(self, text: str, request: str | None) -> None:
        if self.reply is not None:
            self.reply.cancel()
        self.count += 1
        reply = f"reply {self.count}"
        self.reply = asyncio.create_task(self.make_reply(reply, text, request), name=reply)

    async def make_reply(self, reply: str, text: str, request: str | None) -> None:
        try:
            await self.send("started", id=reply, request=request)
            await self.send("text", id=reply, text=text)
            for n in range(len(text)):  # A beep of 50 ms for each character.
                tone = (int(8000 * math.sin(n + i / 8)) for i in range(RATE // 20))
                pcm = base64.b64encode(array("h", tone).tobytes()).decode()
                await self.send("audio", id=reply, pcm=pcm)
                await asyncio.sleep(0)
        finally:
            await self.send("done", id=reply)


async def start(port: int = 8765) -> None:
    async with serve(lambda connection: Session(connection).run(), "127.0.0.1", port) as server:
        print(f"ws://127.0.0.1:{port}", flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(start())
