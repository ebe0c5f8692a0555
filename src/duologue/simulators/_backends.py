"""What replies behind a simulated provider: a script, an echo, or the built-in engine."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import uuid4

import numpy as np

from duologue.audio import AudioFrame, Samples
from duologue.clock import Clock
from duologue.edges.audio_file import load_audio
from duologue.errors import ConfigError
from duologue.realtime.codec import Connection, SessionSetup
from duologue.realtime.commands import CancelReply, Command, EndTurn, RequestReply, Say, SendAudio
from duologue.realtime.outputs import (
    Output,
    ReplyAudio,
    ReplyDone,
    ReplyStarted,
    ReplyText,
    SessionStarted,
    UserTranscript,
    UserTurnEnded,
)
from duologue.realtime.realtime import Realtime
from duologue.simulators.script import Script, ScriptedReply
from duologue.testing.scripted import CHARS_PER_S, SCRIPTED_CAPABILITIES, Reply, ScriptedRealtime
from duologue.vad.endpointing import Endpointing

SCRIPTED = replace(
    SCRIPTED_CAPABILITIES,
    user_transcripts="final",
    manual_turns=True,
    turn_reply="requested",
    video=True,
)
ECHO = replace(
    SCRIPTED_CAPABILITIES,
    provider="echo",
    model="echo",
    user_transcripts="final",
    manual_turns=True,
    turn_reply="requested",
)

MAX_ECHO_S = 60.0
"""Seconds of a turn that are echoed, the newest."""

DISABLED_TIMEOUT_S = 3600.0

type BackendFactory = Callable[[], Realtime]


@dataclass(frozen=True, slots=True)
class Backend:
    """Makes the backend of every session.

    Attributes:
        make: Makes one; called for each session.
        script: What the backend follows.
        prepare: Awaited before the first session.
        loopback: No backend is asked; the client's audio is sent straight back.
    """

    make: BackendFactory
    script: Script = Script()  # noqa: RUF009 - frozen
    prepare: Callable[[], Awaitable[None]] | None = None
    loopback: bool = False


def resolve_backend(
    backend: str | Path | Script | BackendFactory,
    *,
    replies: Sequence[Reply | str] | None = None,
    transcripts: Sequence[str] = (),
    profile: str = "tiny",
    clock: Clock | None = None,
) -> Backend:
    """Return the backend that is meant.

    Args:
        backend: ``echo``, ``local``, ``loopback``, a script, its file, or a function that makes a
            `Realtime`.
        replies: Replies of a script, which starts from its beginning in every session.
        transcripts: Transcripts of the turns of that script.
        profile: Size of the built-in engine.
        clock: The clock of the backend.

    Raises:
        ConfigError: There is no such backend, or its script is wrong.
    """
    if replies is not None:
        script_replies = [Reply(one) if isinstance(one, str) else one for one in replies]
        backend = Script(tuple(transcripts), [ScriptedReply(reply) for reply in script_replies])
    match backend:
        case Script():
            return _scripted_backend(backend, clock)
        case "echo":
            return Backend(lambda: EchoRealtime(clock=clock))
        case "loopback":
            return Backend(lambda: EchoRealtime(clock=clock), loopback=True)
        case "local":
            return _local_backend(profile, clock)
        case str() if not backend.endswith((".yaml", ".yml")):
            raise ConfigError(
                f"there is no backend {backend!r}: it is echo, local, loopback or a .yaml file"
            )
        case str() | Path():
            return _scripted_backend(Script.load(Path(backend)), clock)
        case _:
            return Backend(backend)


def _local_backend(profile: str, clock: Clock | None) -> Backend:
    from duologue.providers import local

    # The engine's own turn detection never ends a turn, because the simulator detects turns itself.
    endpointing = Endpointing(
        speculate_s=DISABLED_TIMEOUT_S, vote_s=DISABLED_TIMEOUT_S, timeout_s=DISABLED_TIMEOUT_S
    )

    def make() -> Realtime:
        return local.Realtime(profile, endpointing=endpointing, clock=clock)

    async def prepare() -> None:
        await make().prepare(SessionSetup())

    return Backend(make, prepare=prepare)


def _scripted_backend(script: Script, clock: Clock | None) -> Backend:
    audio_by_index: dict[int, AudioFrame] = {}

    def with_audio(index: int, scripted: ScriptedReply) -> Reply:
        audio = audio_by_index.get(index)
        return scripted.reply if audio is None else replace(scripted.reply, audio=audio)

    def make() -> Realtime:
        replies = [with_audio(index, one) for index, one in enumerate(script.replies)]
        return ScriptedBackend(
            replies, transcripts=script.transcripts, manual=True, capabilities=SCRIPTED, clock=clock
        )

    async def prepare() -> None:
        for index, one in enumerate(script.replies):
            if one.wav is not None:
                audio_by_index[index] = await asyncio.to_thread(load_audio, str(one.wav))
            elif one.voice == "local" and one.reply.text:
                audio_by_index[index] = await _synthesize(one.reply.text)

    return Backend(make, script, prepare)


async def _synthesize(text: str) -> AudioFrame:
    from duologue.providers.local import engine

    tts = await asyncio.to_thread(engine.load_tts)
    async with aclosing(tts.synthesize(text)) as frames:
        parts = [frame.samples async for frame in frames]
    return AudioFrame(np.concatenate(parts), tts.rate)


class ScriptedBackend(ScriptedRealtime):
    """A scripted model that transcribes a turn while it lasts, and shows the requested reply."""

    requested_reply: Reply | None = None
    """The reply that was requested last."""

    def open(self, setup: SessionSetup) -> Connection:
        """Return a connection that follows the script."""
        return _LiveTranscription(super().open(setup), self)


class _LiveTranscription:
    """A connection of a script that also transcribes a turn while it lasts."""

    def __init__(self, inner: Connection, model: ScriptedBackend) -> None:
        self._inner = inner
        self._model = model
        self._receive: Callable[[Output], None] | None = None
        self._item_id = uuid4().hex
        self._samples = 0
        self._sent_text = ""

    async def run(self, receive: Callable[[Output], None]) -> None:
        """Run until cancelled."""
        self._receive = receive
        await self._inner.run(receive)

    def transmit(self, command: Command) -> None:
        """Process a command; its outputs come later on the loop."""
        match command:
            case SendAudio(frame=frame):
                self._samples += len(frame)
                self._send_partial_transcript(self._samples / frame.rate)
            case EndTurn():
                self._item_id = uuid4().hex
                self._samples, self._sent_text = 0, ""
            case RequestReply():
                self._model.requested_reply = (
                    self._model.replies[0] if self._model.replies else None
                )
            case Say():
                self._model.requested_reply = None
            case _:
                pass  # Only the script processes all other commands
        self._inner.transmit(command)

    def _send_partial_transcript(self, seconds: float) -> None:
        """Send the complete words that have been spoken after ``seconds`` of the turn."""
        text = self._model.transcripts[0] if self._model.transcripts else ""
        spoken = text[: int(seconds * CHARS_PER_S)]
        complete_words = text if len(spoken) == len(text) else spoken.rpartition(" ")[0]
        if len(complete_words) > len(self._sent_text):
            self._sent_text = complete_words
            transcript = UserTranscript(self._item_id, complete_words, final=False)
            _emit_soon(self._receive, transcript)


class EchoRealtime(Realtime):
    """Replies with the audio of the last turn, and says text as a tone."""

    def __init__(self, *, clock: Clock | None = None) -> None:
        super().__init__(ECHO, in_process=True, clock=clock)

    def open(self, setup: SessionSetup) -> Connection:
        """Return a connection that has no audio yet."""
        return _EchoConnection(self.capabilities.output_rate)


class _EchoConnection:
    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._receive: Callable[[Output], None] | None = None
        self._input: deque[Samples] = deque()
        self._input_samples = 0
        self._last_turn: Samples = np.zeros(0, np.int16)

    async def run(self, receive: Callable[[Output], None]) -> None:
        """Run until cancelled."""
        self._receive = receive
        receive(SessionStarted({"echo": True}))
        await asyncio.Event().wait()

    def transmit(self, command: Command) -> None:
        """Process a command; its outputs come later on the loop."""
        match command:
            case SendAudio(frame=frame):
                self._input.append(frame.samples)
                self._input_samples += len(frame)
                while self._input_samples > MAX_ECHO_S * self._rate:
                    self._input_samples -= len(self._input.popleft())
            case EndTurn():
                if self._input:
                    self._last_turn = np.concatenate(self._input)
                self._input.clear()
                self._input_samples = 0
                item_id = uuid4().hex
                self._emit_soon(UserTranscript(item_id, "...", final=True))
                self._emit_soon(UserTurnEnded(item_id, reply_follows=False))
            case RequestReply(request_id=request_id):
                self._speak(request_id, "...", self._last_turn)
            case Say(request_id=request_id, text=text):
                at = np.arange(round(len(text) / CHARS_PER_S * self._rate))
                tone = 8000 * np.sin(2 * np.pi * 440 / self._rate * at)
                self._speak(request_id, text, tone.astype(np.int16))
            case CancelReply(reply_id=reply_id):
                self._emit_soon(ReplyDone(reply_id, "cancelled"))
            case _:
                pass  # An echo has no history and no tools

    def _speak(self, request_id: str, text: str, audio: Samples) -> None:
        reply_id, item_id = uuid4().hex, uuid4().hex
        self._emit_soon(ReplyStarted(reply_id, request_id))
        self._emit_soon(ReplyText(reply_id, item_id, text, 0))
        step = self._rate // 10
        for begin in range(0, len(audio), step):
            frame = AudioFrame(audio[begin : begin + step], self._rate)
            self._emit_soon(ReplyAudio(reply_id, item_id, frame))
        self._emit_soon(ReplyDone(reply_id))

    def _emit_soon(self, output: Output) -> None:
        _emit_soon(self._receive, output)


def _emit_soon(receive: Callable[[Output], None] | None, output: Output) -> None:
    """Hand an output to the session later on the loop, if the connection runs."""
    if receive is not None:
        asyncio.get_running_loop().call_soon(receive, output)
