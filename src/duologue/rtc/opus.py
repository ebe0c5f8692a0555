"""Opus through ctypes on libopus: the copy in PyAV's wheel, or else the system's.

PyAV's own codec contexts decode at 48 kHz only, and offer neither forward error correction nor
concealment. libopus itself encodes and decodes at the model's rate (RFC 6716, section 2.1.3).
"""

from __future__ import annotations

import ctypes
import ctypes.util
import importlib.util
from functools import cache
from pathlib import Path

from duologue._numpy import np
from duologue.audio import FRAME_MS, Samples
from duologue.errors import ConfigError, DuologueError, MissingExtraError
from duologue.rtc.config import BITRATE, RATES, Application

RTP_RATE = 48000
"""Rate in Hz of an Opus RTP timestamp, whatever the audio's rate (RFC 7587, section 4.1)."""

# Bits are cheaper than CPU. By PESQ, 40 kbit/s at complexity 1 equal 32 kbit/s at complexity 5
# (4.29 and 4.28; with 5 % of packets lost 3.99 and 4.01), and take 78 us a frame, not 171.
_COMPLEXITY = 1

_APPLICATIONS = {"voip": 2048, "restricted_lowdelay": 2051}
_SET_BITRATE = 4002
_SET_COMPLEXITY = 4010
_SET_INBAND_FEC = 4012
_SET_PACKET_LOSS_PERC = 4014
_GET_LOOKAHEAD = 4027
_RESET_STATE = 4028
_MAX_PACKET = 1275 * 3 + 7
_MAX_PACKET_MS = 120

# Frame length in 48 kHz samples by the configuration in a packet's first byte (RFC 6716, 3.1).
_SILK = (480, 960, 1920, 2880)
_HYBRID = (480, 960)
_CELT = (120, 240, 480, 960)
_FRAME_SAMPLES = (*_SILK * 3, *_HYBRID * 2, *_CELT * 4)


class OpusError(DuologueError):
    """libopus returned an error; the text is its own, ``code`` its error number."""

    def __init__(self, action: str, code: int) -> None:
        text: bytes = _library().opus_strerror(code)
        super().__init__(f"Opus could not {action}: {text.decode()}")
        self.code = code


def _candidates() -> list[str]:
    found: list[str] = []
    spec = importlib.util.find_spec("av")
    if spec is not None and spec.origin is not None:
        package = Path(spec.origin).parent
        for folder, pattern in (
            (package.parent / "av.libs", "libopus-*.so*"),
            (package / ".dylibs", "libopus*.dylib"),
            (package.parent / "av.libs", "*opus*.dll"),
        ):
            found += sorted(str(path) for path in folder.glob(pattern))
    system = ctypes.util.find_library("opus")
    return [*found, system] if system else found


@cache
def _library() -> ctypes.CDLL:
    for name in _candidates():
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        break
    else:
        raise MissingExtraError(
            "libopus is not installed: pip install 'duologue[webrtc]'", name="libopus"
        )
    pointer, integer = ctypes.c_void_p, ctypes.c_int
    library.opus_strerror.argtypes = [integer]
    library.opus_strerror.restype = ctypes.c_char_p
    for kind in ("encoder", "decoder"):
        # ctl is variadic, so only the fixed arguments may be declared (Apple silicon's ABI).
        getattr(library, f"opus_{kind}_ctl").argtypes = [pointer, integer]
        getattr(library, f"opus_{kind}_destroy").argtypes = [pointer]
        getattr(library, f"opus_{kind}_destroy").restype = None
        getattr(library, f"opus_{kind}_create").restype = pointer
    library.opus_encoder_create.argtypes = [ctypes.c_int32, integer, integer, pointer]
    library.opus_decoder_create.argtypes = [ctypes.c_int32, integer, pointer]
    library.opus_encode.argtypes = [
        pointer,
        ctypes.c_char_p,
        integer,
        pointer,
        ctypes.c_int32,
    ]
    library.opus_encode.restype = ctypes.c_int32
    library.opus_decode.argtypes = [
        pointer,
        ctypes.c_char_p,
        ctypes.c_int32,
        pointer,
        integer,
        integer,
    ]
    return library


def _check_rate(rate: int) -> None:
    if rate not in RATES:
        raise ConfigError(f"rate must be {', '.join(map(str, RATES))} Hz for Opus, not {rate}")


def packet_samples(packet: bytes) -> int:
    """Return a packet's length in 48 kHz samples from its header; 0 if it has none.

    The header is that of RFC 6716, section 3. The rest of the packet is not checked;
    `Decoder.decode` does that.
    """
    if not packet:
        return 0
    toc = packet[0]
    code = toc & 3
    if code == 0:
        frames = 1
    elif code < 3:
        frames = 2
    else:
        frames = packet[1] & 63 if len(packet) > 1 else 0
    return min(frames * _FRAME_SAMPLES[toc >> 3], _MAX_PACKET_MS * RTP_RATE // 1000)


class Encoder:
    """Encodes one mono stream: int16 frames to packets (bytes).

    Args:
        rate: Sample rate in Hz.
        bitrate: Bitrate in bit/s.
        complexity: 0 (least CPU) to 10 (best quality).
        application: ``restricted_lowdelay`` has a shorter look-ahead, costs a third of the CPU, and
            has no in-band FEC whatever ``fec`` says.
        fec: Add in-band forward error correction (RFC 6716, section 2.1.7).
        expected_loss: Expected packet loss in percent, which decides how many bits FEC gets.

    Raises:
        ConfigError: libopus does not support a value.
    """

    __slots__ = ("_data", "_library", "_out", "_state", "frame", "lookahead", "rate")

    def __init__(
        self,
        rate: int,
        *,
        bitrate: int = BITRATE,
        complexity: int = _COMPLEXITY,
        application: Application = "voip",
        fec: bool = True,
        expected_loss: int = 5,
    ) -> None:
        self._state: int | None = None
        _check_rate(rate)
        if not 6000 <= bitrate <= 510000:
            raise ConfigError(f"bitrate must be 6000 to 510000 bit/s, not {bitrate}")
        if not 0 <= complexity <= 10:
            raise ConfigError(f"complexity must be 0 to 10, not {complexity}")
        if not 0 <= expected_loss <= 100:
            raise ConfigError(f"expected_loss must be 0 to 100 percent, not {expected_loss}")
        if application not in _APPLICATIONS:
            raise ConfigError(
                f"application must be voip or restricted_lowdelay, not {application!r}"
            )
        library = self._library = _library()
        error = ctypes.c_int()
        self._state = library.opus_encoder_create(
            rate, 1, _APPLICATIONS[application], ctypes.byref(error)
        )
        if error.value < 0 or self._state is None:
            raise OpusError("make an encoder", error.value)
        self.rate = rate
        self.frame = rate * FRAME_MS // 1000
        self._out = ctypes.create_string_buffer(_MAX_PACKET)
        self._data = ctypes.addressof(self._out)
        for request, value in (
            (_SET_BITRATE, bitrate),
            (_SET_COMPLEXITY, complexity),
            (_SET_INBAND_FEC, int(fec)),
            (_SET_PACKET_LOSS_PERC, expected_loss if fec else 0),
        ):
            code = library.opus_encoder_ctl(self._state, request, ctypes.c_int(value))
            if code < 0:
                raise OpusError("set up the encoder", code)
        look = ctypes.c_int32()
        library.opus_encoder_ctl(self._state, _GET_LOOKAHEAD, ctypes.byref(look))
        self.lookahead = look.value
        """Samples at ``rate`` by which the encoder delays the audio."""

    def __del__(self) -> None:
        state, self._state = self._state, None
        if state is not None:
            self._library.opus_encoder_destroy(state)

    def encode(self, samples: Samples) -> bytes:
        """Encode the next frame.

        Args:
            samples: int16 (n,): 2.5, 5, 10, 20, 40 or 60 ms at ``rate``.

        Raises:
            OpusError: The frame has another length.
        """
        pcm = samples.astype(np.int16, copy=False).tobytes()
        size: int = self._library.opus_encode(
            self._state, pcm, len(samples), self._data, _MAX_PACKET
        )
        if size < 0:
            raise OpusError(f"encode {len(samples)} samples at {self.rate} Hz", size)
        return ctypes.string_at(self._data, size)

    def reset(self) -> None:
        """Start a new stream, and drop the audio in the look-ahead."""
        self._library.opus_encoder_ctl(self._state, _RESET_STATE)


class Decoder:
    """Decodes one stream to mono int16 at ``rate`` Hz; libopus mixes stereo packets down."""

    __slots__ = ("_data", "_library", "_max_samples", "_out", "_state", "rate")

    def __init__(self, rate: int) -> None:
        self._state: int | None = None
        _check_rate(rate)
        self._library = _library()
        error = ctypes.c_int()
        self._state = self._library.opus_decoder_create(rate, 1, ctypes.byref(error))
        if error.value < 0 or self._state is None:
            raise OpusError("make a decoder", error.value)
        self.rate = rate
        self._max_samples = rate * _MAX_PACKET_MS // 1000
        self._out = np.zeros(self._max_samples, np.int16)
        self._data: int = self._out.ctypes.data

    def __del__(self) -> None:
        state, self._state = self._state, None
        if state is not None:
            self._library.opus_decoder_destroy(state)

    def decode(self, packet: bytes) -> Samples:
        """Decode the next packet to int16 (n,) at ``rate``.

        Raises:
            OpusError: The packet can't be decoded.
        """
        if not packet:
            raise OpusError("decode an empty packet", -4)
        return self._decode(packet, self._max_samples, 0)

    def fec(self, packet: bytes, samples: int) -> Samples:
        """Recover the audio lost just before ``packet`` from its in-band FEC (RFC 6716, section
        2.1.7).

        Audio for which the packet has no FEC data is concealed. Call this before the packet itself
        is decoded.

        Args:
            packet: The packet after the gap.
            samples: Lost samples at ``rate``: a multiple of 2.5 ms, at most 120 ms.
        """
        return self._decode(packet, min(samples, self._max_samples), 1)

    def conceal(self, samples: int) -> Samples:
        """Guess ``samples`` of lost audio at ``rate``: a multiple of 2.5 ms, at most 120 ms."""
        return self._decode(None, min(samples, self._max_samples), 0)

    def _decode(self, packet: bytes | None, samples: int, fec: int) -> Samples:
        size: int = self._library.opus_decode(
            self._state, packet, len(packet) if packet else 0, self._data, samples, fec
        )
        if size < 0:
            raise OpusError("decode a packet" if packet else f"conceal {samples} samples", size)
        # Return a copy, because the next call overwrites the array.
        return self._out[:size].copy()
