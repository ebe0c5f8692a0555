"""Keep a session open while nobody speaks.

The service closes a session after 300 s without activity, and does not count WebSocket pings. It
detects the end of a turn only in audio: when a microphone is muted within a word, silence has to
follow. And when the program ends a turn that contains only silence, the service treats it as
speech.
"""

from __future__ import annotations

from collections.abc import Callable

from duologue.audio import AudioFrame
from duologue.clock import Clock, Timer
from duologue.providers.qwen._models import IDLE_TIMEOUT_S, INPUT_RATE
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

SILENCE_CHUNK_S = 0.1
"""Seconds of silence in one message, as the service recommends."""
SILENCE_INTERVAL_S = 20.0
"""Seconds without audio after which a chunk of silence is sent."""
MAX_GAP_S = 0.3
"""Seconds without audio within a turn after which silence is sent until the turn ends."""
MAX_TURN_SILENCE_S = 15.0
"""Seconds of silence after which a turn that has not ended never will."""
ROLL_OVER_AHEAD_S = 30.0
"""Seconds before the service would close an idle session at which it rolls over."""
ROLL_OVER_WITHIN_S = 20.0
"""Seconds after which the roll-over happens even without a pause."""

_NEVER = float("inf")


class KeepAlive:
    """Watches the connections of one session, and acts when it is idle.

    Args:
        clock: The clock.
        send: Sends input audio.
        is_connected: Returns whether the session has a connection.
        roll_over: Changes to a new connection within the given seconds; None to send silence
            instead.
    """

    def __init__(
        self,
        clock: Clock,
        send: Callable[[AudioFrame], None],
        *,
        is_connected: Callable[[], bool],
        roll_over: Callable[[float], None] | None,
    ) -> None:
        self._clock = clock
        self._send_audio = send
        self._is_connected = is_connected
        self._roll_over = roll_over
        self._timer: Timer | None = None
        self._last_audio_at = 0.0
        self._last_reply_at = 0.0
        self._in_turn = False
        self._turn_silence_s = 0.0
        """Seconds of silence sent in this turn."""
        self.running = False

    def start(self) -> None:
        """Start when the session begins."""
        self.running = True
        self._last_audio_at = self._last_reply_at = self._clock.now()
        self._arm()

    def close(self) -> None:
        """Stop when the session ends."""
        self.running = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def watch(self, connection: Connection) -> Connection:
        """Return the connection with its traffic observed."""
        return _WatchedConnection(connection, self)

    def command_sent(self, command: Command) -> None:
        """Record a command to the model."""
        if isinstance(command, SendAudio):
            self._last_audio_at = self._clock.now()

    def output_received(self, output: Output) -> None:
        """Record an output of the model."""
        match output:
            case ReplyStarted() | ReplyAudio() | ReplyDone():
                self._last_reply_at = self._clock.now()
            case SessionStarted():
                self._last_reply_at = self._clock.now()
                self._set_in_turn(is_open=False)
            case SpeechStarted():
                self._set_in_turn(is_open=True)
            case UserTurnEnded():
                self._set_in_turn(is_open=False)
            case _:
                pass

    def _set_in_turn(self, *, is_open: bool) -> None:
        if is_open is not self._in_turn:
            self._in_turn = is_open
            self._turn_silence_s = 0.0
            self._arm()

    @property
    def _silence_due(self) -> float:
        if self._in_turn and self._turn_silence_s < MAX_TURN_SILENCE_S:
            return self._last_audio_at + (SILENCE_CHUNK_S if self._turn_silence_s else MAX_GAP_S)
        return _NEVER if self._roll_over is not None else self._last_audio_at + SILENCE_INTERVAL_S

    @property
    def _roll_over_due(self) -> float:
        return (
            _NEVER
            if self._roll_over is None
            else self._last_reply_at + IDLE_TIMEOUT_S - ROLL_OVER_AHEAD_S
        )

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = min(self._silence_due, self._roll_over_due)
        if self.running and due != _NEVER:
            self._timer = self._clock.call_at(due, self._check)

    def _check(self) -> None:
        now = self._clock.now()
        if not self._is_connected():
            # The next connection starts from zero.
            self._last_audio_at = self._last_reply_at = now
        elif self._silence_due <= now:
            if self._in_turn:
                self._turn_silence_s += SILENCE_CHUNK_S
            self._last_audio_at = now
            self._send_audio(AudioFrame.silence(SILENCE_CHUNK_S, INPUT_RATE))
        elif self._roll_over_due <= now and self._roll_over is not None:
            self._last_reply_at = now
            self._roll_over(ROLL_OVER_WITHIN_S)
        self._arm()


class _WatchedConnection:
    """A connection that reports its traffic to a `KeepAlive`."""

    def __init__(self, connection: Connection, idle: KeepAlive) -> None:
        self._connection = connection
        self._keepalive = idle
        self._audio_sent = self._content_sent = False
        """Whether the current manual turn has audio, and anything but silence."""

    async def run(self, receive: Callable[[Output], None]) -> None:
        """Run the connection; see `Connection.run`."""
        idle = self._keepalive

        def observe(output: Output) -> None:
            idle.output_received(output)
            receive(output)

        await self._connection.run(observe)

    def transmit(self, command: Command) -> None:
        """Transmit a command; see `Connection.transmit`."""
        self._keepalive.command_sent(command)
        match command:
            case SendAudio(frame=frame):
                self._audio_sent = True
                self._content_sent = self._content_sent or bool(frame.samples.any())
            case SendVideo():
                self._content_sent = True
            case EndTurn() | ClearInput():
                if isinstance(command, EndTurn) and self._audio_sent and not self._content_sent:
                    # Clear a turn of only silence: the service refuses to end an empty one, and
                    # replies to none.
                    self._connection.transmit(ClearInput())
                self._audio_sent = self._content_sent = False
            case _:
                pass
        self._connection.transmit(command)
