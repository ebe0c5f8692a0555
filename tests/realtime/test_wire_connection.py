import asyncio
from dataclasses import replace

import numpy as np
import pytest

from duologue.audio import AudioFrame
from duologue.errors import MissingExtraError, SessionError
from duologue.realtime.codec import SessionSetup
from duologue.realtime.commands import (
    CancelReply,
    ClearInput,
    EndTurn,
    RequestReply,
    SendAudio,
    SendVideo,
)
from duologue.realtime.outputs import GoAway, ProviderError, SessionStarted
from duologue.realtime.wire_connection import CONTROL_LIMIT, WireConnection
from duologue.testing import virtual_time
from duologue.video import VideoFrame


class FakeWire:
    """Reads and writes lists; with ``reading`` unset, the peer does not read."""

    def __init__(self, *, close_s=0.0):
        self.sent = []
        self.inbox = asyncio.Queue()
        self.reading = asyncio.Event()
        self.reading.set()
        self.closed = 0
        self.close_s = close_s

    async def open(self):
        pass

    async def send(self, message):
        await self.reading.wait()
        self.sent.append(message)

    async def run(self, receive):
        while (message := await self.inbox.get()) is not None:
            if isinstance(message, Exception):
                raise message
            receive(message)

    async def close(self):
        await asyncio.sleep(self.close_s)
        self.closed += 1


class FakeCodec:
    def open(self, setup):
        return [f"hello {setup.instructions}"]

    def encode(self, command):
        return [command]

    def decode(self, message):
        return [SessionStarted()] if message == "hello" else [GoAway(1.0)] * int(message)

    def pending(self):
        return []


def connect(**options):
    wire = FakeWire(**options)
    return wire, WireConnection(
        lambda: wire, FakeCodec(), SessionSetup("be kind"), audio_limit_s=10.0
    )


def send_audio(value=0, seconds=0.02):
    return SendAudio(AudioFrame(np.full(round(seconds * 1000), value, np.int16), 1000))


def send_video(at):
    return SendVideo(VideoFrame(np.zeros((2, 2, 3), np.uint8), at))


@virtual_time
async def test_a_connection_lives_as_long_as_its_wire():
    wire, connection = connect()
    received = []
    for message in ("hello", "2", "0", None):
        wire.inbox.put_nowait(message)
    await connection.run(received.append)
    assert received == [SessionStarted(), GoAway(1.0), GoAway(1.0)]
    assert wire.sent[0] == "hello be kind"
    assert wire.closed == 1
    assert len(asyncio.all_tasks()) == 1


@virtual_time
async def test_messages_of_the_codec_go_before_commands_that_an_output_causes():
    wire, connection = connect()
    own = ["pong"]
    connection.codec.pending = lambda: [own.pop()] if own else []
    wire.inbox.put_nowait("1")
    command = CancelReply("r")
    task = asyncio.create_task(connection.run(lambda output: connection.transmit(command)))
    await asyncio.sleep(0.01)
    assert wire.sent[1:] == ["pong", command]
    task.cancel()
    await asyncio.wait([task])


@pytest.mark.parametrize("moment", ["greeting", "sending", "receiving"])
def test_an_unclean_end_is_raised(moment):
    @virtual_time
    async def run():
        wire, connection = connect()
        error = SessionError("lost", code="1006")

        async def fail(message):
            if moment == "greeting" or message != "hello be kind":
                raise error

        if moment == "receiving":
            wire.inbox.put_nowait(error)
        else:
            wire.send = fail
            connection.transmit(CancelReply("r"))
        with pytest.raises(SessionError) as caught:
            await connection.run(lambda output: None)
        assert caught.value is error
        assert wire.closed == 1
        assert len(asyncio.all_tasks()) == 1

    run()


@pytest.mark.parametrize("in_order", [False, True])
def test_images_without_their_encoder_are_reported_once_and_dropped(in_order):
    def encode(frame):
        raise MissingExtraError("PIL is not installed: pip install 'duologue[video]'", name="PIL")

    async def run():
        wire = FakeWire()
        connection = WireConnection(
            lambda: wire, FakeCodec(), SessionSetup("be kind"), encode_image=encode
        )
        received = []
        task = asyncio.create_task(connection.run(received.append))
        for number in range(2):
            connection.transmit(replace(send_video(number), in_order=in_order))
            while connection.dropped_video <= number:
                await asyncio.sleep(0.001)
        connection.transmit(CancelReply("r"))
        await asyncio.sleep(0.01)
        assert wire.sent[1:] == [CancelReply("r")]
        task.cancel()
        await asyncio.wait([task])
        (report,) = received
        assert isinstance(report, ProviderError)
        assert report.message == (
            "images are not sent: PIL is not installed: pip install 'duologue[video]'"
        )

    asyncio.run(run())


@virtual_time
async def test_control_never_waits_behind_media():
    wire, connection = connect()
    task = asyncio.create_task(connection.run(lambda output: None))
    await asyncio.sleep(0.01)
    wire.reading.clear()
    commands = [
        send_audio(1),
        send_video(1.0),
        send_audio(2),
        EndTurn(),
        CancelReply("r"),
        RequestReply("q"),
    ]
    for command in commands:
        connection.transmit(command)
    await asyncio.sleep(1.0)
    wire.reading.set()
    await asyncio.sleep(0.01)
    kinds = [type(c).__name__ for c in wire.sent[1:]]
    assert kinds in (
        ["CancelReply", "RequestReply", "SendAudio", "SendAudio", "EndTurn", "SendVideo"],
        # One message may have been on its way already.
        ["SendAudio", "CancelReply", "RequestReply", "SendAudio", "EndTurn", "SendVideo"],
    )
    task.cancel()
    await asyncio.wait([task])


@virtual_time
async def test_audio_for_a_stalled_peer_is_bounded_and_the_oldest_is_dropped():
    wire, connection = connect()
    wire.reading.clear()
    for value in range(600):
        connection.transmit(send_audio(value))
        if value == 550:
            connection.transmit(ClearInput())
    assert connection.dropped_audio == 100 * 20
    for at in range(5):
        connection.transmit(send_video(float(at)))
    assert connection.dropped_video == 4
    task = asyncio.create_task(connection.run(lambda output: None))
    wire.reading.set()
    await asyncio.sleep(0.1)
    sounds = [c.frame.samples[0] for c in wire.sent if isinstance(c, SendAudio)]
    assert sounds == [*range(100, 600)]
    assert wire.sent.index(next(c for c in wire.sent if isinstance(c, ClearInput))) == 1 + 451
    assert [c.frame.at for c in wire.sent if isinstance(c, SendVideo)] == [4.0]
    for value in range(500):
        connection.transmit(send_audio(value))
    assert connection.dropped_audio == 100 * 20
    task.cancel()
    await asyncio.wait([task])


@virtual_time
async def test_a_peer_that_never_reads_commands_ends_the_connection():
    wire, connection = connect()
    task = asyncio.create_task(connection.run(lambda output: None))
    await asyncio.sleep(0.01)
    wire.reading.clear()
    await asyncio.sleep(0.01)
    for _ in range(CONTROL_LIMIT):
        connection.transmit(CancelReply("r"))
    with pytest.raises(SessionError, match="does not read"):
        connection.transmit(CancelReply("r"))
    with pytest.raises(SessionError, match="does not read"):
        await task
    assert wire.closed == 1


@pytest.mark.parametrize("close_s", [0.0, 0.4, 60.0])
@pytest.mark.parametrize("stalled", [False, True])
def test_cancelling_closes_a_connection_in_time(close_s, stalled):
    @virtual_time
    async def run():
        wire, connection = connect(close_s=close_s)
        if stalled:
            wire.reading.clear()
        task = asyncio.create_task(connection.run(lambda output: None))
        await asyncio.sleep(0.1)
        connection.transmit(send_audio())
        began = asyncio.get_running_loop().time()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert asyncio.get_running_loop().time() - began <= 0.5
        assert wire.closed == (close_s < 0.5)
        assert len(asyncio.all_tasks()) == 1

    run()


@virtual_time
async def test_a_codec_with_a_bug_is_not_silent():
    wire, connection = connect()
    wire.inbox.put_nowait("not a number")
    with pytest.raises(ExceptionGroup) as caught:
        await connection.run(lambda output: None)
    assert caught.group_contains(ValueError)
    assert wire.closed == 1


class ClosingCodec(FakeCodec):
    def closing_messages(self):
        return ["that was all", "goodbye"]


@virtual_time
async def test_closing_messages_are_sent_when_we_end_the_session():
    wire = FakeWire()
    connection = WireConnection(lambda: wire, ClosingCodec(), SessionSetup("hi"))
    task = asyncio.create_task(connection.run(lambda output: None))
    await asyncio.sleep(0.1)
    task.cancel()
    await asyncio.wait([task])
    assert wire.sent == ["hello hi", "that was all", "goodbye"]
    assert wire.closed == 1


@virtual_time
async def test_closing_messages_are_not_sent_after_the_peer_has_closed():
    wire = FakeWire()
    wire.inbox.put_nowait(SessionError("the connection broke"))
    with pytest.raises(SessionError, match="broke"):
        await WireConnection(lambda: wire, ClosingCodec(), SessionSetup()).run(lambda output: None)
    assert wire.sent == ["hello "]
    assert wire.closed == 1


@virtual_time
async def test_closing_messages_that_can_not_be_sent_do_not_delay_the_end():
    wire = FakeWire(close_s=5.0)
    connection = WireConnection(lambda: wire, ClosingCodec(), SessionSetup())
    task = asyncio.create_task(connection.run(lambda output: None))
    await asyncio.sleep(0.1)
    wire.reading.clear()
    began = asyncio.get_running_loop().time()
    task.cancel()
    await asyncio.wait([task])
    assert asyncio.get_running_loop().time() - began <= 0.5
