"""`Realtime`: a live speech-to-speech session with a model, whatever the model.

A provider subclasses it with a `Profile` and `open`, which makes a `Connection`. The policy of the
session lives here once for all of them: epochs and staleness, cancelling, one writer of replies,
what follows a tool's result, and an end that is told exactly once.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict
from typing import Protocol
from uuid import uuid4

from duologue.audio import AudioFrame, Resampler
from duologue.clock import Clock, LoopClock, Timer
from duologue.events import RealtimeConnectedEvent, RealtimeDisconnectedEvent
from duologue.items import Item
from duologue.realtime.codec import Connection, SessionSetup
from duologue.realtime.commands import (
    AddItem,
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
from duologue.realtime.errors import (
    ErrorKind,
    ReplyRefusedError,
    SessionClosedError,
    SessionError,
    UnsupportedError,
)
from duologue.realtime.outputs import (
    Output,
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
from duologue.realtime.profile import Profile
from duologue.realtime.replies import Changes, Replies, Request
from duologue.realtime.tool_calls import ToolCalls
from duologue.video import VideoFrame

KEPT_S = 10.0
"""Sound of the person that is kept while there is no connection, in seconds."""


class Listener(Protocol):
    """Who hears the session: the agent. Every call is synchronous, in order, on the loop."""

    def connected(self, event: RealtimeConnectedEvent) -> None:
        """The session is live."""

    def disconnected(self, event: RealtimeDisconnectedEvent) -> None:
        """The session is over; called exactly once."""

    def output(self, output: Output, epoch: int) -> None:
        """What the model told, with the epoch it was made in; stale sound and words never come.

        A stale `ToolCall` does come, with its old epoch: it must be answered, not run.
        """

    def interrupted(self, epoch: int) -> Sequence[Truncate | DeleteItem]:
        """Shut the gate now; returns how the model's history is to be cut."""
        ...

    def reply_ended(self, request_id: str, error: Exception | None) -> None:
        """A request has ended without a reply: refused with ``error``, or interrupted (None)."""


class Realtime(ABC):
    """A live session with a model. ``fps`` is the pictures a second that the model is sent.

    Runs once: `run` lives as long as the session. All other methods are synchronous and never
    block; they raise `SessionClosedError` when the session is not connected.
    """

    def __init__(self, profile: Profile, *, fps: float = 1.0, clock: Clock | None = None) -> None:
        self.profile = profile
        self.fps = fps
        self.session_id = str(uuid4())
        self.epoch = 0
        self.stale = 0
        """Outputs of old epochs that were dropped."""
        self.clock: Clock = clock or LoopClock()
        self._replies = Replies()
        self._tools = ToolCalls()
        self._connection: Connection | None = None
        self._listener: Listener | None = None
        self._settled = asyncio.Event()
        self._reason = ""
        self._connected = False
        self.lost_audio = 0
        """Samples of the person that came while there was no connection and could not be kept."""
        self._early: deque[AudioFrame] = deque()
        self._early_s = 0.0
        self._resampler: Resampler | None = None
        self._timer: Timer | None = None

    @abstractmethod
    def open(self, setup: SessionSetup) -> Connection:
        """Make the next connection; it connects when it is run."""

    async def prepare(self, setup: SessionSetup) -> None:
        """Get ready before the first connection (load weights, warm caches); again is harmless."""
        del setup

    @property
    def connected(self) -> bool:
        """The session is live."""
        return self._connected

    @property
    def pending(self) -> bool:
        """A reply is being made or awaited, or a tool's result is."""
        return self._replies.pending or self._tools.pending

    @property
    def answering(self) -> bool:
        """As `pending`, but only what no interruption has made stale yet."""
        return self._replies.live(self.epoch) or self._tools.live(self.epoch)

    async def run(self, setup: SessionSetup, listener: Listener) -> None:
        """Live till the session ends; cancelling it closes the session.

        Raises `SessionError` when it could not be made, or ended other than cleanly, and
        ``RuntimeError`` when it has been run before.
        """
        if self._listener is not None:
            raise RuntimeError("a Realtime runs once: make a new one for the next session")
        self._listener = listener
        reason, clean = "closed", True
        try:
            await self.prepare(setup)
            self._connection = self.open(setup)
            await self._connection.run(self._receive)
            reason = "the model ended the session"
        except SessionError as error:
            reason, clean = str(error), False
            raise
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            reason, clean = f"{type(error).__name__}: {error}", False
            raise
        finally:
            self._end(reason, clean)

    async def ready(self) -> None:
        """Wait till the session is live; raises `SessionClosedError` if it ends before."""
        await self._settled.wait()
        if not self._connected:
            raise SessionClosedError(f"the session is over: {self._reason}")

    def send_audio(self, frame: AudioFrame) -> None:
        """The next sound of the person, at any rate.

        While there is no connection the newest ten seconds are kept, and sent when there is one;
        ``lost_audio`` counts the samples that fell out.
        """
        if not self._connected:
            self._keep(frame)
            return
        rate = self.profile.input_rate
        if frame.rate != rate:
            if self._resampler is None or self._resampler.in_rate != frame.rate:
                self._resampler = Resampler(frame.rate, rate)
            samples = self._resampler.push(frame.samples)
            if not len(samples):
                return
            frame = AudioFrame(samples, rate)
        self._transmit(SendAudio(frame))

    def _keep(self, frame: AudioFrame) -> None:
        self._early.append(frame)
        self._early_s += frame.duration
        while self._early_s > KEPT_S:
            oldest = self._early.popleft()
            self._early_s -= oldest.duration
            self.lost_audio += len(oldest)

    def send_video(self, frame: VideoFrame) -> None:
        """A picture for the model; raises `UnsupportedError` where it takes none."""
        if not self.profile.video:
            raise UnsupportedError(f"{self.profile.model} takes no video: leave the camera off")
        self._transmit(SendVideo(frame))

    def end_turn(self) -> None:
        """The person's turn is over; raises `UnsupportedError` without manual turns."""
        if not self.profile.manual_turns:
            raise UnsupportedError(f"{self.profile.model} finds the end of a turn by itself")
        self._transmit(EndTurn())

    def add_item(self, item: Item) -> None:
        """Put an item at the end of the model's history; asks for no reply."""
        self._transmit(AddItem(item))

    def request_reply(self, request_id: str, instructions: str | None = None) -> None:
        """Ask the model to speak, after the running reply if one runs.

        `ReplyStarted` or `Listener.reply_ended` will carry ``request_id``.
        """
        self._request(RequestReply(request_id, instructions))

    def say(self, request_id: str, text: str) -> None:
        """Have exactly ``text`` spoken; ``request_id`` as for `request_reply`."""
        if self.profile.say == "none":
            raise UnsupportedError(
                f"{self.profile.model} can't say scripted text: give Agent a tts"
            )
        self._request(Say(request_id, text))

    def interrupt(self) -> int:
        """Stop the agent now; returns the new epoch.

        Once it has returned, no sound of an older epoch reaches the edge (C1) and the model was
        told: what runs is cancelled, and what was asked for and has not begun will be (C3).
        """
        self.epoch += 1
        cuts = self._listener.interrupted(self.epoch) if self._listener else ()
        self._apply(self._replies.interrupt(self.epoch, self.clock.now()))
        if self._connected and self.profile.truncates:
            for cut in cuts:
                self._transmit(cut)
        return self.epoch

    def send_tool_result(self, call_id: str, name: str, output: str, *, failed: bool) -> None:
        """Answer a tool call; the reply that follows is asked for when all calls are answered."""
        if not self._connected:
            return
        self._transmit(SendToolResult(call_id, name, output, failed))
        self._after_tools(self._tools.answered(call_id))

    def update_instructions(self, instructions: str) -> None:
        """Change the instructions in mid-session; `UnsupportedError` where the model can't."""
        if not self.profile.mutable_instructions:
            raise UnsupportedError(f"{self.profile.model} keeps its instructions for a session")
        self._transmit(UpdateSession(instructions=instructions))

    def update_tools(self, tools: Sequence[ToolSpec]) -> None:
        """Change the tools in mid-session; `UnsupportedError` where the model can't."""
        if not self.profile.mutable_tools:
            raise UnsupportedError(f"{self.profile.model} keeps its tools for a session")
        self._transmit(UpdateSession(tools=tools))

    def _receive(self, output: Output) -> None:
        """Take an output of the connection: the way up, in order."""
        if self._connection is None:
            return  # It came after the end.
        match output:
            case ReplyAudio(reply_id=reply_id) | ReplyText(reply_id=reply_id):
                epoch = self._replies.epoch_of(reply_id)
                if epoch is None or epoch < self.epoch:
                    self.stale += 1
                    return
                self._up(output, epoch)
            case SessionStarted():
                self._start(output)
            case ReplyStarted(reply_id=reply_id, request_id=request_id):
                now = self.clock.now()
                changes = self._replies.started(reply_id, request_id, self.epoch, now)
                self._apply(changes)
                epoch = self._replies.epoch_of(reply_id)
                if epoch == self.epoch:
                    self._up(output, epoch)
            case ReplyDone(reply_id=reply_id):
                epoch = self._replies.epoch_of(reply_id)
                if epoch is None:
                    return
                self._up(output, epoch)
                self._apply(self._replies.done(reply_id, self.clock.now()))
                self._after_tools(self._tools.reply_done(reply_id))
            case ToolCall(reply_id=reply_id, call_id=call_id):
                epoch = self._replies.epoch_of(reply_id)
                epoch = self.epoch if epoch is None else epoch
                if self._tools.called(reply_id, call_id, epoch):
                    self._up(output, epoch)
            case UserTurnEnded(reply_follows=reply_follows):
                self._up(output, self.epoch)
                if reply_follows:
                    self._replies.expect(self.epoch, self.clock.now())
                    self._arm()
            case ReplyRefused():
                self._apply(self._replies.refused(output, self.clock.now()))
            case ProviderError(kind=ErrorKind.FATAL, code=code, message=message):
                self._up(output, self.epoch)
                raise SessionError(message, code=code)
            case _:
                self._up(output, self.epoch)

    def _start(self, started: SessionStarted) -> None:
        self._connected = True
        assert self._listener is not None  # noqa: S101 - run has set it
        capabilities = asdict(self.profile)
        self._listener.connected(
            RealtimeConnectedEvent(self.session_id, dict(started.config), capabilities)
        )
        self._settled.set()
        early, self._early, self._early_s = self._early, deque(), 0.0
        for frame in early:
            self.send_audio(frame)

    def _end(self, reason: str, clean: bool) -> None:
        self._connected = False
        self._connection = None
        if self._timer is not None:
            self._timer.cancel()
        self._reason = reason
        self._settled.set()
        assert self._listener is not None  # noqa: S101 - run has set it
        for request_id in self._replies.close():
            self._listener.reply_ended(request_id, SessionClosedError(f"no reply: {reason}"))
        self._tools.clear()
        self._listener.disconnected(RealtimeDisconnectedEvent(reason, clean))

    def _after_tools(self, epoch: int | None) -> None:
        """Every call of a reply is answered: let the model speak, if nobody interrupted it."""
        if epoch is not None and epoch == self.epoch and self.profile.tool_reply == "requested":
            self.request_reply(uuid4().hex)

    def _request(self, command: RequestReply | Say) -> None:
        if not self._connected:
            raise SessionClosedError("the session is not connected")
        self._apply(self._replies.request(Request(command, self.epoch), self.clock.now()))

    def _transmit(self, command: Command) -> None:
        if self._connection is None or not self._connected:
            raise SessionClosedError("the session is not connected")
        self._connection.transmit(command)

    def _apply(self, changes: Changes) -> None:
        for command in changes.commands:
            if self._connected:
                self._transmit(command)
        if self._listener is not None:
            for request_id in changes.dropped:
                self._listener.reply_ended(request_id, None)
            for refusal in changes.refused:
                error = ReplyRefusedError(refusal.message, code=refusal.code)
                self._listener.reply_ended(refusal.request_id, error)
        self._arm()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = self._replies.deadline
        if deadline is not None and self._connected:
            self._timer = self.clock.call_at(deadline, self._poll)

    def _poll(self) -> None:
        self._apply(self._replies.poll(self.clock.now()))

    def _up(self, output: Output, epoch: int) -> None:
        if self._listener is not None:
            self._listener.output(output, epoch)
