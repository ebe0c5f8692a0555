"""A pipeline as a `Connection` that runs in this process."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from uuid import uuid4

from duologue._user_code import run_contained
from duologue.audio import AudioFrame
from duologue.clock import Clock
from duologue.items import AgentItem, Item, ToolCallItem, ToolResultItem, UserItem
from duologue.pipeline._clause_tts import connect_voice
from duologue.pipeline._emitter import Emitter
from duologue.pipeline._listening_stt import ListeningSTT
from duologue.pipeline._service_turns import ServiceTurnInput
from duologue.pipeline._speculative_reply import SpeculativeReply, scripted
from duologue.pipeline._speech_input import SERVICE_DECISION, SpeechInput, TurnDecision
from duologue.pipeline._stable_text import StableText
from duologue.pipeline.interfaces import (
    LLM,
    STT,
    TTS,
    PrefillingLLM,
    StreamingSTT,
    StreamingTTS,
    TurnDetector,
)
from duologue.realtime.codec import SessionSetup
from duologue.realtime.commands import (
    AddItem,
    CancelReply,
    ClearInput,
    Command,
    DeleteItem,
    EndTurn,
    RequestReply,
    Say,
    SendAudio,
    SendToolResult,
    SendVideo,
    ToolSpec,
    Truncate,
    UpdateSession,
)
from duologue.realtime.outputs import (
    Output,
    ReplyHeard,
    ReplyText,
    SessionStarted,
    ToolCall,
    UserTranscript,
    UserTurnEnded,
)
from duologue.vad.endpointing import Endpointing
from duologue.vad.vad import VAD

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Components:
    """The components of a pipeline."""

    vad: VAD
    turn: TurnDetector | None
    stt: STT | StreamingSTT
    llm: LLM
    tts: TTS | StreamingTTS
    endpointing: Endpointing


@dataclass(frozen=True, slots=True)
class _Basis:
    """What a speculative reply was made from; the reply is useless once this has changed."""

    version: int
    text: str | None


class PipelineConnection:
    """One session of a pipeline: its history, its speech input, and at most one reply at a time."""

    def __init__(self, components: Components, setup: SessionSetup, clock: Clock) -> None:
        self._components = components
        self._clock = clock
        self._instructions = setup.instructions
        self._tools: tuple[ToolSpec, ...] = tuple(setup.tools)
        self._history: dict[str, Item] = {item.id: item for item in setup.history}
        self._call_ids = {item.call_id for item in setup.history if isinstance(item, ToolCallItem)}
        self._version = 0
        self._emitter = Emitter()
        self._emit = self._emitter.emit
        self._ended = False
        self._tasks: asyncio.TaskGroup | None = None
        self._speech_input: SpeechInput | ServiceTurnInput | None = None
        self._listening: ListeningSTT | None = None
        self._voice = connect_voice(components.tts)
        self._prepared_reply: SpeculativeReply | None = None
        self._current_reply: SpeculativeReply | None = None
        self._stopping: SpeculativeReply | None = None
        """A cancelled reply whose voice is about to be stopped."""
        self._stable_text = StableText("")
        self._prefilling: asyncio.Task[None] | None = None

    async def run(self, receive: Callable[[Output], None]) -> None:
        """Run until cancelled; see `Connection.run`."""
        self._emitter.receive = receive
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                self._speech_input = self._make_input(tasks)
                tasks.create_task(self._voice.run(), name="voice")
                receive(
                    SessionStarted(
                        {
                            "llm": self._components.llm.model,
                            "instructions": self._instructions,
                        }
                    )
                )
                try:
                    await asyncio.Event().wait()
                finally:
                    self._ended = True
        finally:
            if self._speech_input is not None:
                await self._speech_input.close()

    def _make_input(self, tasks: asyncio.TaskGroup) -> SpeechInput | ServiceTurnInput:
        components = self._components
        stt = components.stt
        if isinstance(stt, StreamingSTT):
            connection = stt.connect()
            if stt.turns == "service":
                return ServiceTurnInput(
                    connection,
                    turn_handler=self,
                    emit=self._emit,
                    tasks=tasks,
                    clock=self._clock,
                )
            self._listening = ListeningSTT(connection, stt.rate, self._clock)
            tasks.create_task(self._listening.run(self._emit), name="recogniser")
            stt = self._listening
        return SpeechInput(
            vad=components.vad,
            stt=stt,
            turn=components.turn,
            endpointing=components.endpointing,
            turn_handler=self,
            emit=self._emit,
            tasks=tasks,
            clock=self._clock,
        )

    def transmit(self, command: Command) -> None:
        """Process a command; its outputs are emitted later, on the loop."""
        if self._ended:
            return  # The tasks are being cancelled: start nothing new.
        with self._emitter.transmitting():
            self._handle(command)

    def send_audio(self, frame: AudioFrame) -> None:
        """Process input audio; see `AudioConnection.send_audio`."""
        if self._ended:
            return
        with self._emitter.transmitting():
            self._push_audio(frame)

    def _push_audio(self, frame: AudioFrame) -> None:
        if self._listening is not None:
            self._listening.push(frame)
        if self._speech_input is not None:
            self._speech_input.push(frame)

    def _handle(self, command: Command) -> None:
        match command:
            case SendAudio(frame=frame):
                self._push_audio(frame)
            case RequestReply(request_id=request_id, instructions=instructions):
                self._start_reply(self._make_reply(None, instructions), request_id)
            case Say(request_id=request_id, text=text):
                generate = partial(scripted, text)
                reply = SpeculativeReply(
                    generate, self._voice, self._handle_reply_output, None, script=True
                )
                self._start_reply(reply, request_id)
            case CancelReply(reply_id=reply_id):
                if self._current_reply is not None and self._current_reply.id == reply_id:
                    self._current_reply.cancel(stops_voice=False)
                    # What the person heard follows in the same interruption, if they heard any.
                    self._stopping = self._current_reply
                    asyncio.get_running_loop().call_soon(self._stop_voice, self._stopping, None)
            case AddItem(item=item):
                self._put_item(item)
            case DeleteItem(item_id=item_id):
                if self._history.pop(item_id, None) is not None:
                    self._version += 1
            case Truncate(item_id=item_id, played_ms=played_ms, heard_text=heard_text):
                if self._stopping is not None and self._stopping.item_id == item_id:
                    played = played_ms * self._components.tts.rate // 1000
                    self._stop_voice(self._stopping, played)
                current = self._history.get(item_id)
                if isinstance(current, AgentItem):
                    truncated = replace(current, text=heard_text, state="cut", played_ms=played_ms)
                    self._put_item(truncated)
            case SendToolResult(call_id=call_id, output=output, failed=failed):
                self._put_item(ToolResultItem(uuid4().hex, call_id, output, failed))
            case UpdateSession(instructions=instructions, tools=tools):
                self._instructions = self._instructions if instructions is None else instructions
                self._tools = self._tools if tools is None else tuple(tools)
                self._version += 1
            case EndTurn(reply=reply):
                if self._speech_input is not None:
                    self._speech_input.end_turn(reply=reply)
            case ClearInput():
                if self._speech_input is not None:
                    self._speech_input.clear()
            case SendVideo():
                pass  # `Realtime.send_video` has refused it already

    def _stop_voice(self, reply: SpeculativeReply, played: int | None) -> None:
        if self._stopping is reply:
            self._stopping = None
            reply.stop_voice(played)

    # TurnHandler: what the speech input reports

    def partial_transcript(self, item_id: str, text: str) -> None:
        """Let the language model read what the person has said so far, if it can.

        It then has only the last words to read when the person has finished. One reading runs at a
        time; what comes meanwhile is left to the next.
        """
        llm = self._components.llm
        if not isinstance(llm, PrefillingLLM) or self._tasks is None:
            return
        if self._stable_text.item_id != item_id:
            self._stable_text = StableText(item_id)
        self._stable_text.push(text)
        if self._prefilling is not None and not self._prefilling.done():
            return
        beginning = self._stable_text.take()
        if beginning is not None:
            reading = self._prefill(llm, beginning)
            self._prefilling = self._tasks.create_task(reading, name="prefill")

    async def _prefill(self, llm: PrefillingLLM, text: str) -> None:
        try:
            await run_contained(
                llm.prefill(self._instructions, self._history_before(text), self._tools)
            )
        except Exception:  # the reply reads all of it again, and reports the error
            log.debug("the LLM could not read ahead", exc_info=True)

    def prepare_reply(self, text: str) -> None:
        """Start a reply to ``text``, which may be the whole turn."""
        if self._prefilling is not None:
            self._prefilling.cancel()
        basis = _Basis(self._version, text)
        if self._prepared_reply is not None:
            if self._prepared_reply.basis == basis:
                return
            self._prepared_reply.cancel()
        self._prepared_reply = self._make_reply(text, None)
        if self._tasks is not None:
            self._prepared_reply.start(self._tasks)

    def discard_reply(self) -> None:
        """Discard the prepared reply, because the person continues."""
        prepared, self._prepared_reply = self._prepared_reply, None
        if prepared is not None:
            prepared.cancel()

    async def turn_ended(
        self,
        item_id: str,
        text: str,
        speech_end: float,
        *,
        reply: bool = True,
        decision: TurnDecision = SERVICE_DECISION,
    ) -> None:
        """Emit the turn, then reply to it if it has words and ``reply`` is true."""
        if self._listening is not None:
            self._listening.end_turn()
        if not text:
            self.discard_reply()
            self._emit(
                UserTurnEnded(
                    item_id,
                    speech_end,
                    reply_follows=False,
                    empty=True,
                    ended_by=decision.by,
                    votes=decision.votes,
                )
            )
            return
        basis = _Basis(self._version, text)
        self._emit(UserTranscript(item_id, text, final=True))
        is_stale = self._version != basis.version
        self._put_item(UserItem(item_id, text))
        # A reply that an observer requests because of it must have the turn in its history.
        version = self._version
        self._emit(
            UserTurnEnded(
                item_id,
                speech_end,
                reply_follows=reply,
                ended_by=decision.by,
                votes=decision.votes,
            )
        )
        is_stale = is_stale or self._version != version
        if not reply:
            self.discard_reply()
            return
        prepared, self._prepared_reply = self._prepared_reply, None
        if prepared is None or prepared.basis != basis or is_stale:
            if prepared is not None:
                prepared.cancel()
            prepared = self._make_reply(None, None)
            if self._tasks is not None:
                prepared.start(self._tasks)
        await self._commit_reply(prepared, None)

    def _make_reply(self, text: str | None, instructions: str | None) -> SpeculativeReply:
        """Return a reply to the history, followed by ``text`` if that is not part of it yet."""
        history = self._history_before(text)
        system = "\n\n".join(part for part in (self._instructions, instructions) if part)
        generate = partial(self._components.llm.generate, system, history, self._tools)
        return SpeculativeReply(
            generate, self._voice, self._handle_reply_output, _Basis(self._version, text)
        )

    def _history_before(self, text: str | None) -> list[Item]:
        """Return the history, followed by ``text`` of the user if there is any."""
        history = list(self._history.values())
        if text:
            history.append(UserItem("", text))
        return history

    def _start_reply(self, reply: SpeculativeReply, request_id: str) -> None:
        if self._tasks is None:
            return
        reply.start(self._tasks)
        self._tasks.create_task(self._commit_reply(reply, request_id), name="reply commit")

    async def _commit_reply(self, reply: SpeculativeReply, request_id: str | None) -> None:
        """Emit a reply once the replies before it are complete."""
        while self._current_reply is not None and not self._current_reply.done.is_set():
            await self._current_reply.done.wait()
        self._current_reply = reply
        reply.commit(request_id)

    def _handle_reply_output(self, output: Output) -> None:
        """Emit an output of a reply and update the history."""
        match output:
            case ReplyText(item_id=item_id, text=text):
                item = self._history.get(item_id)
                before = item.text if isinstance(item, AgentItem) else ""
                self._history[item_id] = AgentItem(item_id, before + text)
            case ReplyHeard(item_id=item_id, text=text):
                item = self._history.get(item_id)
                if isinstance(item, AgentItem) and item.state == "cut":
                    self._put_item(replace(item, text=text.rstrip()))
            case ToolCall(call_id=call_id, name=name, arguments=arguments):
                if not call_id or call_id in self._call_ids:
                    # Many models restart their call ids in each reply; make the ids unique.
                    call_id = f"call_{uuid4().hex[:24]}"
                    output = replace(output, call_id=call_id)
                self._call_ids.add(call_id)
                self._put_item(ToolCallItem(uuid4().hex, call_id, name, arguments))
            case _:
                pass
        self._emit(output)

    def _put_item(self, item: Item) -> None:
        self._history[item.id] = item
        self._version += 1
