"""Audio to packets and back, without sockets."""

from __future__ import annotations

import numpy as np
import pytest

from duologue.audio import AudioFrame
from duologue.clock import LoopClock
from duologue.rtc.audio_path import FRAME_TICKS, AudioIn, AudioOut
from duologue.rtc.config import Application
from duologue.rtc.opus import Decoder
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


def test_timestamps_advance_by_frame_whether_or_not_it_is_sent() -> None:
    out = AudioOut(24000)
    assert out.rate == 24000
    first = out.timestamp
    out.encode(TONE)
    out.skip()
    assert out.frames == 2
    assert (out.timestamp - first) & 0xFFFFFFFF == 2 * FRAME_TICKS


@pytest.mark.parametrize(
    "frame", [AudioFrame(TONE.samples[:100], 24000), AudioFrame.silence(0.02, 48000)]
)
def test_a_frame_of_another_rate_or_length_is_refused(frame: AudioFrame) -> None:
    out = AudioOut(24000)
    with pytest.raises(ValueError, match=r"a frame must be 20 ms at 24000 Hz \(480 samples\)"):
        out.encode(frame)
    assert out.frames == 0


def test_flush_during_silence_changes_nothing() -> None:
    out = AudioOut(24000)
    out.encode(None)
    out.flush()
    assert out.frames == 1


def test_pauses_and_losses_become_audio_of_their_length() -> None:
    received: list[int] = []

    async def scene() -> None:
        clock = LoopClock()
        out = AudioOut(24000)
        audio_in = AudioIn(24000, lambda f: received.append(len(f)), clock)
        packets = [out.encode(TONE) for _ in range(6)]
        audio_in.receive(1, 10, 0, packets[0])
        audio_in.receive(1, 11, 3 * 960, packets[1])  # 40 ms without packets (DTX)
        audio_in.receive(1, 14, 6 * 960, packets[4])  # two packets are lost
        await clock.sleep(0.1)
        assert audio_in.counters["lost"] == 2
        audio_in.receive(1, 16, 8 * 960, b"\xff\xff\xff")  # nor can the one after a loss be used
        audio_in.receive(1, 17, 8 * 960, packets[5])
        await clock.sleep(0.1)
        assert audio_in.counters["broken"] == 1
        assert audio_in.last_packet_at == 0.1

    run_virtual(scene())
    assert received[:6] == [480, 960, 480, 480, 480, 480]
    assert sum(received) >= 9 * 480


def test_close_drops_packets_that_wait() -> None:
    received: list[int] = []

    async def scene() -> None:
        clock = LoopClock()
        out = AudioOut(24000)
        audio_in = AudioIn(24000, lambda f: received.append(len(f)), clock)
        audio_in.receive(1, 10, 0, out.encode(TONE))
        audio_in.receive(1, 12, 1920, out.encode(TONE))
        audio_in.receive(1, 13, 2880, out.encode(TONE))
        audio_in.close()
        audio_in.close()
        await clock.sleep(1)

    run_virtual(scene())
    assert received == [480]


def test_errors_of_the_callback_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    def fail(frame: AudioFrame) -> None:
        raise RuntimeError("broken")

    async def scene() -> None:
        out = AudioOut(24000)
        audio_in = AudioIn(24000, fail, LoopClock())
        for number in range(3):
            audio_in.receive(1, number, number * 960, out.encode(TONE))
        assert audio_in.counters["packets"] == 3

    run_virtual(scene())
    assert [record.message for record in caplog.records] == [
        "a handler of received audio failed; the call continues"
    ]
