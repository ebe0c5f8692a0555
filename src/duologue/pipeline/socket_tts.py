"""The voice of a service that keeps a connection: a `TTSConnection` made of a wire and a codec."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from duologue.clock import Clock
from duologue.errors import ErrorKind
from duologue.pipeline._socket_part import SocketPart
from duologue.pipeline._voice_contexts import Reply, VoiceContexts
from duologue.pipeline.interfaces import Synthesis, SynthesisOutput
from duologue.pipeline.tts_codec import TTSCodec, VoiceTraits
from duologue.realtime.codec import NonBlockingWire
from duologue.realtime.reconnect import ReconnectPolicy

MAX_UNSENT = 1024
"""Messages that may wait for a service that does not read; beyond it the connection is replaced."""


class SocketTTS[M](SocketPart[M, TTSCodec[M]]):
    """A `TTSConnection` over a wire.

    It connects when it is run, so that the first reply does not wait. When the connection is lost
    while a reply needs it, it connects again at once, and the reply continues behind what was
    spoken (see `VoiceContexts`). A connection that the service ends while nothing is spoken is
    replaced too, so that the next reply need not wait, but only once if that does not last.

    Args:
        traits: How the service works.
        rate: Hz of its audio.
        make_codec: Makes the codec of the next connection.
        make_wire: Makes its wire.
        clock: Tells the time.
        reconnect: How long to wait between attempts, and for each of them.
        origin: The public object that has made it, whose options it has.
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
        origin: object | None = None,
    ) -> None:
        super().__init__(
            "the voice",
            make_codec=make_codec,
            make_wire=make_wire,
            clock=clock,
            reconnect=reconnect,
            origin=origin,
        )
        self._contexts = VoiceContexts[M](traits, rate)
        self._needed = asyncio.Event()
        self._syntheses: list[_Synthesis[M]] = []
        self._received_at = 0.0
        self._started = 0
        """Number of replies that were started."""

    async def run(self) -> None:
        """Keep the connection until cancelled."""
        with self._bordered():
            await self._run()

    async def _run(self) -> None:
        while True:
            error = await self._connect_and_serve()
            self._contexts.disconnected(error)
            self._settle()
            idle_close = error.kind is ErrorKind.RECYCLE and self._attempts == 1
            if self._contexts.has_work:
                await self._wait_to_retry()
            elif not idle_close:
                self._needed.clear()
                await self._needed.wait()

    def synthesize(
        self, receive: Callable[[SynthesisOutput], None], *, hurry: bool = True
    ) -> Synthesis:
        """Start a reply; see `TTSConnection.synthesize`."""
        number = self._started
        self._started += 1
        if self.border is not None:
            self.border.note_input("synthesize", hurry)
            receive = self.border.listener(receive, f"synthesised {number}")
        reply = self._contexts.start(receive, hurry=hurry)
        synthesis = _Synthesis(self, self._contexts, reply, number)
        self._syntheses.append(synthesis)
        self._needed.set()
        return synthesis

    def _connected(self, codec: TTSCodec[M]) -> None:
        self._contexts.connected(codec)
        self.advance()

    def _take(self, message: M) -> None:
        self._received_at = self._clock.now()
        error = self._contexts.received(message)
        self.advance()
        if error is not None:
            raise error

    def advance(self) -> None:
        """Send what the contexts have to send, and tell replies that are over."""
        self._send(self._contexts.messages())
        if self._wire is None and self._contexts.has_work:
            self._needed.set()
        self._settle()

    def _settle(self) -> None:
        over = [synthesis for synthesis in self._syntheses if synthesis.reply.over]
        for synthesis in over:
            self._syntheses.remove(synthesis)
            synthesis.over.set()

    async def _watch(self, codec: TTSCodec[M]) -> None:
        """Replace a connection on which audio is due and nothing comes; keep an idle one open."""
        traits = self._contexts.traits
        keep_alive_s = traits.keep_alive_s or traits.stall_s
        idle_since = self._clock.now()
        while True:
            await self._clock.sleep(min(traits.stall_s, keep_alive_s) / 4)
            now = self._clock.now()
            if len(self._unsent) > MAX_UNSENT:
                raise self._error("does not read", ErrorKind.RECYCLE)
            if not self._contexts.waits_for_audio:
                idle_since = now
            elif now - max(idle_since, self._received_at) > traits.stall_s:
                silence = f"sent no audio within {traits.stall_s:g} s"
                raise self._error(silence, ErrorKind.RECYCLE, "stalled")
            if traits.keep_alive_s is not None and now - self._sent_at >= traits.keep_alive_s:
                self._unsent.extend(codec.keep_alive())
                self._wake_writer.set()


class _Synthesis[M]:
    """One reply of a `SocketTTS`."""

    def __init__(
        self, owner: SocketTTS[M], contexts: VoiceContexts[M], reply: Reply, number: int
    ) -> None:
        self._owner = owner
        self._number = number
        self._contexts = contexts
        self.reply = reply
        self.over = asyncio.Event()

    def _note_input(self, name: str, *args: object) -> None:
        if self._owner.border is not None:
            self._owner.border.note_input(name, self._number, *args)

    async def send(self, text: str) -> None:
        self._note_input("send", text)
        self._contexts.send(self.reply, text)
        self._owner.advance()

    def flush(self) -> None:
        self._note_input("flush")
        self._contexts.flush(self.reply)
        self._owner.advance()

    def finish(self) -> None:
        self._note_input("finish")
        self._contexts.finish(self.reply)
        self._owner.advance()

    async def wait(self) -> None:
        await self.over.wait()
        if self.reply.error is not None:
            raise self.reply.error

    def cancel(self, played: int | None = None) -> None:
        self._note_input("cancel", played)
        self._contexts.cancel(self.reply, played)
        self._owner.advance()
