"""Encode audio frames to RTP payloads and decode RTP payloads to audio frames, without sockets."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable

import numpy as np

from duologue.audio import FRAME_MS, AudioFrame, Samples
from duologue.clock import Clock, Timer
from duologue.rtc.config import BITRATE, Application
from duologue.rtc.jitter import Conceal, Fec, JitterBuffer, Packet, Silence, Step
from duologue.rtc.opus import RTP_RATE, Decoder, Encoder, OpusError

logger = logging.getLogger(__name__)

FRAME_TICKS = RTP_RATE * FRAME_MS // 1000
"""Step of the RTP timestamp from one sent frame to the next, in 48 kHz samples."""

_SETTLE_FRAMES = 25
"""Frames of silence to encode before packets repeat; after them LPC and CELT tails have ended."""

_STEP_TICKS = RTP_RATE // 400
"""2.5 ms in 48 kHz samples; lengths of concealed audio are multiples of it."""


class AudioOut:
    """Encodes outgoing audio, 20 ms at a time, and counts the RTP timestamps.

    Long silence is encoded once and repeated, so an idle call costs no encoding. Packets and
    timestamps continue, which keeps the far side's clock and the count of played samples correct.

    Args:
        rate: Rate in Hz of the int16 frames.
        bitrate: Opus bitrate in bit/s.
        application: Opus mode.
    """

    __slots__ = ("_encoder", "_repeat", "_silence", "_silent", "frames", "origin")

    def __init__(
        self, rate: int, *, bitrate: int = BITRATE, application: Application = "voip"
    ) -> None:
        self._encoder = Encoder(rate, bitrate=bitrate, application=application)
        self._silence: Samples = np.zeros(self._encoder.frame, np.int16)
        self._silent = 0
        self._repeat = b""
        self.frames = 0
        """Frames accepted so far."""
        self.origin = secrets.randbits(32)
        """RTP timestamp of the first frame, random (RFC 3550, section 5.1)."""

    @property
    def rate(self) -> int:
        """Rate in Hz of the frames that `encode` accepts."""
        return self._encoder.rate

    @property
    def timestamp(self) -> int:
        """RTP timestamp of the next frame: 32 bits of 48 kHz samples."""
        return (self.origin + self.frames * FRAME_TICKS) & 0xFFFFFFFF

    def skip(self) -> None:
        """Count a frame that is not sent."""
        self.frames += 1

    def encode(self, frame: AudioFrame | None) -> bytes:
        """Return the packet of the next frame; None is silence.

        Raises:
            ValueError: The frame has another rate or another length than 20 ms.
        """
        if frame is None:
            self.frames += 1
            if self._silent >= _SETTLE_FRAMES:
                return self._repeat
            self._silent += 1
            self._repeat = self._encoder.encode(self._silence)
            return self._repeat
        if frame.rate != self._encoder.rate or len(frame) != self._encoder.frame:
            raise ValueError(
                f"a frame must be {FRAME_MS} ms at {self._encoder.rate} Hz "
                f"({self._encoder.frame} samples), not {len(frame)} samples at {frame.rate} Hz"
            )
        self.frames += 1
        self._silent = 0
        return self._encoder.encode(frame.samples)

    def flush(self) -> None:
        """Drop the end of the last frame, which waits in the encoder's look-ahead (6.5 ms)."""
        if not self._silent:
            self._encoder.reset()


class AudioIn:
    """Turns received packets into audio in order and without gaps.

    While packets are in order, ``on_audio`` is called at once on the event loop. A missing packet
    is waited for 40 ms. Errors of ``on_audio`` are logged once and do not stop the stream.

    Args:
        rate: Rate in Hz of the frames for ``on_audio``.
        on_audio: Called with each frame.
        clock: Clock for arrival times and the deadline of missing packets.
    """

    __slots__ = (
        "_callback_failed",
        "_clock",
        "_decoder",
        "_jitter",
        "_on_audio",
        "_source",
        "_timer",
        "broken",
        "last_packet_at",
        "rate",
    )

    def __init__(self, rate: int, on_audio: Callable[[AudioFrame], None], clock: Clock) -> None:
        self.rate = rate
        self._on_audio = on_audio
        self._clock = clock
        self._decoder = Decoder(rate)
        self._jitter = JitterBuffer()
        self._source: int | None = None
        self._timer: Timer | None = None
        self._callback_failed = False
        self.broken = 0
        """Packets that Opus could not decode; they are concealed."""
        self.last_packet_at = float("-inf")
        """Clock time in seconds at which the last packet arrived."""

    @property
    def counters(self) -> dict[str, int]:
        """Counters of packets; see `JitterBuffer`."""
        jitter = self._jitter
        return {
            "packets": jitter.packets,
            "lost": jitter.lost,
            "fec": jitter.fec,
            "late": jitter.late,
            "duplicates": jitter.duplicates,
            "strays": jitter.strays,
            "resyncs": jitter.resyncs,
            "broken": self.broken,
        }

    def receive(self, source: int, sequence: int, timestamp: int, payload: bytes) -> None:
        """Process a packet that has just arrived; a new ``source`` (SSRC) begins a new stream."""
        now = self.last_packet_at = self._clock.now()
        jitter = self._jitter
        if source != self._source:
            if self._source is not None:
                self._process(jitter.resync())
            self._source = source
        self._process(jitter.push(sequence, timestamp, payload, now))
        if len(jitter) or self._timer is not None:
            self._arm_timer()

    def close(self) -> None:
        """Stop; drop the packets that wait."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = self._jitter.deadline
        if deadline is not None:
            self._timer = self._clock.call_at(deadline, self._deadline_passed)

    def _deadline_passed(self) -> None:
        self._timer = None
        # The timer may fire early by up to its resolution.
        self._process(self._jitter.poll(self._clock.now() + 0.001))
        self._arm_timer()

    def _process(self, steps: list[Step]) -> None:
        for step in steps:
            samples = self._decode(step)
            if len(samples):
                self._deliver(AudioFrame(samples, self.rate))

    def _deliver(self, frame: AudioFrame) -> None:
        try:
            self._on_audio(frame)
        except Exception:
            if not self._callback_failed:
                self._callback_failed = True
                logger.exception("a handler of received audio failed; the call continues")

    def _decode(self, step: Step) -> Samples:
        match step:
            case Packet(payload=payload):
                try:
                    return self._decoder.decode(payload)
                except OpusError:
                    self.broken += 1
                    return self._decoder.conceal(self.rate * FRAME_MS // 1000)
            case Fec(payload=payload, samples=samples):
                size = self._round_down(samples)
                try:
                    return self._decoder.fec(payload, size)
                except OpusError:
                    return self._decoder.conceal(size)
            case Conceal(samples=samples):
                return self._decoder.conceal(self._round_down(samples))
            case Silence(samples=samples):
                return np.zeros(samples * self.rate // RTP_RATE, np.int16)

    def _round_down(self, samples: int) -> int:
        return max(_STEP_TICKS, samples // _STEP_TICKS * _STEP_TICKS) * self.rate // RTP_RATE
