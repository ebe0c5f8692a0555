"""A recognition service that keeps a connection: an `STTConnection` made of a wire and a codec."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable
from contextlib import suppress

import numpy as np

from duologue.audio import AudioFrame
from duologue.clock import Clock
from duologue.errors import DuologueError, ErrorKind, SessionError
from duologue.pipeline._recognition_log import KEEP_S, RecognitionLog
from duologue.pipeline.interfaces import RecognitionEvent
from duologue.pipeline.stt_codec import RecognizerTraits, STTCodec
from duologue.realtime.codec import NonBlockingWire
from duologue.realtime.reconnect import STABLE_S, ReconnectPolicy

log = logging.getLogger(__name__)

CLOSE_TIMEOUT_S = 0.3
"""Seconds that a wire may take to close; then it is abandoned."""
CLOSING_TIMEOUT_S = 0.1
"""Seconds of these that the closing messages may take."""
MAX_UNSENT_S = KEEP_S + 15.0
"""Seconds of audio that may wait for a service that does not read, kept audio included; with more
the connection is replaced.
"""
FRAME_S = 0.02
"""Seconds of a frame of silence that is sent in place of missing audio."""


class SocketSTT[M]:
    """An `STTConnection` over a wire.

    It connects when it is run, and again whenever the connection is lost, because the person may
    speak at any moment. What the person says meanwhile is kept, and recognised then.

    Args:
        traits: How the service works.
        rate: Hz of the audio that it takes.
        make_codec: Makes the codec of the next connection.
        make_wire: Makes its wire.
        clock: Tells the time.
        reconnect: How often to try, and how long to wait between attempts and for each of them.
    """

    def __init__(
        self,
        traits: RecognizerTraits,
        rate: int,
        *,
        make_codec: Callable[[], STTCodec[M]],
        make_wire: Callable[[], NonBlockingWire[M]],
        clock: Clock,
        reconnect: ReconnectPolicy | None = None,
    ) -> None:
        self._traits = traits
        self._rate = rate
        self._make_codec = make_codec
        self._make_wire = make_wire
        self._clock = clock
        self._policy = reconnect or ReconnectPolicy()
        self._log = RecognitionLog[M](traits, rate)
        self._wire: NonBlockingWire[M] | None = None
        self._receive: Callable[[RecognitionEvent], None] = _ignore
        self._unsent: deque[M] = deque()
        self._wake_writer = asyncio.Event()
        self._pushed_at = 0.0
        self._sent_at = 0.0
        self._opened_at = float("inf")
        """When the newest connection was open, in clock seconds."""
        self.connections = 0
        """Connections so far."""

    async def run(self, receive: Callable[[RecognitionEvent], None]) -> None:
        """Connect, and report events until cancelled; see `STTConnection.run`."""
        self._receive = receive
        self._pushed_at = self._clock.now()
        rng = random.Random()  # noqa: S311 - spreads attempts, guards no secret
        attempt = 0
        while True:
            error = await self._connect_and_serve()
            log.info("the recogniser's connection ended: %s", error)
            self._log.disconnected()
            lasted_s = self._clock.now() - self._opened_at
            attempt = 1 if lasted_s >= STABLE_S else attempt + 1
            if error.kind is ErrorKind.FATAL or attempt > max(1, self._policy.max_attempts):
                raise error
            if attempt > 1:
                await self._clock.sleep(self._policy.wait_s(attempt - 1, rng))

    def push(self, frame: AudioFrame) -> None:
        """Add the next audio."""
        self._pushed_at = self._clock.now()
        self._log.push(frame.samples)
        self._advance()

    def settle(self) -> None:
        """Ask for a final transcript of the turn so far."""
        self._log.settle()
        self._advance()

    def end_turn(self) -> None:
        """End the turn."""
        for event in self._log.end_turn():
            self._receive(event)
        self._advance()

    async def _connect_and_serve(self) -> SessionError:
        """Run one connection; return the error that ended it."""
        self._opened_at = float("inf")
        wire, codec = self._make_wire(), self._make_codec()
        closes = False
        try:
            async with asyncio.timeout(self._policy.connect_timeout_s):
                await wire.open()
            self.connections += 1
            self._opened_at = self._clock.now()
            closes = True
            await self._serve(wire, codec)
        except TimeoutError:
            return SessionError("the recogniser can't be reached", kind=ErrorKind.RETRY)
        except SessionError as error:
            closes = False
            return error
        except DuologueError as error:  # A package that is not installed, for example.
            return SessionError(str(error), kind=ErrorKind.FATAL)
        finally:
            self._wire = None
            self._unsent.clear()
            if closes:
                await self._say_goodbye(wire, codec)
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    await wire.close()
        return SessionError("the recogniser ended the connection", kind=ErrorKind.RECYCLE)

    async def _say_goodbye(self, wire: NonBlockingWire[M], codec: STTCodec[M]) -> None:
        with suppress(TimeoutError, SessionError):
            async with asyncio.timeout(CLOSING_TIMEOUT_S):
                for message in codec.closing():
                    await wire.send(message)

    async def _serve(self, wire: NonBlockingWire[M], codec: STTCodec[M]) -> None:
        self._wire = wire
        self._sent_at = self._clock.now()
        for event in self._log.connected(codec):
            self._receive(event)
        try:
            async with asyncio.TaskGroup() as tasks:
                helpers = [
                    tasks.create_task(self._write(wire), name="recogniser writer"),
                    tasks.create_task(self._watch(codec), name="recogniser watch"),
                ]
                self._advance()
                await wire.run(self._take)
                for helper in helpers:
                    helper.cancel()
        except* DuologueError as errors:
            raise errors.exceptions[0] from None

    def _take(self, message: M) -> None:
        events, error = self._log.received(message)
        for event in events:
            self._receive(event)
        self._advance()
        if error is not None:
            raise error

    def _advance(self) -> None:
        wire = self._wire
        for message in self._log.messages():
            if wire is None or self._unsent or not wire.try_send(message):
                self._unsent.append(message)
                self._wake_writer.set()
            else:
                self._sent_at = self._clock.now()

    async def _write(self, wire: NonBlockingWire[M]) -> None:
        while True:
            self._wake_writer.clear()
            while self._unsent:
                await wire.send(self._unsent[0])
                self._unsent.popleft()
                self._sent_at = self._clock.now()
            await self._wake_writer.wait()

    async def _watch(self, codec: STTCodec[M]) -> None:
        """Send silence where audio is missing, keep the connection open, and notice a stall."""
        traits = self._traits
        silent = AudioFrame(np.zeros(int(self._rate * FRAME_S), np.int16), self._rate)
        while True:
            await self._clock.sleep(FRAME_S * 5)
            now = self._clock.now()
            if len(self._unsent) > MAX_UNSENT_S / FRAME_S:
                raise SessionError("the recogniser does not read", kind=ErrorKind.RECYCLE)
            if self._log.loud_s > traits.stall_s:
                raise SessionError(
                    f"no transcript of {traits.stall_s:g} s of speech",
                    code="stalled",
                    kind=ErrorKind.RECYCLE,
                )
            limit = traits.silence_s if self._log.in_turn else traits.idle_silence_s
            if limit is not None and now - self._pushed_at >= limit:
                for _ in range(5):
                    self._log.push(silent.samples)
                self._advance()
            keep_alive_s = traits.keep_alive_s
            if keep_alive_s is not None and now - self._sent_at >= keep_alive_s:
                self._unsent.extend(codec.keep_alive())
                self._wake_writer.set()


def _ignore(_: RecognitionEvent) -> None:
    """Drop what comes before the run."""
