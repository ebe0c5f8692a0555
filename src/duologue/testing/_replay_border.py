"""The border of a session, as its wire journal plays it."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from typing import cast

from duologue.audio import Samples
from duologue.clock import Clock, Timer
from duologue.events import events
from duologue.items import Item
from duologue.json_types import Json, JsonObject
from duologue.observe.wire_json import (
    error_from_json,
    sent_to_json,
    timer_name,
    value_from_json,
    value_to_json,
)
from duologue.realtime import commands, outputs
from duologue.realtime.border import (
    Border,
    Measure,
    SessionCommands,
)
from duologue.realtime.codec import Connection, NonBlockingWire, Wire
from duologue.realtime.observer import SessionObserver
from duologue.realtime.reply_voice import ReplyVoice
from duologue.testing._wire_comparison import Channel, Names, Replay, Sent
from duologue.testing._wire_script import QUERIES, SAME_TIME_S, Record, Script, channel_of


class ReplayBorder:
    """A `duologue.realtime.border.Border` that returns what was recorded."""

    def __init__(self, script: Script, name: str, found: Replay) -> None:
        self.script = script
        self.name = name
        self.found = found
        self.names = Names()
        self.at = 0.0
        """When the newest record was, in seconds of the recording."""
        self.commands: SessionCommands | None = None
        self.began = asyncio.Event()
        """Set when the session or part takes commands."""
        self.prepared = asyncio.Event()
        self.wires: dict[int, WireState] = {}
        self.voiced: dict[int, VoicedConnection] = {}
        self.timers: dict[tuple[str, int], _ReplayTimer] = {}
        self.counts: Counter[str] = Counter()
        self.tell: Callable[[Record], None] = lambda _: None
        self._channels: dict[str, Channel] = {}
        self._wire_count = 0
        self._queries: dict[str, int] = {}

    def time(self) -> float:
        """Return the time of the call's clock, exactly that of the newest record if it is near.

        What is decided by times that are equal would come out differently otherwise.
        """
        now = asyncio.get_running_loop().time()
        recorded = self.script.zero + self.at
        return recorded if now < recorded + SAME_TIME_S else now

    def now(self) -> float:
        """Return the seconds of the recording."""
        return self.time() - self.script.zero

    def channel(self, name: str, where: str, expected: Sequence[Record]) -> Channel:
        """Return the channel of that name."""
        found = self._channels.get(name)
        if found is None:
            found = Channel(
                f"{self.name}, {where}", expected, self.names, self.found, self.script.cut_at
            )
            self._channels[name] = found
        return found

    def sent(self, wire: int, message: object) -> None:
        """Compare a message that is sent."""
        channel = self._wire_channel(wire)
        made = sent_to_json(message, keep_audio=self.script.keeps_audio)
        self.found.sent.append(Sent(f"{self.name}, connection {wire + 1}", self.now(), made))
        channel.push(made, self.now())

    def _wire_channel(self, wire: int) -> Channel:
        expected = self.script.sent.get(wire, [])
        return self.channel(f"wire {wire}", f"connection {wire + 1}", expected)

    def ask(self, name: str, *args: object) -> object:
        """Compare a report or question; repeat the commands within it, and return the result."""
        channel = channel_of(name)
        expected = self.script.asks.get(channel, [])
        if name in QUERIES:
            return self._answer(name, expected)
        where = "to the voice" if channel == "voice" else "to the agent"
        value: Json = {"report": name, "args": [value_to_json(one) for one in args]}
        record = self.channel(channel, where, expected).push(value, self.now())
        if record is None:
            return None
        for command in record.inputs:
            self.tell(command)
        return self.decode(record.result)

    def _answer(self, name: str, expected: Sequence[Record]) -> object:
        """Return the next answer to a question; the last one again if there is none."""
        number = self._queries.get(name, 0)
        self._queries[name] = number + 1
        if number < len(expected):
            for command in expected[number].inputs:
                self.tell(command)
        results = [one.result for one in expected[: number + 1]]
        if name == "history":  # written only where it had changed
            return self.decode(next((one for one in reversed(results) if one is not None), None))
        return self.decode(results[-1] if results else None)

    def decode(self, value: Json) -> object:
        """Return a value of the journal, with the ids of the replay."""
        return value_from_json(self.names.translate_json(value))

    def finish(self) -> None:
        """Report what is missing."""
        for number in self.script.sent:
            self._wire_channel(number)
        for name, expected in self.script.asks.items():
            if name not in QUERIES:
                where = "to the voice" if name == "voice" else "to the agent"
                self.channel(name, where, expected)
        for channel in self._channels.values():
            channel.finish()

    # Border

    def attach(self, commands: SessionCommands) -> None:
        self.commands = commands
        self.began.set()

    def note_input(self, name: str, *args: object) -> None:
        pass

    async def prepare(self, prepare: Callable[[], Awaitable[None]]) -> None:
        del prepare
        await self.prepared.wait()

    def clock(self, clock: Clock) -> Clock:
        del clock
        return _ReplayClock(self)

    def observer(self, observer: SessionObserver) -> SessionObserver:
        del observer
        return ReplayObserver(self)

    def measure(self, measure: Measure) -> Measure:
        del measure
        count = 0
        rate = cast("int", self.script.begin["input_rate"])
        verdicts, zero = self.script.verdicts, self.script.zero

        def measured(
            samples: Samples, now: float, peak: int | None = None
        ) -> list[tuple[float, float, float]]:
            nonlocal count
            del peak
            found = verdicts.get(count)
            count += 1
            if found is None:
                return [(0.0, len(samples) / rate, now)]
            return [(voice, seconds, zero + at) for voice, seconds, at in found]

        return measured

    def voice(self, voice: ReplyVoice) -> ReplyVoice:
        return PlayedVoice(self, voice.rate)

    def wire[M](self, connect: Callable[[], Wire[M]]) -> Wire[M]:
        number = self._wire_count
        self._wire_count += 1
        real = connect()
        if isinstance(real, NonBlockingWire):
            return _ReplayNonBlockingWire[M](self, real, number)
        return _ReplayWire[M](self, real, number)

    def listener[E](self, receive: Callable[[E], None], name: str) -> Callable[[E], None]:
        del receive
        return lambda event: cast("None", self.ask(name, event))

    def part(self, part: object) -> Border | None:
        del part
        return None

    def wire_state(self, number: int) -> WireState:
        """Return what has happened to a connection."""
        return self.wires.setdefault(number, WireState())


class _ReplayTimer:
    """A timer that fires where it was recorded to."""

    def __init__(self, when: float, callback: Callable[[], None]) -> None:
        self.when = when
        self.callback = callback
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True

    def fire(self) -> None:
        if not self.is_cancelled:
            self.callback()


class _ReplayClock:
    def __init__(self, border: ReplayBorder) -> None:
        self._border = border
        self._loop = asyncio.get_running_loop()
        self.now = border.time

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        key = self._key(timer_name(callback))
        record = self._border.script.fires.get(key)
        if record is None or record.is_past:
            return self._loop.call_at(when, callback)
        timer = self._border.timers[key] = _ReplayTimer(when, callback)
        return timer

    async def sleep(self, seconds: float) -> None:
        key = self._key("sleep")
        record = self._border.script.fires.get(key)
        if record is None or record.is_past:
            await asyncio.sleep(seconds)
            return
        over = asyncio.Event()
        # As long as it took then: waits between attempts are random.
        self._border.timers[key] = _ReplayTimer(float("-inf"), over.set)
        await over.wait()

    def _key(self, name: str) -> tuple[str, int]:
        number = self._border.counts[name]
        self._border.counts[name] += 1
        return name, number


class OuterClock:
    """The clock of what is outside: what its timers did then, the journal tells."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now

    async def sleep(self, seconds: float) -> None:
        del seconds
        await asyncio.Event().wait()

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        return _ReplayTimer(when, callback)


class ReplayObserver:
    def __init__(self, border: ReplayBorder) -> None:
        self._ask = border.ask

    def history(self) -> Sequence[Item]:
        return cast("Sequence[Item]", self._ask("history") or ())

    def connected(self, event: events.RealtimeConnectedEvent) -> None:
        del event
        self._ask("connected")

    def reconnecting(self, event: events.RealtimeReconnectingEvent) -> None:
        self._ask("reconnecting", event.attempt)

    def reconnected(self, event: events.RealtimeReconnectedEvent) -> None:
        self._ask("reconnected", event.outcome)

    def disconnected(self, event: events.RealtimeDisconnectedEvent) -> None:
        self._ask("disconnected", event.clean)

    def output(self, output: outputs.Output, epoch: int) -> None:
        self._ask("output", output, epoch)

    def late_transcript(self, words: outputs.ReplyText) -> None:
        self._ask("late_transcript", words)

    def on_interrupt(self, epoch: int) -> Sequence[commands.Truncate | commands.DeleteItem]:
        found = self._ask("on_interrupt", epoch) or ()
        return cast("Sequence[commands.Truncate | commands.DeleteItem]", found)

    def reply_ended(self, request_id: str, error: Exception | None) -> None:
        self._ask("reply_ended", request_id, None if error is None else type(error).__name__)

    def reply_skipped(self, epoch: int) -> None:
        self._ask("reply_skipped", epoch)

    def spoken_text(self, reply_id: str) -> str | None:
        return cast("str | None", self._ask("spoken_text", reply_id))

    def reply_lost(self, reply_id: str, request_id: str | None) -> None:
        self._ask("reply_lost", reply_id, request_id)

    def turns_replayed(self, item_ids: Sequence[str]) -> None:
        self._ask("turns_replayed", list(item_ids))


class PlayedVoice:
    def __init__(self, border: ReplayBorder, rate: int) -> None:
        self._border = border
        self.rate = rate

    async def run(self) -> None:
        await asyncio.Event().wait()

    def speak_for(self, connection: Connection) -> Connection:
        number = len(self._border.voiced)
        voiced = self._border.voiced[number] = VoicedConnection(self._border, connection, number)
        return voiced


class VoicedConnection:
    """A connection of a model, whose voice is played by the journal."""

    def __init__(self, border: ReplayBorder, inner: Connection, number: int) -> None:
        self._border = border
        self._inner = inner
        self._number = number
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._receive: Callable[[outputs.Output], None] | None = None

    async def run(self, receive: Callable[[outputs.Output], None]) -> None:
        self._receive = receive
        inner = asyncio.ensure_future(
            self._inner.run(lambda output: self._ask("voice_input", output))
        )
        try:
            await asyncio.wait([inner, self._failed], return_when=asyncio.FIRST_COMPLETED)
        finally:
            inner.cancel()
            await asyncio.wait([inner])
        if self._failed.done():
            self._failed.result()
        inner.result()

    def transmit(self, command: commands.Command) -> None:
        if isinstance(command, commands.SendAudio):
            self._inner.transmit(command)
        else:
            self._ask("voice_transmit", command)

    def receive(self, output: outputs.Output) -> None:
        """Take an output of the voice."""
        if self._receive is not None:
            self._receive(output)

    def fail(self, error: Exception) -> None:
        """End the connection, because the session does not take an output."""
        if not self._failed.done():
            self._failed.set_exception(error)

    def command(self, command: commands.Command) -> None:
        """Take a command of the voice."""
        self._inner.transmit(command)

    def _ask(self, name: str, value: object) -> None:
        self._border.ask(name, self._number, value)


class WireState:
    """State of one connection at the present place of the journal."""

    def __init__(self) -> None:
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.closed = asyncio.Event()
        self.real: object = None
        self.receive: Callable[[object], None] | None = None
        self.inbox: deque[object] = deque()
        self.sends: dict[int, asyncio.Future[None]] = {}
        self.failure: Exception | None = None

    def send_done(self, number: int) -> asyncio.Future[None]:
        """Return what tells the end of a send."""
        future = self.sends.get(number)
        if future is None:
            future = self.sends[number] = asyncio.get_running_loop().create_future()
        return future

    def deliver(self, message: object, *, fails: bool) -> None:
        """Pass on a message; ``fails``: the journal tells when its error ends the connection."""
        if self.receive is None:
            self.inbox.append(message)
            return
        if self.failure is not None:
            return
        try:
            self.receive(message)
        except Exception as error:  # noqa: BLE001 - raised by run
            self.failure = error
            if not fails:
                self.end(None)

    def end(self, error: Exception | None) -> None:
        """End the connection."""
        resolve(self.ended, self.failure or error)


def resolve(future: asyncio.Future[None], error: Exception | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
        future.exception()  # It may be awaited by nobody.


class _ReplayWire[M]:
    """A wire whose other end is the journal."""

    def __init__(self, border: ReplayBorder, real: Wire[M], number: int) -> None:
        self._border = border
        self._number = number
        self._state = border.wire_state(number)
        self._state.real = real
        self._sent = 0

    async def open(self) -> None:
        await self._state.opened

    async def send(self, message: M) -> None:
        number = self._sent
        self._push(message)
        record = self._border.script.sends.get((self._number, number))
        if record is not None and not record.is_past:
            await self._state.send_done(number)
        elif record is not None and "error" in record.raw:
            raise error_from_json(cast("JsonObject", record.raw["error"]))

    async def run(self, receive: Callable[[M], None]) -> None:
        state = self._state
        state.receive = cast("Callable[[object], None]", receive)
        while state.inbox:
            state.deliver(state.inbox.popleft(), fails=False)
        await state.ended

    async def close(self) -> None:
        record = self._border.script.by_wire.get(("closed", self._number))
        if record is not None and not record.is_past:
            await self._state.closed.wait()

    def _push(self, message: M) -> None:
        self._sent += 1
        self._border.sent(self._number, message)


class _ReplayNonBlockingWire[M](_ReplayWire[M]):
    def try_send(self, message: M) -> bool:
        key = self._number, self._sent
        if self._border.script.full.get(key, 0):
            self._border.script.full[key] -= 1
            return False
        self._push(message)
        return True
