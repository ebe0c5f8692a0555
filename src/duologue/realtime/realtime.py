"""`Realtime`: a live speech-to-speech session with a model, whatever the model.

A provider subclasses it, with the `Capabilities` of its model and `open`, which makes a
`Connection`. The rules of a session are written once for all of them, in `realtime._session`.
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from asyncio import FIRST_COMPLETED
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING
from uuid import uuid4

from duologue._user_code import describe
from duologue.audio import AudioFrame
from duologue.clock import Clock, LoopClock
from duologue.errors import (
    ConfigError,
    ErrorKind,
    SessionClosedError,
    SessionError,
    UnsupportedError,
)
from duologue.items import Item
from duologue.realtime.border import BORDER, Border, Borders
from duologue.realtime.capabilities import Capabilities
from duologue.realtime.codec import Connection, SessionSetup
from duologue.realtime.commands import (
    AddItem,
    Command,
    DeleteItem,
    EndTurn,
    RequestReply,
    Say,
    SendToolResult,
    SendVideo,
    ToolSpec,
    Truncate,
    UpdateSession,
)
from duologue.realtime.observer import SessionObserver
from duologue.realtime.outputs import Output, ProviderError, SessionStarted
from duologue.realtime.reconnect import ReconnectPolicy
from duologue.realtime.reply_voice import ReplyVoice
from duologue.realtime.stats import RealtimeStats
from duologue.vad.vad import VAD
from duologue.vad.voice_meter import VoiceMeter
from duologue.video import VideoFrame

if TYPE_CHECKING:
    from duologue.realtime._session.bordered import BorderedSession

CHECK_TIMEOUT_S = 10.0
"""Seconds that `Realtime.check` waits for a session to begin."""

_BACKLOG_SPARE_S = 5.0
"""Seconds of audio that may wait for a slow connection beyond what is kept for a new one."""

_IN_PROCESS = ReconnectPolicy(max_attempts=0, first_attempts=1, connect_timeout_s=3600.0)
"""For engines in this process: there is one connection, whose end is the end of the session."""


class Realtime(ABC):
    """A live session with a model.

    Runs once: `run` returns when the session ends. All other methods are synchronous and never
    block. They raise `SessionClosedError` before the session is live and after its end. While a
    lost connection is being replaced, requests are kept.

    Args:
        capabilities: what the model can do.
        in_process: whether it is an engine in this process. It has one connection, which can't be
            lost, and whose end is the end of the session.
        fps: images a second that the model is sent.
        clock: tells the time; the event loop's by default.
        reconnect: how the session outlives its connections; `ReconnectPolicy` with its defaults
            if None.
        vad: measures the person's voice for barge-in, and detects user turns for a model that does
            not signal speech; None detects those by loudness alone.
    """

    def __init__(
        self,
        capabilities: Capabilities,
        *,
        in_process: bool = False,
        fps: float = 1.0,
        clock: Clock | None = None,
        reconnect: ReconnectPolicy | None = None,
        vad: VAD | None = None,
    ) -> None:
        if in_process and reconnect is not None:
            raise ConfigError("an engine in this process takes no reconnect policy: leave it out")
        self.capabilities = capabilities
        self.vad = vad
        self.voice: ReplyVoice | None = None
        """What speaks the replies of a model that answers in text, see `use_voice`."""
        self.single_connection = False
        """Whether the provider takes no second connection of a session while there is one."""
        self.fps = fps
        self.session_id = str(uuid4())
        self.clock: Clock = clock or LoopClock()
        policy = _IN_PROCESS if in_process else reconnect or ReconnectPolicy()
        # Imported here, because a program that only looks at capabilities or prints its help needs
        # none of it.
        from duologue.realtime._session.session import Session

        self._session = Session(self, policy, reconnects=not in_process)
        self._commands: Session | BorderedSession = self._session
        self.unix_time: Callable[[], float] = time.time
        """Returns Unix seconds, for times that a service tells."""
        self.borders: Borders | None = None
        """What records the next session, or replays one."""
        self._resolved = asyncio.Event()
        self._end_reason = ""

    @abstractmethod
    def open(self, setup: SessionSetup) -> Connection:
        """Make the next connection; it connects when it is run."""

    async def prepare(self, setup: SessionSetup) -> None:
        """Get ready before the first connection (load weights); may be called again."""
        del setup

    @property
    def in_process(self) -> bool:
        """Whether it is an engine in this process, or a pipeline, and no service on a network."""
        return not self._session.connections.reconnects

    async def check(self, setup: SessionSetup) -> SessionError | None:
        """Connect once and disconnect.

        This finds a wrong key, model or region before a person joins. An engine in this process is
        not checked.

        Returns:
            A transient error, such as a network that is down; None if a session began.

        Raises:
            SessionError: no session can be made.
        """
        if self.in_process:
            return None
        connection = self.open(setup)
        begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def receive(output: Output) -> None:
            if begun.done():
                return
            if isinstance(output, SessionStarted):
                begun.set_result(None)
            elif isinstance(output, ProviderError) and output.kind is ErrorKind.FATAL:
                begun.set_exception(
                    SessionError(output.message, code=output.code, kind=output.kind)
                )

        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(_catch_session_error(connection.run(receive)), name="check")
            waited: set[asyncio.Future[SessionError | None] | asyncio.Future[None]]
            waited = {running, begun}
            await asyncio.wait(waited, timeout=CHECK_TIMEOUT_S, return_when=FIRST_COMPLETED)
            running.cancel()
        refused = None if running.cancelled() else running.result()
        if refused is not None and refused.kind is ErrorKind.FATAL:
            raise refused.with_traceback(None)
        if begun.done():
            begun.result()
            return None
        return refused or SessionError(f"no session began within {CHECK_TIMEOUT_S:g} s")

    @property
    def epoch(self) -> int:
        """How often the agent was interrupted."""
        return self._session.epoch

    @property
    def stale_outputs(self) -> int:
        """Outputs of old epochs that were dropped."""
        return self._session.stale_outputs

    @property
    def connected(self) -> bool:
        """Whether the session is live and has a connection."""
        return self._session.live

    @property
    def alive(self) -> bool:
        """Whether the session is live, even if its connection is being replaced just now."""
        return self._session.is_open

    @property
    def lost_audio(self) -> int:
        """Samples of input audio that reached no connection."""
        return self._session.input_audio.lost_samples

    def stats(self) -> RealtimeStats:
        """Return the counters of the session so far; before `run` all are 0."""
        return RealtimeStats(
            self._session.connections.established,
            self._session.input_audio.lost_samples / self.capabilities.input_rate,
            self._session.stale_outputs,
            self._session.connections.stats(),
        )

    @property
    def pending(self) -> bool:
        """Whether a reply is being made or awaited, or a tool's result is."""
        return self._session.pending

    @property
    def replying(self) -> bool:
        """As `pending`, but only what no interruption has made stale yet."""
        return self._session.replying

    @property
    def voice_meter(self) -> VoiceMeter | None:
        """The meter of the person's voice; None without a VAD."""
        return self._session.input_audio.voice_meter

    @property
    def connection(self) -> Connection | None:
        """The current connection; None while there is none."""
        current = self._session.connections.current
        return None if current is None else current.connection

    @property
    def input_backlog_s(self) -> float:
        """Seconds of input audio that may wait for a slow connection.

        More than `ReconnectPolicy.keep_s`, so audio that is replayed to a new connection never
        pushes itself out.
        """
        return self._session.input_audio.keep_s + _BACKLOG_SPARE_S

    def history(self) -> Sequence[Item]:
        """Return the conversation so far, as the next connection will get it."""
        return self._session.make_setup().history

    def use_manual_turns(self) -> None:
        """Let only the program end turns that have a transcript.

        For a model with ``speech_detection="local"``: otherwise a turn also ends after a silence.
        Call this before the session begins.
        """
        self._session.input_audio.use_manual_turns()

    def use_voice(self, voice: ReplyVoice) -> None:
        """Let ``voice`` speak the text of this model, which then replies in audio.

        Call this before the session begins. `Agent` does so with its ``tts``.

        Raises:
            UnsupportedError: the model replies in audio, or has a voice already.
            RuntimeError: the session has begun.
        """
        if self.capabilities.output != "text":
            raise UnsupportedError(f"{self.capabilities.model} speaks by itself: it needs no voice")
        if self._session.has_begun:
            raise RuntimeError("a voice must be given before the session begins")
        self.voice = voice
        self.capabilities = replace(
            self.capabilities, output="audio", output_rate=voice.rate, say="exact"
        )

    def discard_reply(self, item_id: str) -> None:
        """Drop the automatic reply to a turn that may not have been speech.

        Call this from `SessionObserver.output`, when it gets the end of the turn.
        """
        self._commands.discard_reply(item_id)

    def restore_reply(self) -> None:
        """Request a reply to a turn that was discarded, because its transcript has arrived."""
        self._commands.restore_reply()

    async def run(self, setup: SessionSetup, observer: SessionObserver) -> None:
        """Run the session until it ends; cancelling it closes the session.

        Raises:
            SessionError: the session could not be made, or did not end cleanly.
            UnsupportedError: the setup has tools, and the model can't call any.
            RuntimeError: it has been run before.
        """
        if setup.tools and self.capabilities.tools == "none":
            raise UnsupportedError(f"{self.capabilities.model} can't call tools: register none")
        self._session.begin(setup, observer, self._resolved.set)
        border = None if self.borders is None else self.borders.session(self, setup)
        outer = BORDER.set(border)
        reason, clean = "closed", True
        try:
            if border is None:
                await self.prepare(setup)
            else:
                self._set_border(border)
                await border.prepare(partial(self.prepare, setup))
            await self._run_connections()
            reason = "the model ended the session"
        except SessionError as error:
            reason, clean = str(error), False
            raise
        except asyncio.CancelledError:
            if border is not None:
                border.note_input("leave")
            raise
        except BaseException as error:
            reason, clean = describe(error), False
            raise
        finally:
            self._end_reason = reason
            self._session.end(reason, clean)
            self._resolved.set()
            BORDER.reset(outer)

    def _set_border(self, border: Border) -> None:
        if not self.in_process:
            from duologue.realtime._session.bordered import BorderedSession

            self._session.set_border(border)
            border.attach(self._session)
            self._commands = BorderedSession(self._session, border)

    async def _run_connections(self) -> None:
        if self.voice is None:
            await self._session.connections.run()
            return
        try:
            async with asyncio.TaskGroup() as tasks:
                speaking = tasks.create_task(self.voice.run(), name="voice")
                await self._session.connections.run()
                speaking.cancel()
        except BaseExceptionGroup as group:
            error: BaseException = group
            while isinstance(error, BaseExceptionGroup):
                error = error.exceptions[0]
            raise error from None

    async def ready(self) -> None:
        """Wait until the session is live; raise `SessionClosedError` if it ends before."""
        await self._resolved.wait()
        if not self._session.is_open:
            raise SessionClosedError(f"the session is over: {self._end_reason}")

    def _transmit_directly(self, command: Command) -> None:
        """Give a provider's own command to the current connection; drop it if there is none."""
        self._commands.transmit_directly(command)

    def roll_over(self, within_s: float | None = None, *, reason: str = "asked to") -> None:
        """Switch to a new connection in the next silence, after ``within_s`` seconds at the latest.

        Nobody notices it. Sessions do so by themselves before a connection gets too old. ``reason``
        is that of the `RealtimeReconnectingEvent`.

        Raises:
            UnsupportedError: the model is an engine in this process.
        """
        self._session.check_open()
        if not self._session.connections.reconnects:
            raise UnsupportedError(
                f"{self.capabilities.model} has only one connection, which can't be replaced"
            )
        self._commands.roll_over(reason, within_s)

    def send_audio(self, frame: AudioFrame) -> None:
        """Send the person's next audio, at any rate.

        While there is no connection the newest seconds are kept (`ReconnectPolicy.keep_s`), and
        sent when there is one; `lost_audio` counts the samples that were dropped.
        """
        self._commands.send_audio(frame)

    def send_video(self, frame: VideoFrame, *, in_order: bool = False) -> None:
        """Send an image to the model.

        Args:
            frame: the image.
            in_order: keep its place among the other commands, instead of waiting behind audio.

        Raises:
            UnsupportedError: the model accepts no images.
        """
        if not self.capabilities.video:
            raise UnsupportedError(
                f"{self.capabilities.model} accepts no video: leave the camera off"
            )
        self._commands.transmit(SendVideo(frame, in_order))

    def end_turn(self, *, reply: bool = True) -> None:
        """End the person's turn; without ``reply`` the model only listens.

        Raises:
            UnsupportedError: the model detects the end of a turn by itself.
        """
        if not self.capabilities.manual_turns:
            raise UnsupportedError(f"{self.capabilities.model} detects the end of a turn by itself")
        self._commands.end_turn(EndTurn(reply))

    def clear_input(self) -> None:
        """Drop the audio of the turn that has not ended yet.

        Raises:
            UnsupportedError: the model detects the end of a turn by itself.
        """
        if not self.capabilities.manual_turns:
            raise UnsupportedError(f"{self.capabilities.model} detects the end of a turn by itself")
        self._commands.clear_input()

    def add_item(self, item: Item) -> None:
        """Add an item to the end of the model's history, without requesting a reply."""
        self.edit(AddItem(item))

    def edit(self, command: AddItem | Truncate | DeleteItem) -> None:
        """Change the model's history; without a connection, the next one begins with the change.

        Raises:
            UnsupportedError: the model's history can't be truncated.
        """
        if self.capabilities.truncation == "none" and not isinstance(command, AddItem):
            raise UnsupportedError(f"{self.capabilities.model} can't change its history")
        self._commands.transmit(command)

    def request_reply(self, request_id: str, instructions: str | None = None) -> None:
        """Request a reply, after the running reply if there is one.

        `ReplyStarted` or `SessionObserver.reply_ended` will carry ``request_id``.
        """
        self._commands.request(RequestReply(request_id, instructions))

    def say(self, request_id: str, text: str, *, interruptible: bool = True) -> None:
        """Have exactly ``text`` spoken.

        Args:
            request_id: as for `request_reply`.
            text: what to say.
            interruptible: whether the model may stop by itself when the person speaks.

        Raises:
            UnsupportedError: the model can't say scripted text.
        """
        if self.capabilities.say == "none":
            raise UnsupportedError(
                f"{self.capabilities.model} can't say scripted text: give Agent a tts"
            )
        self._commands.request(Say(request_id, text, interruptible))

    def interrupt(self, *, keep_results: bool = False) -> int:
        """Stop the agent now; return the new epoch.

        When it returns, no audio of an older epoch reaches the edge any more (C1), and the model
        has been told: the running reply is cancelled, and a request that has not begun will be
        (C3). The model gets the results of tools that still run, and speaks about them only with
        ``keep_results``, as after a barge-in.
        """
        return self._commands.interrupt(keep_results=keep_results)

    def send_tool_result(
        self,
        call_id: str,
        name: str,
        output: str,
        *,
        failed: bool,
        more: bool = False,
        quiet: bool = False,
    ) -> None:
        """Send the result of a tool call; a reply is requested when all calls have their results.

        If the person has spoken since, it is requested once neither side speaks.

        Args:
            call_id: the id of the call.
            name: the name of the tool.
            output: the result, or the error message.
            failed: whether the tool has failed.
            more: whether this is only a part of the result, for a model with ``tool_updates``.
            quiet: whether the model must not speak about it after an interruption.
        """
        self._commands.send_tool_result(SendToolResult(call_id, name, output, failed, more, quiet))

    def update_instructions(self, instructions: str) -> None:
        """Change the instructions; raise `UnsupportedError` if the model can't."""
        if not self.capabilities.mutable_instructions:
            raise UnsupportedError(
                f"{self.capabilities.model} can't change instructions during a session"
            )
        self._commands.update(UpdateSession(instructions=instructions))

    def update_tools(self, tools: Sequence[ToolSpec]) -> None:
        """Change the tools; raise `UnsupportedError` if the model can't."""
        if not self.capabilities.mutable_tools:
            raise UnsupportedError(f"{self.capabilities.model} can't change tools during a session")
        self._commands.update(UpdateSession(tools=tuple(tools)))


async def _catch_session_error(connecting: Coroutine[object, object, None]) -> SessionError | None:
    try:
        await connecting
    except SessionError as error:
        return error
    return None
