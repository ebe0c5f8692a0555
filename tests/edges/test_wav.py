import asyncio
import wave

import numpy as np
import pytest

from duologue import Agent
from duologue.audio import AudioFrame
from duologue.edges import wav
from duologue.errors import ConfigError
from duologue.testing import Reply, ScriptedRealtime
from duologue.testing.virtual_time import virtual_time

RATE = 24000


def clip(seconds, rate=16000, value=1000):
    return AudioFrame(np.full(round(seconds * rate), value, np.int16), rate)


def read(path):
    with wave.open(str(path)) as file:
        assert file.getframerate() == RATE
        data = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2)
    return data[:, 0].astype(int), data[:, 1].astype(int)


class ReplyingAgent:
    """Replies after a pause, 20 ms a frame; falls silent while the person speaks."""

    def __init__(self, edge, pause=0.5, seconds=2.0, clears=True):
        self.edge = edge
        self.pause, self.seconds, self.clears = pause, seconds, clears
        self.frames = []
        self.replies = 0
        self._heard = 0.0
        self._quiet = 0.0
        self._left = 0.0

    @property
    def is_idle(self):
        return self._heard == 0 and self._left <= 0

    async def wait_until_listening(self): ...
    def push_video(self, frame): ...
    def push_text(self, text): ...
    def report_played(self, samples): ...

    def push_audio(self, frame):
        self.frames.append((asyncio.get_running_loop().time(), frame))
        if np.abs(frame.samples).max(initial=0) > 100:
            self._heard += frame.duration
            self._quiet = 0.0
            if self._left > 0 and self.clears and self._heard >= 0.2:
                self._left = 0
                self.edge.clear()
        elif self._heard:
            self._quiet += frame.duration
            if self._quiet >= self.pause:
                self._heard = 0.0
                self._left = self.seconds
                self.replies += 1

    async def clock(self):
        due = asyncio.get_running_loop().time()
        while True:
            if self._left > 1e-9:
                self._left -= 0.02
                self.edge.play(AudioFrame(np.full(RATE // 50, -2000, np.int16), RATE))
            else:
                self.edge.play(None)
            due += 0.02
            await asyncio.sleep(due - asyncio.get_running_loop().time())


async def converse(edge, **options):
    person = ReplyingAgent(edge, **options)
    task = asyncio.create_task(person.clock())
    ready = []
    try:
        await edge.run(person, lambda: ready.append(True))
    finally:
        task.cancel()
    assert ready == [True]
    return person


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 44100, 48000])
@virtual_time
async def test_frames_come_on_time_and_without_drift(rate):
    samples = np.arange(rate, dtype=np.int32).astype(np.int16)
    person = await converse(wav.Edge(AudioFrame(samples, rate)), seconds=0)
    for k, (at, _) in enumerate(person.frames):
        assert at == pytest.approx((k + 1) * 0.02, abs=1e-6)
    received = np.concatenate([frame.samples for _, frame in person.frames])
    assert np.array_equal(received[: len(samples)], samples)
    assert not received[len(samples) :].any()
    assert abs(len(received) / rate - person.frames[-1][0]) < 0.001


@virtual_time
async def test_frames_follow_at_once_after_a_late_tick():
    class Late:
        def now(self):
            return asyncio.get_running_loop().time()

        async def sleep(self, seconds):
            await asyncio.sleep(seconds + 0.013)

    person = await converse(wav.Edge(clip(1), settle_s=5, clock=Late()), seconds=0)
    at, _ = person.frames[-1]
    assert abs(at - len(person.frames) * 0.02) < 0.04


@virtual_time
async def test_the_recording_has_both_sides_on_one_timeline(tmp_path_factory):
    out = tmp_path_factory.mktemp("rec") / "out.wav"
    person = await converse(wav.Edge(clip(1.0), out, lead_in_s=0.5), pause=0.5, seconds=2.0)
    assert person.replies == 1
    left, right = read(out)
    spoken, answered = np.flatnonzero(left > 500), np.flatnonzero(right)
    assert spoken[0] == pytest.approx(0.5 * RATE, abs=20)
    assert spoken[-1] == pytest.approx(1.5 * RATE, abs=20)
    assert len(answered) == 2 * RATE
    assert answered[-1] - answered[0] == 2 * RATE - 1
    assert answered[0] == pytest.approx(2.0 * RATE, abs=0.03 * RATE)
    # After the reply, 1.5 s pass in silence, then the person hangs up.
    assert len(left) == pytest.approx(5.5 * RATE, abs=0.1 * RATE)


@virtual_time
async def test_cleared_audio_is_not_in_the_recording(tmp_path_factory):
    out = tmp_path_factory.mktemp("rec") / "out.wav"
    edge = wav.Edge(clip(0.2), out)
    task = asyncio.create_task(edge.run(ReplyingAgent(edge, seconds=0), lambda: None))
    await asyncio.sleep(0.1)
    for _ in range(10):
        edge.play(AudioFrame(np.full(RATE // 50, 9, np.int16), RATE))
    await asyncio.sleep(0.05)
    edge.clear()
    await task
    _, right = read(out)
    assert np.flatnonzero(right).tolist() == list(range(2400, 3600))


@virtual_time
async def test_an_interjection_begins_one_second_into_the_reply(tmp_path_factory):
    out = tmp_path_factory.mktemp("rec") / "out.wav"
    edge = wav.Edge(
        clip(1.0), out, interjections=[wav.Interjection(clip(0.6, 48000), after_agent_speech_s=1)]
    )
    person = await converse(edge, seconds=3.0)
    assert person.replies == 2
    left, right = read(out)
    spoken = np.flatnonzero(left > 500)
    second = spoken[np.flatnonzero(np.diff(spoken) > RATE // 2)[0] + 1]
    first_answer = np.flatnonzero(right)[0]
    assert (second - first_answer) / RATE == pytest.approx(1.0, abs=0.05)
    # The agent cleared its audio after 0.2 s of the interjection; silence until the second reply.
    silent = right[second + round(0.25 * RATE) : second + round(1.0 * RATE)]
    assert not silent.any()


@virtual_time
async def test_an_interjection_can_wait_for_a_later_reply(tmp_path_factory):
    out = tmp_path_factory.mktemp("rec") / "out.wav"
    later = wav.Interjection(clip(0.5, value=3000), after_agent_speech_s=0.5, after_clips=2)
    person = await converse(
        wav.Edge([clip(0.5), clip(0.5)], out, interjections=[later], settle_s=1.0)
    )
    assert person.replies == 3
    left, _ = read(out)
    loud = np.flatnonzero(left > 2000)[0] / RATE
    assert loud == pytest.approx(4.0 + 0.5 + 0.5 + 0.5, abs=0.2)


@virtual_time
async def test_further_clips_wait_until_the_agent_is_idle():
    edge = wav.Edge([clip(0.5), clip(0.5), clip(0.5, 8000)], settle_s=1.0)
    person = await converse(edge)
    assert person.replies == 3
    assert person.frames[-1][0] == pytest.approx(3 * (0.5 + 0.5 + 2.0 + 1.0), abs=0.3)
    assert {frame.rate for _, frame in person.frames} == {16000}


@virtual_time
async def test_the_first_clip_can_wait_for_a_greeting(tmp_path_factory):
    out = tmp_path_factory.mktemp("rec") / "out.wav"
    edge = wav.Edge(clip(0.5), out, wait_for_greeting=True, settle_s=1.0)
    person = ReplyingAgent(edge, seconds=0)
    person._left = 2.0
    task = asyncio.create_task(person.clock())
    await edge.run(person, lambda: None)
    task.cancel()
    left, right = read(out)
    assert np.flatnonzero(right)[-1] / RATE == pytest.approx(2.0, abs=0.03)
    assert np.flatnonzero(left > 500)[0] / RATE == pytest.approx(3.0, abs=0.05)


@pytest.mark.parametrize("wait", [None, False])
def test_the_first_clip_waits_for_a_requested_greeting(tmp_path, wait):
    @virtual_time
    async def main():
        edge = wav.Edge(clip(0.5), tmp_path / "out.wav", wait_for_greeting=wait)
        agent = Agent(edge=edge, llm=ScriptedRealtime([Reply("Yes.", 0.5)]))
        async with agent.join():
            agent.say("Good morning.")
            await agent.finish()

    main()
    left, right = read(tmp_path / "out.wav")
    first, greeting = np.flatnonzero(left > 500)[0], np.flatnonzero(right)[0]
    assert (first > greeting + RATE) == (wait is None)


def test_the_first_clip_does_not_wait_if_there_is_no_greeting(tmp_path):
    @virtual_time
    async def main():
        edge = wav.Edge(clip(0.5), tmp_path / "out.wav")
        agent = Agent(edge=edge, llm=ScriptedRealtime([Reply("Yes.", 0.5)]))
        async with agent.join():
            await agent.finish()

    main()
    left, _ = read(tmp_path / "out.wav")
    assert np.flatnonzero(left > 500)[0] < 0.001 * RATE


@virtual_time
async def test_clips_wait_until_the_model_listens_and_no_task_is_left(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rec")
    edge = wav.Edge(clip(0.5), folder / "out.wav")
    person = ReplyingAgent(edge)
    person.wait_until_listening = lambda: asyncio.sleep(3)
    task = asyncio.create_task(edge.run(person, lambda: None))
    await asyncio.sleep(2.9)
    assert not person.frames
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [path.name for path in folder.iterdir()] == ["out.wav"]


@virtual_time
async def test_a_program_can_interject_a_clip():
    edge = wav.Edge(clip(0.5))
    task = asyncio.create_task(converse(edge))
    await asyncio.sleep(2)
    edge.interject(clip(0.5))
    assert (await task).replies == 2


@virtual_time
async def test_the_person_leaves_an_agent_that_never_becomes_idle(caplog):
    edge = wav.Edge(clip(0.5), wait_s=5)
    person = await converse(edge, seconds=1e9, clears=False)
    assert person.frames[-1][0] == pytest.approx(5.5, abs=0.1)
    assert "the agent was still busy after" in caplog.text


@virtual_time
async def test_cancelling_hangs_up_and_keeps_the_recording(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rec")
    edge = wav.Edge(clip(10), folder / "out.wav")
    task = asyncio.create_task(converse(edge))
    await asyncio.sleep(3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    left, _ = read(folder / "out.wav")
    assert len(left) == pytest.approx(3 * RATE, abs=0.1 * RATE)
    assert [path.name for path in folder.iterdir()] == ["out.wav"]
    edge.play(None)
    edge.clear()


def test_wrong_values_are_refused(tmp_path):
    for make in (
        lambda: wav.Edge([]),
        lambda: wav.Edge(clip(0)),
        lambda: wav.Edge(tmp_path / "none.wav"),
        lambda: wav.Edge(clip(1), tmp_path / "no" / "out.wav"),
        lambda: wav.Edge(clip(1), rate=11025),
    ):
        with pytest.raises(ConfigError):
            make()
    assert list(tmp_path.iterdir()) == []
