import asyncio
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import numpy as np
import pytest

from duologue.audio import AudioFrame
from duologue.errors import ReplyRefusedError, SessionError
from duologue.items import SystemItem
from duologue.realtime.codec import SessionSetup
from duologue.realtime.commands import AddItem, CancelReply, EndTurn, RequestReply
from duologue.realtime.outputs import (
    ReplyAudio,
    ReplyDone,
    ReplyStarted,
    ReplyText,
    SpeechStarted,
    SpeechStopped,
    ToolCall,
    Usage,
    UserTranscript,
    UserTurnEnded,
)
from duologue.testing import (
    SCRIPTED_CAPABILITIES,
    At,
    Reply,
    ScriptedRealtime,
    ToolUse,
    virtual_time,
)


class Ear:
    def __init__(self):
        self.outputs, self.ended = [], []

    def connected(self, event): ...
    def disconnected(self, event): ...
    def on_interrupt(self, epoch):
        return ()

    def output(self, output, epoch):
        self.outputs.append((asyncio.get_running_loop().time(), output))

    def reply_ended(self, request_id, error):
        self.ended.append((request_id, error))

    def of(self, kind):
        return [output for _, output in self.outputs if isinstance(output, kind)]

    def at(self, kind):
        return [at for at, output in self.outputs if isinstance(output, kind)]


@asynccontextmanager
async def running(model):
    observer = Ear()
    task = asyncio.create_task(model.run(SessionSetup("Be kind."), observer))
    await model.ready()
    try:
        yield observer
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        assert len(asyncio.all_tasks()) == 1


async def speak(model, seconds, level=8000):
    for _ in range(round(seconds * 50)):
        await asyncio.sleep(0.02)
        model.send_audio(AudioFrame(np.full(480, level, np.int16), 24000))


@virtual_time
async def test_requests_get_the_replies_in_order_then_silence():
    model = ScriptedRealtime([Reply("Hello.", seconds=1.0, after_s=0.3), "Second."])
    async with running(model) as observer:
        model.request_reply("a")
        await asyncio.sleep(1)
        model.request_reply("b")
        model.request_reply("c")
        await asyncio.sleep(1)
        assert [o.text for o in observer.of(ReplyText)] == ["Hello.", "Second."]
        assert [o.request_id for o in observer.of(ReplyStarted)] == ["a", "b", "c"]
        assert observer.at(ReplyStarted)[0] == pytest.approx(0.3)
        first = [
            o.frame
            for o in observer.of(ReplyAudio)
            if o.reply_id == observer.of(ReplyStarted)[0].reply_id
        ]
        assert sum(map(len, first)) == 24000
        assert max(map(len, first)) == 2400
        assert len(model.commands) == 3
        assert model.commands[0] == RequestReply("a")


@virtual_time
async def test_audio_may_arrive_at_the_speed_of_speech():
    model = ScriptedRealtime([Reply("x", seconds=2.0, pace=2.0, after_s=0.0)])
    async with running(model) as observer:
        model.request_reply("a")
        await asyncio.sleep(3)
        times = observer.at(ReplyAudio)
        assert times[-1] - times[0] == pytest.approx(0.95)


@virtual_time
async def test_turns_are_detected_by_loudness():
    model = ScriptedRealtime(["Fine."], transcripts=["how are you", "", "bye"])
    async with running(model) as observer:
        await speak(model, 0.5)
        await speak(model, 1.0, 0)
        assert [type(o).__name__ for _, o in observer.outputs[:2]] == [
            "SpeechStarted",
            "UserTranscript",
        ]
        assert observer.at(SpeechStarted)[0] < 0.1
        assert observer.at(SpeechStopped)[0] == pytest.approx(0.65, abs=0.05)
        assert observer.at(UserTurnEnded)[0] == pytest.approx(1.0, abs=0.05)
        assert observer.of(UserTranscript)[-1].final
        assert [o.text for o in observer.of(ReplyText)] == ["Fine."]
        await speak(model, 0.2)
        await speak(model, 1.0, 0)
        assert observer.of(UserTurnEnded)[-1].empty
        await speak(model, 0.2)
        await speak(model, 1.0, 0)
        last = observer.of(UserTurnEnded)[-1]
        assert (last.empty, last.reply_follows) == (False, False)
        assert model.received_samples == 24000 * 3.9


@virtual_time
async def test_replies_may_fail_be_refused_or_call_tools():
    model = ScriptedRealtime(
        [
            Reply("", refused="quota"),
            Reply("half", fails="broken"),
            Reply("", 0.0, tools=[ToolUse("look", {"at": "sky"})]),
        ]
    )
    async with running(model) as observer:
        for request in "abc":
            model.request_reply(request)
            await asyncio.sleep(0.5)
        (request_id, error), *_ = observer.ended
        assert request_id == "a"
        assert isinstance(error, ReplyRefusedError)
        assert [(o.status, o.message) for o in observer.of(ReplyDone)] == [
            ("failed", "broken"),
            ("completed", None),
        ]
        (call,) = observer.of(ToolCall)
        assert (call.name, call.arguments) == ("look", '{"at": "sky"}')


@virtual_time
async def test_a_reply_can_be_cancelled():
    model = ScriptedRealtime([Reply("x" * 60, pace=1.0)])
    async with running(model) as observer:
        model.request_reply("a")
        await asyncio.sleep(1)
        model.interrupt()
        await asyncio.sleep(0.01)
        assert [o.status for o in observer.of(ReplyDone)] == ["cancelled"]
        model._session.transmit(CancelReply("unknown"))
        audio_count = len(observer.of(ReplyAudio))
        await asyncio.sleep(3)
        assert len(observer.of(ReplyAudio)) == audio_count
        assert not model.pending


@virtual_time
async def test_outputs_come_at_their_time():
    usage, error = Usage({}, {}), SessionError("lost")
    model = ScriptedRealtime(at=[At(2.0, error), At(1.0, usage)])
    observer = Ear()
    with pytest.raises(SessionError) as caught:
        await model.run(SessionSetup(), observer)
    assert caught.value is error
    assert observer.outputs == [(1.0, usage)]
    assert asyncio.get_running_loop().time() == 2.0


@virtual_time
async def test_an_echo_returns_the_input_audio():
    model = ScriptedRealtime(echo=True)
    async with running(model) as observer:
        await speak(model, 0.2, 123)
        await asyncio.sleep(0.01)
        frames = [o.frame for o in observer.of(ReplyAudio)]
        assert len(frames) == 10
        assert all((f.samples == 123).all() for f in frames)


@virtual_time
async def test_the_program_may_end_the_turn_and_add_to_the_history():
    profile = replace(
        SCRIPTED_CAPABILITIES, provider="p", model="m", manual_turns=True, user_transcripts="final"
    )
    model = ScriptedRealtime(["Ok."], transcripts=["so"], capabilities=profile)
    async with running(model) as observer:
        model.add_item(SystemItem("s", "x"))
        model.say("q", "Exactly this.")
        await asyncio.sleep(2)
        model.end_turn()
        await asyncio.sleep(2)
        assert model.commands[0] == AddItem(SystemItem("s", "x"))
        assert model.commands[-1] == EndTurn()
        assert [o.text for o in observer.of(ReplyText)] == ["Exactly this.", "Ok."]
        assert [o.text for o in observer.of(UserTranscript)] == ["so"]


@virtual_time
async def test_commands_at_the_end_of_the_session_start_nothing():
    model = ScriptedRealtime(["a" * 60, "b"], at=[At(1.0, SessionError("lost"))])
    observer = Ear()
    task = asyncio.create_task(model.run(SessionSetup(), observer))
    await model.ready()
    model.request_reply("q")
    loop = asyncio.get_running_loop()
    late = []

    def ask():
        if model.connected:
            late.append(len(late))
            model._session.transmit(RequestReply(f"late {len(late)}"))
            loop.call_soon(ask)

    loop.call_at(1.0, ask)
    with pytest.raises(SessionError):
        await task
    await asyncio.sleep(1)
    output_count = len(observer.outputs)
    model._session.receive(Usage({}, {}))
    assert len(observer.outputs) == output_count
    assert len(late) > 1
