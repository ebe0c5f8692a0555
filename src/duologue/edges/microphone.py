"""Connect a person at this machine's microphone and loudspeaker, without the loudspeaker's echo."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Protocol

import numpy as np

from duologue._optional import import_optional
from duologue.audio import FRAME_MS, AudioFrame, Samples
from duologue.edges.duplex import Duplex, webrtc_canceller
from duologue.edges.protocol import AgentInput, EdgeStats
from duologue.errors import ConfigError, DuologueError, MissingExtraError
from duologue.quality import Quality

logger = logging.getLogger(__name__)

CLOSE_S = 0.4
"""Seconds that a device gets to close; a driver that hangs is abandoned."""

_MAX_WAITING_BLOCKS = 100
"""Most blocks of 10 ms that may wait for the event loop; a newer block is dropped."""

type BlockCallback = Callable[[Samples, float, float], Samples]
"""Called by a device for each block.

Takes the recorded samples, the current time, and the time at which the returned samples will be
heard; returns the samples to play.
"""


class MicrophoneError(DuologueError):
    """The sound device can't be opened, or has disappeared."""


class Stream(Protocol):
    """An open device that calls its callback every 10 ms from its own thread."""

    @property
    def latency(self) -> tuple[float, float]:
        """Latency of the microphone and of the loudspeaker, in seconds."""
        ...

    def close(self) -> None:
        """Stop the callbacks; may block for a while."""


class Device(Protocol):
    """A microphone and a loudspeaker."""

    def open(self, rate: int, block: BlockCallback, on_ended: Callable[[], None]) -> Stream:
        """Start the device; may block for a while.

        Args:
            rate: Sample rate in Hz of both directions.
            block: Called for each block, from the device's thread.
            on_ended: Called from the device's thread when the device has disappeared.

        Raises:
            MicrophoneError: The device can't be opened.
        """
        ...


@dataclass(frozen=True, slots=True)
class SoundDevice:
    """This machine's devices, opened through PortAudio.

    Needs the extra ``mic``, and on Linux the PortAudio library.

    Args:
        input: Number of a microphone, or a part of its name, as `devices` lists them; None takes
            the system's default.
        output: The same for a loudspeaker.
    """

    input: int | str | None = None
    output: int | str | None = None

    def open(self, rate: int, block: BlockCallback, on_ended: Callable[[], None]) -> Stream:
        """Start the devices.

        Raises:
            MicrophoneError: The devices can't be opened.
            MissingExtraError: The extra ``mic`` or the PortAudio library is not installed.
        """
        sounddevice = _sounddevice()

        def callback(
            recorded: np.ndarray[tuple[int, int], np.dtype[np.int16]],
            played: np.ndarray[tuple[int, int], np.dtype[np.int16]],
            _frames: int,
            times: _Times,
            _status: object,
        ) -> None:
            played[:] = block(recorded[:, 0], times.currentTime, times.outputBufferDacTime)[:, None]

        try:
            stream = sounddevice.Stream(
                samplerate=rate,
                blocksize=rate // 100,
                device=(self.input, self.output),
                channels=1,
                dtype="int16",
                latency="low",
                callback=callback,
                finished_callback=on_ended,
            )
            stream.start()
        except (sounddevice.PortAudioError, ValueError) as error:
            reason = str(error).splitlines()[0]
            if "device -1" in reason:
                reason = "this machine has none"
            raise MicrophoneError(
                f"can't open the microphone and the loudspeaker: {reason} "
                "(see `duologue doctor` for the devices)"
            ) from error
        opened: Stream = stream
        return opened


class _Times(Protocol):
    currentTime: float  # noqa: N815  # PortAudio's names
    outputBufferDacTime: float  # noqa: N815


def devices() -> list[tuple[int, str, int, int]]:
    """List every sound device as number, name, input channels and output channels.

    Raises:
        MissingExtraError: The extra ``mic`` or the PortAudio library is not installed.
    """
    return [
        (
            int(device["index"]),
            str(device["name"]),
            int(device["max_input_channels"]),
            int(device["max_output_channels"]),
        )
        for device in _sounddevice().query_devices()
    ]


def _sounddevice() -> ModuleType:
    try:
        return import_optional("sounddevice", "mic")
    except OSError as error:
        raise MissingExtraError(
            "the PortAudio library is missing: apt install libportaudio2 (Debian, Ubuntu)"
        ) from error


class Edge:
    """Connects a person at this machine's microphone and loudspeaker.

    Blocks that arrive while the event loop is too busy are dropped, the newest first; ``dropped``
    counts their samples.

    Args:
        input: Microphone; see `SoundDevice`.
        output: Loudspeaker; see `SoundDevice`.
        rate: Sample rate in Hz, a multiple of 100.
        echo_cancellation: Remove the loudspeaker's echo from the input. With headphones, False
            saves 1 % of a core.
        noise_suppression: Suppress steady noise in the input; needs echo cancellation.
        device: Used in place of a `SoundDevice`.

    Raises:
        ConfigError: The rate is not a multiple of 100.
    """

    def __init__(
        self,
        *,
        input: int | str | None = None,  # noqa: A002  # the field's own word
        output: int | str | None = None,
        rate: int = 48000,
        echo_cancellation: bool = True,
        noise_suppression: bool = True,
        device: Device | None = None,
    ) -> None:
        if rate <= 0 or rate % 100:
            raise ConfigError(f"rate must be in Hz and a multiple of 100, not {rate}")
        self._device: Device = SoundDevice(input, output) if device is None else device
        self._rate = rate
        self._echo_cancellation = echo_cancellation
        self._noise_suppression = noise_suppression
        self._duplex: Duplex | None = None
        self._last_duplex: Duplex | None = None
        """As `_duplex`, and still there after the conversation."""
        self._latency = 0.0
        self.dropped = 0

    def __repr__(self) -> str:
        state = "closed" if self._duplex is None else "open"
        return f"<microphone.Edge {state} {self._rate} Hz>"

    @property
    def output_rate(self) -> int:
        """Rate in Hz of the frames that `play` accepts."""
        return self._rate

    @property
    def quality(self) -> Quality:
        """``device``, because the sound device reports what it has played."""
        return "device"

    @property
    def lead_ms(self) -> int:
        """20: one frame of buffer, so that a busy event loop does not interrupt the audio."""
        return FRAME_MS

    @property
    def latency_ms(self) -> float:
        """The loudspeaker's latency in milliseconds; 0 until the device is open."""
        return self._latency * 1000

    def stats(self) -> EdgeStats:
        """Return the counters of the devices; they stay when the conversation ends."""
        duplex = self._last_duplex
        return EdgeStats(
            overflowed_s=duplex.overflowed / self._rate if duplex is not None else 0.0,
            starved_s=duplex.starved / self._rate if duplex is not None else 0.0,
            dropped_input_s=self.dropped / self._rate,
        )

    async def run(self, agent: AgentInput, ready: Callable[[], None]) -> None:
        """Open the devices and carry audio until they disappear.

        Raises:
            MicrophoneError: The devices can't be opened, or have disappeared.
            MissingExtraError: The extra ``mic`` or the PortAudio library is not installed.
        """
        loop = asyncio.get_running_loop()
        disappeared = asyncio.Event()
        cancel = (
            webrtc_canceller(self._rate, noise_suppression=self._noise_suppression)
            if self._echo_cancellation
            else None
        )
        duplex = Duplex(self._rate, cancel)
        device = _DeviceHandle(self._device)
        sent = received = 0  # each is changed by one thread only

        def arrived(frames: list[AudioFrame], played: int | None) -> None:
            nonlocal received
            received += 1
            if device.closed:
                return
            for frame in frames:
                agent.push_audio(frame)
            if played is not None:
                agent.report_played(played)

        def block(near: Samples, now: float, dac: float) -> Samples:
            nonlocal sent
            far, frames, played = duplex.process_block(near, now, dac)
            if sent - received >= _MAX_WAITING_BLOCKS:
                self.dropped += sum(map(len, frames))
                frames = []
            if not device.closed and (frames or played is not None):
                sent += 1
                _call_on_loop(loop, arrived, frames, played)
            return far

        try:
            await asyncio.to_thread(
                device.open, self._rate, block, lambda: _call_on_loop(loop, disappeared.set)
            )
            self._latency = device.latency
            self._duplex = self._last_duplex = duplex
            ready()
            await disappeared.wait()
            raise MicrophoneError("the sound device has disappeared")
        finally:
            self._duplex = None
            await device.close()

    def play(self, frame: AudioFrame | None) -> None:
        """Play the next frame on the loudspeaker; None is silence and counts as one frame."""
        if self._duplex is not None:
            silence = np.zeros(self._rate * FRAME_MS // 1000, np.int16)
            self._duplex.write(silence if frame is None else frame.samples)

    def clear(self) -> None:
        """Drop audio that the device has not taken yet."""
        if self._duplex is not None:
            self._duplex.clear()


def _call_on_loop[*Ts](
    loop: asyncio.AbstractEventLoop, function: Callable[[*Ts], object], *args: *Ts
) -> None:
    try:
        loop.call_soon_threadsafe(function, *args)
    except RuntimeError:
        if not loop.is_closed():
            raise


class _DeviceHandle:
    """Opens a device in a thread, and can give up at any time."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._lock = threading.Lock()
        self._stream: Stream | None = None
        self.closed = False
        self.latency = 0.0

    def open(self, rate: int, block: BlockCallback, on_ended: Callable[[], None]) -> None:
        stream = self._device.open(rate, block, on_ended)
        with self._lock:
            if not self.closed:
                self._stream = stream
                self.latency = stream.latency[1]
                return
        # `close` was called while the device was opening.
        stream.close()

    async def close(self) -> None:
        with self._lock:
            self.closed = True
            stream, self._stream = self._stream, None
        if stream is None:
            return
        try:
            async with asyncio.timeout(CLOSE_S):
                await asyncio.to_thread(stream.close)
        except TimeoutError:
            logger.warning("the sound device did not close within %g s", CLOSE_S)
