import asyncio
from dataclasses import replace

import numpy as np
import pytest

from duologue.audio import AudioFrame
from duologue.errors import (
    ErrorKind,
    ReplyRefusedError,
    SessionClosedError,
    SessionError,
    UnsupportedError,
)
from duologue.items import SystemItem
from duologue.realtime.codec import SessionSetup
from duologue.realtime.commands import (
    AddItem,
    CancelReply,
    DeleteItem,
    EndTurn,
    RequestReply,
    Say,
    SendAudio,
    SendToolResult,
    SendVideo,
    Truncate,
    UpdateSession,
)
from duologue.realtime.outputs import (
    ProviderError,
    ReplyAudio,
    ReplyDone,
    ReplyRefused,
    ReplyStarted,
    ReplyText,
    SessionStarted,
    ToolCall,
    UserTurnEnded,
)
from duologue.realtime.realtime import Realtime
from duologue.realtime.reconnect import ReconnectPolicy
from duologue.testing import SCRIPTED_CAPABILITIES, At, ScriptedRealtime, virtual_time
from duologue.video import VideoFrame


class FakeObserver:
    def __init__(self):
        self.reported = []
        self.truncations = []
        self.items = ()

    def history(self):
        return self.items

    def reconnecting(self, event):
        self.reported.append(event)

    def reconnected(self, event):
        self.reported.append(event)

    def late_transcript(self, text):
        pass

    def reply_skipped(self, epoch):
        self.reported.append(("nothing follows", epoch))

    def spoken_text(self, reply_id):
        return None

    def reply_lost(self, reply_id, request_id):
        self.reported.append(("lost", reply_id, request_id))

    def turns_replayed(self, item_ids):
        self.reported.append(("replayed", *item_ids))

    def connected(self, event):
        self.reported.append(event)

    def disconnected(self, event):
        self.reported.append(("over", event.reason, event.clean))

    def output(self, output, epoch):
        self.reported.append((output, epoch))

    def on_interrupt(self, epoch):
        self.reported.append(("interrupted", epoch))
        return self.truncations

    def reply_ended(self, request_id, error):
        self.reported.append((request_id, error))

    @property
    def ends(self):
        return [t for t in self.reported if isinstance(t, tuple) and t[0] == "over"]

    @property
    def outputs(self):
        return [t[0] for t in self.reported if isinstance(t, tuple) and len(t) == 2]


class FakeConnection:
    """A connection in the test's hands."""

    def __init__(self):
        self.commands = []
        self.over = asyncio.Event()
        self.failure = None
        self.emit = None

    async def run(self, receive):
        self.emit = receive
        await self.over.wait()
        if self.failure is not None:
            raise self.failure

    def transmit(self, command):
        self.commands.append(command)


class FakeModel(Realtime):
    def __init__(self, *, unprepared=None, **abilities):
        super().__init__(
            replace(
                SCRIPTED_CAPABILITIES,
                provider="test",
                model="m",
                **{"user_transcripts": "final", **abilities},
            ),
            in_process=True,
        )
        self.fake_connection = FakeConnection()
        self.setups = []
        self.unprepared = unprepared

    async def prepare(self, setup):
        await super().prepare(setup)
        if self.unprepared:
            raise self.unprepared

    def open(self, setup):
        self.setups.append(setup)
        return self.fake_connection


async def begin(model, *, start=True):
    observer = FakeObserver()
    task = asyncio.create_task(model.run(SessionSetup("be kind"), observer))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    if start:
        model.fake_connection.emit(SessionStarted({"voice": "x"}))
    return observer, task


def audio_frame(count, rate=24000, value=1):
    return AudioFrame(np.full(count, value, np.int16), rate)


@virtual_time
async def test_a_session_from_begin_to_end():
    model = FakeModel()
    observer, task = await begin(model, start=False)
    waiting = asyncio.create_task(model.ready())
    await asyncio.sleep(0.1)
    assert not waiting.done()
    assert not model.connected
    model.fake_connection.emit(SessionStarted({"voice": "x"}))
    await waiting
    assert model.connected
    event = observer.reported[0]
    assert event.session_id == model.session_id
    assert event.session_config == {"voice": "x"}
    assert event.capabilities["model"] == "m"
    assert model.setups == [SessionSetup("be kind")]
    model.fake_connection.over.set()
    await task
    assert observer.ends == [("over", "the model ended the session", True)]
    assert not model.connected
    with pytest.raises(SessionClosedError, match="over"):
        await model.ready()


@virtual_time
async def test_a_session_runs_once():
    model = FakeModel()
    _, task = await begin(model)
    with pytest.raises(RuntimeError, match="runs once"):
        await model.run(SessionSetup(), FakeObserver())
    task.cancel()


ENDS = {
    "cancelled": ("closed", True),
    "clean": ("the model ended the session", True),
    "failed": ("lost", False),
    "bug": ("KeyError: 'x'", False),
    "unprepared": ("no weights", False),
}


@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize("way", ENDS)
def test_the_end_is_reported_exactly_once(way, started):
    @virtual_time
    async def run():
        model = FakeModel(unprepared=SessionError("no weights") if way == "unprepared" else None)
        observer, task = await begin(model, start=started and way != "unprepared")
        if model.connected:
            model.request_reply("q")
        match way:
            case "cancelled":
                task.cancel()
            case "failed":
                model.fake_connection.failure = SessionError("lost")
            case "bug":
                model.fake_connection.failure = KeyError("x")
        model.fake_connection.over.set()
        await asyncio.wait([task])
        end = ENDS[way]
        if way == "clean" and not started:
            end = ("the model ended the session before it began", False)
        assert observer.ends == [("over", *end)]
        requested = [t for t in observer.reported if isinstance(t, tuple) and t[0] == "q"]
        assert len(requested) == (started and way != "unprepared")
        assert all(isinstance(error, SessionClosedError) for _, error in requested)
        with pytest.raises(SessionClosedError):
            await model.ready()
        with pytest.raises(SessionClosedError):
            model.request_reply("late")
        model.send_tool_result("c", "t", "x", failed=False)
        await asyncio.sleep(60)
        assert len(observer.ends) == 1

    run()


@virtual_time
async def test_early_audio_is_kept_in_order_and_bounded():
    model = FakeModel(input_rate=8000)
    for value in range(600):
        model.send_audio(audio_frame(160, 8000, 1000 + value))
    assert model.lost_audio == (600 - ReconnectPolicy().keep_s * 50) * 160
    await begin(model)
    sent = [c.frame.samples for c in model.fake_connection.commands if isinstance(c, SendAudio)]
    assert max(map(len, sent)) == 800
    assert [*np.concatenate(sent)[::160]] == [*range(1100, 1600)]
    model.send_audio(audio_frame(160, 8000, 7))
    assert model.fake_connection.commands[-1].frame.samples[0] == 7
    assert len(model.fake_connection.commands) == len(sent) + 1


@virtual_time
async def test_audio_is_sent_at_the_models_rate():
    model = FakeModel(input_rate=16000)
    await begin(model)
    for rate in (48000, 8000):
        model.fake_connection.commands.clear()
        for _ in range(50):
            model.send_audio(audio_frame(rate // 50, rate))
        frames = [c.frame for c in model.fake_connection.commands]
        assert {f.rate for f in frames} == {16000}
        assert sum(map(len, frames)) == pytest.approx(16000, abs=100)
    model.fake_connection.commands.clear()
    model.send_audio(audio_frame(1, 8001))
    assert not model.fake_connection.commands


@virtual_time
async def test_an_ability_that_a_model_lacks_is_an_error():
    model = FakeModel(say="none", mutable_instructions=False, mutable_tools=False)
    await begin(model)
    image = VideoFrame(np.zeros((2, 2, 3), np.uint8), 0.0)
    for attempt in (
        lambda: model.send_video(image),
        lambda: model.say("q", "hello"),
        lambda: model.end_turn(),
        lambda: model.update_instructions("new"),
        lambda: model.update_tools([]),
    ):
        with pytest.raises(UnsupportedError):
            attempt()
    assert not model.fake_connection.commands
    able = FakeModel(video=True, manual_turns=True)
    await begin(able)
    able.send_video(image)
    able.end_turn()
    able.update_instructions("new")
    able.update_tools([])
    able.add_item(SystemItem("i", "x"))
    able.say("q", "hello")
    assert isinstance(able.fake_connection.commands[0], SendVideo)
    assert able.fake_connection.commands == [
        able.fake_connection.commands[0],
        EndTurn(),
        UpdateSession(instructions="new"),
        UpdateSession(tools=()),
        AddItem(SystemItem("i", "x")),
        Say("q", "hello"),
    ]


@virtual_time
async def test_an_interruption_cancels_truncates_and_lets_nothing_stale_through():
    model = FakeModel()
    observer, _ = await begin(model)
    model.fake_connection.emit(ReplyStarted("r"))
    observer.truncations = [Truncate("i", 100, "hi"), DeleteItem("j")]
    assert model.interrupt() == 1
    assert model.fake_connection.commands == [CancelReply("r"), *observer.truncations]
    reported = len(observer.reported)
    model.fake_connection.emit(ReplyAudio("r", "i", audio_frame(10)))
    model.fake_connection.emit(ReplyText("r", "i", "words"))
    model.fake_connection.emit(ReplyAudio("unknown", "i", audio_frame(10)))
    assert len(observer.reported) == reported
    assert model.stale_outputs == 3
    assert model.pending
    assert not model.replying
    model.fake_connection.emit(ReplyDone("r", "cancelled"))
    model.fake_connection.emit(ReplyDone("r", "cancelled"))
    assert not model.pending


@virtual_time
async def test_a_model_that_can_not_truncate_its_history_is_not_asked_to():
    model = FakeModel(truncation="none")
    observer, _ = await begin(model)
    observer.truncations = [DeleteItem("j")]
    model.interrupt()
    assert model.fake_connection.commands == []


@virtual_time
async def test_a_late_reply_is_cancelled_when_it_appears():
    model = FakeModel()
    observer, _ = await begin(model)
    model.request_reply("q")
    model.interrupt()
    assert ("q", None) in observer.reported
    model.fake_connection.emit(ReplyStarted("r", "q"))
    assert model.fake_connection.commands == [RequestReply("q"), CancelReply("r")]
    assert not [o for o in observer.outputs if isinstance(o, ReplyStarted)]


@virtual_time
async def test_a_refusal_and_a_timeout_reach_the_caller():
    model = FakeModel()
    observer, _ = await begin(model)
    model.request_reply("a")
    model.fake_connection.emit(ReplyRefused("a", "quota", "no money"))
    request_id, error = observer.reported[-1]
    assert request_id == "a"
    assert isinstance(error, ReplyRefusedError)
    assert error.code == "quota"
    model.request_reply("b")
    await asyncio.sleep(40)
    assert observer.reported[-1][0] == "b"
    assert observer.reported[-1][1].code == "timeout"


@pytest.mark.parametrize("tool_reply", ["requested", "automatic"])
def test_a_reply_follows_when_every_tool_has_its_result(tool_reply):
    @virtual_time
    async def run():
        model = FakeModel(tool_reply=tool_reply)
        await begin(model)
        model.fake_connection.emit(UserTurnEnded("u"))
        model.fake_connection.emit(ReplyStarted("r"))
        for call in ("a", "b"):
            model.fake_connection.emit(ToolCall("r", call, "t", "{}"))
        model.send_tool_result("a", "t", "1", failed=False)
        model.fake_connection.emit(ReplyDone("r"))
        assert model.pending
        model.send_tool_result("b", "t", "2", failed=True)
        assert model.fake_connection.commands[:2] == [
            SendToolResult("a", "t", "1"),
            SendToolResult("b", "t", "2", failed=True),
        ]
        requested = [c for c in model.fake_connection.commands if isinstance(c, RequestReply)]
        assert len(requested) == (tool_reply == "requested")

    run()


@virtual_time
async def test_no_reply_follows_the_tools_of_an_interrupted_reply():
    model = FakeModel()
    await begin(model)
    model.fake_connection.emit(ReplyStarted("r"))
    model.fake_connection.emit(ToolCall("r", "a", "t", "{}"))
    model.fake_connection.emit(ReplyDone("r"))
    model.interrupt()
    model.send_tool_result("a", "t", "1", failed=False)
    assert model.fake_connection.commands == [SendToolResult("a", "t", "1", quiet=True)]
    assert not model.pending


@virtual_time
async def test_an_automatic_reply_is_expected_for_a_while():
    model = FakeModel()
    await begin(model)
    model.fake_connection.emit(UserTurnEnded("u"))
    assert model.pending
    await asyncio.sleep(9)
    assert not model.pending
    model.fake_connection.emit(UserTurnEnded("u", reply_follows=False))
    assert not model.pending


@virtual_time
async def test_a_fatal_error_ends_the_session():
    error = ProviderError(ErrorKind.FATAL, "401", "wrong key")
    model = ScriptedRealtime(at=[At(0.5, error)])
    observer = FakeObserver()
    with pytest.raises(SessionError, match="wrong key") as caught:
        await model.run(SessionSetup(), observer)
    assert caught.value.code == "401"
    assert observer.ends == [("over", "wrong key", False)]
    assert error in observer.outputs


@virtual_time
async def test_errors_that_are_not_fatal_are_reported_and_the_session_continues():
    ending = (ErrorKind.FATAL, ErrorKind.RECYCLE)
    errors = [ProviderError(kind, "x", "y") for kind in ErrorKind if kind not in ending]
    model = ScriptedRealtime(at=[At(0.5, error) for error in errors])
    observer = FakeObserver()
    task = asyncio.create_task(model.run(SessionSetup(), observer))
    await asyncio.sleep(1)
    assert observer.outputs == errors
    assert model.connected
    task.cancel()
    await asyncio.wait([task])
    assert model.interrupt() == 1
