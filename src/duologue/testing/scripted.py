"""A model that follows a script, needs no key, and is deterministic in virtual time."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from uuid import uuid4

import numpy as np

from duologue.audio import AudioFrame, Framer, Resampler
from duologue.clock import Clock
from duologue.errors import SessionError
from duologue.json_types import Json
from duologue.realtime.capabilities import Capabilities
from duologue.realtime.codec import Connection, SessionSetup
from duologue.realtime.commands import CancelReply, Command, EndTurn, RequestReply, Say, SendAudio
from duologue.realtime.outputs import (
    Output,
    ReplyAudio,
    ReplyDone,
    ReplyRefused,
    ReplyStarted,
    ReplyText,
    SessionStarted,
    SpeechStarted,
    SpeechStopped,
    ToolCall,
    UserTranscript,
    UserTurnEnded,
)
from duologue.realtime.realtime import Realtime
from duologue.realtime.reconnect import ReconnectPolicy
from duologue.vad.endpointing import Endpointer, Endpointing, EndpointingStep
from duologue.vad.energy import EnergyVAD

CHARS_PER_S = 15
"""Characters that a scripted reply speaks each second, unless it has a length of its own."""


SCRIPTED_CAPABILITIES = Capabilities(
    "scripted",
    "script",
    tools="reliable",
    say="exact",
    truncation="native",
    confirms_cancel=True,
    speech_detection="server",
    user_transcripts="partial",
    turn_reply="automatic",
    accepts_history=True,
    mutable_instructions=True,
    mutable_tools=True,
)
"""What a `ScriptedRealtime` can do; ``dataclasses.replace`` makes others of it."""


@dataclass(frozen=True, slots=True)
class ToolUse:
    """A tool call of a scripted reply."""

    name: str
    arguments: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply of the script.

    Args:
        text: The words of the reply.
        seconds: Length of its audio; by default as long as the text takes.
        after_s: Seconds from the request or the end of the turn to the beginning of the reply.
        chunk_ms: Milliseconds of audio in each chunk.
        pace: Speed at which audio is sent, as a multiple of real time; 0 sends all at once.
        tone: Frequency of its audio in Hz.
        tools: Tool calls at its end.
        fails: A message with which the reply fails at its end.
        refused: An error code with which the request for the reply is refused.
        audio: Audio in place of the tone.
    """

    text: str = ""
    seconds: float | None = None
    after_s: float = 0.1
    chunk_ms: int = 100
    pace: float = 0.0
    tone: float = 440.0
    tools: Sequence[ToolUse] = ()
    fails: str | None = None
    refused: str | None = None
    audio: AudioFrame | None = None


@dataclass(frozen=True, slots=True)
class At:
    """An output, or an error, of the model ``seconds`` after the session began."""

    seconds: float
    output: Output | SessionError


class ScriptedRealtime(Realtime):
    """Detects turns by loudness, and replies to each turn or request with the next of ``replies``.

    ``commands`` holds every command but audio; ``received_samples`` counts the audio.

    Args:
        replies: The replies, in order; a text stands for a `Reply` with it.
        transcripts: What the person's turns say, in order; further turns say "...".
        at: Outputs and errors at fixed times.
        echo: Send the person's audio back instead of replying.
        manual: Only `end_turn` ends a turn.
        capabilities: What the model can do.
        fps: Video frames that are sent each second.
        clock: Clock of the session; by default that of the event loop.
        reconnect: How lost connections are replaced.
    """

    def __init__(
        self,
        replies: Iterable[Reply | str] = (),
        *,
        transcripts: Iterable[str] = (),
        at: Sequence[At] = (),
        echo: bool = False,
        manual: bool = False,
        capabilities: Capabilities | None = None,
        fps: float = 1.0,
        clock: Clock | None = None,
        reconnect: ReconnectPolicy | None = None,
    ) -> None:
        super().__init__(
            capabilities or SCRIPTED_CAPABILITIES,
            in_process=reconnect is None,
            fps=fps,
            clock=clock,
            reconnect=reconnect,
        )
        self.replies = deque(Reply(r) if isinstance(r, str) else r for r in replies)
        self.transcripts = deque(transcripts)
        self.commands: list[Command] = []
        self.received_samples = 0
        self.at = tuple(at)
        self.echo = echo
        self.manual = manual

    def open(self, setup: SessionSetup) -> Connection:
        """Create a connection that follows the script."""
        return _ScriptedConnection(self, setup)


class _ScriptedConnection:
    def __init__(self, model: ScriptedRealtime, setup: SessionSetup) -> None:
        self._model = model
        self._setup = setup
        self._clock = model.clock
        self._on_output: Callable[[Output], None] | None = None
        self._tasks: asyncio.TaskGroup | None = None
        self._running: dict[str, asyncio.Task[None]] = {}
        vad = EnergyVAD(rate=model.capabilities.input_rate)
        self._vad = vad.stream()
        self._framer = Framer(vad.rate, 16)
        self._endpointer = Endpointer(Endpointing(timeout_s=0.5))
        self._turn_id = ""
        self._echo_id = uuid4().hex

    async def run(self, receive: Callable[[Output], None]) -> None:
        self._on_output = receive
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                try:
                    instructions = self._setup.instructions
                    receive(SessionStarted({"script": True, "instructions": instructions}))
                    if self._model.echo:
                        receive(ReplyStarted(self._echo_id))
                    await self._run_timeline(receive)
                finally:
                    self._tasks = None
        except* SessionError as errors:
            raise errors.exceptions[0] from None

    async def _run_timeline(self, receive: Callable[[Output], None]) -> None:
        began = self._clock.now()
        for step in sorted(self._model.at, key=lambda step: step.seconds):
            await self._clock.sleep(max(0.0, began + step.seconds - self._clock.now()))
            if isinstance(step.output, SessionError):
                raise step.output
            receive(step.output)
        await asyncio.Event().wait()

    def transmit(self, command: Command) -> None:
        model = self._model
        if isinstance(command, SendAudio):
            model.received_samples += len(command.frame)
            if model.echo:
                frame = AudioFrame(command.frame.samples, command.frame.rate)
                self._emit_soon(ReplyAudio(self._echo_id, self._echo_id, frame))
            elif not model.manual:
                self._detect_turns(command.frame)
            return
        model.commands.append(command)
        match command:
            case RequestReply(request_id=request_id):
                reply = model.replies.popleft() if model.replies else Reply("", 0.0)
                self._start_reply(reply, request_id)
            case Say(request_id=request_id, text=text):
                self._start_reply(Reply(text), request_id)
            case CancelReply(reply_id=reply_id):
                task = self._running.pop(reply_id, None)
                if task is not None:
                    task.cancel()
                    self._emit_soon(ReplyDone(reply_id, "cancelled"))
            case EndTurn(reply=wanted):
                self._end_turn(wanted)
            case _:
                pass  # Other commands are only kept in ``commands``

    def _emit(self, output: Output) -> None:
        if self._on_output is not None:
            self._on_output(output)

    def _emit_soon(self, output: Output) -> None:
        asyncio.get_running_loop().call_soon(self._emit, output)

    def _detect_turns(self, frame: AudioFrame) -> None:
        now = self._clock.now()
        for chunk in self._framer.push(frame.samples):
            seconds = len(chunk) / frame.rate
            for step in self._endpointer.push(self._vad.push(chunk), seconds, now):
                match step:
                    case EndpointingStep.STARTED:
                        self._turn_id = uuid4().hex
                        self._emit_soon(SpeechStarted(self._turn_id, self._endpointer.speech_start))
                    case EndpointingStep.PARTIAL if self._model.transcripts:
                        text = self._model.transcripts[0]
                        self._emit_soon(UserTranscript(self._turn_id, text, final=False))
                    case EndpointingStep.VOTE:
                        self._emit_soon(SpeechStopped(self._turn_id, self._endpointer.speech_end))
                    case EndpointingStep.TIMEOUT:
                        self._end_turn()
                    case EndpointingStep.PARTIAL | EndpointingStep.PAUSED | EndpointingStep.RESUMED:
                        pass

    def _end_turn(self, wanted: bool = True) -> None:
        model = self._model
        self._endpointer.end()
        item_id = self._turn_id or uuid4().hex
        text = model.transcripts.popleft() if model.transcripts else "..."
        if not text:
            self._emit_soon(UserTurnEnded(item_id, reply_follows=False, empty=True))
            return
        reply = model.replies.popleft() if model.replies and wanted else None
        self._emit_soon(UserTranscript(item_id, text, final=True))
        self._emit_soon(UserTurnEnded(item_id, self._endpointer.speech_end, reply is not None))
        if reply is not None:
            self._start_reply(reply, None)

    def _start_reply(self, reply: Reply, request_id: str | None) -> None:
        if self._tasks is None:
            return
        reply_id = uuid4().hex
        task = self._tasks.create_task(self._send_reply(reply, reply_id, request_id), name="script")
        self._running[reply_id] = task

    async def _send_reply(self, reply: Reply, reply_id: str, request_id: str | None) -> None:
        await self._clock.sleep(reply.after_s)
        if reply.refused is not None and request_id is not None:
            del self._running[reply_id]
            self._emit(ReplyRefused(request_id, reply.refused, "the script refuses"))
            return
        item_id = uuid4().hex
        self._emit(ReplyStarted(reply_id, request_id))
        if reply.text:
            self._emit(ReplyText(reply_id, item_id, reply.text, 0))
        for frame in self._audio(reply):
            self._emit(ReplyAudio(reply_id, item_id, frame))
            if reply.pace:
                await self._clock.sleep(frame.duration / reply.pace)
        for use in reply.tools:
            arguments = json.dumps(dict(use.arguments))
            self._emit(ToolCall(reply_id, uuid4().hex, use.name, arguments))
        self._running.pop(reply_id, None)
        if reply.fails is None:
            self._emit(ReplyDone(reply_id))
        else:
            self._emit(ReplyDone(reply_id, "failed", reply.fails))

    def _audio(self, reply: Reply) -> Iterable[AudioFrame]:
        rate = self._model.capabilities.output_rate
        if reply.audio is not None:
            resampler = Resampler(reply.audio.rate, rate)
            samples = np.concatenate((resampler.push(reply.audio.samples), resampler.flush()))
            size = reply.chunk_ms * rate // 1000
            for begin in range(0, len(samples), size):
                yield AudioFrame(samples[begin : begin + size], rate)
            return
        seconds = len(reply.text) / CHARS_PER_S if reply.seconds is None else reply.seconds
        total, step = round(seconds * rate), reply.chunk_ms * rate // 1000
        for begin in range(0, total, step):
            at = np.arange(begin, min(begin + step, total))
            tone = 8000 * np.sin(2 * np.pi * reply.tone / rate * at)
            yield AudioFrame(tone.astype(np.int16), rate)
