"""The border of a session, as a recorder has it: it writes down what crosses it."""

from __future__ import annotations

import asyncio
import functools
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

from duologue import items
from duologue.audio import Samples
from duologue.clock import Clock, Timer
from duologue.errors import DuologueError
from duologue.events import events
from duologue.json_types import Json
from duologue.observe.wire_json import (
    Secrets,
    facts_to_json,
    received_to_json,
    sent_to_json,
    timer_name,
)
from duologue.realtime import commands, outputs
from duologue.realtime.border import (
    Border,
    FactualWire,
    Measure,
    SessionCommands,
)
from duologue.realtime.codec import Connection, NonBlockingWire, Wire
from duologue.realtime.observer import SessionObserver
from duologue.realtime.reply_voice import ReplyVoice
from duologue.realtime.stats import ConnectionStats, MeasuredConnection


class Journal(Protocol):
    """What a border writes to."""

    secrets: Secrets
    keep_audio: bool
    zero: float
    turn: int

    def put(self, record: dict[str, object], message: Callable[[], Json] | None) -> None:
        """Write a record; ``message`` returns the message in it."""

    def part(self, part: object) -> Border:
        """Return the border of a streaming part that begins."""
        ...

    def time(self) -> float:
        """Return the time by the clock of the inside."""
        ...


class RecordingBorder:
    """A `Border` that writes down what crosses it."""

    def __init__(self, journal: Journal, subject: int) -> None:
        self._journal = journal
        self._subject = subject
        self._depth = 0
        self._wires = 0
        self._timers: Counter[str] = Counter()
        self._last_history: object = None
        self.rate = 1
        """Hz of the input audio of a session."""

    def put(self, kind: str, **fields: object) -> None:
        """Write a record."""
        self._put(kind, fields, None)

    def put_message(self, kind: str, wire: int, message: Callable[[], Json]) -> None:
        """Write a record of a message, which a function returns in another thread."""
        self._put(kind, {"w": wire}, message)

    def _put(
        self, kind: str, fields: Mapping[str, object], message: Callable[[], Json] | None
    ) -> None:
        record: dict[str, object] = {"s": self._subject, "k": kind, **fields}
        if self._depth:
            record["d"] = self._depth
        self._journal.put(record, message)

    def attach(self, commands: SessionCommands) -> None:
        pass

    def note_input(self, name: str, *args: object) -> None:
        self.put("tell", n=name, a=args)

    def ask[T](self, name: str, args: Sequence[object], call: Callable[[], T]) -> T:
        """Write down a call to the other side, all that happens within it, and its result."""
        self.put("ask", n=name, a=args)
        self._depth += 1
        try:
            result = call()
            if result is not None:
                self._put_result(name, result)
        finally:
            self._depth -= 1
        return result

    def _put_result(self, name: str, result: object) -> None:
        if name != "history":
            self.put("ret", v=result)
        elif result != self._last_history:
            self._last_history = result
            self.put("ret", v=result)

    def unix_clock(self, unix_time: Callable[[], float]) -> Callable[[], float]:
        """Return a clock whose readings are written down."""

        def read() -> float:
            now = unix_time()
            self.put("unix", v=now)
            return now

        return read

    async def prepare(self, prepare: Callable[[], Awaitable[None]]) -> None:
        await prepare()
        self.note_input("prepared")

    def clock(self, clock: Clock) -> Clock:
        return _RecordingClock(self, clock, self._journal.time)

    def observer(self, observer: SessionObserver) -> SessionObserver:
        return _RecordingObserver(self, observer)

    def measure(self, measure: Measure) -> Measure:
        count = 0
        zero = self._journal.zero

        def measured(
            samples: Samples, now: float, peak: int | None = None
        ) -> list[tuple[float, float, float]]:
            nonlocal count
            verdicts = measure(samples, now, peak)
            if verdicts != [(0.0, len(samples) / self.rate, now)]:
                found = [(voice, seconds, at - zero) for voice, seconds, at in verdicts]
                self.put("voice", i=count, v=found)
            count += 1
            return verdicts

        return measured

    def voice(self, voice: ReplyVoice) -> ReplyVoice:
        return _RecordingVoice(self, voice)

    def wire[M](self, connect: Callable[[], Wire[M]]) -> Wire[M]:
        number = self._wires
        self._wires += 1
        wire = connect()
        if isinstance(wire, NonBlockingWire):
            return _RecordingNonBlockingWire(self, wire, number, self._journal)
        return _RecordingWire(self, wire, number, self._journal)

    def listener[E](self, receive: Callable[[E], None], name: str) -> Callable[[E], None]:
        return lambda event: self.ask(name, (event,), lambda: receive(event))

    def part(self, part: object) -> Border:
        return self._journal.part(part)


class _RecordingClock:
    def __init__(self, border: RecordingBorder, clock: Clock, now: Callable[[], float]) -> None:
        self._border = border
        self._clock = clock
        self._counts: Counter[str] = border._timers
        self.now = now

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        name = timer_name(callback)
        number = self._count(name)

        def fire() -> None:
            self._border.put("fire", n=name, i=number)
            callback()

        return self._clock.call_at(when, fire)

    async def sleep(self, seconds: float) -> None:
        number = self._count("sleep")
        await self._clock.sleep(seconds)
        self._border.put("fire", n="sleep", i=number)

    def _count(self, name: str) -> int:
        number = self._counts[name]
        self._counts[name] += 1
        return number


class _RecordingObserver:
    def __init__(self, border: RecordingBorder, observer: SessionObserver) -> None:
        self._ask = border.ask
        self._observer = observer

    def history(self) -> Sequence[items.Item]:
        return self._ask("history", (), lambda: tuple(self._observer.history()))

    def connected(self, event: events.RealtimeConnectedEvent) -> None:
        self._ask("connected", (), lambda: self._observer.connected(event))

    def reconnecting(self, event: events.RealtimeReconnectingEvent) -> None:
        self._ask("reconnecting", (event.attempt,), lambda: self._observer.reconnecting(event))

    def reconnected(self, event: events.RealtimeReconnectedEvent) -> None:
        self._ask("reconnected", (event.outcome,), lambda: self._observer.reconnected(event))

    def disconnected(self, event: events.RealtimeDisconnectedEvent) -> None:
        self._ask("disconnected", (event.clean,), lambda: self._observer.disconnected(event))

    def output(self, output: outputs.Output, epoch: int) -> None:
        self._ask("output", (output, epoch), lambda: self._observer.output(output, epoch))

    def late_transcript(self, words: outputs.ReplyText) -> None:
        self._ask("late_transcript", (words,), lambda: self._observer.late_transcript(words))

    def on_interrupt(self, epoch: int) -> Sequence[commands.Truncate | commands.DeleteItem]:
        return self._ask(
            "on_interrupt", (epoch,), lambda: tuple(self._observer.on_interrupt(epoch))
        )

    def reply_ended(self, request_id: str, error: Exception | None) -> None:
        args = request_id, None if error is None else type(error).__name__
        self._ask("reply_ended", args, lambda: self._observer.reply_ended(request_id, error))

    def reply_skipped(self, epoch: int) -> None:
        self._ask("reply_skipped", (epoch,), lambda: self._observer.reply_skipped(epoch))

    def spoken_text(self, reply_id: str) -> str | None:
        return self._ask("spoken_text", (reply_id,), lambda: self._observer.spoken_text(reply_id))

    def reply_lost(self, reply_id: str, request_id: str | None) -> None:
        args = reply_id, request_id
        self._ask("reply_lost", args, lambda: self._observer.reply_lost(reply_id, request_id))

    def turns_replayed(self, item_ids: Sequence[str]) -> None:
        self._ask(
            "turns_replayed", (list(item_ids),), lambda: self._observer.turns_replayed(item_ids)
        )


class _RecordingVoice:
    """A voice, between whose two connections and everything else the border runs."""

    def __init__(self, border: RecordingBorder, voice: ReplyVoice) -> None:
        self._border = border
        self._voice = voice
        self._connections = 0
        self.rate = voice.rate

    async def run(self) -> None:
        await self._voice.run()

    def speak_for(self, connection: Connection) -> Connection:
        number = self._connections
        self._connections += 1
        inner = _ModelConnection(self._border, connection, number)
        return _VoicedConnection(self._border, self._voice.speak_for(inner), inner, number)


class _ModelConnection:
    """The model's connection, as the voice has it."""

    def __init__(self, border: RecordingBorder, connection: Connection, number: int) -> None:
        self._border = border
        self.connection = connection
        self._number = number

    async def run(self, receive: Callable[[outputs.Output], None]) -> None:
        args = self._number

        def receive_output(output: outputs.Output) -> None:
            self._border.ask("voice_input", (args, output), lambda: receive(output))

        await self.connection.run(receive_output)

    def transmit(self, command: commands.Command) -> None:
        self._border.note_input("voice_command", self._number, command)
        self.connection.transmit(command)

    def stats(self) -> ConnectionStats:
        model = self.connection
        return model.stats() if isinstance(model, MeasuredConnection) else ConnectionStats()


class _VoicedConnection:
    """The voiced connection, as the session has it."""

    def __init__(
        self, border: RecordingBorder, voiced: Connection, inner: _ModelConnection, number: int
    ) -> None:
        self._border = border
        self._voiced = voiced
        self._inner = inner
        self._number = number

    async def run(self, receive: Callable[[outputs.Output], None]) -> None:
        def receive_output(output: outputs.Output) -> None:
            self._border.note_input("voice_output", self._number, output)
            receive(output)

        await self._voiced.run(receive_output)

    def transmit(self, command: commands.Command) -> None:
        if isinstance(command, commands.SendAudio):
            self._inner.connection.transmit(command)
            return
        self._border.ask(
            "voice_transmit", (self._number, command), lambda: self._voiced.transmit(command)
        )

    def stats(self) -> ConnectionStats:
        return self._inner.stats()


class _RecordingWire[M]:
    def __init__(
        self, border: RecordingBorder, wire: Wire[M], number: int, journal: Journal
    ) -> None:
        self._border = border
        self._wire = wire
        self._number = number
        self._journal = journal
        self._sent = 0
        self._receiver_failed = False

    def stats(self) -> ConnectionStats:
        wire: object = self._wire
        return wire.stats() if isinstance(wire, MeasuredConnection) else ConnectionStats()

    async def open(self) -> None:
        self._put("dial")
        try:
            await self._wire.open()
        except DuologueError as error:
            self._put("refused", facts=self._facts(), error=error)
            raise
        self._put("up", facts=self._facts())

    async def send(self, message: M) -> None:
        number = self._put_sent(message)
        turn = self._journal.turn
        try:
            await self._wire.send(message)
        except DuologueError as error:
            self._put("sent", i=number, error=error)
            raise
        except asyncio.CancelledError:
            self._put("sent", i=number, cancelled=True)
            raise
        if self._journal.turn != turn:
            self._put("sent", i=number)

    async def run(self, receive: Callable[[M], None]) -> None:
        secrets = self._journal.secrets

        def receive_message(message: M) -> None:
            self._border.put_message(
                "in", self._number, functools.partial(received_to_json, message, secrets)
            )
            try:
                receive(message)
            except BaseException:
                self._receiver_failed = True
                raise

        try:
            await self._wire.run(receive_message)
        except Exception as error:
            self._put("end", facts=self._facts(), error=error, own=self._receiver_failed)
            raise
        self._put("end", facts=self._facts())

    async def close(self) -> None:
        await self._wire.close()
        self._put("closed")

    def _put(self, kind: str, **fields: object) -> None:
        self._border.put(kind, w=self._number, **fields)

    def _put_sent(self, message: M) -> int:
        keep = self._journal.keep_audio
        self._border.put_message(
            "out", self._number, functools.partial(sent_to_json, message, keep_audio=keep)
        )
        self._sent += 1
        return self._sent - 1

    def _facts(self) -> Json:
        wire: object = self._wire
        return facts_to_json(wire.facts) if isinstance(wire, FactualWire) else None


class _RecordingNonBlockingWire[M](_RecordingWire[M]):
    _wire: NonBlockingWire[M]

    def try_send(self, message: M) -> bool:
        if not self._wire.try_send(message):
            self._put("full", i=self._sent)
            return False
        self._put_sent(message)
        return True
