"""Call a server, hear its agent, and print what the connection was: ``URL TOKEN``."""

import asyncio
import json
import sys

import numpy as np
import websockets

from duologue.rtc.config import IceServer, PeerConfig
from duologue.rtc.peer import Peer


async def main(url: str, token: str) -> None:
    heard = asyncio.Event()
    lost = asyncio.Event()
    reasons = []

    def receive(frame) -> None:
        if np.abs(frame.samples.astype(int)).max(initial=0) > 500:
            heard.set()

    def state_changed(state, reason) -> None:
        if state == "failed":
            reasons.append(reason)
            lost.set()

    address = url.replace("http", "ws", 1) + "/call"
    async with await connect(address, url) as socket:
        await socket.send(json.dumps({"type": "hello", "token": token}))
        config = await receive_type(socket, "config")
        servers = tuple(
            IceServer(tuple(each["urls"]), each.get("username"), each.get("credential"))
            for each in config["ice_servers"]
        )
        peer = Peer(
            PeerConfig(ice_servers=servers, loopback="localhost" in url or "[::1]" in url),
            on_audio=receive,
            on_state=state_changed,
        )
        try:
            await socket.send(json.dumps({"type": "offer", "sdp": await peer.offer()}))
            await peer.answer((await receive_type(socket, "answer"))["sdp"])
            async with asyncio.timeout(15):
                waits = [asyncio.ensure_future(each.wait()) for each in (heard, lost)]
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                for wait in waits:
                    wait.cancel()
            ice = peer._connection.sctp.transport.transport
            pair = ice._connection._nominated[1]
            ends = {
                "local": [pair.local_candidate.type, pair.local_candidate.host],
                "remote": [pair.remote_candidate.type, pair.remote_candidate.host],
            }
            print(json.dumps({"heard": heard.is_set(), "reasons": reasons} | ends))
        finally:
            await peer.close()


async def connect(address: str, origin: str) -> websockets.ClientConnection:
    """Connect, once the server listens."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await websockets.connect(address, origin=origin, proxy=None)
            except ConnectionRefusedError:
                await asyncio.sleep(0.1)


async def receive_type(socket, kind: str) -> dict:
    async with asyncio.timeout(10):
        while True:
            message = json.loads(await socket.recv())
            if message["type"] == kind:
                return message
            if message["type"] == "error":
                raise SystemExit(json.dumps(message))


asyncio.run(main(*sys.argv[1:]))
