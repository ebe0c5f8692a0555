import asyncio

import numpy as np
import pytest

from duologue.audio import AudioFrame
from duologue.events import ErrorEvent
from duologue.pipeline.energy_vad import EnergyVAD
from duologue.processors import Processor
from duologue.realtime.errors import SessionError
from duologue.realtime.policy import SessionPolicy
from duologue.realtime.profile import Profile
from duologue.realtime.reconnect import ReconnectPolicy
from duologue.testing import ScriptedRealtime, virtual_time
from duologue.video import VideoFrame
from talk import FakeTTS, Phone, of, talking


class PanicError(BaseException):
    """Errors of Rust code are no Exception."""


class Fragile(Processor):
    """Fails at the frames that ``bad`` says, by number."""

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
def test_a_frame_that_a_processor_fails_at_is_dropped_and_told(error):
    @virtual_time
    async def run():
        phone, model = Phone(), ScriptedRealtime()
        processor = Fragile(lambda number: number == 30, error)
        async with talking(model, phone, processors=[processor]) as agent:
            await phone.be_silent(2.0)
            (told,) = of(agent, ErrorEvent)
            assert told.source == "processor Fragile"
            assert processor.frames == 100
            assert (await agent.say("Still here.")).heard_text == "Still here."

    run()


@virtual_time
async def test_a_processor_that_always_fails_is_told_once_in_a_while():
    phone = Phone()
    processor = Fragile(lambda number: True, ValueError("no good"))
    async with talking(ScriptedRealtime(), phone, processors=[processor]) as agent:
        await phone.be_silent(25.0)
        told = [event.message for event in of(agent, ErrorEvent)]
    assert told[0] == "ValueError: no good"
    assert len(told) == 3
    assert "times more since the last report)" in told[1]


@virtual_time
async def test_a_picture_that_a_processor_fails_at_is_dropped_and_told():
    class Blind(Processor):
        def video(self, frame):
            raise RuntimeError("no lens")

    phone, model = Phone(), ScriptedRealtime(profile=Profile("p", "m", video=True))
    async with talking(model, phone, processors=[Blind()]) as agent:
        picture = VideoFrame(np.zeros((8, 8, 3), np.uint8), 0.0)
        for _ in range(3):
            phone.person.video(lambda: picture)
            await asyncio.sleep(1.0)
        (told,) = of(agent, ErrorEvent)
        assert told.source.endswith("Blind")
        assert told.message == "RuntimeError: no lens"


@pytest.mark.parametrize(
    "error",
    [RuntimeError("503"), SystemExit(1), SessionError("busy", code="429"), PanicError("index")],
    ids=lambda error: type(error).__name__,
)
def test_an_error_of_the_agents_own_tts_is_told_once_and_raised_to_who_waits(error):
    @virtual_time
    async def run():
        async with talking(ScriptedRealtime(), tts=FakeTTS(fails=error)) as agent:
            with pytest.raises(SessionError):
                await agent.say("One.")
            (told,) = of(agent, ErrorEvent)
            assert told.source == "tts"
            assert str(error) in told.message
            assert told.code == ("429" if isinstance(error, SessionError) else "")
            agent._tts.fails = None
            assert (await agent.say("Two.")).heard_text == "Two."

    run()


@virtual_time
async def test_what_is_no_sound_of_the_agents_own_tts_is_told():
    class Bytes(FakeTTS):
        async def synthesize(self, text):
            yield b"1234"

    async with talking(ScriptedRealtime(), tts=Bytes()) as agent:
        with pytest.raises(SessionError, match="a TTS yields AudioFrame, not bytes"):
            await agent.say("One.")


def test_sound_of_the_person_is_changed_in_order():
    class Louder(Processor):
        def audio(self, frame):
            return AudioFrame(frame.samples + np.int16(1), frame.rate)

    class Double(Processor):
        def audio(self, frame):
            return AudioFrame(frame.samples * np.int16(2), frame.rate)

    @virtual_time
    async def run():
        heard = []
        phone, model = Phone(), ScriptedRealtime()
        model.send_audio = heard.append
        async with talking(model, phone, processors=[Louder(), Double()]):
            phone.person.audio(AudioFrame(np.zeros(320, np.int16), 16000))
        assert set(heard[0].samples) == {2}

    run()


@pytest.mark.parametrize("signals", ["found", "told"])
def test_an_error_of_the_vad_that_listens_to_a_model_of_the_cloud_ends_nothing(signals):
    class Broken(EnergyVAD):
        def stream(self):
            return self

        def push(self, samples):
            raise PanicError("no weights")

    @virtual_time
    async def run():
        phone = Phone()
        model = ScriptedRealtime(profile=Profile("p", "m", speech_signals=signals))
        model.vad = Broken()
        model._policy = SessionPolicy(model, ReconnectPolicy(), keeps=True)
        async with talking(model, phone) as agent:
            await phone.speak(5.0)
            assert (await agent.say("Still here.")).heard_text == "Still here."
            (told,) = of(agent, ErrorEvent)
            assert told.message == "voice activity detection: PanicError: no weights"

    run()
