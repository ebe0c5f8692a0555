"""What edges on a socket share, on sockets that do not behave."""

import asyncio

import numpy as np
import pytest

from duologue.audio import AudioFrame
from duologue.clock import LoopClock
from duologue.edges._socket_stream import CLOSE_S, MAX_WAITING, Outbox, PacedInput, run_until
from duologue.edges._websocket_messages import Hello
from duologue.edges.telephone import MediaStream, PhoneCall, TelephoneError
from duologue.edges.telephone._twilio_codec import TwilioCodec
from duologue.edges.websocket import Edge, SocketClosedError
from duologue.errors import ConfigError
from duologue.testing import virtual_time


class Socket:
    """A socket whose other side reads nothing, and never closes."""

    def __init__(self):
        self.sent = []

    async def read(self, handle):
        await asyncio.Event().wait()

    def try_send(self, message):
        return False

    async def send(self, message):
        self.sent.append(message)
        await asyncio.Event().wait()

    async def close(self, *reason):
        await asyncio.Event().wait()


class Agent:
    def __init__(self):
        self.frames = []

    def push_audio(self, frame):
        self.frames.append(frame)


FRAME = AudioFrame(np.zeros(160, np.int16), 8000)


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (
            lambda socket: MediaStream(socket, TwilioCodec(), PhoneCall(carrier="twilio", id="1")),
            TelephoneError,
        ),
        (lambda socket: Edge(socket, Hello(rate=8000)), SocketClosedError),
    ],
)
@virtual_time
async def test_a_side_that_does_not_read_ends_the_call(make, error):
    socket = Socket()
    edge = make(socket)
    running = asyncio.ensure_future(edge.run(Agent(), lambda: None))
    await asyncio.sleep(0.1)
    for _ in range(MAX_WAITING + 2):
        edge.play(FRAME)
    began = asyncio.get_running_loop().time()
    with pytest.raises(error, match="does not read"):
        await running
    assert asyncio.get_running_loop().time() - began <= CLOSE_S + 0.01
    assert len(socket.sent) <= 2  # the first audio, and the reason
    with pytest.raises(ConfigError, match="runs once"):
        await edge.run(Agent(), lambda: None)
    edge.play(FRAME)
    assert "over" in repr(edge)


@virtual_time
async def test_cancelling_closes_in_time_and_leaves_no_task():
    edge = MediaStream(Socket(), TwilioCodec(), PhoneCall(carrier="twilio", id="1"))
    running = asyncio.ensure_future(edge.run(Agent(), lambda: None))
    await asyncio.sleep(0.1)
    running.cancel()
    began = asyncio.get_running_loop().time()
    await asyncio.wait({running})
    assert asyncio.get_running_loop().time() - began < 0.5
    assert running.cancelled()
    assert len(asyncio.all_tasks()) == 1


@virtual_time
async def test_only_audio_is_dropped():
    outbox = Outbox(Socket(), lambda: None)
    outbox.send("a", audio=True)
    outbox.send("b")
    outbox.send("c", audio=True)
    outbox.drop_audio()
    assert len(outbox) == 1


@virtual_time
async def test_a_burst_is_passed_on_in_time_and_nothing_after_the_end():
    agent, paced = Agent(), PacedInput(LoopClock())
    paced.push(FRAME)  # before the start it waits
    paced.start(agent)
    for _ in range(99):
        paced.push(FRAME)
    await asyncio.sleep(0.6)
    assert len(agent.frames) == 100
    for _ in range(50):
        paced.push(FRAME)
    paced.stop()
    known = len(agent.frames)
    await asyncio.sleep(1)
    assert len(agent.frames) == known


@virtual_time
async def test_the_end_of_reading_does_not_end_writing():
    over, done = asyncio.Event(), []

    async def read():
        over.set()

    async def write():
        await asyncio.Event().wait()

    async def close():
        done.append(True)

    await run_until(over, read, write, close)
    assert done == [True]
