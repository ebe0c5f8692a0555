"""A session over WebRTC: sound as RTP, events on the data channel."""

from __future__ import annotations

import asyncio
import logging

import numpy as np

from duologue.audio import AudioFrame
from duologue.clock import Clock
from duologue.rtc import inside, sdp
from duologue.rtc.config import MessageTooLongError, PeerConfig, PeerState
from duologue.rtc.peer import Peer
from duologue.simulator.faults import FaultPlan
from duologue.simulator.fields import new_id
from duologue.simulator.line import EventLine
from duologue.simulator.openai.output_buffer import OutputBuffer
from duologue.simulator.openai.schema import RATE
from duologue.simulator.openai.session import Session
from duologue.testing.bad_network import BadNetwork
from duologue.ticker import ticker_for

logger = logging.getLogger(__name__)

NOISE = 200
"""Sound that is nowhere louder (of 32767) is silence: Opus gives some where there was none."""

CHANNEL = "oai-events"
MOST_UNSENT = 64 * 1024
"""Bytes that may wait on the data channel before the next event does."""


class RtcCall(EventLine):
    """One call; its id is the last part of its address."""

    def __init__(self, plan: FaultPlan, clock: Clock, seed: int, *, loopback: bool) -> None:
        super().__init__(plan, clock, seed)
        self.id = new_id("rtc")
        self._session: Session | None = None
        self._connected = asyncio.Event()
        self._ended = asyncio.Event()
        self._network = BadNetwork(seed=seed) if plan.loss else None
        self.peer = Peer(
            PeerConfig(
                channel=CHANNEL, send_rate=RATE, receive_rate=RATE, video=True, loopback=True
            ),
            on_audio=self._hear,
            on_message=self._take,
            on_state=self._changed,
            clock=clock,
        )
        self.playout = OutputBuffer(self.peer.send_audio, at_once=loopback)

    async def accept(self, offer: str) -> str:
        """Answer the client's offer. Raises `PeerError`, or ``ValueError``."""
        if self._network is None:
            return await self.peer.accept(offer)
        await self._network.__aenter__()
        offer = self._network.reroute("offer", sdp.name_loopback(offer))
        return self._network.reroute("answer", await self.peer.accept(offer))

    async def serve(self, session: Session) -> None:
        """Hold the session until either side ends it."""
        self._session = session
        self.playout.emit = session.emit
        subscription = None
        try:
            async with asyncio.TaskGroup() as tasks:
                below = [
                    tasks.create_task(self.write(), name="simulator writes"),
                    tasks.create_task(session.run_brain(), name="simulator brain"),
                    tasks.create_task(self._connect(session), name="simulator connects"),
                ]
                subscription = ticker_for(self.clock).subscribe(self._tick)
                await self._ended.wait()
                session.close()
                for task in below:
                    task.cancel()
        finally:
            if subscription is not None:
                subscription.cancel()
            await self.hang_up()

    async def hang_up(self) -> None:
        """End the call; idempotent."""
        self._ended.set()
        await self.peer.close()
        if self._network is not None:
            await self._network.__aexit__(None, None, None)

    async def deliver(self, data: str | bytes) -> None:
        """Send one message on the data channel, once there is one."""
        text = data if isinstance(data, str) else data.decode("latin-1")
        try:
            if not (await self.peer.drain(MOST_UNSENT) and self.peer.send_message(text)):
                self.over = True
        except MessageTooLongError:
            # The channel's own limit, which the client has named: 256 KiB with aiortc.
            logger.warning("an event of %d characters is too large for the client", len(text))

    async def end(self, code: int, reason: str) -> None:
        """Hang up; WebRTC has no codes."""
        self._ended.set()

    def break_off(self) -> None:
        """Close the sockets without a farewell; the session goes on for as long as it takes."""
        for ice in inside.ice_transports(self.peer._connection):
            inside.cut(ice)

    def lose(self, fraction: float) -> None:
        """Lose that part of the packets of sound, both ways."""
        if self._network is not None:
            self._network.loss = fraction

    async def _connect(self, session: Session) -> None:
        await self._connected.wait()
        await session.begin()

    def _tick(self, when: float) -> None:
        if self._connected.is_set():
            self.playout.tick(when)

    def _hear(self, frame: AudioFrame) -> None:
        if self._session is None or self.clock.now() < self.deaf_until:
            return
        samples = frame.samples
        if np.abs(samples.astype(np.int32)).max(initial=0) < NOISE:
            samples = np.zeros(len(samples), np.int16)
        self._session.hear(samples)

    def _take(self, text: str) -> None:
        if self._session is not None:
            self._session.take(text)

    def _changed(self, state: PeerState, reason: str) -> None:
        if state == "connected":
            self._connected.set()
        elif state in ("failed", "closed"):
            self._ended.set()
