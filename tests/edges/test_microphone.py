import asyncio
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from duologue.audio import AudioFrame
from duologue.edges import microphone
from duologue.edges.duplex import Duplex, webrtc_canceller
from duologue.errors import ConfigError, DuologueError
from duologue.testing.virtual_time import virtual_time

RATE = 16000
BLOCK = RATE // 100


def numbered(start, count):
    return np.arange(start, start + count, dtype=np.int16)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("write"), st.integers(1, 500)),
            st.tuples(st.just("block"), st.integers(1, 500)),
            st.tuples(st.just("clear"), st.just(0)),
        ),
        max_size=60,
    )
)
def test_the_ring_plays_in_order_and_never_claims_too_much(steps):
    duplex = Duplex(RATE)
    written, queue, heard, now = 0, [], [], 0.0
    latency = 0.05
    played = 0
    ends = []
    for kind, count in steps:
        if kind == "write":
            duplex.write(numbered(written + 1, count))
            queue += range(written + 1, written + count + 1)
            written += count
        elif kind == "clear":
            duplex.clear()
            queue.clear()
        else:
            out, _, news = duplex.process_block(np.zeros(count, np.int16), now, now + latency)
            expected, queue = queue[:count], queue[count:]
            assert out.tolist() == expected + [0] * (count - len(expected))
            heard += expected
            if expected:
                ends.append((now + latency + len(expected) / RATE, expected[-1]))
            if news is not None:
                assert news >= played
                played = news
            due = [end for at, end in ends if at <= now]
            assert played == max(due, default=0)
            now += count / RATE
        assert duplex.buffered == len(queue)


def test_the_ring_is_bounded_and_counts_refused_samples():
    duplex = Duplex(RATE)
    for _ in range(60):
        duplex.write(np.ones(RATE // 50, np.int16))
    assert duplex.buffered == RATE
    assert duplex.overflowed == 10 * RATE // 50


def test_a_ring_that_runs_empty_within_audio_is_counted():
    duplex = Duplex(RATE)
    duplex.process_block(np.zeros(BLOCK, np.int16), 0, 0)
    assert duplex.starved == 0
    duplex.write(np.ones(BLOCK + 60, np.int16))
    for _ in range(3):
        duplex.process_block(np.zeros(BLOCK, np.int16), 0, 0)
    assert duplex.starved == BLOCK - 60


def speechlike(seconds, rate, seed):
    """Return noise with the long-term spectrum and the syllables of speech."""
    random = np.random.default_rng(seed)
    count = round(seconds * rate)
    noise = random.standard_normal(count)
    coloured = np.convolve(noise, np.exp(-np.arange(24) / 6), "same")
    syllables = np.repeat(random.uniform(0, 1, count // (rate // 8) + 1) ** 2, rate // 8)[:count]
    return (coloured / np.abs(coloured).max() * syllables * 12000).astype(np.int16)


def power(samples):
    return 10 * np.log10(np.mean(samples.astype(np.float64) ** 2) + 1e-9)


@pytest.mark.parametrize(("rate", "block"), [(16000, 160), (48000, 480), (48000, 1111)])
def test_the_agents_echo_is_removed_and_the_person_stays(rate, block):
    agent = speechlike(9, rate, 1)
    random = np.random.default_rng(2)
    taps = rate // 8
    room = random.standard_normal(taps) * np.exp(-np.arange(taps) / (rate / 30)) * 0.15
    room[0] = 1
    duplex = Duplex(rate, webrtc_canceller(rate))
    delay = round(0.06 * rate)
    person = np.zeros(len(agent))
    start = 7 * rate
    t = np.arange(rate) / rate
    person[start : start + rate] = 8000 * np.sin(2 * np.pi * 500 * t) * (np.sin(12 * t) > 0)
    echo = np.convolve(agent, room)[: len(agent)] * 0.4
    echo = np.concatenate([np.zeros(delay), echo])[: len(agent)]
    near = np.clip(echo + person, -32768, 32767).astype(np.int16)
    out = []
    for i in range(0, len(agent) - block, block):
        duplex.write(agent[i : i + block])
        far, frames, _ = duplex.process_block(near[i : i + block], i / rate, i / rate)
        assert np.array_equal(far, agent[i : i + block])
        out += [frame.samples for frame in frames]
    clean = np.concatenate(out)
    a, b = 4 * rate, start - rate // 10
    erle = power(near[a:b]) - power(clean[a:b])
    assert erle > 20, erle
    kept = power(clean[start : start + rate]) - power(person[start : start + rate])
    assert kept > -6, kept


class Room:
    """A device without hardware that calls back on the event loop or from a thread."""

    def __init__(self, latency=0.03, near=lambda n: np.full(n, 5, np.int16), fails=None):
        self.output_latency = latency
        self.near = near
        self.fails = fails
        self.played = []
        self.blocks = 0
        self.closed = 0
        self.loop = None
        self.close_takes = 0.0
        self.open_takes = 0.0

    latency = property(lambda self: (0.01, self.output_latency))

    def open(self, rate, block, ended):
        time.sleep(self.open_takes)
        if self.fails:
            raise self.fails
        self.rate, self.block, self.ended = rate, block, ended
        self.loop.call_soon_threadsafe(self._tick)
        return self

    def _tick(self):
        if self.closed:
            return
        now = self.blocks * 0.01
        size = self.rate // 100
        self.played.append(self.block(self.near(size), now, now + self.output_latency).copy())
        self.blocks += 1
        self.loop.call_later(0.01, self._tick)

    def close(self):
        time.sleep(self.close_takes)
        self.closed += 1


class FakeAgentInput:
    def __init__(self):
        self.frames, self.reports, self.is_idle = [], [], True

    def push_audio(self, frame):
        self.frames.append(frame)

    def report_played(self, samples):
        self.reports.append((asyncio.get_running_loop().time(), samples))

    def push_video(self, frame): ...
    def push_text(self, text): ...


@virtual_time
async def test_audio_goes_both_ways_and_played_samples_are_reported():
    room, person, ready = Room(), FakeAgentInput(), []
    room.loop = asyncio.get_running_loop()
    edge = microphone.Edge(rate=RATE, echo_cancellation=False, device=room)
    assert (edge.quality, edge.lead_ms, edge.output_rate) == ("device", 20, RATE)
    edge.play(AudioFrame(numbered(1, 320), RATE))
    task = asyncio.create_task(edge.run(person, lambda: ready.append(True)))
    await asyncio.sleep(0.1)
    assert ready == [True]
    assert edge.latency_ms == pytest.approx(30)
    wrote = room.loop.time()
    edge.play(AudioFrame(numbered(1, 320), RATE))
    edge.play(None)
    edge.play(AudioFrame(numbered(1000, 320), RATE))
    await asyncio.sleep(0.2)
    played = np.concatenate(room.played)
    first = int(np.flatnonzero(played)[0])
    expected = [*range(1, 321), *[0] * 320, *range(1000, 1320)]
    assert played[first : first + 960].tolist() == expected
    # Reported when it left the loudspeaker, not when the device took it.
    assert person.reports[-1][1] == 960
    for at, samples in person.reports:
        assert at >= wrote + samples / RATE + 0.03 - 0.011
    assert person.reports[-1][0] == pytest.approx(wrote + 0.06 + 0.03, abs=0.021)
    assert all(frame.rate == RATE and len(frame) == BLOCK for frame in person.frames)
    assert len(person.frames) == pytest.approx(30, abs=2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert room.closed == 1
    edge.play(None)
    edge.clear()


@virtual_time
async def test_clear_drops_audio_that_the_device_has_not_taken():
    room, person = Room(latency=0.0), FakeAgentInput()
    room.loop = asyncio.get_running_loop()
    edge = microphone.Edge(rate=RATE, echo_cancellation=False, device=room)
    task = asyncio.create_task(edge.run(person, lambda: None))
    await asyncio.sleep(0.005)
    for _ in range(5):
        edge.play(AudioFrame(np.full(320, 9, np.int16), RATE))
    await asyncio.sleep(0.03)
    edge.clear()
    await asyncio.sleep(0.1)
    assert np.count_nonzero(np.concatenate(room.played)) <= 4 * BLOCK
    assert max(samples for _, samples in person.reports) <= 4 * BLOCK
    edge.play(AudioFrame(np.full(320, 8, np.int16), RATE))
    await asyncio.sleep(0.1)
    assert person.reports[-1][1] == 6 * 320
    task.cancel()


@virtual_time
async def test_a_device_that_disappears_is_an_error():
    room = Room()
    room.loop = asyncio.get_running_loop()
    edge = microphone.Edge(rate=RATE, device=room)
    room.loop.call_later(1, lambda: room.ended())
    with pytest.raises(microphone.MicrophoneError, match="the sound device has disappeared"):
        await edge.run(FakeAgentInput(), lambda: None)
    assert room.closed == 1


@virtual_time
async def test_a_device_that_can_not_be_opened_is_an_error():
    edge = microphone.Edge(device=Room(fails=microphone.MicrophoneError("no microphone")))
    with pytest.raises(microphone.MicrophoneError, match="no microphone"):
        await edge.run(FakeAgentInput(), lambda: pytest.fail("not ready"))


async def test_closing_is_bounded_even_if_the_driver_hangs():
    room = Room()
    room.loop = asyncio.get_running_loop()
    room.close_takes = 1.0
    task = asyncio.create_task(microphone.Edge(device=room).run(FakeAgentInput(), lambda: None))
    await asyncio.sleep(0.1)
    began = time.perf_counter()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert time.perf_counter() - began < 0.5


async def test_closing_while_the_device_opens_closes_it_afterwards():
    room = Room()
    room.loop = asyncio.get_running_loop()
    room.open_takes = 0.2
    task = asyncio.create_task(
        microphone.Edge(device=room).run(FakeAgentInput(), lambda: pytest.fail("not ready"))
    )
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0.25)
    assert room.closed == 1


class ThreadRoom(Room):
    def open(self, rate, block, ended):
        self.rate, self.block = rate, block
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def _run(self):
        while not self.closed:
            now = self.blocks * 0.01
            self.played.append(self.block(self.near(self.rate // 100), now, now))
            self.blocks += 1
            time.sleep(0.001)

    def wait_for_blocks(self, count):
        until, limit = self.blocks + count, time.monotonic() + 10
        while self.blocks < until and time.monotonic() < limit:
            time.sleep(0.01)

    def close(self):
        super().close()
        self._thread.join()


async def test_a_device_thread_works_with_a_busy_event_loop():
    room, person = ThreadRoom(), FakeAgentInput()
    edge = microphone.Edge(rate=RATE, echo_cancellation=False, device=room)
    task = asyncio.create_task(edge.run(person, lambda: None))
    await asyncio.sleep(0.05)
    for i in range(20):
        edge.play(AudioFrame(np.full(320, i + 1, np.int16), RATE))
        await asyncio.sleep(0.002)
    await asyncio.sleep(0.1)
    assert edge.dropped == 0
    room.wait_for_blocks(150)  # while the event loop is blocked
    await asyncio.sleep(0)
    assert edge.dropped > 0
    played = np.concatenate(room.played)
    assert played[played > 0].tolist() == [i + 1 for i in range(20) for _ in range(320)]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(person.frames) + edge.dropped // BLOCK == pytest.approx(room.blocks, abs=3 + 100)


def test_wrong_values_and_a_missing_library_cause_one_line():
    with pytest.raises(ConfigError, match="multiple of 100"):
        microphone.Edge(rate=11025)
    try:
        import sounddevice  # noqa: F401
    except OSError:
        with pytest.raises(DuologueError, match="PortAudio library is missing"):
            microphone.devices()
        with pytest.raises(DuologueError, match="PortAudio library is missing"):
            microphone.SoundDevice().open(48000, lambda *a: a[0], lambda: None)


def test_importing_the_edge_needs_no_library():
    code = (
        "import sys, duologue.edges.microphone as m; m.Edge(); "
        "assert not {'sounddevice', 'pywebrtc_audio'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
