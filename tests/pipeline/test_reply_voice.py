"""A voice in front of a model that answers in text: what the session and the model see."""

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from duologue.audio import AudioFrame
from duologue.errors import ErrorKind, SessionError
from duologue.items import AgentItem
from duologue.pipeline.interfaces import SpokenText, StoppedText, Synthesis, SynthesisOutput
from duologue.pipeline.reply_voice import MAX_WAITING_CHARS, TTSVoice
from duologue.realtime.commands import (
    AddItem,
    CancelReply,
    Command,
    DeleteItem,
    EndTurn,
    Say,
    Truncate,
)
from duologue.realtime.outputs import (
    GoAway,
    Output,
    ReplyAudio,
    ReplyDone,
    ReplyHeard,
    ReplyStarted,
    ReplyText,
    SessionStarted,
    ToolCall,
)
from duologue.realtime.stats import ConnectionStats
from duologue.testing import virtual_time

RATE = 24000
WORD_S = 0.1


class Voice:
    """A streaming TTS that takes 0.1 s for a word, and makes its audio as fast as it is played."""

    rate = RATE

    def __init__(self) -> None:
        self.syntheses: list[Speaking] = []
        self.fails_after: int | None = None
        self.report: str | None = None

    def connect(self) -> "Voice":
        return self

    async def run(self) -> None:
        await asyncio.Event().wait()

    def synthesize(
        self, receive: Callable[[SynthesisOutput], None], *, hurry: bool = True
    ) -> Synthesis:
        self.syntheses.append(Speaking(self, receive, hurry=hurry))
        return self.syntheses[-1]


class Speaking:
    def __init__(
        self, voice: Voice, receive: Callable[[SynthesisOutput], None], *, hurry: bool
    ) -> None:
        self.voice, self.receive, self.hurry = voice, receive, hurry
        self.text = ""
        self.finished = False
        self.cancelled: list[int | None] = []

    async def send(self, text: str) -> None:
        self.text += text

    def flush(self) -> None: ...

    def finish(self) -> None:
        self.finished = True

    async def wait(self) -> None:
        words = 0
        while not self.cancelled:
            rest = self.text.split(" ")[words:]
            if rest and rest[0] and (len(rest) > 1 or self.finished):
                if self.voice.fails_after == words:
                    raise SessionError("the voice is out of credit", kind=ErrorKind.FATAL)
                start = round(words * WORD_S * RATE)
                word = rest[0] + (" " if len(rest) > 1 else "")
                self.receive(SpokenText(word, start, start + round(WORD_S * RATE)))
                self.receive(AudioFrame(np.full(round(WORD_S * RATE), 9, np.int16), RATE))
                words += 1
            elif self.finished:
                return
            await asyncio.sleep(WORD_S)

    def cancel(self, played: int | None = None) -> None:
        if not self.cancelled and not self.is_over and self.voice.report is not None:
            asyncio.get_running_loop().call_later(
                0.01, self.receive, StoppedText(self.voice.report)
            )
        self.cancelled.append(played)

    @property
    def is_over(self) -> bool:
        return False


class Model:
    """The connection of a model that answers in text, as the test says."""

    def __init__(self) -> None:
        self.commands: list[Command] = []
        self.emit: Callable[[Output], None] = lambda _: None
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self, receive: Callable[[Output], None]) -> None:
        self.emit = receive
        receive(SessionStarted())
        await self.ended

    def transmit(self, command: Command) -> None:
        self.commands.append(command)

    def stats(self) -> ConnectionStats:
        return ConnectionStats(unknown_messages=3)

    def write(self, reply_id: str, *texts: str, item_id: str = "item") -> None:
        self.emit(ReplyStarted(reply_id))
        for text in texts:
            self.emit(ReplyText(reply_id, item_id, text))

    def reply(self, reply_id: str, text: str) -> None:
        self.write(reply_id, text)
        self.emit(ReplyDone(reply_id))


class Scene:
    """A voiced connection that runs, and what it has emitted."""

    def __init__(self, tts: Any = None) -> None:
        self.voice = Voice()
        self.model = Model()
        self.connection = TTSVoice(tts or self.voice).speak_for(self.model)
        self.outputs: list[Output] = []
        self.transmitting = False
        self.task = asyncio.ensure_future(self.connection.run(self.receive))

    async def __aenter__(self) -> "Scene":
        await asyncio.sleep(0.001)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.task.cancel()
        await asyncio.wait({self.task})
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, left

    def receive(self, output: Output) -> None:
        assert not self.transmitting
        self.outputs.append(output)

    def transmit(self, *commands: Command) -> None:
        self.transmitting = True
        for command in commands:
            self.connection.transmit(command)
        self.transmitting = False

    def of(self, kind: type[Any]) -> list[Any]:
        return [output for output in self.outputs if isinstance(output, kind)]

    @property
    def text(self) -> str:
        return "".join(output.text for output in self.of(ReplyText))

    @property
    def seconds(self) -> float:
        return float(sum(output.frame.duration for output in self.of(ReplyAudio)))


@virtual_time
async def test_text_becomes_audio_and_timed_text_and_then_the_reply_ends() -> None:
    async with Scene() as scene:
        scene.model.write("r", "One two ", "three.")
        await asyncio.sleep(0.15)
        assert [type(output) for output in scene.outputs[:2]] == [SessionStarted, ReplyStarted]
        assert scene.text == "One two "
        scene.model.emit(ReplyDone("r"))
        await asyncio.sleep(1)
        assert scene.text == "One two three."
        assert scene.seconds == pytest.approx(0.3)
        starts = [(o.item_id, o.start, o.end) for o in scene.of(ReplyText)]
        assert starts == [("item", 2400 * n, 2400 * (n + 1)) for n in range(3)]
        assert scene.outputs[-1] == ReplyDone("r")
        assert scene.voice.syntheses[0].hurry


@virtual_time
async def test_a_reply_without_text_needs_no_voice() -> None:
    async with Scene() as scene:
        scene.model.emit(ReplyStarted("r"))
        scene.model.emit(ToolCall("r", "call", "look", "{}"))
        scene.model.emit(ReplyDone("r"))
        assert [type(o) for o in scene.outputs[1:]] == [ReplyStarted, ToolCall, ReplyDone]
        assert not scene.voice.syntheses


@virtual_time
async def test_markup_and_thoughts_are_not_spoken() -> None:
    async with Scene() as scene:
        scene.model.reply("r", "<think>hm</think>**One** two.")
        await asyncio.sleep(1)
        assert scene.text == "One two."


@virtual_time
async def test_text_that_ends_in_the_middle_of_something_is_spoken() -> None:
    async with Scene() as scene:
        scene.model.reply("r", "One two\ud83d")
        scene.model.reply("s", "Three <th")
        await asyncio.sleep(1)
        assert scene.text == "One Three two?<th"


@virtual_time
async def test_text_before_a_tool_call_is_spoken_while_the_tool_runs() -> None:
    async with Scene() as scene:
        scene.model.write("r", "Let me look.")
        scene.model.emit(ToolCall("r", "call", "look", "{}"))
        assert scene.of(ToolCall)
        await asyncio.sleep(1)
        assert scene.text == "Let me look."
        assert not scene.of(ReplyDone)
        scene.model.emit(ReplyDone("r"))
        await asyncio.sleep(0.01)
        assert scene.of(ReplyDone)


@virtual_time
async def test_items_are_spoken_one_after_the_other_each_from_its_own_beginning() -> None:
    async with Scene() as scene:
        scene.model.write("r", "One two.", item_id="a")
        scene.model.emit(ReplyText("r", "b", "Three."))
        scene.model.emit(ReplyDone("r"))
        await asyncio.sleep(1)
        assert [(o.item_id, o.text, o.start) for o in scene.of(ReplyText)] == [
            ("a", "One ", 0),
            ("a", "two.", 2400),
            ("b", "Three.", 0),
        ]
        items = [output.item_id for output in scene.of(ReplyAudio)]
        assert items == ["a", "a", "b"]


@virtual_time
async def test_audio_of_the_server_is_dropped() -> None:
    async with Scene() as scene:
        scene.model.write("r", "One.")
        scene.model.emit(ReplyAudio("r", "item", AudioFrame.silence(5.0, RATE)))
        scene.model.emit(ReplyText("r", "item", "planned", planned=True))
        scene.model.emit(ReplyDone("r"))
        await asyncio.sleep(1)
        assert (scene.text, scene.seconds) == ("One.", pytest.approx(0.1))


@virtual_time
async def test_cancelling_a_complete_reply_stops_the_voice_and_asks_nothing_of_the_model() -> None:
    async with Scene() as scene:
        scene.model.reply("r", "One two three four five.")
        await asyncio.sleep(0.25)
        scene.transmit(CancelReply("r"), Truncate("item", 200, "One two"))
        assert scene.voice.syntheses[0].cancelled == [4800]
        assert scene.model.commands == [Truncate("item", 200, "One two")]
        before = len(scene.of(ReplyAudio))
        await asyncio.sleep(1)
        assert scene.outputs[-1] == ReplyDone("r", "cancelled")
        assert len(scene.of(ReplyAudio)) == before
        scene.transmit(CancelReply("r"))
        assert len(scene.of(ReplyDone)) == 1


@virtual_time
async def test_cancelling_a_reply_that_is_being_written_ends_it_when_the_model_does() -> None:
    async with Scene() as scene:
        scene.model.write("r", "One two three ")
        await asyncio.sleep(0.15)
        scene.transmit(CancelReply("r"))
        scene.transmit(CancelReply("r"))
        assert scene.model.commands[0] == CancelReply("r")
        scene.model.emit(ReplyText("r", "item", "late"))
        await asyncio.sleep(0.1)
        assert scene.voice.syntheses[0].cancelled
        assert not scene.of(ReplyDone)
        scene.model.emit(ReplyDone("r", "cancelled"))
        assert scene.outputs[-1] == ReplyDone("r", "cancelled")
        assert scene.text == "One two "
        assert DeleteItem("item") not in scene.model.commands


@virtual_time
async def test_an_item_that_was_not_begun_is_deleted_at_the_model() -> None:
    async with Scene() as scene:
        scene.model.write("r", "On", item_id="a")
        scene.model.emit(ReplyText("r", "b", "Two"))
        scene.transmit(CancelReply("r"))
        assert scene.model.commands == [CancelReply("r"), DeleteItem("a"), DeleteItem("b")]
        scene.model.emit(ReplyText("r", "c", "Three"))
        scene.model.emit(ReplyText("r", "c", " four"))
        assert scene.model.commands[3:] == [DeleteItem("c")]
        scene.model.emit(ReplyDone("r", "cancelled"))
        assert not scene.text


@virtual_time
async def test_a_stale_reply_is_cancelled_before_it_has_text() -> None:
    async with Scene() as scene:
        scene.model.emit(ReplyStarted("r"))
        scene.transmit(CancelReply("r"))
        scene.model.emit(ReplyText("r", "item", "One."))
        scene.model.emit(ReplyDone("r", "cancelled"))
        assert scene.model.commands == [CancelReply("r"), DeleteItem("item")]
        assert scene.outputs[-1] == ReplyDone("r", "cancelled")
        assert not scene.voice.syntheses


@virtual_time
async def test_a_reply_that_the_model_stops_is_spoken_as_far_as_it_was_written() -> None:
    async with Scene() as scene:
        scene.model.write("r", "One two ")
        scene.model.emit(ReplyDone("r", "cancelled"))
        await asyncio.sleep(1)
        assert scene.text.rstrip() == "One two"
        assert scene.outputs[-1] == ReplyDone("r", "cancelled")


@virtual_time
async def test_what_the_voice_says_was_heard_corrects_the_model() -> None:
    async with Scene() as scene:
        scene.voice.report = "One"
        scene.model.reply("r", "One two three four five.")
        await asyncio.sleep(0.25)
        scene.transmit(CancelReply("r"), Truncate("item", 200, "One two"))
        await asyncio.sleep(0.1)
        assert scene.of(ReplyHeard) == [ReplyHeard("r", "item", "One")]
        assert scene.model.commands[-1] == Truncate("item", 0, "One")


@virtual_time
async def test_what_the_voice_says_was_heard_is_not_told_twice() -> None:
    async with Scene() as scene:
        scene.voice.report = "One two"
        scene.model.reply("r", "One two three four five.")
        await asyncio.sleep(0.25)
        scene.transmit(CancelReply("r"), Truncate("item", 200, "One two"))
        await asyncio.sleep(0.1)
        assert scene.of(ReplyHeard)
        assert len(scene.model.commands) == 1


@virtual_time
async def test_say_is_spoken_as_it_is_and_becomes_an_item_of_the_model() -> None:
    async with Scene() as scene:
        scene.transmit(Say("q", "One <think> two."))
        (added,) = scene.model.commands
        assert isinstance(added, AddItem)
        assert isinstance(added.item, AgentItem)
        assert added.item.text == "One <think> two."
        await asyncio.sleep(1)
        (started,) = scene.of(ReplyStarted)
        assert started.request_id == "q"
        assert scene.text == "One <think> two."
        assert {output.item_id for output in scene.of(ReplyText)} == {added.item.id}
        assert scene.outputs[-1] == ReplyDone(started.reply_id)
        assert not scene.voice.syntheses[0].hurry


@virtual_time
async def test_say_that_is_cancelled_stops_the_voice_where_it_was_heard() -> None:
    async with Scene() as scene:
        scene.voice.report = "One"
        scene.transmit(Say("q", "One two three four five."))
        await asyncio.sleep(0.25)
        (started,) = scene.of(ReplyStarted)
        item_id = scene.of(ReplyText)[0].item_id
        scene.transmit(CancelReply(started.reply_id), Truncate(item_id, 100, "One two"))
        assert scene.voice.syntheses[0].cancelled[0] == 2400
        await asyncio.sleep(1)
        assert scene.of(ReplyDone) == [ReplyDone(started.reply_id, "cancelled")]
        assert scene.model.commands[1:] == [
            Truncate(item_id, 100, "One two"),
            Truncate(item_id, 0, "One"),
        ]


@virtual_time
async def test_say_of_which_nothing_was_spoken_is_deleted_at_the_model() -> None:
    async with Scene() as scene:
        scene.transmit(Say("q", "One two three four five."))
        await asyncio.sleep(0)
        (started,) = scene.of(ReplyStarted)
        scene.transmit(CancelReply(started.reply_id))
        item_id = added_item(scene)
        assert scene.model.commands[1:] == [DeleteItem(item_id)]
        await asyncio.sleep(1)
        assert scene.outputs[-1] == ReplyDone(started.reply_id, "cancelled")


@virtual_time
async def test_say_whose_voice_fails_leaves_what_was_spoken_at_the_model() -> None:
    async with Scene() as scene:
        scene.voice.fails_after = 2
        scene.transmit(Say("q", "One two three four five."))
        await asyncio.sleep(1)
        assert scene.of(ReplyDone)[0].status == "failed"
        assert scene.model.commands[1:] == [Truncate(added_item(scene), 0, "One two")]


def added_item(scene: Scene) -> str:
    added = scene.model.commands[0]
    assert isinstance(added, AddItem)
    return added.item.id


@virtual_time
async def test_a_voice_that_fails_fails_the_reply_and_tells_the_model_what_was_spoken() -> None:
    async with Scene() as scene:
        scene.voice.fails_after = 2
        scene.model.write("r", "One two three four ")
        await asyncio.sleep(1)
        (done,) = scene.of(ReplyDone)
        assert (done.status, done.message) == ("failed", "the voice is out of credit")
        assert scene.model.commands == [CancelReply("r"), Truncate("item", 0, "One two")]
        scene.model.emit(ReplyText("r", "item", "late"))
        scene.model.emit(ReplyDone("r", "cancelled"))
        scene.voice.fails_after = None
        scene.model.reply("s", "Five.")
        await asyncio.sleep(1)
        assert scene.text == "One two Five."
        assert scene.outputs[-1] == ReplyDone("s")


@virtual_time
async def test_a_voice_that_fails_at_once_deletes_the_item() -> None:
    async with Scene() as scene:
        scene.voice.fails_after = 0
        scene.model.reply("r", "One two.")
        await asyncio.sleep(1)
        assert scene.of(ReplyDone)[0].status == "failed"
        assert scene.model.commands == [DeleteItem("item")]


@virtual_time
async def test_a_reply_without_end_is_bounded() -> None:
    async with Scene() as scene:
        scene.model.write("r", "word " * (MAX_WAITING_CHARS // 5 + 1))
        await asyncio.sleep(0.01)
        assert "far too long" in scene.of(ReplyDone)[0].message
        assert scene.model.commands[0] == CancelReply("r")


@virtual_time
async def test_everything_else_passes_both_ways() -> None:
    async with Scene() as scene:
        scene.model.emit(GoAway(5.0))
        scene.model.emit(ReplyDone("unknown"))
        scene.model.emit(ToolCall("unknown", "call", "look", "{}"))
        scene.model.emit(ReplyText("unknown", "item", "nobody says this"))
        assert scene.outputs[1:] == [
            GoAway(5.0),
            ReplyDone("unknown"),
            ToolCall("unknown", "call", "look", "{}"),
        ]
        scene.transmit(EndTurn(), CancelReply("unknown"), Truncate("other", 5, "x"))
        assert scene.model.commands == [
            EndTurn(),
            CancelReply("unknown"),
            Truncate("other", 5, "x"),
        ]
        assert scene.connection.stats().unknown_messages == 3  # type: ignore[attr-defined]


@virtual_time
async def test_the_end_of_the_models_connection_stops_the_voice() -> None:
    async with Scene() as scene:
        scene.model.write("r", "One two three four.")
        scene.transmit(Say("q", "Five six seven eight."))
        await asyncio.sleep(0.15)
        before = len(scene.outputs)
        scene.model.ended.set_exception(SessionError("gone", kind=ErrorKind.RECYCLE))
        with pytest.raises(SessionError, match="gone"):
            await scene.task
        assert all(synthesis.cancelled for synthesis in scene.voice.syntheses)
        assert len(scene.voice.syntheses) == 2
        await asyncio.sleep(1)
        assert len(scene.outputs) == before


@virtual_time
async def test_a_clean_end_of_the_models_connection_is_clean() -> None:
    async with Scene() as scene:
        scene.model.reply("r", "One two three four.")
        await asyncio.sleep(0.15)
        scene.model.ended.set_result(None)
        await scene.task


@virtual_time
async def test_say_before_the_connection_runs_is_dropped() -> None:
    model = Model()
    TTSVoice(Voice()).speak_for(model).transmit(Say("q", "One."))
    assert not model.commands


@virtual_time
async def test_a_simple_tts_speaks_clause_by_clause() -> None:
    from fake_edge import FakeTTS

    async with Scene(FakeTTS()) as scene:
        scene.model.reply("r", "One two. Three four.")
        await asyncio.sleep(5)
        assert scene.text == "One two. Three four."
        assert scene.outputs[-1] == ReplyDone("r")
        assert scene.of(ReplyText)[-1].start > 0
