"""Talk with an agent over the WebSocket edge: a recording in, the agent's voice out.

    python examples/websocket_client.py question.wav answer.wav ws://localhost:8000/socket

It is the reference for clients of your own: docs/edges/websocket.md has the protocol. It plays into
a file at the pace of speech, as a sound device would, and reports what has been played.
"""

import asyncio
import json
import sys
import wave

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.typing import Subprotocol

FRAME_S = 0.02


class Player:
    """Plays what comes in order, at the pace of speech, and forgets it at a clear."""

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self.heard = bytearray()
        self.queue = bytearray()
        self.epoch = 0
        self.played = 0

    def clear(self, epoch: int) -> None:
        """Drop what was not played, and count from here on."""
        self.queue.clear()
        self.epoch, self.played = epoch, 0

    def play(self) -> None:
        """Play the next 20 ms, or silence."""
        size = round(self.rate * FRAME_S) * 2
        piece = bytes(self.queue[:size])
        del self.queue[:size]
        self.heard += piece.ljust(size, b"\0")
        self.played += len(piece) // 2


async def send_speech(
    socket: ClientConnection, speech: bytes, player: Player, seconds: float
) -> None:
    """Send the speech and then silence in real time; play and report meanwhile."""
    size = round(player.rate * FRAME_S) * 2
    loop = asyncio.get_running_loop()
    begun = loop.time()
    for tick in range(len(speech) // size + round(seconds / FRAME_S)):
        await asyncio.sleep(max(0.0, begun + tick * FRAME_S - loop.time()))
        await socket.send(speech[tick * size : (tick + 1) * size].ljust(size, b"\0"))
        player.play()
        if tick % 5 == 0:
            report = {"type": "played", "epoch": player.epoch, "samples": player.played}
            await socket.send(json.dumps(report))
    await socket.send(json.dumps({"type": "bye"}))


async def receive(socket: ClientConnection, player: Player) -> None:
    """Take what the agent sends, until the end."""
    async for message in socket:
        if isinstance(message, bytes):
            player.queue += message
            continue
        match json.loads(message):
            case {"type": "clear", "epoch": int(epoch)}:
                player.clear(epoch)
            case {
                "type": "event",
                "event": {"type": "AgentTranscriptEvent", "final": True, **event},
            }:
                print("agent:", event["text"])
            case {
                "type": "event",
                "event": {"type": "UserTranscriptEvent", "final": True, **event},
            }:
                print("you:", event["text"])
            case {"type": "error", "message": str(words)}:
                print("error:", words, file=sys.stderr)
            case _:
                pass  # Other events are ignored, and so are types of message to come.


async def talk(
    address: str, speech: bytes, rate: int, token: str = "", seconds: float = 8.0
) -> bytes:
    """Speak, listen for some seconds, and return what was heard: 16-bit PCM."""
    player = Player(rate)
    async with connect(address, subprotocols=[Subprotocol("duologue.v1")]) as socket:
        hello = {"type": "hello", "token": token, "rate": rate, "codec": "pcm", "played": True}
        await socket.send(json.dumps(hello))
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(receive(socket, player))
                await send_speech(socket, speech, player, seconds)
        except* ConnectionClosed:
            reason = f"{socket.close_code} {socket.close_reason}".strip()
            print(f"the server ended the call: {reason}", file=sys.stderr)
    return bytes(player.heard)


def main() -> None:
    source, target = sys.argv[1:3]
    address = sys.argv[3] if len(sys.argv) > 3 else "ws://localhost:8000/socket"
    with wave.open(source) as file:
        if (file.getnchannels(), file.getsampwidth()) != (1, 2):
            raise SystemExit("the recording must be mono, 16-bit")
        rate, speech = file.getframerate(), file.readframes(file.getnframes())
    try:
        heard = asyncio.run(talk(address, speech, rate))
    except (OSError, InvalidHandshake) as error:
        raise SystemExit(f"can't call {address}: {error}") from None
    with wave.open(target, "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes(heard)


if __name__ == "__main__":
    main()
