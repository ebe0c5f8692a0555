"""`TTSVoice`: a TTS that speaks the replies of a model which hears, and answers in text."""

# A `VoicedConnection` stands between the session and the connection of a model:
#
#     session ── commands ──> VoicedConnection ── commands ──> the model's connection
#             <── audio ─────       │   ^        <── text ────
#                                text   audio and timed text
#                                   v   │
#                                 the voice
#
# To the session it is a model that speaks: its replies have audio and timed text, they end when the
# last audio was made, and `CancelReply` stops the voice at once. So barge-in, heard text, tools and
# reconnects need no rules of their own. What differs from a model that speaks:
#
# - `Say` does not reach the model. The voice speaks the text, and the model gets it as an item.
# - A reply is spoken item by item, because each has its own place in the model's history. The text
#   of an item that was cut is replaced by what was heard (`Truncate`, which the session sends). An
#   item that was cancelled before the voice said any of it is deleted here, because the session has
#   never seen it.
# - A model writes faster than a voice speaks, so a reply is usually complete at the model when it
#   is cancelled here. Then nothing is cancelled there.
# - A reply that the model itself stops is spoken as far as it was written: that much is in its
#   history. If the person has interrupted, the session cancels it here, too.
# - When the voice fails, the model's text is truncated to what was spoken.

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from functools import partial

from duologue._bounded_dict import BoundedDict
from duologue._user_code import describe, log_failure, run_contained
from duologue.errors import SessionError
from duologue.items import AgentItem
from duologue.pipeline._clause_tts import connect_voice
from duologue.pipeline._emitter import Emitter
from duologue.pipeline._reply_speaker import ReplySpeaker, SpokenOutput
from duologue.pipeline._speculative_reply import SpeculativeReply, scripted
from duologue.pipeline.interfaces import TTS, StreamingTTS, TTSConnection
from duologue.realtime.codec import Connection
from duologue.realtime.commands import AddItem, CancelReply, Command, DeleteItem, Say, Truncate
from duologue.realtime.outputs import (
    Output,
    ReplyAudio,
    ReplyDone,
    ReplyHeard,
    ReplyStarted,
    ReplyText,
    ToolCall,
)
from duologue.realtime.stats import ConnectionStats, MeasuredConnection

log = logging.getLogger(__name__)

MAX_WAITING_CHARS = 50_000
"""Characters that may wait for the voice, about an hour of speech; beyond it the reply fails."""

_MAX_CUT_ITEMS = 4
"""Items that were cut, whose voice may still say what was heard; the oldest is dropped."""


class TTSVoice:
    """A `ReplyVoice` made of any TTS; one conversation uses it."""

    def __init__(self, tts: TTS | StreamingTTS) -> None:
        self.rate = tts.rate
        self._voice = connect_voice(tts)

    async def run(self) -> None:
        """Keep the connection of the voice; see `TTSConnection.run`."""
        await self._voice.run()

    def speak_for(self, connection: Connection) -> Connection:
        """Return the connection with spoken replies."""
        return VoicedConnection(connection, self._voice, self.rate)


class VoicedConnection:
    """A connection of a model that answers in text, whose replies ``voice`` speaks."""

    def __init__(self, connection: Connection, voice: TTSConnection, rate: int) -> None:
        self._connection = connection
        self._voice = voice
        self._rate = rate
        self._emitter = Emitter()
        self._emit = self._emitter.emit
        self._tasks: asyncio.TaskGroup | None = None
        self._replies: dict[str, _VoicedReply] = {}
        self._scripted: dict[str, _ScriptedText] = {}
        """Texts of the program that are being spoken, by the ids of their replies."""
        self._stopping: dict[str, Callable[[int | None], None]] = {}
        """Stops the voices of cancelled replies, by item: what was heard follows at once."""
        self._heard: BoundedDict[str, str] = BoundedDict(_MAX_CUT_ITEMS)
        """What the model was told that was heard of the items that were cut last."""

    async def run(self, receive: Callable[[Output], None]) -> None:
        """Run the model's connection until it ends; see `Connection.run`."""
        self._emitter.receive = receive
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                try:
                    await self._connection.run(self._receive)
                finally:
                    self._close()
        except BaseExceptionGroup as group:
            error: BaseException = group
            while isinstance(error, BaseExceptionGroup):
                error = error.exceptions[0]
            raise error from None

    def stats(self) -> ConnectionStats:
        """Return the counters of the model's connection."""
        model = self._connection
        return model.stats() if isinstance(model, MeasuredConnection) else ConnectionStats()

    def transmit(self, command: Command) -> None:
        """Take a command; see `Connection.transmit`."""
        match command:
            case Say():
                self._say(command)
            case CancelReply(reply_id=reply_id) if reply_id in self._scripted:
                with self._emitter.transmitting():
                    self._cancel_scripted(self._scripted[reply_id])
            case CancelReply(reply_id=reply_id) if reply_id in self._replies:
                with self._emitter.transmitting():
                    self._cancel(self._replies[reply_id])
            case Truncate(item_id=item_id, played_ms=played_ms, heard_text=heard_text):
                self._heard[item_id] = heard_text
                self._connection.transmit(command)
                if item_id in self._stopping:
                    self._stopping.pop(item_id)(played_ms * self._rate // 1000)
            case _:
                self._connection.transmit(command)

    def _close(self) -> None:
        """Stop speaking, because the model's connection is over."""
        self._emitter.receive = None
        self._stop_voices()
        for reply in self._replies.values():
            reply.stop()
        for text in [*self._scripted.values()]:
            text.reply.cancel()

    def _say(self, command: Say) -> None:
        """Speak a text of the program, and tell the model that it was said."""
        if self._tasks is None:
            return
        reply = SpeculativeReply(
            partial(scripted, command.text), self._voice, self._emit_scripted, None, script=True
        )
        self._scripted[reply.id] = _ScriptedText(reply)
        self._connection.transmit(AddItem(AgentItem(reply.item_id, command.text)))
        reply.start(self._tasks)
        with self._emitter.transmitting():
            reply.commit(command.request_id)

    def _emit_scripted(self, output: Output) -> None:
        match output:
            case ReplyDone(reply_id=reply_id, status=status):
                text = self._scripted.pop(reply_id)
                if status == "failed":
                    self._keep_spoken(text.reply.item_id, text.spoken)
            case ReplyAudio(reply_id=reply_id) | ReplyText(reply_id=reply_id):
                self._scripted[reply_id].add(output)
            case ReplyHeard():
                self._correct(output)
        self._emit(output)

    def _cancel_scripted(self, text: _ScriptedText) -> None:
        item_id = text.reply.item_id
        self._stop_soon(item_id, text.reply.stop_voice)
        text.reply.cancel(stops_voice=False)
        if text.spoken is None:
            self._connection.transmit(DeleteItem(item_id))

    def _keep_spoken(self, item_id: str, spoken: str | None) -> None:
        """Leave only what was spoken of an item in the model's history."""
        text = (spoken or "").rstrip()
        change = Truncate(item_id, 0, text) if text else DeleteItem(item_id)
        self._connection.transmit(change)

    def _correct(self, heard: ReplyHeard) -> None:
        """Tell the model what the voice says was heard of an item that was cut."""
        text = heard.text.rstrip()
        if self._heard.get(heard.item_id, text) != text:
            self._connection.transmit(Truncate(heard.item_id, 0, text))

    def _stop_soon(self, item_id: str, stop: Callable[[int | None], None]) -> None:
        """Stop a voice with what was heard, which `Truncate` tells in this interruption."""
        self._stopping[item_id] = stop
        asyncio.get_running_loop().call_soon(self._stop_voices)

    def _stop_voices(self) -> None:
        while self._stopping:
            _, stop = self._stopping.popitem()
            stop(None)

    def _receive(self, output: Output) -> None:
        """Handle an output of the model."""
        match output:
            case ReplyStarted(reply_id=reply_id):
                self._replies[reply_id] = _VoicedReply(reply_id)
                self._emit(output)
            case ReplyText(planned=False):
                self._speak(output)
            case ReplyText() | ReplyAudio():
                pass  # A server that speaks although it should not would be heard twice.
            case ToolCall(reply_id=reply_id):
                if reply_id in self._replies:
                    self._replies[reply_id].end_item()
                self._emit(output)
            case ReplyDone(reply_id=reply_id):
                reply = self._replies.get(reply_id)
                if reply is None or reply.task is None or reply.cancelled:
                    self._replies.pop(reply_id, None)
                    self._emit(output)
                else:
                    reply.end(output)
            case _:
                self._emit(output)

    def _speak(self, text: ReplyText) -> None:
        """Have the next text of a reply spoken, unless the reply is over."""
        reply = self._replies.get(text.reply_id)
        if reply is None or self._tasks is None:
            return
        if reply.cancelled:
            if text.item_id not in reply.items:
                reply.items[text.item_id] = None
                self._connection.transmit(DeleteItem(text.item_id))
            return
        reply.add(text.item_id, text.text)
        if reply.task is None:
            reply.task = self._tasks.create_task(self._speak_reply(reply), name="spoken reply")

    async def _speak_reply(self, reply: _VoicedReply) -> None:
        """Speak a reply item by item, then end it."""
        try:
            while (item_id := await reply.next_item()) is not None:
                await run_contained(self._speak_item(reply, item_id))
        except Exception as error:  # noqa: BLE001 - reported
            log_failure(log, "the TTS", error)
            self._fail(reply, describe(error))
        else:
            self._replies.pop(reply.id, None)
            self._emit(reply.done or ReplyDone(reply.id))

    async def _speak_item(self, reply: _VoicedReply, item_id: str) -> None:
        speaker = ReplySpeaker(self._voice, reply.id, item_id, partial(self._emit_spoken, reply))
        reply.speaker, reply.item_id = speaker, item_id
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_contained_wait(speaker), name="speak")
                async for text in reply.texts(item_id):
                    await speaker.send(text)
                await speaker.finish()
        finally:
            speaker.cancel()
        reply.speaker = None
        del reply.items[item_id]

    def _emit_spoken(self, reply: _VoicedReply, output: SpokenOutput) -> None:
        if isinstance(output, ReplyHeard):
            self._correct(output)
            self._emit(output)
            return
        if reply.cancelled:
            return  # It came before the voice was stopped.
        reply.items[output.item_id] = _spoken_with(reply.items.get(output.item_id), output)
        self._emit(output)

    def _cancel(self, reply: _VoicedReply) -> None:
        """Stop a reply here, and at the model if it is still written there."""
        if reply.speaker is not None and not reply.cancelled:
            self._stop_soon(reply.item_id, reply.speaker.cancel)
        reply.stop()
        if reply.done is None:
            self._connection.transmit(CancelReply(reply.id))
        else:
            self._replies.pop(reply.id, None)
            self._emit(ReplyDone(reply.id, "cancelled"))
        for item_id, spoken in reply.items.items():
            if spoken is None:
                self._connection.transmit(DeleteItem(item_id))

    def _fail(self, reply: _VoicedReply, message: str) -> None:
        """End a reply because it can't be spoken."""
        self._replies.pop(reply.id, None)
        if reply.done is None:
            self._connection.transmit(CancelReply(reply.id))
        for item_id, spoken in reply.items.items():
            self._keep_spoken(item_id, spoken)
        self._emit(ReplyDone(reply.id, "failed", message))


def _spoken_with(spoken: str | None, output: ReplyAudio | ReplyText) -> str:
    """Return the text spoken of an item so far, after the next output; None before the first."""
    return (spoken or "") + (output.text if isinstance(output, ReplyText) else "")


@dataclass(slots=True)
class _ScriptedText:
    """A text of the program that is being spoken."""

    reply: SpeculativeReply
    spoken: str | None = None
    """What was spoken of it; None if the session does not know its item yet."""

    def add(self, output: ReplyAudio | ReplyText) -> None:
        self.spoken = _spoken_with(self.spoken, output)


async def _contained_wait(speaker: ReplySpeaker) -> None:
    await run_contained(speaker.wait())


_ITEM_END = ("", "")
"""Among the texts of a reply: what follows belongs to another item."""


class _VoicedReply:
    """One reply of the model: its text as it comes, and what was spoken of its items."""

    def __init__(self, reply_id: str) -> None:
        self.id = reply_id
        self.done: ReplyDone | None = None
        """Its end at the model."""
        self.cancelled = False
        self.task: asyncio.Task[None] | None = None
        """Speaks it; None until it has text."""
        self.speaker: ReplySpeaker | None = None
        self.item_id = ""
        """The item that ``speaker`` speaks."""
        self.items: dict[str, str | None] = {}
        """What was spoken of each item that is not complete; None if the session does not know the
        item yet."""
        self._waiting: deque[tuple[str, str]] = deque()
        """Item ids with their next texts."""
        self._waiting_chars = 0
        self._changed = asyncio.Event()

    def add(self, item_id: str, text: str) -> None:
        """Add the next text."""
        self.items.setdefault(item_id, None)
        self._waiting.append((item_id, text))
        self._waiting_chars += len(text)
        self._changed.set()

    def end_item(self) -> None:
        """Have the text so far spoken, because something else follows."""
        self._waiting.append(_ITEM_END)
        self._changed.set()

    def end(self, done: ReplyDone) -> None:
        """End the text."""
        self.done = done
        self._changed.set()

    def stop(self) -> None:
        """Stop speaking; the task stops the voice when it is cancelled."""
        self.cancelled = True
        if self.task is not None:
            self.task.cancel()

    async def next_item(self) -> str | None:
        """Wait for the next text; return its item, or None at the end."""
        while True:
            while self._waiting and self._waiting[0] == _ITEM_END:
                self._waiting.popleft()
            if self._waiting:
                return self._waiting[0][0]
            if self.done is not None:
                return None
            await self._wait()

    async def texts(self, item_id: str) -> AsyncGenerator[str]:
        """Yield the texts of an item until it ends.

        Raises:
            SessionError: The model writes far more than can be spoken.
        """
        while True:
            while self._waiting:
                if self._waiting_chars > MAX_WAITING_CHARS:
                    raise SessionError("the reply is far too long to be spoken")
                if self._waiting[0][0] != item_id:
                    return
                _, text = self._waiting.popleft()
                self._waiting_chars -= len(text)
                yield text
            if self.done is not None:
                return
            await self._wait()

    async def _wait(self) -> None:
        self._changed.clear()
        await self._changed.wait()
