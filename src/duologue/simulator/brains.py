"""Who answers behind a simulated provider: a script, an echo, or the built-in engine."""

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
from duologue.pipeline.turn_taking import Endpointing
from duologue.realtime.codec import Connection, SessionSetup
from duologue.realtime.commands import (
    CancelReply,
    Command,
    EndTurn,
    RequestReply,
    Say,
    SendAudio,
)
from duologue.realtime.errors import ConfigError
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
from duologue.realtime.profile import Profile
from duologue.realtime.session import Realtime
from duologue.simulator.script import Script, ScriptedReply
from duologue.testing.scripted import CHARS_PER_S, Reply, ScriptedRealtime

SCRIPTED = Profile("scripted", "script", manual_turns=True, turn_reply="requested", video=True)
ECHO = Profile("echo", "echo", manual_turns=True, turn_reply="requested")

MOST_ECHOED_S = 60.0
"""Sound of a turn that comes back, in seconds; the newest."""

NEVER_S = 3600.0

type BrainFactory = Callable[[], Realtime]


@dataclass(frozen=True, slots=True)
class Brain:
    """A brain for every session: ``make`` makes one, ``prepare`` is awaited before the first.

    ``loopback``: none is asked, the client's sound goes straight back.
    """

    make: BrainFactory
    script: Script = Script()  # noqa: RUF009 - frozen
    prepare: Callable[[], Awaitable[None]] | None = None
    loopback: bool = False


def brain_of(
    brain: str | Path | Script | BrainFactory,
    *,
    replies: Sequence[Reply | str] | None = None,
    transcripts: Sequence[str] = (),
    profile: str = "tiny",
    clock: Clock | None = None,
) -> Brain:
    """The brain that is meant: ``echo``, ``local``, ``loopback``, a script, its file, or yours.

    ``replies`` and ``transcripts`` make a script, begun anew in every session. ``profile`` is the
    size of the built-in engine. Raises `ConfigError`.
    """
    if replies is not None:
        answers = [Reply(one) if isinstance(one, str) else one for one in replies]
        brain = Script(tuple(transcripts), [ScriptedReply(answer) for answer in answers])
    match brain:
        case Script():
            return _scripted(brain, clock)
        case "echo":
            return Brain(lambda: EchoRealtime(clock=clock))
        case "loopback":
            return Brain(lambda: EchoRealtime(clock=clock), loopback=True)
        case "local":
            return _local(profile, clock)
        case str() if not brain.endswith((".yaml", ".yml")):
            raise ConfigError(
                f"there is no brain {brain!r}: it is echo, local, loopback, or a .yaml file"
            )
        case str() | Path():
            return _scripted(Script.load(Path(brain)), clock)
        case _:
            return Brain(brain)


def _local(profile: str, clock: Clock | None) -> Brain:
    from duologue.providers import local

    # Its own hearing finds no end of a turn: the simulator has the last word about that.
    endpointing = Endpointing(speculate_s=NEVER_S, vote_s=NEVER_S, timeout_s=NEVER_S)

    def make() -> Realtime:
        return local.Realtime(profile, endpointing=endpointing, clock=clock)

    async def prepare() -> None:
        await make().prepare(SessionSetup())

    return Brain(make, prepare=prepare)


def _scripted(script: Script, clock: Clock | None) -> Brain:
    voiced: dict[int, AudioFrame] = {}

    def sound(index: int, scripted: ScriptedReply) -> Reply:
        audio = voiced.get(index)
        return scripted.reply if audio is None else replace(scripted.reply, audio=audio)

    def make() -> Realtime:
        replies = [sound(index, one) for index, one in enumerate(script.replies)]
        return ScriptBrain(
            replies, transcripts=script.transcripts, manual=True, profile=SCRIPTED, clock=clock
        )

    async def prepare() -> None:
        for index, one in enumerate(script.replies):
            if one.wav is not None:
                voiced[index] = await asyncio.to_thread(load_audio, str(one.wav))
            elif one.voice == "local" and one.reply.text:
                voiced[index] = await _spoken(one.reply.text)

    return Brain(make, script, prepare)


async def _spoken(text: str) -> AudioFrame:
    from duologue.providers.local import engine

    tts = await asyncio.to_thread(engine.load_tts)
    async with aclosing(tts.synthesize(text)) as frames:
        parts = [frame.samples async for frame in frames]
    return AudioFrame(np.concatenate(parts), tts.rate)


class ScriptBrain(ScriptedRealtime):
    """A scripted model that transcribes a turn while it lasts, and shows what it is speaking."""

    speaking: Reply | None = None
    """The reply that was requested last."""

    def open(self, setup: SessionSetup) -> Connection:
        """Return a connection that follows the script."""
        return _WordsAsHeard(super().open(setup), self)


class _WordsAsHeard:
    """A connection of a script that transcribes a turn while it lasts."""

    def __init__(self, inner: Connection, model: ScriptBrain) -> None:
        self._inner = inner
        self._model = model
        self._receive: Callable[[Output], None] = lambda _: None
        self._item_id = uuid4().hex
        self._samples = 0
        self._sent_words = ""

    async def run(self, receive: Callable[[Output], None]) -> None:
        """Run until cancelled."""
        self._receive = receive
        await self._inner.run(receive)

    def transmit(self, command: Command) -> None:
        """Process a command; its outputs come later on the loop."""
        match command:
            case SendAudio(frame=frame):
                self._samples += len(frame)
                self._tell_words(self._samples / frame.rate)
            case EndTurn():
                self._item_id = uuid4().hex
                self._samples, self._sent_words = 0, ""
            case RequestReply():
                self._model.speaking = self._model.replies[0] if self._model.replies else None
            case Say():
                self._model.speaking = None
            case _:
                """The script alone processes all other commands."""
        self._inner.transmit(command)

    def _tell_words(self, seconds: float) -> None:
        """Send the complete words that have been spoken by that time."""
        text = self._model.transcripts[0] if self._model.transcripts else ""
        spoken = text[: int(seconds * CHARS_PER_S)]
        words = text if len(spoken) == len(text) else spoken.rpartition(" ")[0]
        if len(words) > len(self._sent_words):
            self._sent_words = words
            told = UserTranscript(self._item_id, words, final=False)
            asyncio.get_running_loop().call_soon(self._receive, told)


class EchoRealtime(Realtime):
    """Answers with the sound of the turn before; what it is told to say it says as a tone."""

    def __init__(self, *, clock: Clock | None = None) -> None:
        super().__init__(ECHO, clock=clock)

    def open(self, setup: SessionSetup) -> Connection:
        """Start with nothing heard."""
        return _EchoConnection(self.profile.output_rate)


class _EchoConnection:
    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._receive: Callable[[Output], None] = lambda _: None
        self._heard: deque[Samples] = deque()
        self._heard_samples = 0
        self._turn: Samples = np.zeros(0, np.int16)

    async def run(self, receive: Callable[[Output], None]) -> None:
        """Run until cancelled."""
        self._receive = receive
        receive(SessionStarted({"echo": True}))
        await asyncio.Event().wait()

    def transmit(self, command: Command) -> None:
        """Process a command; its outputs come later on the loop."""
        match command:
            case SendAudio(frame=frame):
                self._heard.append(frame.samples)
                self._heard_samples += len(frame)
                while self._heard_samples > MOST_ECHOED_S * self._rate:
                    self._heard_samples -= len(self._heard.popleft())
            case EndTurn():
                if self._heard:
                    self._turn = np.concatenate(self._heard)
                self._heard.clear()
                self._heard_samples = 0
                item_id = uuid4().hex
                self._later(UserTranscript(item_id, "...", final=True))
                self._later(UserTurnEnded(item_id, reply_follows=False))
            case RequestReply(request_id=request_id):
                self._speak(request_id, "...", self._turn)
            case Say(request_id=request_id, text=text):
                at = np.arange(round(len(text) / CHARS_PER_S * self._rate))
                tone = 8000 * np.sin(2 * np.pi * 440 / self._rate * at)
                self._speak(request_id, text, tone.astype(np.int16))
            case CancelReply(reply_id=reply_id):
                self._later(ReplyDone(reply_id, "cancelled"))
            case _:
                """An echo remembers nothing and calls nothing."""

    def _speak(self, request_id: str, text: str, sound: Samples) -> None:
        reply_id, item_id = uuid4().hex, uuid4().hex
        self._later(ReplyStarted(reply_id, request_id))
        self._later(ReplyText(reply_id, item_id, text, 0))
        step = self._rate // 10
        for begin in range(0, len(sound), step):
            frame = AudioFrame(sound[begin : begin + step], self._rate)
            self._later(ReplyAudio(reply_id, item_id, frame))
        self._later(ReplyDone(reply_id))

    def _later(self, output: Output) -> None:
        asyncio.get_running_loop().call_soon(self._receive, output)
