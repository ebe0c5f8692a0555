import asyncio

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
from duologue.realtime.capabilities import Capabilities
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
from duologue.testing import At, ScriptedRealtime, virtual_time
from duologue.video import VideoFrame


class Listener:
    def __init__(self):
        self.told = []
        self.cuts = []
        self.items = ()

    def history(self):
        return self.items

    def reconnecting(self, event):
        self.told.append(event)

    def reconnected(self, event):
        self.told.append(event)

    def late_transcript(self, words):
        pass

    def reply_skipped(self, epoch):
        self.told.append(("nothing follows", epoch))

    def spoken_text(self, reply_id):
        return None

    def reply_lost(self, reply_id, request_id):
        self.told.append(("lost", reply_id, request_id))

    def turns_replayed(self, item_ids):
        self.told.append(("reheard", *item_ids))

    def connected(self, event):
        self.told.append(event)

    def disconnected(self, event):
        self.told.append(("over", event.reason, event.clean))

    def output(self, output, epoch):
        self.told.append((output, epoch))

    def on_interrupt(self, epoch):
        self.told.append(("interrupted", epoch))
        return self.cuts

    def reply_ended(self, request_id, error):
        self.told.append((request_id, error))

    @property
    def ends(self):
        return [t for t in self.told if isinstance(t, tuple) and t[0] == "over"]

    @property
    def outputs(self):
        return [t[0] for t in self.told if isinstance(t, tuple) and len(t) == 2]


class Line:
    """A connection in the test's hands."""

    def __init__(self):
        self.commands = []
        self.over = asyncio.Event()
        self.failure = None
        self.tell = None

    async def run(self, receive):
        self.tell = receive
        await self.over.wait()
        if self.failure is not None:
            raise self.failure

    def transmit(self, command):
        self.commands.append(command)


class Model(Realtime):
    def __init__(self, *, unprepared=None, **abilities):
        super().__init__(Capabilities("test", "m", **abilities))
        self.line = Line()
        self.setups = []
        self.unprepared = unprepared

    async def prepare(self, setup):
        await super().prepare(setup)
        if self.unprepared:
            raise self.unprepared

    def open(self, setup):
        self.setups.append(setup)
        return self.line


async def begin(model, *, start=True):
    listener = Listener()
    task = asyncio.create_task(model.run(SessionSetup("be kind"), listener))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    if start:
        model.line.tell(SessionStarted({"voice": "x"}))
    return listener, task


def sound(count, rate=24000, value=1):
    return AudioFrame(np.full(count, value, np.int16), rate)


@virtual_time
async def test_a_session_from_begin_to_end():
    model = Model()
    listener, task = await begin(model, start=False)
    waiting = asyncio.create_task(model.ready())
    await asyncio.sleep(0.1)
    assert not waiting.done()
    assert not model.connected
    model.line.tell(SessionStarted({"voice": "x"}))
    await waiting
    assert model.connected
    event = listener.told[0]
    assert event.session_id == model.session_id
    assert event.session_config == {"voice": "x"}
    assert event.capabilities["model"] == "m"
    assert model.setups == [SessionSetup("be kind")]
    model.line.over.set()
    await task
    assert listener.ends == [("over", "the model ended the session", True)]
    assert not model.connected
    with pytest.raises(SessionClosedError, match="over"):
        await model.ready()


@virtual_time
async def test_a_session_runs_once():
    model = Model()
    _, task = await begin(model)
    with pytest.raises(RuntimeError, match="runs once"):
        await model.run(SessionSetup(), Listener())
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
        model = Model(unprepared=SessionError("no weights") if way == "unprepared" else None)
        listener, task = await begin(model, start=started and way != "unprepared")
        if model.connected:
            model.request_reply("q")
        match way:
            case "cancelled":
                task.cancel()
            case "failed":
                model.line.failure = SessionError("lost")
            case "bug":
                model.line.failure = KeyError("x")
        model.line.over.set()
        await asyncio.wait([task])
        end = ENDS[way]
        if way == "clean" and not started:
            end = ("the model ended the session before it began", False)
        assert listener.ends == [("over", *end)]
        asked = [t for t in listener.told if isinstance(t, tuple) and t[0] == "q"]
        assert len(asked) == (started and way != "unprepared")
        assert all(isinstance(error, SessionClosedError) for _, error in asked)
        with pytest.raises(SessionClosedError):
            await model.ready()
        with pytest.raises(SessionClosedError):
            model.request_reply("late")
        model.send_tool_result("c", "t", "x", failed=False)
        await asyncio.sleep(60)
        assert len(listener.ends) == 1

    run()


@virtual_time
async def test_early_audio_is_kept_in_order_and_bounded():
    model = Model(input_rate=8000)
    for value in range(600):
        model.send_audio(sound(160, 8000, 1000 + value))
    assert model.lost_audio == (600 - ReconnectPolicy().keep_s * 50) * 160
    await begin(model)
    sent = [c.frame.samples for c in model.line.commands if isinstance(c, SendAudio)]
    assert max(map(len, sent)) == 800
    assert [*np.concatenate(sent)[::160]] == [*range(1100, 1600)]
    model.send_audio(sound(160, 8000, 7))
    assert model.line.commands[-1].frame.samples[0] == 7
    assert len(model.line.commands) == len(sent) + 1


@virtual_time
async def test_audio_is_sent_at_the_models_rate():
    model = Model(input_rate=16000)
    await begin(model)
    for rate in (48000, 8000):
        model.line.commands.clear()
        for _ in range(50):
            model.send_audio(sound(rate // 50, rate))
        frames = [c.frame for c in model.line.commands]
        assert {f.rate for f in frames} == {16000}
        assert sum(map(len, frames)) == pytest.approx(16000, abs=100)
    model.line.commands.clear()
    model.send_audio(sound(1, 8001))
    assert not model.line.commands


@virtual_time
async def test_an_ability_that_a_model_lacks_is_an_error():
    model = Model(say="none", mutable_instructions=False, mutable_tools=False)
    await begin(model)
    picture = VideoFrame(np.zeros((2, 2, 3), np.uint8), 0.0)
    for attempt in (
        lambda: model.send_video(picture),
        lambda: model.say("q", "hello"),
        lambda: model.end_turn(),
        lambda: model.update_instructions("new"),
        lambda: model.update_tools([]),
    ):
        with pytest.raises(UnsupportedError):
            attempt()
    assert not model.line.commands
    able = Model(video=True, manual_turns=True)
    await begin(able)
    able.send_video(picture)
    able.end_turn()
    able.update_instructions("new")
    able.update_tools([])
    able.add_item(SystemItem("i", "x"))
    able.say("q", "hello")
    assert isinstance(able.line.commands[0], SendVideo)
    assert able.line.commands == [
        able.line.commands[0],
        EndTurn(),
        UpdateSession(instructions="new"),
        UpdateSession(tools=()),
        AddItem(SystemItem("i", "x")),
        Say("q", "hello"),
    ]


@virtual_time
async def test_an_interruption_cancels_truncates_and_lets_nothing_stale_through():
    model = Model()
    listener, _ = await begin(model)
    model.line.tell(ReplyStarted("r"))
    listener.cuts = [Truncate("i", 100, "hi"), DeleteItem("j")]
    assert model.interrupt() == 1
    assert model.line.commands == [CancelReply("r"), *listener.cuts]
    told = len(listener.told)
    model.line.tell(ReplyAudio("r", "i", sound(10)))
    model.line.tell(ReplyText("r", "i", "words"))
    model.line.tell(ReplyAudio("unknown", "i", sound(10)))
    assert len(listener.told) == told
    assert model.stale_outputs == 3
    assert model.pending
    assert not model.replying
    model.line.tell(ReplyDone("r", "cancelled"))
    model.line.tell(ReplyDone("r", "cancelled"))
    assert not model.pending


@virtual_time
async def test_a_model_that_can_not_truncate_its_history_is_not_asked_to():
    model = Model(truncation="none")
    listener, _ = await begin(model)
    listener.cuts = [DeleteItem("j")]
    model.interrupt()
    assert model.line.commands == []


@virtual_time
async def test_a_late_reply_is_cancelled_when_it_appears():
    model = Model()
    listener, _ = await begin(model)
    model.request_reply("q")
    model.interrupt()
    assert ("q", None) in listener.told
    model.line.tell(ReplyStarted("r", "q"))
    assert model.line.commands == [RequestReply("q"), CancelReply("r")]
    assert not [o for o in listener.outputs if isinstance(o, ReplyStarted)]


@virtual_time
async def test_a_refusal_and_a_timeout_reach_the_caller():
    model = Model()
    listener, _ = await begin(model)
    model.request_reply("a")
    model.line.tell(ReplyRefused("a", "quota", "no money"))
    request_id, error = listener.told[-1]
    assert request_id == "a"
    assert isinstance(error, ReplyRefusedError)
    assert error.code == "quota"
    model.request_reply("b")
    await asyncio.sleep(40)
    assert listener.told[-1][0] == "b"
    assert listener.told[-1][1].code == "timeout"


@pytest.mark.parametrize("tool_reply", ["requested", "automatic"])
def test_a_reply_follows_when_every_tool_has_its_result(tool_reply):
    @virtual_time
    async def run():
        model = Model(tool_reply=tool_reply)
        await begin(model)
        model.line.tell(UserTurnEnded("u"))
        model.line.tell(ReplyStarted("r"))
        for call in ("a", "b"):
            model.line.tell(ToolCall("r", call, "t", "{}"))
        model.send_tool_result("a", "t", "1", failed=False)
        model.line.tell(ReplyDone("r"))
        assert model.pending
        model.send_tool_result("b", "t", "2", failed=True)
        assert model.line.commands[:2] == [
            SendToolResult("a", "t", "1"),
            SendToolResult("b", "t", "2", failed=True),
        ]
        asked = [c for c in model.line.commands if isinstance(c, RequestReply)]
        assert len(asked) == (tool_reply == "requested")

    run()


@virtual_time
async def test_no_reply_follows_the_tools_of_an_interrupted_reply():
    model = Model()
    await begin(model)
    model.line.tell(ReplyStarted("r"))
    model.line.tell(ToolCall("r", "a", "t", "{}"))
    model.line.tell(ReplyDone("r"))
    model.interrupt()
    model.send_tool_result("a", "t", "1", failed=False)
    assert model.line.commands == [SendToolResult("a", "t", "1", quiet=True)]
    assert not model.pending


@virtual_time
async def test_an_automatic_reply_is_expected_for_a_while():
    model = Model()
    await begin(model)
    model.line.tell(UserTurnEnded("u"))
    assert model.pending
    await asyncio.sleep(9)
    assert not model.pending
    model.line.tell(UserTurnEnded("u", reply_follows=False))
    assert not model.pending


@virtual_time
async def test_a_fatal_error_ends_the_session():
    error = ProviderError(ErrorKind.FATAL, "401", "wrong key")
    model = ScriptedRealtime(at=[At(0.5, error)])
    listener = Listener()
    with pytest.raises(SessionError, match="wrong key") as caught:
        await model.run(SessionSetup(), listener)
    assert caught.value.code == "401"
    assert listener.ends == [("over", "wrong key", False)]
    assert error in listener.outputs


@virtual_time
async def test_errors_that_are_not_fatal_are_reported_and_the_session_continues():
    ending = (ErrorKind.FATAL, ErrorKind.RECYCLE)
    errors = [ProviderError(kind, "x", "y") for kind in ErrorKind if kind not in ending]
    model = ScriptedRealtime(at=[At(0.5, error) for error in errors])
    listener = Listener()
    task = asyncio.create_task(model.run(SessionSetup(), listener))
    await asyncio.sleep(1)
    assert listener.outputs == errors
    assert model.connected
    task.cancel()
    await asyncio.wait([task])
    assert model.interrupt() == 1
