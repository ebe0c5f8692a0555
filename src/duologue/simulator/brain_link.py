"""The model behind a session: turns go in and answers come out, one at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from duologue.audio import AudioFrame, Samples
from duologue.clock import Clock, Timer
from duologue.events import RealtimeConnectedEvent, RealtimeDisconnectedEvent
from duologue.items import Item
from duologue.realtime.codec import SessionSetup
from duologue.realtime.commands import DeleteItem, ToolSpec, Truncate
from duologue.realtime.errors import (
    DuologueError,
    ReplyRefusedError,
    SessionClosedError,
    UnsupportedError,
)
from duologue.realtime.outputs import (
    Output,
    ReplyAudio,
    ReplyDone,
    ReplyStarted,
    ReplyText,
    ToolCall,
    UserTranscript,
    UserTurnEnded,
)
from duologue.realtime.session import Realtime
from duologue.simulator.brains import ScriptBrain

TURN_S = 10.0
"""A turn that the brain has not told the end of within so many seconds had no words for it."""


@dataclass(slots=True, eq=False)
class _Asked:
    """An answer that the brain is to give."""

    id: str
    instructions: str | None
    text: str | None
    """To be said exactly, instead."""
    reply_id: str = ""


@dataclass(slots=True, eq=False)
class _Turn:
    item_id: str
    text: str = ""
    forgotten: bool = False
    timer: Timer | None = None


class Answering(Protocol):
    """Who is told how the answers come along, by their ids."""

    def answer_text(self, answer_id: str, text: str, brain_id: str) -> None:
        """The next words of an answer."""

    def answer_audio(self, answer_id: str, samples: Samples) -> None:
        """The next sound of an answer, at the brain's output rate."""

    def answer_call(self, answer_id: str, call_id: str, name: str, arguments: str) -> None:
        """An answer calls a function."""

    def answer_ended(self, answer_id: str, code: str, message: str | None) -> None:
        """An answer is whole (``message`` None), or has failed."""


class BrainLink:
    """Asks the brain for one answer after another, each once it knows the turns before it.

    ``rate`` is Hz of the sound that it is given to `hear`.
    """

    def __init__(
        self, brain: Realtime, answering: Answering, clock: Clock, *, rate: int = 24000
    ) -> None:
        self.brain = brain
        self.rate = rate
        self._answering = answering
        self._clock = clock
        self.turn_heard: Callable[[str, str, str], None] = lambda *_: None
        """Is told a turn's item, its words, and what the brain calls it."""
        self._turns: deque[_Turn] = deque()
        self._waiting: deque[_Asked] = deque()
        self._asked: _Asked | None = None
        self.words_so_far: Callable[[str], None] = lambda _: None
        """Called with the words of a turn while it lasts, if the brain transcribes it so early."""
        self.on_turn: Callable[[], None] = lambda: None
        self.on_reply: Callable[[], None] = lambda: None
        self.error = ""
        """Why the brain has ended, if it has."""

    @property
    def calls_follow(self) -> bool:
        """Whether the brain is known to call functions after its words."""
        reply = self.brain.speaking if isinstance(self.brain, ScriptBrain) else None
        return reply is not None and bool(reply.tools)

    async def run(self, instructions: str, tools: Sequence[ToolSpec]) -> None:
        """Live as long as the brain does."""
        try:
            await self.brain.run(SessionSetup(instructions, tools), self)
        except DuologueError as error:
            self.error = str(error)
        finally:
            for turn in self._turns:
                if turn.timer is not None:
                    turn.timer.cancel()

    def hear(self, samples: Samples) -> None:
        """The next sound of a turn."""
        if len(samples) and self.brain.connected:
            self.brain.send_audio(AudioFrame(samples, self.rate))

    def end_turn(self, item_id: str) -> None:
        """The turn is over; the brain tells what was said in it."""
        self._end_turn(_Turn(item_id))

    def forget_turn(self) -> None:
        """What was heard since the last turn is not wanted after all."""
        self._end_turn(_Turn("", forgotten=True))

    def _end_turn(self, turn: _Turn) -> None:
        if not self.brain.connected:
            return
        turn.timer = self._clock.call_at(
            self._clock.now() + TURN_S, lambda: self._turn_ended(turn, "")
        )
        self._turns.append(turn)
        self.brain.end_turn(reply=False)

    def ask(self, answer_id: str, instructions: str | None, text: str | None) -> None:
        """Have an answer made; ``text`` is to be said exactly."""
        self._waiting.append(_Asked(answer_id, instructions, text))
        self._next()

    def stop(self, answer_id: str) -> None:
        """An answer is not wanted any more."""
        self._waiting = deque(asked for asked in self._waiting if asked.id != answer_id)
        if self._asked is not None and self._asked.id == answer_id:
            self._asked = None
            self.brain.interrupt()
            self._next()

    def add(self, item: Item) -> None:
        """Put an item at the end of the brain's history."""
        if self.brain.connected:
            self.brain.add_item(item)

    def edit(self, change: DeleteItem | Truncate) -> None:
        """Take out or cut an item of the brain's history, where the brain can."""
        if self.brain.connected and self.brain.profile.truncates:
            self.brain.edit(change)

    def configure(self, instructions: str | None, tools: Sequence[ToolSpec] | None) -> None:
        """Change what the brain is told and may call, where it can be changed."""
        profile = self.brain.profile
        if not self.brain.connected:
            return
        if instructions is not None and profile.mutable_instructions:
            self.brain.update_instructions(instructions)
        if tools is not None and profile.mutable_tools:
            self.brain.update_tools(tools)

    def _next(self) -> None:
        if self._asked is not None or self._turns or not self._waiting:
            return
        asked = self._asked = self._waiting.popleft()
        try:
            if asked.text is not None:
                self.brain.say(asked.id, asked.text)
            else:
                self.brain.request_reply(asked.id, asked.instructions)
        except (SessionClosedError, UnsupportedError) as error:
            self._ended(asked, "server_error", str(error))

    def _ended(self, asked: _Asked, code: str, message: str | None) -> None:
        if self._asked is asked:
            self._asked = None
        self._answering.answer_ended(asked.id, code, message)
        self._next()

    def _turn_ended(self, turn: _Turn, brain_id: str) -> None:
        if turn not in self._turns:
            return
        self._turns.remove(turn)
        if turn.timer is not None:
            turn.timer.cancel()
        if turn.forgotten:
            if brain_id:
                self.edit(DeleteItem(brain_id))
        else:
            self.turn_heard(turn.item_id, turn.text, brain_id)
            self.on_turn()
        # Not at once: a brain may tell a turn just before it puts it into its history.
        self._clock.call_at(self._clock.now(), self._next)

    # Listener: what the brain tells

    def connected(self, event: RealtimeConnectedEvent) -> None:
        """The brain is there."""

    def disconnected(self, event: RealtimeDisconnectedEvent) -> None:
        """The brain is gone; `run` says why."""

    def output(self, output: Output, epoch: int) -> None:
        """Something that the brain makes."""
        asked = self._asked
        match output:
            case UserTranscript(text=text, final=True) if self._turns:
                self._turns[0].text = text
            case UserTranscript(text=text, final=False) if not self._turns:
                self.words_so_far(text)
            case UserTurnEnded(item_id=item_id) if self._turns:
                self._turn_ended(self._turns[0], item_id)
            case ReplyStarted(reply_id=reply_id, request_id=request_id):
                if asked is not None and request_id == asked.id:
                    asked.reply_id = reply_id
                    self.on_reply()
            case _ if asked is not None and asked.reply_id:
                self._take(asked, output)
            case _:
                return

    def _take(self, asked: _Asked, output: Output) -> None:
        """Something about the answer that is being made, perhaps."""
        mine = asked.reply_id
        match output:
            case ReplyText(reply_id=reply_id, item_id=item_id, text=text) if reply_id == mine:
                self._answering.answer_text(asked.id, text, item_id)
            case ReplyAudio(reply_id=reply_id, frame=frame) if reply_id == mine:
                self._answering.answer_audio(asked.id, frame.samples)
            case ToolCall(reply_id, call_id, name, arguments) if reply_id == mine:
                self._answering.answer_call(asked.id, call_id, name, arguments)
            case ReplyDone(reply_id, status, message) if reply_id == mine:
                failed = status != "completed"
                text = message or "The server had an error while processing your request."
                self._ended(asked, "server_error", text if failed else None)
            case _:
                return

    def nothing_follows(self, epoch: int) -> None:
        """A brain says nothing after its tools: then there is nothing."""

    def said_anyway(self, words: object) -> None:
        """A brain tells what it says before it is cut."""

    def interrupted(self, epoch: int) -> Sequence[Truncate | DeleteItem]:
        """The session cuts the history itself, where the client says so."""
        return ()

    def reply_ended(self, request_id: str, error: Exception | None) -> None:
        """The brain refuses to answer."""
        asked = self._asked
        if asked is None or asked.id != request_id or error is None:
            return
        code = error.code if isinstance(error, ReplyRefusedError) else ""
        self._ended(asked, code or "server_error", str(error))

    def history(self) -> Sequence[Item]:
        """A brain is in this process and loses nothing."""
        return ()

    def reconnecting(self, event: object) -> None:
        """A brain does not reconnect."""

    def reconnected(self, event: object) -> None:
        """A brain does not reconnect."""

    def reheard(self, item_ids: Sequence[str]) -> None:
        """A brain does not reconnect."""

    def reply_lost(self, reply_id: str, request_id: str | None) -> None:
        """A brain does not reconnect."""

    def reply_said(self, reply_id: str) -> str | None:
        """A brain does not reconnect."""
        return None
