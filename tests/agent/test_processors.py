import asyncio
from dataclasses import replace

import numpy as np
import pytest

from duologue.agent.processors import Processor
from duologue.audio import AudioFrame
from duologue.errors import SessionError
from duologue.events import ErrorEvent
from duologue.realtime._session.session import Session
from duologue.realtime.reconnect import ReconnectPolicy
from duologue.testing import SCRIPTED_CAPABILITIES, ScriptedRealtime, virtual_time
from duologue.vad.energy import EnergyVAD
from duologue.video import VideoFrame
from fake_edge import FakeEdge, FakeTTS, events_of, join_agent


class PanicError(BaseException):
    """Like the exceptions of Rust code, not an Exception."""


class Fragile(Processor):
    """Fails at the frames that ``bad`` numbers."""

    def __init__(self, bad, error):
        self.bad, self.error, self.frames = bad, error, 0

    def audio(self, frame):
        self.frames += 1
        if self.bad(self.frames):
            if isinstance(self.error, BaseException):
                raise self.error.with_traceback(None)
            return self.error
        return frame


@pytest.mark.parametrize(
    "error",
    [ValueError("a bad frame"), StopIteration(), SystemExit(1), PanicError(), b"no frame", 7],
    ids=lambda error: type(error).__name__,
)
def test_frame_at_which_a_processor_fails_is_dropped_and_reported(error):
    @virtual_time
    async def run():
        edge, model = FakeEdge(), ScriptedRealtime()
        processor = Fragile(lambda number: number == 30, error)
        async with join_agent(model, edge, processors=[processor]) as agent:
            await edge.be_silent(2.0)
            (event,) = events_of(agent, ErrorEvent)
            assert event.source == "processor Fragile"
            assert processor.frames == 100
            assert (await agent.say("Still here.")).heard_text == "Still here."

    run()


@virtual_time
async def test_processor_that_always_fails_is_reported_now_and_then():
    edge = FakeEdge()
    processor = Fragile(lambda number: True, ValueError("no good"))
    async with join_agent(ScriptedRealtime(), edge, processors=[processor]) as agent:
        await edge.be_silent(25.0)
        messages = [event.message for event in events_of(agent, ErrorEvent)]
    assert messages[0] == "ValueError: no good"
    assert len(messages) == 3
    assert "times more since the last report)" in messages[1]


@virtual_time
async def test_video_frame_at_which_a_processor_fails_is_dropped_and_reported():
    class Blind(Processor):
        def video(self, frame):
            raise RuntimeError("no lens")

    edge, model = (
        FakeEdge(),
        ScriptedRealtime(
            capabilities=replace(
                SCRIPTED_CAPABILITIES, provider="p", model="m", video=True, user_transcripts="final"
            )
        ),
    )
    async with join_agent(model, edge, processors=[Blind()]) as agent:
        image = VideoFrame(np.zeros((8, 8, 3), np.uint8), 0.0)
        for _ in range(3):
            edge.person.push_video(lambda: image)
            await asyncio.sleep(1.0)
        (event,) = events_of(agent, ErrorEvent)
        assert event.source.endswith("Blind")
        assert event.message == "RuntimeError: no lens"


@pytest.mark.parametrize(
    "error",
    [RuntimeError("503"), SystemExit(1), SessionError("busy", code="429"), PanicError("index")],
    ids=lambda error: type(error).__name__,
)
def test_error_of_the_agents_own_tts_is_reported_once_and_raised_by_the_speech(error):
    @virtual_time
    async def run():
        async with join_agent(ScriptedRealtime(), tts=FakeTTS(fails=error)) as agent:
            with pytest.raises(SessionError):
                await agent.say("One.")
            (event,) = events_of(agent, ErrorEvent)
            assert event.source == "tts"
            assert str(error) in event.message
            assert event.code == ("429" if isinstance(error, SessionError) else "")
            agent._tts.fails = None
            assert (await agent.say("Two.")).heard_text == "Two."

    run()


@virtual_time
async def test_tts_that_yields_no_audio_frame_is_reported():
    class Bytes(FakeTTS):
        async def synthesize(self, text):
            yield b"1234"

    async with join_agent(ScriptedRealtime(), tts=Bytes()) as agent:
        with pytest.raises(SessionError, match="a TTS must yield AudioFrame, not bytes"):
            await agent.say("One.")


def test_input_audio_is_changed_in_order():
    class Louder(Processor):
        def audio(self, frame):
            return AudioFrame(frame.samples + np.int16(1), frame.rate)

    class Double(Processor):
        def audio(self, frame):
            return AudioFrame(frame.samples * np.int16(2), frame.rate)

    @virtual_time
    async def run():
        heard = []
        edge, model = FakeEdge(), ScriptedRealtime()
        model.send_audio = heard.append
        async with join_agent(model, edge, processors=[Louder(), Double()]):
            edge.person.push_audio(AudioFrame(np.zeros(320, np.int16), 16000))
        assert set(heard[0].samples) == {2}

    run()


@pytest.mark.parametrize("signals", ["local", "server"])
def test_error_of_the_vad_beside_a_cloud_model_ends_nothing(signals):
    class Broken(EnergyVAD):
        def stream(self):
            return self

        def push(self, samples):
            raise PanicError("no weights")

    @virtual_time
    async def run():
        edge = FakeEdge()
        model = ScriptedRealtime(
            capabilities=replace(
                SCRIPTED_CAPABILITIES,
                provider="p",
                model="m",
                speech_detection=signals,
                user_transcripts="final",
            )
        )
        model.vad = Broken()
        model._session = model._commands = Session(model, ReconnectPolicy(), reconnects=True)
        async with join_agent(model, edge) as agent:
            await edge.speak(5.0)
            assert (await agent.say("Still here.")).heard_text == "Still here."
            (event,) = events_of(agent, ErrorEvent)
            assert event.message == "voice activity detection: PanicError: no weights"

    run()
