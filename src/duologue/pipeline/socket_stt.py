"""A recognition service that keeps a connection: an `STTConnection` made of a wire and a codec."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import numpy as np

from duologue.audio import AudioFrame
from duologue.clock import Clock
from duologue.errors import ErrorKind
from duologue.pipeline._recognition_log import KEEP_S, RecognitionLog
from duologue.pipeline._socket_part import SocketPart
from duologue.pipeline.interfaces import RecognitionEvent
from duologue.pipeline.stt_codec import RecognizerTraits, STTCodec
from duologue.realtime.codec import NonBlockingWire
from duologue.realtime.reconnect import ReconnectPolicy

MAX_UNSENT_S = KEEP_S + 15.0
"""Seconds of audio that may wait for a service that does not read, kept audio included; with more
the connection is replaced.
"""
FRAME_S = 0.02
"""Seconds of a frame of silence that is sent in place of missing audio."""
_SILENCE_S = FRAME_S * 5
"""Seconds of such silence that are sent at once."""
_MAX_EARLY = 64
"""Frames from before the run that are kept."""
_CHECK_S = 0.5
"""Seconds between two looks at a connection on which nothing is due sooner."""


class SocketSTT[M](SocketPart[M, STTCodec[M]]):
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
        origin: The public object that has made it, whose options it has.
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
        origin: object | None = None,
    ) -> None:
        super().__init__(
            "the recogniser",
            make_codec=make_codec,
            make_wire=make_wire,
            clock=clock,
            reconnect=reconnect,
            origin=origin,
        )
        self._traits = traits
        self._rate = rate
        self._log = RecognitionLog[M](traits, rate)
        self._receive: Callable[[RecognitionEvent], None] = _ignore
        self._pushed_at = 0.0
        self._is_running = False
        self._early: deque[AudioFrame] = deque(maxlen=_MAX_EARLY)
        """Audio from before the run, which the border notes when it begins."""

    async def run(self, receive: Callable[[RecognitionEvent], None]) -> None:
        """Connect, and report events until cancelled; see `STTConnection.run`."""
        with self._bordered() as border:
            self._receive = receive if border is None else border.listener(receive, "recognised")
            if border is not None:
                for frame in self._early:
                    border.note_input("push", frame)
            self._early.clear()
            self._is_running = True
            await self._run()

    async def _run(self) -> None:
        self._pushed_at = self._clock.now()
        while True:
            error = await self._connect_and_serve()
            self._log.disconnected()
            exhausted = self._attempts > max(1, self._policy.max_attempts)
            if error.kind is ErrorKind.FATAL or exhausted:
                raise error
            await self._wait_to_retry()

    @property
    def catching_up(self) -> bool:
        """Whether transcripts are late because a connection was lost."""
        return self._log.catching_up

    def push(self, frame: AudioFrame) -> None:
        """Add the next audio."""
        if self.border is not None:
            self.border.note_input("push", frame)
        elif not self._is_running:
            self._early.append(frame)
        self._pushed_at = self._clock.now()
        self._log.push(frame.samples)
        self._send(self._log.messages())

    def settle(self) -> None:
        """Ask for a final transcript of the turn so far."""
        if self.border is not None:
            self.border.note_input("settle")
        self._log.settle()
        self._send(self._log.messages())

    def end_turn(self) -> None:
        """End the turn."""
        if self.border is not None:
            self.border.note_input("end_turn")
        for event in self._log.end_turn():
            self._receive(event)
        self._send(self._log.messages())

    def _connected(self, codec: STTCodec[M]) -> None:
        for event in self._log.connected(codec):
            self._receive(event)
        self._send(self._log.messages())

    def _take(self, message: M) -> None:
        events, error = self._log.received(message)
        for event in events:
            self._receive(event)
        self._send(self._log.messages())
        if error is not None:
            raise error

    def _closing(self, codec: STTCodec[M]) -> Sequence[M]:
        return codec.closing()

    async def _watch(self, codec: STTCodec[M]) -> None:
        """Send silence where audio is missing, keep the connection open, and notice a stall."""
        traits = self._traits
        silent = AudioFrame(np.zeros(int(self._rate * FRAME_S), np.int16), self._rate)
        while True:
            await self._clock.sleep(self._look_in_s())
            now = self._clock.now()
            if len(self._unsent) > MAX_UNSENT_S / FRAME_S:
                raise self._error("does not read", ErrorKind.RECYCLE)
            if self._log.is_spoiled:
                raise self._error("heard a turn again that is over", ErrorKind.RECYCLE)
            if self._log.loud_s > traits.stall_s:
                silence = f"sent no transcript of {traits.stall_s:g} s of speech"
                raise self._error(silence, ErrorKind.RECYCLE, "stalled")
            limit = traits.silence_s if self._log.in_turn else traits.idle_silence_s
            if limit is not None and now - self._pushed_at >= limit:
                for _ in range(round(_SILENCE_S / FRAME_S)):
                    self._log.push(silent.samples)
                self._send(self._log.messages())
            keep_alive_s = traits.keep_alive_s
            if keep_alive_s is not None and now - self._sent_at >= keep_alive_s:
                self._unsent.extend(codec.keep_alive())
                self._wake_writer.set()

    def _look_in_s(self) -> float:
        """Return the seconds until `_watch` has to look again.

        While audio flows, that is until it would be missed, because looking ten times a second
        costs as much as a fifth of the audio. What was sent again must be watched more closely.
        """
        if self._log.catching_up:
            return _SILENCE_S
        limits = (self._traits.silence_s, self._traits.idle_silence_s)
        missed_in_s = min((limit for limit in limits if limit is not None), default=_CHECK_S)
        missed_in_s += self._pushed_at - self._clock.now()
        return max(_SILENCE_S, min(_CHECK_S, missed_in_s))


def _ignore(_: RecognitionEvent) -> None:
    """Drop what comes before the run."""
