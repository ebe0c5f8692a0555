"""What keeps a session open in which nobody speaks.

The service closes one in which nothing has happened for 300 s, and WebSocket pings are nothing to
it. It also finds the end of a turn only in sound: when a microphone is switched off in the middle
of a word, silence has to follow. And it takes silence for what a person said, when the program
ends a turn of nothing else.
"""

from __future__ import annotations

from collections.abc import Callable

from duologue.audio import AudioFrame
from duologue.clock import Clock, Timer
from duologue.providers.qwen.models import IDLE_S, INPUT_RATE
from duologue.realtime.codec import Connection
from duologue.realtime.commands import ClearInput, Command, EndTurn, SendAudio, SendVideo
from duologue.realtime.outputs import (
    Output,
    ReplyAudio,
    ReplyDone,
    ReplyStarted,
    SessionStarted,
    SpeechStarted,
    UserTurnEnded,
)

PIECE_S = 0.1
"""Length of one piece of silence, in seconds: what the service advises for a message."""
QUIET_S = 20.0
"""After so long without sound, a piece of silence is sent."""
GAP_S = 0.3
"""After so long without sound in the middle of a turn, silence is sent till the turn is over."""
LONGEST_TURN_S = 15.0
"""A turn that is not over after so much silence will never be."""
AHEAD_S = 30.0
"""So long before the service would close it, a session is changed to a new connection."""
FORCED_S = 20.0
"""If no pause comes within so much of that, it is changed all the same."""

_NEVER = float("inf")


class Idle:
    """Watches the connections of one session, and acts when nothing happens.

    ``send`` sends sound of the person. With ``roll_over``, which changes to a new connection within
    so many seconds, quiet sessions are changed in time; else silence is sent.
    """

    def __init__(
        self,
        clock: Clock,
        send: Callable[[AudioFrame], None],
        *,
        live: Callable[[], bool],
        roll_over: Callable[[float], None] | None,
    ) -> None:
        self._clock = clock
        self._send = send
        self._live = live
        self._roll_over = roll_over
        self._timer: Timer | None = None
        self._sound_at = 0.0
        self._reply_at = 0.0
        self._in_turn = False
        self._gap_s = 0.0
        """Silence that was sent in this turn."""
        self.running = False

    def begin(self) -> None:
        """The session begins."""
        self.running = True
        self._sound_at = self._reply_at = self._clock.now()
        self._arm()

    def close(self) -> None:
        """The session is over."""
        self.running = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def watch(self, connection: Connection) -> Connection:
        """The same connection, watched."""
        return _Watched(connection, self)

    def sent(self, command: Command) -> None:
        """Something is sent to the model."""
        if isinstance(command, SendAudio):
            self._sound_at = self._clock.now()

    def received(self, output: Output) -> None:
        """The model has told something."""
        match output:
            case ReplyStarted() | ReplyAudio() | ReplyDone():
                self._reply_at = self._clock.now()
            case SessionStarted():
                self._reply_at = self._clock.now()
                self._turn(is_open=False)
            case SpeechStarted():
                self._turn(is_open=True)
            case UserTurnEnded():
                self._turn(is_open=False)
            case _:
                pass

    def _turn(self, *, is_open: bool) -> None:
        if is_open is not self._in_turn:
            self._in_turn = is_open
            self._gap_s = 0.0
            self._arm()

    @property
    def _silence_due(self) -> float:
        if self._in_turn and self._gap_s < LONGEST_TURN_S:
            return self._sound_at + (PIECE_S if self._gap_s else GAP_S)
        return _NEVER if self._roll_over is not None else self._sound_at + QUIET_S

    @property
    def _change_due(self) -> float:
        return _NEVER if self._roll_over is None else self._reply_at + IDLE_S - AHEAD_S

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = min(self._silence_due, self._change_due)
        if self.running and due != _NEVER:
            self._timer = self._clock.call_at(due, self._look)

    def _look(self) -> None:
        now = self._clock.now()
        if not self._live():
            # The next connection begins anew.
            self._sound_at = self._reply_at = now
        elif self._silence_due <= now:
            if self._in_turn:
                self._gap_s += PIECE_S
            self._sound_at = now
            self._send(AudioFrame.silence(PIECE_S, INPUT_RATE))
        elif self._change_due <= now and self._roll_over is not None:
            self._reply_at = now
            self._roll_over(FORCED_S)
        self._arm()


class _Watched:
    """A connection whose traffic is told to an `Idle`."""

    def __init__(self, connection: Connection, idle: Idle) -> None:
        self._connection = connection
        self._idle = idle
        self._silence = self._something = False
        """Whether sound was sent in the turn that the program will end, and other than silence."""

    async def run(self, receive: Callable[[Output], None]) -> None:
        """Live until the other side ends it."""
        idle = self._idle

        def told(output: Output) -> None:
            idle.received(output)
            receive(output)

        await self._connection.run(told)

    def transmit(self, command: Command) -> None:
        """Take a command."""
        self._idle.sent(command)
        match command:
            case SendAudio(frame=frame):
                self._silence = True
                self._something = self._something or bool(frame.samples.any())
            case SendVideo():
                self._something = True
            case EndTurn() | ClearInput():
                if isinstance(command, EndTurn) and self._silence and not self._something:
                    # An empty buffer is no turn: its end is refused, and nothing is answered.
                    self._connection.transmit(ClearInput())
                self._silence = self._something = False
            case _:
                pass
        self._connection.transmit(command)
