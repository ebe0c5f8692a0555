"""Opus through ctypes: real packets, real audio, clear errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from duologue.audio import Samples
from duologue.errors import ConfigError, MissingExtraError
from duologue.rtc import opus
from duologue.rtc.config import Application
from duologue.rtc.opus import Decoder, Encoder, OpusError, packet_samples


def tone(seconds: float, rate: int, hz: float = 440.0) -> Samples:
    t = np.arange(round(seconds * rate)) / rate
    return (8000 * np.sin(2 * np.pi * hz * t)).astype(np.int16)


def frames(samples: Samples, size: int) -> list[Samples]:
    return [samples[i : i + size] for i in range(0, len(samples) // size * size, size)]


def loudness(samples: Samples) -> float:
    return float(np.sqrt(np.mean(samples.astype(np.float64) ** 2)))


@pytest.mark.parametrize("out_rate", [16000, 24000, 48000])
@pytest.mark.parametrize("in_rate", [16000, 24000, 48000])
def test_audio_survives_any_pair_of_rates(in_rate: int, out_rate: int) -> None:
    encoder, decoder = Encoder(in_rate), Decoder(out_rate)
    packets = [encoder.encode(f) for f in frames(tone(0.5, in_rate), encoder.frame)]
    assert {packet_samples(p) for p in packets} == {960}
    audio = np.concatenate([decoder.decode(p) for p in packets])
    assert len(audio) == out_rate // 2
    spectrum = np.abs(np.fft.rfft(audio[out_rate // 10 :].astype(np.float64)))
    peak = np.argmax(spectrum) * out_rate / (len(audio) - out_rate // 10)
    assert peak == pytest.approx(440, abs=5)
    assert loudness(audio[out_rate // 10 :]) == pytest.approx(8000 / 2**0.5, rel=0.15)


def test_the_look_ahead_is_as_long_as_stated() -> None:
    encoder, decoder = Encoder(48000), Decoder(48000)
    click = np.zeros(960 * 6, np.int16)
    click[960 * 3 :] = tone(0.06, 48000, 1000)
    audio = np.concatenate([decoder.decode(encoder.encode(f)) for f in frames(click, 960)])
    onset = int(np.argmax(np.abs(audio.astype(np.int32)) > 2500))
    assert onset - 960 * 3 == pytest.approx(encoder.lookahead, abs=48)
    assert encoder.lookahead == 312  # 6.5 ms


@pytest.mark.parametrize("application", ["voip", "restricted_lowdelay"])
def test_a_lost_frame_is_recovered_by_fec_or_concealed(application: Application) -> None:
    encoder, decoder = Encoder(24000, application=application, expected_loss=20), Decoder(24000)
    packets = [encoder.encode(f) for f in frames(tone(0.4, 24000), 480)]
    for packet in packets[:10]:
        decoder.decode(packet)
    fec = decoder.fec(packets[11], 480)
    assert len(fec) == 480
    assert loudness(fec) > 2000
    assert len(decoder.decode(packets[11])) == 480
    assert len(decoder.conceal(480)) == 480
    assert len(decoder.conceal(240000)) == 24000 * 120 // 1000


def test_input_that_is_not_contiguous_is_accepted() -> None:
    encoder = Encoder(24000)
    assert encoder.encode(np.zeros(960, np.int16)[::2])


def test_returned_audio_is_not_overwritten_by_the_next_call() -> None:
    encoder, decoder = Encoder(24000), Decoder(24000)
    packets = [encoder.encode(f) for f in frames(tone(0.2, 24000), 480)]
    first = decoder.decode(packets[5])
    kept = first.copy()
    decoder.decode(packets[6])
    np.testing.assert_array_equal(first, kept)


def test_errors_say_what_is_wrong() -> None:
    with pytest.raises(ConfigError, match="44100"):
        Encoder(44100)
    with pytest.raises(ConfigError, match="complexity"):
        Encoder(24000, complexity=11)
    with pytest.raises(OpusError, match="invalid argument"):
        Encoder(24000).encode(np.zeros(481, np.int16))
    with pytest.raises(OpusError, match="corrupted"):
        Decoder(24000).decode(b"\xff\xff\xff")
    with pytest.raises(OpusError):
        Decoder(24000).decode(b"")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bitrate": 5999}, "bitrate must be 6000 to 510000 bit/s, not 5999"),
        ({"complexity": 11}, "complexity must be 0 to 10, not 11"),
        ({"expected_loss": 101}, "expected_loss must be 0 to 100 percent, not 101"),
        ({"application": "audio"}, "application must be voip or restricted_lowdelay, not 'audio'"),
    ],
)
def test_values_that_libopus_does_not_support_are_refused(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=f"^{message}$"):
        Encoder(24000, **options)


@pytest.mark.parametrize(
    ("packet", "samples"),
    [
        (b"", 0),
        (b"\x03", 0),
        (b"\x08", 960),
        (b"\x09", 1920),
        (b"\x0b\x02", 1920),
        (b"\x1b\x3f", 5760),
    ],
)
def test_the_header_of_a_packet_says_its_length(packet: bytes, samples: int) -> None:
    assert packet_samples(packet) == samples


def test_a_library_that_can_not_be_loaded_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    opus._library.cache_clear()
    monkeypatch.setattr(opus, "_candidates", lambda: ["/nowhere/libopus.so"])
    try:
        with pytest.raises(MissingExtraError, match="libopus is not installed: pip install"):
            Encoder(24000)
    finally:
        opus._library.cache_clear()


@settings(deadline=None, max_examples=150)
@given(st.binary(max_size=200))
def test_any_bytes_give_audio_or_an_opus_error(packet: bytes) -> None:
    decoder = Decoder(24000)
    try:
        audio = decoder.decode(packet)
    except OpusError:
        return
    assert len(audio) * 2 == packet_samples(packet)
