"""Services that misbehave do not make a streaming part work without end."""

import asyncio

import numpy as np
import pytest
from test_recognition_log import PlainCodec as STTCodec
from test_voice_contexts import PlainCodec as TTSCodec

from duologue.audio import AudioFrame
from duologue.clock import LoopClock
from duologue.errors import ErrorKind, SessionError
from duologue.pipeline.interfaces import TurnStarted
from duologue.pipeline.socket_stt import MAX_UNSENT_S, SocketSTT
from duologue.pipeline.socket_tts import SocketTTS
from duologue.pipeline.stt_codec import RecognizerTraits
from duologue.pipeline.tts_codec import ContextEnded, VoiceTraits
from duologue.realtime.reconnect import ReconnectPolicy
from duologue.testing import virtual_time

RATE = 8000
FRAME = AudioFrame(np.full(RATE // 50, 5000, np.int16), RATE)


class Wire:
    """A connection that is refused after its first message, or that reads nothing."""

    def __init__(self, opened, *, reads, first=None):
        self.opened = opened
        self.first = first
        self.reads = reads

    async def open(self):
        self.opened.append(asyncio.get_running_loop().time())

    async def run(self, receive):
        if self.reads:
            receive(self.first)
            raise SessionError("go away", kind=ErrorKind.RECYCLE)
        await asyncio.Event().wait()

    def try_send(self, message):
        return self.reads

    async def send(self, message):
        await asyncio.Event().wait()

    async def close(self): ...


def recogniser(opened, *, reads):
    return SocketSTT(
        RecognizerTraits(silence_s=None, stall_s=1000.0),
        RATE,
        make_codec=STTCodec,
        make_wire=lambda: Wire(opened, reads=reads, first=TurnStarted(0)),
        clock=LoopClock(),
        reconnect=ReconnectPolicy(max_attempts=5),
    )


@virtual_time
async def test_a_recogniser_that_ends_every_connection_is_given_up():
    opened = []
    with pytest.raises(SessionError, match="go away"):
        await recogniser(opened, reads=True).run(print)
    assert len(opened) == 6
    assert opened[-1] > 1.0


@virtual_time
async def test_a_recogniser_that_does_not_read_is_replaced():
    opened = []
    stt = recogniser(opened, reads=False)
    running = asyncio.create_task(stt.run(print))
    for _ in range(int((MAX_UNSENT_S + 5) * 50)):
        stt.push(FRAME)
        await asyncio.sleep(0.02)
    assert len(opened) >= 2
    running.cancel()


class ListeningWire(Wire):
    """A connection that takes all messages, in a turn; ``sent`` is when they were sent."""

    def __init__(self):
        super().__init__([], reads=True)
        self.sent = []

    async def run(self, receive):
        receive(TurnStarted(0))
        await asyncio.Event().wait()

    def try_send(self, message):
        self.sent.append(asyncio.get_running_loop().time())
        return True


class CountingClock(LoopClock):
    """A clock that counts how often somebody sleeps."""

    def __init__(self):
        self.sleeps = 0

    async def sleep(self, seconds):
        self.sleeps += 1
        await super().sleep(seconds)


@virtual_time
async def test_a_recogniser_looks_seldom_while_audio_flows_and_sends_silence_when_it_stops():
    wire, clock = ListeningWire(), CountingClock()
    stt = SocketSTT(
        RecognizerTraits(silence_s=0.5, idle_silence_s=5.0, stall_s=1000.0),
        RATE,
        make_codec=STTCodec,
        make_wire=lambda: wire,
        clock=clock,
    )
    running = asyncio.create_task(stt.run(lambda _: None))
    loop = asyncio.get_running_loop()
    for _ in range(250):
        await asyncio.sleep(0.02)
        stt.push(FRAME)
    assert clock.sleeps <= 15
    stopped, before = loop.time(), len(wire.sent)
    await asyncio.sleep(2.5)
    silence = [round(at - stopped, 3) for at in wire.sent[before:]]
    assert 0.5 <= silence[0] <= 0.6
    assert len(silence) == pytest.approx(2.0 / 0.02, abs=10)
    running.cancel()
    await asyncio.wait([running])


@virtual_time
async def test_a_voice_that_ends_every_connection_fails_its_reply():
    opened = []
    voice = SocketTTS(
        VoiceTraits("none", splits=False),
        RATE,
        make_codec=TTSCodec,
        make_wire=lambda: Wire(opened, reads=True, first=ContextEnded("x")),
        clock=LoopClock(),
    )
    running = asyncio.create_task(voice.run())
    synthesis = voice.synthesize(print)
    await synthesis.send("hello")
    synthesis.finish()
    with pytest.raises(SessionError, match="go away"):
        await synthesis.wait()
    tried = len(opened)
    await asyncio.sleep(100)
    assert len(opened) <= tried + 1
    running.cancel()
