"""A connection over a network: a wire, a codec, and two lanes towards the provider."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

from duologue.audio import AudioFrame
from duologue.errors import ErrorKind, MissingExtraError, SessionError
from duologue.realtime.border import bordered_wire
from duologue.realtime.codec import (
    AudioCodec,
    ClosingCodec,
    Codec,
    NonBlockingWire,
    SessionSetup,
    Wire,
)
from duologue.realtime.commands import ClearInput, Command, EndTurn, SendAudio, SendVideo
from duologue.realtime.outputs import Output, ProviderError, ReplyAudio
from duologue.realtime.stats import (
    ConnectionStats,
    DeduplicatingCodec,
    MeasuredCodec,
    MeasuredConnection,
)
from duologue.video import VideoFrame

AUDIO_LIMIT_S = 15.0
"""Seconds of audio that may wait for a peer that does not read; beyond it the oldest is dropped.
More than the ten seconds that are kept without a connection, so those never push each other out.
"""
CONTROL_LIMIT = 1024
"""Commands that may wait; beyond it the connection fails, because none of them may be lost."""
CLOSE_TIMEOUT_S = 0.5
"""Seconds that a wire may take to close; then it is abandoned."""
CLOSING_TIMEOUT_S = 0.1
"""Seconds of these that the closing messages may take."""

_FULL = "the model does not read: too many commands wait for it"


@dataclass(frozen=True, slots=True)
class _CodecMessage[M]:
    """A message that the codec itself sends."""

    message: M


def _no_audio(_: object) -> ReplyAudio | None:
    """Leave every message to ``decode``."""


class WireConnection[M]:
    """A `Connection` made of a wire and a codec.

    Control never waits behind media (contract C7): commands other than audio and images have a lane
    of their own that is emptied first. The media lane is bounded: it drops the oldest audio beyond
    ``audio_limit_s`` seconds (`dropped_audio` counts samples) and all images but the newest
    (`dropped_video` counts them).

    Args:
        connect: makes the wire.
        codec: translates; made for this connection only.
        setup: what the session begins with.
        encode_image: makes the JPEG of an image, in a thread.
        audio_limit_s: seconds of audio that may wait.
    """

    __slots__ = (
        "_audio_limit_s",
        "_connect",
        "_control",
        "_dropped_s",
        "_encode_audio",
        "_encode_image",
        "_encoder_missing",
        "_full",
        "_media",
        "_nonblocking_wire",
        "_queued_s",
        "_raw_video",
        "_receive",
        "_setup",
        "_video",
        "_wake",
        "_wake_video",
        "_wire",
        "_writing",
        "codec",
        "dropped_audio",
        "dropped_video",
    )

    def __init__(
        self,
        connect: Callable[[], Wire[M]],
        codec: Codec[M],
        setup: SessionSetup,
        *,
        encode_image: Callable[[VideoFrame], bytes] | None = None,
        audio_limit_s: float = AUDIO_LIMIT_S,
    ) -> None:
        self._connect = connect
        self.codec = codec
        self._setup = setup
        self._encode_audio = codec.encode_audio if isinstance(codec, AudioCodec) else None
        self._encode_image = encode_image
        self._audio_limit_s = audio_limit_s
        self._control: deque[Command | _CodecMessage[M]] = deque()
        self._media: deque[Command] = deque()
        self._video: SendVideo | None = None
        self._raw_video: SendVideo | None = None
        self._queued_s = 0.0
        self._nonblocking_wire: NonBlockingWire[M] | None = None
        self._writing = False
        self._wake = asyncio.Event()
        self._wake_video = asyncio.Event()
        self._full = asyncio.Event()
        self._wire: Wire[M] | None = None
        self._receive: Callable[[Output], None] | None = None
        self._encoder_missing = False
        self._dropped_s = 0.0
        self.dropped_audio = 0
        self.dropped_video = 0

    def stats(self) -> ConnectionStats:
        """Return the counters of this connection, its codec and its wire."""
        stats = ConnectionStats(self._dropped_s, self.dropped_video)
        if isinstance(self.codec, MeasuredCodec):
            unknown, malformed = sum(self.codec.unknown.values()), self.codec.malformed
            stats += ConnectionStats(unknown_messages=unknown, malformed_messages=malformed)
        if isinstance(self.codec, DeduplicatingCodec):
            stats += ConnectionStats(repeated_messages=self.codec.repeated)
        wire: object = self._wire
        if isinstance(wire, MeasuredConnection):
            stats += wire.stats()
        return stats

    async def run(self, receive: Callable[[Output], None]) -> None:
        """Open the wire, and run until it ends; see `Connection.run`."""
        wire = self._wire = bordered_wire(self._connect)
        self._receive = receive
        leaving = False
        try:
            await self._run_wire(wire, receive)
        except asyncio.CancelledError:
            leaving = True
            raise
        finally:
            self._nonblocking_wire = None
            until = asyncio.get_running_loop().time() + CLOSE_TIMEOUT_S
            if leaving:
                await self._send_closing_messages(wire)
            with suppress(TimeoutError):
                async with asyncio.timeout_at(until):
                    await wire.close()

    async def _run_wire(self, wire: Wire[M], receive: Callable[[Output], None]) -> None:
        try:
            await wire.open()
            await self._send_opening_messages(wire)
            self._nonblocking_wire = wire if isinstance(wire, NonBlockingWire) else None
            async with asyncio.TaskGroup() as tasks:
                helpers = [
                    tasks.create_task(self._write(wire), name="wire writer"),
                    tasks.create_task(self._fail_when_full(), name="wire overflow"),
                ]
                if self._encode_image is not None:
                    helpers.append(tasks.create_task(self._encode_images(), name="images"))
                await wire.run(self._decoder(receive))
                for helper in helpers:
                    helper.cancel()
        except* SessionError as errors:
            raise errors.exceptions[0] from None

    def _decoder(self, receive: Callable[[Output], None]) -> Callable[[M], None]:
        """Return the function that passes on what a message means."""
        decode, pending = self.codec.decode, self.codec.pending
        decode_audio = self.codec.decode_audio if isinstance(self.codec, AudioCodec) else _no_audio

        def receive_message(message: M) -> None:
            audio = decode_audio(message)
            if audio is not None:
                receive(audio)
                return
            outputs = decode(message)
            # Before the commands that the outputs cause, which may build on these messages.
            for own in pending():
                self._enqueue_control(_CodecMessage(own))
            for output in outputs:
                receive(output)

        return receive_message

    async def _send_closing_messages(self, wire: Wire[M]) -> None:
        if isinstance(self.codec, ClosingCodec):
            with suppress(TimeoutError, SessionError):
                async with asyncio.timeout(CLOSING_TIMEOUT_S):
                    for message in self.codec.closing_messages():
                        await wire.send(message)

    async def _send_opening_messages(self, wire: Wire[M]) -> None:
        # Not in `run`, whose frame would keep the last message for the whole session.
        for message in self.codec.open(self._setup):
            await wire.send(message)

    def transmit(self, command: Command) -> None:
        """Queue a command in its lane.

        Raises:
            SessionError: the control lane is full; the connection ends with that error, too.
        """
        if not isinstance(command, SendVideo) and self._try_send(command):
            return
        match command:
            case SendVideo(in_order=False) if self._encode_image is not None:
                self.dropped_video += self._raw_video is not None
                self._raw_video = command
                self._wake_video.set()
                return
            case SendVideo(in_order=False):
                self.dropped_video += self._video is not None
                self._video = command
            case SendAudio(frame=frame):
                self._media.append(command)
                self._queued_s += frame.duration
                if self._queued_s > self._audio_limit_s:
                    self._drop_oldest()
            case EndTurn() | ClearInput():
                self._media.append(command)
            case _:
                self._enqueue_control(command)
                return
        self._wake.set()

    def send_audio(self, frame: AudioFrame) -> None:
        """Send or queue audio, as `transmit` does; see `AudioConnection`."""
        wire, encode = self._nonblocking_wire, self._encode_audio
        if wire is None or encode is None or self._writing or self._control or self._media:
            self.transmit(SendAudio(frame))
            return
        message = encode(frame)
        if not wire.try_send(message):
            self._enqueue_control(_CodecMessage(message))

    def _try_send(self, command: Command) -> bool:
        """Send a command without the writer, unless something waits before it."""
        wire = self._nonblocking_wire
        if wire is None or self._writing or self._control or self._media:
            return False
        messages = self.codec.encode(command)
        for sent, message in enumerate(messages):
            if not wire.try_send(message):
                for waiting in messages[sent:]:
                    self._enqueue_control(_CodecMessage(waiting))
                break
        return True

    def _enqueue_control(self, command: Command | _CodecMessage[M]) -> None:
        if len(self._control) >= CONTROL_LIMIT:
            self._full.set()
            raise SessionError(_FULL, kind=ErrorKind.RECYCLE)
        self._control.append(command)
        self._wake.set()

    async def _fail_when_full(self) -> None:
        await self._full.wait()
        raise SessionError(_FULL, kind=ErrorKind.RECYCLE)

    def _drop_oldest(self) -> None:
        for index, command in enumerate(self._media):
            if isinstance(command, SendAudio):
                del self._media[index]
                self._queued_s -= command.frame.duration
                self._dropped_s += command.frame.duration
                self.dropped_audio += len(command.frame)
                return

    async def _encode_images(self) -> None:
        while True:
            await self._wake_video.wait()
            self._wake_video.clear()
            raw, self._raw_video = self._raw_video, None
            if raw is not None:
                self.dropped_video += self._video is not None
                self._video = await self._encode(raw)
                self._wake.set()

    async def _encode(self, video: SendVideo) -> SendVideo | None:
        """Encode an image; if the encoder is not installed, report that once and drop the image."""
        if self._encode_image is None or video.jpeg is not None:
            return video
        if not self._encoder_missing:
            try:
                return replace(video, jpeg=await asyncio.to_thread(self._encode_image, video.frame))
            except MissingExtraError as error:
                self._encoder_missing = True
                message = f"images are not sent: {error}"
                if self._receive is not None:
                    self._receive(ProviderError(ErrorKind.UNKNOWN, "images", message))
        self.dropped_video += 1
        return None

    async def _write(self, wire: Wire[M]) -> None:
        while True:
            command = self._next()
            match command:
                case None:
                    self._wake.clear()
                    await self._wake.wait()
                    continue
                case _CodecMessage(message=message):
                    self._writing = True
                    await wire.send(message)
                    self._writing = False
                    continue
                case SendVideo():
                    self._writing = True
                    encoded = await self._encode(command)
                    if encoded is None:
                        self._writing = False
                        continue
                    command = encoded
            self._writing = True
            for message in self.codec.encode(command):
                await wire.send(message)
            self._writing = False

    def _next(self) -> Command | _CodecMessage[M] | None:
        if self._control:
            return self._control.popleft()
        if self._media:
            command = self._media.popleft()
            if isinstance(command, SendAudio):
                self._queued_s -= command.frame.duration
            return command
        video, self._video = self._video, None
        return video
