"""The voice of a service that keeps a connection: a `TTSConnection` made of a wire and a codec."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from duologue.clock import Clock
from duologue.errors import DuologueError, ErrorKind, SessionError
from duologue.pipeline._voice_contexts import Reply, VoiceContexts
from duologue.pipeline.interfaces import Synthesis, SynthesisOutput
from duologue.pipeline.tts_codec import TTSCodec, VoiceTraits
from duologue.realtime.codec import NonBlockingWire
from duologue.realtime.reconnect import STABLE_S, ReconnectPolicy

log = logging.getLogger(__name__)

CLOSE_TIMEOUT_S = 0.3
"""Seconds that a wire may take to close; then it is abandoned."""
MAX_UNSENT = 1024
"""Messages that may wait for a service that does not read; beyond it the connection is replaced."""


class SocketTTS[M]:
    """A `TTSConnection` over a wire.

    It connects when it is run, so that the first reply does not wait. When the connection is lost
    while a reply needs it, it connects again at once, and the reply continues behind what was
    spoken (see `VoiceContexts`). A connection that is lost while nothing is spoken is replaced when
    the next reply begins.

    Args:
        traits: How the service works.
        rate: Hz of its audio.
        make_codec: Makes the codec of the next connection.
        make_wire: Makes its wire.
        clock: Tells the time.
        reconnect: How long to wait between attempts, and for each of them.
    """

    def __init__(
        self,
        traits: VoiceTraits,
        rate: int,
        *,
        make_codec: Callable[[], TTSCodec[M]],
        make_wire: Callable[[], NonBlockingWire[M]],
        clock: Clock,
        reconnect: ReconnectPolicy | None = None,
    ) -> None:
        self._contexts = VoiceContexts[M](traits, rate)
        self._make_codec = make_codec
        self._make_wire = make_wire
        self._clock = clock
        self._policy = reconnect or ReconnectPolicy()
        self._wire: NonBlockingWire[M] | None = None
        self._opened_at = float("inf")
        """When the newest connection was open, in clock seconds."""
        self._unsent: deque[M] = deque()
        self._wake_writer = asyncio.Event()
        self._needed = asyncio.Event()
        self._syntheses: list[_Synthesis[M]] = []
        self._received_at = 0.0
        self._sent_at = 0.0
        self.connections = 0
        """Connections so far."""

    async def run(self) -> None:
        """Keep the connection until cancelled."""
        attempt = 0
        rng = random.Random()  # noqa: S311 - spreads attempts, guards no secret
        while True:
            error = await self._connect_and_serve()
            log.info("the voice's connection ended: %s", error)
            self._contexts.disconnected(error)
            self._settle()
            lasted_s = self._clock.now() - self._opened_at
            attempt = 1 if lasted_s >= STABLE_S else attempt + 1
            if not self._contexts.has_work:
                self._needed.clear()
                await self._needed.wait()
            elif attempt > 1:
                await self._clock.sleep(self._policy.wait_s(attempt - 1, rng))

    def synthesize(
        self, receive: Callable[[SynthesisOutput], None], *, hurry: bool = True
    ) -> Synthesis:
        """Start a reply; see `TTSConnection.synthesize`."""
        synthesis = _Synthesis(self, self._contexts, self._contexts.start(receive, hurry=hurry))
        self._syntheses.append(synthesis)
        self._needed.set()
        return synthesis

    async def _connect_and_serve(self) -> SessionError:
        """Run one connection; return the error that ended it."""
        self._opened_at = float("inf")
        wire = self._make_wire()
        try:
            async with asyncio.timeout(self._policy.connect_timeout_s):
                await wire.open()
            self.connections += 1
            self._opened_at = self._clock.now()
            await self._serve(wire, self._make_codec())
        except TimeoutError:
            return SessionError("the voice can't be reached", kind=ErrorKind.RETRY)
        except SessionError as error:
            return error
        except DuologueError as error:  # A package that is not installed, for example.
            return SessionError(str(error), kind=ErrorKind.FATAL)
        finally:
            self._wire = None
            self._unsent.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    await wire.close()
        return SessionError("the voice ended the connection", kind=ErrorKind.RECYCLE)

    async def _serve(self, wire: NonBlockingWire[M], codec: TTSCodec[M]) -> None:
        self._wire = wire
        self._sent_at = self._clock.now()
        self._contexts.connected(codec)
        try:
            async with asyncio.TaskGroup() as tasks:
                helpers = [
                    tasks.create_task(self._write(wire), name="voice writer"),
                    tasks.create_task(self._watch(codec), name="voice watch"),
                ]
                self.advance()
                await wire.run(self._receive)
                for helper in helpers:
                    helper.cancel()
        except* DuologueError as errors:
            raise errors.exceptions[0] from None

    def _receive(self, message: M) -> None:
        self._received_at = self._clock.now()
        error = self._contexts.received(message)
        self.advance()
        if error is not None:
            raise error

    def advance(self) -> None:
        """Send what the contexts have to send, and tell replies that are over."""
        wire = self._wire
        for message in self._contexts.messages():
            if wire is None or self._unsent or not wire.try_send(message):
                self._unsent.append(message)
                self._wake_writer.set()
            else:
                self._sent_at = self._clock.now()
        if wire is None and self._contexts.has_work:
            self._needed.set()
        self._settle()

    def _settle(self) -> None:
        over = [synthesis for synthesis in self._syntheses if synthesis.reply.over]
        for synthesis in over:
            self._syntheses.remove(synthesis)
            synthesis.over.set()

    async def _write(self, wire: NonBlockingWire[M]) -> None:
        while True:
            self._wake_writer.clear()
            while self._unsent:
                await wire.send(self._unsent[0])
                self._unsent.popleft()
                self._sent_at = self._clock.now()
            await self._wake_writer.wait()

    async def _watch(self, codec: TTSCodec[M]) -> None:
        """Replace a connection on which audio is due and nothing comes; keep an idle one open."""
        traits = self._contexts.traits
        keep_alive_s = traits.keep_alive_s or traits.stall_s
        idle_since = self._clock.now()
        while True:
            await self._clock.sleep(min(traits.stall_s, keep_alive_s) / 4)
            now = self._clock.now()
            if len(self._unsent) > MAX_UNSENT:
                raise SessionError("the voice does not read", kind=ErrorKind.RECYCLE)
            if not self._contexts.waits_for_audio:
                idle_since = now
            elif now - max(idle_since, self._received_at) > traits.stall_s:
                raise SessionError(
                    f"no audio within {traits.stall_s:g} s", code="stalled", kind=ErrorKind.RECYCLE
                )
            if traits.keep_alive_s is not None and now - self._sent_at >= traits.keep_alive_s:
                self._unsent.extend(codec.keep_alive())
                self._wake_writer.set()


class _Synthesis[M]:
    """One reply of a `SocketTTS`."""

    def __init__(self, owner: SocketTTS[M], contexts: VoiceContexts[M], reply: Reply) -> None:
        self._owner = owner
        self._contexts = contexts
        self.reply = reply
        self.over = asyncio.Event()

    async def send(self, text: str) -> None:
        self._contexts.send(self.reply, text)
        self._owner.advance()

    def flush(self) -> None:
        self._contexts.flush(self.reply)
        self._owner.advance()

    def finish(self) -> None:
        self._contexts.finish(self.reply)
        self._owner.advance()

    async def wait(self) -> None:
        await self.over.wait()
        if self.reply.error is not None:
            raise self.reply.error

    def cancel(self, played: int | None = None) -> None:
        self._contexts.cancel(self.reply, played)
        self._owner.advance()
