"""One session: takes the client's events, and tells it the service's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol
from uuid import uuid4

import orjson

from duologue.clock import Clock, Timer
from duologue.items import AgentItem, Json, UserItem
from duologue.realtime.commands import ToolSpec
from duologue.realtime.errors import SessionClosedError
from duologue.realtime.session import Realtime
from duologue.simulator.expectations import Expectations
from duologue.simulator.faults import Error
from duologue.simulator.fields import Object, read_json
from duologue.simulator.kept import Kept
from duologue.simulator.nova.answers import Answers
from duologue.simulator.nova.blocks import Blocks
from duologue.simulator.nova.event_log import EventLog
from duologue.simulator.nova.faults import INTERNAL, TIMED_OUT
from duologue.simulator.nova.input_events import (
    PromptStart,
    RefusedError,
    Sensitivity,
    ToolSpecification,
    named,
    parse,
)
from duologue.simulator.nova.loopback import Loopback
from duologue.simulator.nova.order import (
    Asked,
    Heard,
    InputOrder,
    Instructed,
    Listening,
    PromptClosed,
    PromptSet,
    Remembered,
    Returned,
    SessionClosed,
    SessionSet,
    SoundEnded,
    Step,
)
from duologue.simulator.nova.playing import Said
from duologue.simulator.nova.turns import ENDPOINTING_MS, Endpointing, HeardTurn, Turns

IDLE = "Timed out waiting for input events"
"""The end of a stream on which nothing comes."""

EXCEPTIONS = frozenset(
    {
        "internalServerException",
        "modelStreamErrorException",
        "modelTimeoutException",
        "serviceUnavailableException",
        "throttlingException",
        "validationException",
    }
)
"""What a stream may end with, as the SDK's types have it."""

MOST_SAID = 10_000
"""Newest entries of a conversation that are kept for inspection."""
MAX_SAID_CHARS = 4 * 1024 * 1024
"""Characters of these entries; beyond it the oldest are dropped."""


class Line(Protocol):
    """Where a session's events go."""

    def send(self, kind: str, text: str) -> None:
        """Send an event, in order; never waits."""

    def fail(self, kind: str, message: str) -> None:
        """Send an exception, and end."""

    def close(self, code: int, reason: str) -> None:
        """End the stream, behind what was sent."""


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """How the sessions of a simulator are; times in s of the clock."""

    endpointing_ms: Mapping[Sensitivity, int] = field(default_factory=lambda: ENDPOINTING_MS)
    paraphrase: bool = False
    double_encoded_tools: bool = False
    max_stream_s: float = 480.0
    idle_s: float = 55.0
    keep_audio: bool = False
    loopback: bool = False


class Session:
    """One client's stream. Public attributes are for tests to look at."""

    taken: Callable[[str], None]
    """Is told the name of each event of the client, before anything is done about it."""

    def __init__(
        self,
        brain: Realtime,
        model: str,
        options: SessionOptions,
        line: Line,
        clock: Clock,
        *,
        expectations: Expectations | None = None,
    ) -> None:
        self.model = model
        self.brain = brain
        """The model behind it."""
        self._options = options
        self._line = line
        self._clock = clock
        self._expectations = expectations
        self._order = InputOrder(model)
        self._log = EventLog()
        self._begun = asyncio.Event()
        self._sensitivity: Sensitivity = "MEDIUM"
        self._tools: Sequence[ToolSpec] = ()
        self._blocks: Blocks | None = None
        self._answers: Answers | None = None
        self._turns: Turns | None = None
        self._loopback: Loopback | None = None
        self._turn_answers: dict[str, tuple[str, float]] = {}
        self._last_input = clock.now()
        self._age: Timer | None = None
        self._idle: Timer | None = None
        self.system = ""
        """The system prompt."""
        self._said: Kept[Said] = Kept(MOST_SAID, MAX_SAID_CHARS)
        self.audio_in_samples = 0
        """Sound taken so far, in samples at the rate that the client sends."""
        self.configuration: Object = {}
        """The fields of ``sessionStart`` and ``promptStart``."""
        self.closed = False
        self.taken = lambda _: None

    @property
    def events_in(self) -> list[Object]:
        """The client's events in order, as ``{name: fields}``; of sound only the length."""
        return self._log.taken.entries

    @property
    def events_out(self) -> list[str]:
        """The names of the service's events, in order."""
        return self._log.told.entries

    @property
    def conversation(self) -> list[Said]:
        """The newest entries of what the model knows to have been said, in order."""
        return self._said.entries

    @property
    def dropped(self) -> int:
        """Events of either side, turns and entries of the conversation that were not kept."""
        heard = self._turns.kept.dropped if self._turns is not None else 0
        return self._log.taken.dropped + self._log.told.dropped + self._said.dropped + heard

    @property
    def heard(self) -> list[HeardTurn]:
        """The person's turns; with their sound if the simulator keeps it."""
        return self._turns.heard if self._turns is not None else []

    @property
    def tools(self) -> list[str]:
        """The names of the tools that the model may call."""
        return [tool.name for tool in self._tools]

    @property
    def ended_politely(self) -> bool:
        """The client has closed its contents, its prompt and its session."""
        return self._order.ended

    async def run_brain(self) -> None:
        """Live as long as the brain, from when it is needed; when that fails the stream ends."""
        await self._begun.wait()
        link = self._made.link
        await link.run(self.system, self._tools)
        self.fail("internalServerException", link.error or INTERNAL)

    def begin(self) -> None:
        """The stream is there: its life is limited from now on."""
        self._age = self._clock.call_at(
            self._clock.now() + self._options.max_stream_s,
            lambda: self.fail("modelTimeoutException", TIMED_OUT),
        )
        self._wait_for_input()

    def close(self) -> None:
        """The stream is gone."""
        self.closed = True
        for timer in (self._age, self._idle):
            if timer is not None:
                timer.cancel()
        if self._answers is not None:
            self._answers.close()
        if self._turns is not None:
            self._turns.close()
        if self._expectations is not None:
            self._expectations.close()
            self._expectations = None

    def finish(self) -> None:
        """The client sends no more: end the stream."""
        if self.closed:
            return
        if self._blocks is not None:
            self._blocks.end()
        self._line.close(0, "")
        self.close()

    def fail(self, kind: str, message: str) -> None:
        """End the stream with an exception."""
        if not self.closed:
            self._log.tell(kind)
            self._line.fail(kind, message)
            self.close()

    def emit(self, name: str, fields: Object) -> None:
        """Tell the client an event."""
        if self.closed:
            return
        self._log.tell(name)
        self._line.send(name, orjson.dumps({"event": {name: fields}}).decode())

    async def take(self, data: bytes) -> None:
        """An event of the client, as it came."""
        if self.closed:
            return
        self._last_input = self._clock.now()
        try:
            name, fields = named(_json(data))
            self._log.take(name, fields, len(data))
            self.taken(name)
            if self._expectations is not None:
                self._expectations.saw({"type": name, **fields})
            step = self._order.take(parse(name, fields))
            if step is not None:
                await self._follow(step, fields)
        except RefusedError as refusal:
            self.fail("validationException", str(refusal))

    async def _follow(self, step: Step, fields: Object) -> None:
        match step:
            case SessionSet(event):
                self.configuration["sessionStart"] = fields
                detection = event.turn_detection_configuration
                if detection is not None:
                    self._sensitivity = detection.endpointing_sensitivity
                elif event.endpointing_sensitivity is not None:
                    self._sensitivity = event.endpointing_sensitivity
            case PromptSet(event):
                self.configuration["promptStart"] = fields
                self._prepare(event)
            case Instructed(text):
                self.system = text
                await self._awaken()
            case Remembered(role, text):
                await self._awaken()
                user = role == "USER"
                self._made.link.add(
                    UserItem(uuid4().hex, text) if user else AgentItem(uuid4().hex, text)
                )
                self._remember(Said(role, text))
            case Listening(rate):
                await self._awaken()
                self._listen(rate)
            case Heard(samples):
                self.audio_in_samples += len(samples)
                if self._loopback is not None:
                    self._loopback.push(samples)
                elif self._turns is not None:
                    self._turns.push(samples)
            case Asked(text):
                await self._awaken()
                self._ask(text)
            case Returned(tool_use_id, content):
                self._made.returned(tool_use_id, content)
            case SoundEnded():
                if self._turns is not None:
                    self._turns.end()
            case PromptClosed():
                self._made.when_done(self._end_prompt)
            case SessionClosed():
                self.finish()

    @property
    def _made(self) -> Answers:
        """The answers, of a prompt that has begun."""
        assert self._answers is not None  # noqa: S101 - the order of the events sees to it
        return self._answers

    def _prepare(self, prompt: PromptStart) -> None:
        """The prompt is known."""
        configuration = prompt.tool_configuration
        self._tools = [
            ToolSpec(one.tool_spec.name, one.tool_spec.description, _schema(one.tool_spec))
            for one in (configuration.tools if configuration is not None else ())
        ]
        rate = prompt.audio_output_configuration.sample_rate_hertz
        self._blocks = Blocks(self.emit, prompt.prompt_name, rate)
        self._answers = Answers(
            self.brain,
            self._blocks,
            self._clock,
            paraphrase=self._options.paraphrase,
            double_encoded=self._options.double_encoded_tools,
        )
        self._answers.called = self._order.called
        self._answers.failed = self.failed
        self._answers.playing.said = self._remember
        self._answers.link.turn_heard = self._turn_heard
        if self._expectations is not None:
            self._answers.link.on_turn = self._expectations.turn
            self._answers.link.on_reply = self._expectations.reply

    async def _awaken(self) -> None:
        """Have the brain there."""
        self._begun.set()
        try:
            await self.brain.ready()
        except SessionClosedError:
            return  # `run_brain` tells it.

    def _listen(self, rate: int) -> None:
        """The sound begins."""
        if self._options.loopback and self._blocks is not None:
            self._loopback = Loopback(self._blocks, rate)
            return
        answers = self._made
        answers.link.rate = rate
        turns = Turns(
            Endpointing(self._options.endpointing_ms[self._sensitivity]),
            rate=rate,
            keep_audio=self._options.keep_audio,
        )
        turns.started = answers.interrupt
        turns.sound = answers.link.hear
        turns.ended = self._turn_ended
        answers.speaking = lambda: turns.speaking
        self._turns = turns

    def _turn_ended(self, item_id: str, seconds: float) -> None:
        answers = self._made
        answers.interrupt()
        answers.link.end_turn(item_id)
        self._turn_answers[item_id] = (answers.ask(), seconds)

    def _turn_heard(self, item_id: str, text: str, brain_id: str) -> None:
        """The brain has found the words of a turn, or that there were none."""
        del brain_id
        answer_id, seconds = self._turn_answers.pop(item_id, ("", 0.0))
        answers = self._made
        if not text and not answers.owed:
            answers.drop(answer_id)
            return
        answers.owed = False
        if text and self._blocks is not None:
            self._remember(Said("USER", text))
            self._blocks.user(text)
            self._blocks.used("input", speech_s=seconds, text=text)

    def _ask(self, text: str) -> None:
        """The person has written."""
        if self._options.loopback:
            return
        answers = self._made
        exactly = answers.exactly(text) if self._order.nova_2 else None
        if exactly is None:
            answers.link.add(UserItem(uuid4().hex, text, spoken=False))
            self._remember(Said("USER", text))
        if self._order.nova_2:
            answers.interrupt()
            answers.ask(exactly)

    def failed(self, code: str, message: str) -> None:
        """The model can't go on."""
        known = code in EXCEPTIONS
        self.fail(code if known else "modelStreamErrorException", message)

    def complain(self, error: Error) -> None:
        """Tell the client an error that nobody made; the stream ends with it."""
        self.failed(error.code, error.message)

    def _end_prompt(self) -> None:
        if self._blocks is not None:
            self._blocks.end()

    def _remember(self, said: Said) -> None:
        self._said.add(said, len(said.text))

    def _wait_for_input(self) -> None:
        due = self._last_input + self._options.idle_s
        if self._clock.now() >= due:
            self.fail("validationException", IDLE)
        else:
            self._idle = self._clock.call_at(due, self._wait_for_input)


def _json(data: bytes) -> Json:
    try:
        return read_json(data)
    except ValueError:
        raise RefusedError("Invalid input request: an event is not JSON.") from None


def _schema(tool: ToolSpecification) -> dict[str, Json]:
    found: Json = orjson.loads(tool.input_schema.json)
    return found if isinstance(found, dict) else {}
