"""Call an agent without a browser: the page's side of a call, for tests and load."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

from duologue.audio import AudioFrame
from duologue.json_types import Json
from duologue.rtc.config import PeerConfig, PeerError, PeerState
from duologue.rtc.peer import Peer
from duologue.rtc.signalling import ANSWER, BYE, ERROR, EVENT, OFFER, PLAYED, TEXT, Signalling

MAX_KEPT = 1000
"""Most events and errors that are kept; the oldest is dropped."""


class MemorySignalling:
    """One end of a signalling channel inside this process; `memory_signalling` makes both ends."""

    def __init__(
        self,
        incoming: asyncio.Queue[Mapping[str, Json] | None],
        outgoing: asyncio.Queue[Mapping[str, Json] | None],
    ) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self._ended = False

    async def receive(self) -> Mapping[str, Json] | None:
        """Return the next message, or None after either end was closed."""
        if self._ended:
            return None
        message = await self._incoming.get()
        if message is None:
            self._ended = True
        return message

    async def send(self, message: Mapping[str, Json]) -> None:
        """Send a message; wait while the other end has 64 unread messages."""
        if not self._ended:
            await self._outgoing.put(message)

    def close(self) -> None:
        """Close the channel for both ends."""
        if not self._ended:
            self._ended = True
            while self._outgoing.full():
                self._outgoing.get_nowait()
            self._outgoing.put_nowait(None)


def memory_signalling() -> tuple[MemorySignalling, MemorySignalling]:
    """Return both ends of a channel: for a caller and for a `CallEdge`."""
    one: asyncio.Queue[Mapping[str, Json] | None] = asyncio.Queue(64)
    two: asyncio.Queue[Mapping[str, Json] | None] = asyncio.Queue(64)
    return MemorySignalling(one, two), MemorySignalling(two, one)


class Caller:
    """Calls a `CallEdge` as a page does; use it as ``async with``.

    There is no playout delay, so `report_played` reports what has just arrived.

    Args:
        signalling: Carries the messages of the call.
        on_audio: Called with the agent's audio as it arrives.
        rate: Rate in Hz of the audio in both directions.
        timeout: Seconds in which the call must be connected.
        reroute: Changes each description on its way (see `BadNetwork`).

    Raises:
        PeerError: On entering, if the call can't be connected.
    """

    def __init__(
        self,
        signalling: Signalling,
        *,
        on_audio: Callable[[AudioFrame], None],
        rate: int = 24000,
        timeout: float = 10.0,
        reroute: Callable[[str, str], str] | None = None,
    ) -> None:
        self._signalling = signalling
        self._timeout = timeout
        self._reroute = reroute if reroute is not None else lambda kind, sdp: sdp
        self._connected = asyncio.Event()
        self._reader: asyncio.Task[None] | None = None
        self._answer_received = asyncio.Event()
        self.events: deque[Mapping[str, Json]] = deque(maxlen=MAX_KEPT)
        """Events from the edge, in order."""
        self.errors: deque[str] = deque(maxlen=MAX_KEPT)
        """Codes and messages of the errors from the edge."""
        self.ended = asyncio.Event()
        """Set when the signalling or the connection has ended."""
        self._config = PeerConfig(send_rate=rate, receive_rate=rate, loopback=True)
        self._on_audio = on_audio
        self.peer = self._new_peer()

    async def __aenter__(self) -> Self:
        try:
            async with asyncio.timeout(self._timeout):
                offer = self._reroute(OFFER, await self.peer.offer())
                await self._signalling.send({"type": OFFER, "sdp": offer})
                # This task lives until __aexit__, which a TaskGroup can't span here.
                self._reader = asyncio.ensure_future(self._read())
                await self._wait(self._answer_received)
                await self._wait(self._connected)
        except TimeoutError:
            await self.hang_up()
            raise PeerError(f"no connection within {self._timeout:g} s") from None
        except BaseException:
            await self.hang_up()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.hang_up()

    async def restart(self) -> None:
        """Move the call to a new connection, as a page does whose network has changed.

        Raises:
            PeerError: It can't be connected.
        """
        earlier, self.peer = self.peer, self._new_peer()
        self._connected.clear()
        self._answer_received.clear()
        try:
            async with asyncio.timeout(self._timeout):
                offer = self._reroute(OFFER, await self.peer.offer())
                await self._signalling.send({"type": OFFER, "sdp": offer, "restart": True})
                await self._wait(self._answer_received)
                await self._wait(self._connected)
        except TimeoutError:
            raise PeerError(f"no connection within {self._timeout:g} s") from None
        finally:
            await earlier.close()

    def send(self, frame: AudioFrame | None) -> int:
        """Send the person's next 20 ms at ``rate``, None as silence; return its RTP timestamp."""
        return self.peer.send_audio(frame)

    async def send_text(self, text: str) -> None:
        """Write a text to the agent."""
        await self._signalling.send({"type": TEXT, "text": text})

    def report_played(self) -> None:
        """Report all received audio as played, as a page does several times a second."""
        if self.peer.last_received is not None:
            self.peer.send_message(json.dumps({"type": PLAYED, "rtp": self.peer.last_received}))

    async def hang_up(self) -> None:
        """End the call; may be called again."""
        reader, self._reader = self._reader, None
        try:
            if reader is not None:
                reader.cancel()
                await asyncio.wait([reader])
                await self._signalling.send({"type": BYE})
        finally:
            await self.peer.close()

    def _new_peer(self) -> Peer:
        def state_changed(state: PeerState, reason: str) -> None:
            if peer is self.peer:
                self._state_changed(state, reason)

        peer = Peer(self._config, on_audio=self._on_audio, on_state=state_changed)
        return peer

    async def _wait(self, event: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as tasks:
            waits = [tasks.create_task(event.wait()), tasks.create_task(self.ended.wait())]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()
        if not event.is_set():
            raise PeerError(self.errors[-1] if self.errors else "the call ended")

    async def _read(self) -> None:
        while (message := await self._signalling.receive()) is not None:
            match message:
                case {"type": kind, "sdp": str(sdp)} if kind == ANSWER:
                    await self.peer.answer(self._reroute(ANSWER, sdp))
                    self._answer_received.set()
                case {"type": kind, "event": dict(event)} if kind == EVENT:
                    self.events.append(event)
                case {"type": kind, "code": code, "message": text} if kind == ERROR:
                    self.errors.append(f"{code}: {text}")
                    if code == "call_failed":
                        break
                case _:
                    pass
        self.ended.set()

    def _state_changed(self, state: PeerState, reason: str) -> None:
        if state == "connected":
            self._connected.set()
        elif state in ("failed", "closed"):
            if reason:
                self.errors.append(reason)
            self.ended.set()
