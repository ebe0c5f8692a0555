"""Audio to packets and back, without sockets."""

from __future__ import annotations

import numpy as np
import pytest

from duologue.audio import AudioFrame
from duologue.clock import LoopClock
from duologue.rtc.audio_path import AudioIn, AudioOut
from duologue.rtc.opus import Application, Decoder
from duologue.testing import run_virtual

TONE = AudioFrame((9000 * np.sin(np.arange(480) * 0.2)).astype(np.int16), 24000)


@pytest.mark.parametrize("application", ["voip", "restricted_lowdelay"])
def test_long_silence_repeats_one_packet_and_stays_silent(application: Application) -> None:
    out, decoder = AudioOut(24000, application=application), Decoder(24000)
    for _ in range(10):
        decoder.decode(out.encode(TONE))
    packets = [out.encode(None) for _ in range(200)]
    assert len(set(packets[-100:])) == 1
    audio = np.concatenate([decoder.decode(p) for p in packets])
    assert np.abs(audio[480 * 4 :]).max() < 60
    assert np.abs(audio[480 * 30 :]).max() <= 2
    # Speech after it begins completely.
    after = [decoder.decode(out.encode(TONE)) for _ in range(3)]
    assert np.abs(after[-1]).max() > 6000


@pytest.mark.parametrize("flushed", [True, False])
def test_flush_drops_the_audio_in_the_look_ahead(flushed: bool) -> None:
    out, decoder = AudioOut(24000), Decoder(24000)
    for _ in range(10):
        decoder.decode(out.encode(TONE))
    if flushed:
        out.flush()
    rest = np.concatenate([decoder.decode(out.encode(None)) for _ in range(5)])
    loud_ms = np.flatnonzero(np.abs(rest) > 500)[-1] / 24
    assert (loud_ms < 2.5) == flushed


def test_a_gap_is_filled_at_its_deadline_without_another_packet() -> None:
    received: list[tuple[float, int]] = []

    async def scene() -> None:
        clock = LoopClock()
        out = AudioOut(24000)
        audio_in = AudioIn(16000, lambda f: received.append((clock.now(), len(f))), clock)
        start = clock.now()
        packets = [out.encode(TONE) for _ in range(3)]
        audio_in.receive(1, 10, 0, packets[0])
        await clock.sleep(0.04)
        audio_in.receive(1, 12, 1920, packets[2])
        await clock.sleep(0.2)
        audio_in.close()
        assert [(round(t - start, 3), n) for t, n in received] == [
            (0.0, 320),
            (0.08, 320),
            (0.08, 320),
        ]

    run_virtual(scene())


def test_a_new_source_continues_at_once_and_broken_packets_are_concealed() -> None:
    received: list[int] = []

    async def scene() -> None:
        out = AudioOut(24000)
        audio_in = AudioIn(24000, lambda f: received.append(len(f)), LoopClock())
        audio_in.receive(1, 10, 0, out.encode(TONE))
        audio_in.receive(2, 7000, 99, out.encode(TONE))
        audio_in.receive(2, 7001, 99 + 960, b"\xff\xff\xff")
        audio_in.receive(2, 7002, 99 + 1920, out.encode(TONE))
        assert audio_in.counters["broken"] == 1
        assert audio_in.counters["resyncs"] == 1

    run_virtual(scene())
    assert received == [480, 480, 480, 480]
