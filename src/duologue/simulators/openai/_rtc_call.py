"""A session over WebRTC: audio as RTP, events on the data channel."""

from __future__ import annotations

import asyncio
import logging

import numpy as np

from duologue.audio import AudioFrame
from duologue.clock import Clock
from duologue.json_types import JsonObject
from duologue.rtc import sdp
from duologue.rtc.config import MessageTooLongError, PeerConfig, PeerState
from duologue.rtc.peer import Peer
from duologue.simulators._channel import EventChannel
from duologue.simulators._fault_plan import FaultPlan
from duologue.simulators._fields import new_id
from duologue.simulators._openai_protocol.schema import RATE
from duologue.simulators.openai._output_buffer import OutputBuffer
from duologue.simulators.openai._session import OpenAISession
from duologue.testing.network import BadNetwork
from duologue.ticker import ticker_for

logger = logging.getLogger(__name__)

SILENCE_PEAK = 200
"""Audio with a lower peak (of 32767) is silence, which Opus does not decode to zeros."""

CHANNEL_LABEL = "oai-events"
MAX_UNSENT_BYTES = 64 * 1024
"""Bytes that may wait on the data channel; beyond it the next event waits."""


class RtcCall(EventChannel):
    """One call; its id is the last part of its URL."""

    def __init__(self, plan: FaultPlan, clock: Clock, seed: int, *, loopback: bool) -> None:
        super().__init__(plan, clock, seed)
        self.id = new_id("rtc")
        self._served: OpenAISession | None = None
        self._connected = asyncio.Event()
        self._ended = asyncio.Event()
        self._network = BadNetwork(seed=seed) if plan.has_loss else None
        self.peer = Peer(
            PeerConfig(
                channel=CHANNEL_LABEL, send_rate=RATE, receive_rate=RATE, video=True, loopback=True
            ),
            on_audio=self._on_audio,
            on_message=self._on_message,
            on_state=self._on_state,
            clock=clock,
        )
        self.output_buffer = OutputBuffer(self.peer.send_audio, self._emit, at_once=loopback)

    async def accept(self, offer: str) -> str:
        """Return the answer to the client's offer.

        Raises:
            PeerError: The offer is unsuitable.
            ValueError: The offer is not SDP.
        """
        if self._network is None:
            return await self.peer.accept(offer)
        await self._network.__aenter__()
        offer = self._network.reroute("offer", sdp.replace_mdns_names(offer))
        return self._network.reroute("answer", await self.peer.accept(offer))

    async def serve(self, session: OpenAISession) -> None:
        """Run the session until either side ends it."""
        self._served = session
        subscription = None
        try:
            async with asyncio.TaskGroup() as tasks:
                below = [
                    tasks.create_task(self.run_writer(), name="simulator writes"),
                    tasks.create_task(session.run_backend(), name="simulator backend"),
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
        """Send one message on the data channel, once that is open."""
        text = data if isinstance(data, str) else data.decode("latin-1")
        try:
            if not (await self.peer.drain(MAX_UNSENT_BYTES) and self.peer.send_message(text)):
                self.ended = True
        except MessageTooLongError:
            # The limit of the data channel, which the client has declared: 256 KiB with aiortc.
            logger.warning("an event of %d characters is too large for the client", len(text))

    async def close_transport(self, code: int, reason: str) -> None:
        """Hang up; WebRTC has no close codes."""
        self._ended.set()

    def abort(self) -> None:
        """Close the sockets without telling the client; the session ends once it notices."""
        self.peer.abort()

    def drop_packets(self, fraction: float) -> None:
        """Lose this fraction of the audio packets in both directions."""
        if self._network is not None:
            self._network.loss = fraction

    async def _connect(self, session: OpenAISession) -> None:
        await self._connected.wait()
        await session.begin()

    def _tick(self, when: float) -> None:
        if self._connected.is_set():
            self.output_buffer.tick(when)

    def _emit(self, kind: str, fields: JsonObject) -> None:
        if self._served is not None:
            self._served.emit(kind, fields)

    def _on_audio(self, frame: AudioFrame) -> None:
        if self._served is None or self.clock.now() < self.reading_paused_until:
            return
        samples = frame.samples
        if np.abs(samples.astype(np.int32)).max(initial=0) < SILENCE_PEAK:
            samples = np.zeros(len(samples), np.int16)
        self._served.accept_audio(samples)

    def _on_message(self, text: str) -> None:
        if self._served is not None:
            self._served.receive(text)

    def _on_state(self, state: PeerState, reason: str) -> None:
        if state == "connected":
            self._connected.set()
        elif state in ("failed", "closed"):
            self._ended.set()
