"""One session: takes the client's messages, and tells it the server's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import orjson

from duologue.clock import Clock
from duologue.items import Json
from duologue.realtime.errors import SessionClosedError
from duologue.realtime.session import Realtime
from duologue.simulator.expectations import Expectations
from duologue.simulator.faults import Error
from duologue.simulator.fields import Object, flag_at, new_id, objects_at, read_json
from duologue.simulator.gemini.conversation import Conversation, cost_of, for_brain
from duologue.simulator.gemini.lifetime import Lifetime, Limits
from duologue.simulator.gemini.media import Image
from duologue.simulator.gemini.message_log import MessageLog, without_media
from duologue.simulator.gemini.realtime_input import RealtimeInput
from duologue.simulator.gemini.replies import Replies
from duologue.simulator.gemini.resumption import Handles, Resumption, Snapshot
from duologue.simulator.gemini.schema import CLIENT, MESSAGES
from duologue.simulator.gemini.setup import GENERAL, Setup
from duologue.simulator.gemini.shapes import INTERNAL, RefusedError, read_object
from duologue.simulator.gemini.turns import HeardTurn, Turns

BROKEN = "Internal error encountered."

MOST_EARLY = 1000
"""Messages that may wait for the session to be there."""


class Line(Protocol):
    """Where a session's messages go."""

    def send(self, kind: str, text: str) -> None:
        """Send a message, in order; never waits."""

    def close(self, code: int, reason: str) -> None:
        """End the line, behind what was sent."""


class Door(Protocol):
    """By which way a client came in."""

    def admit(self, setup: Object) -> Setup:
        """The setup that the client gets. Raises `RefusedError`."""


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """How the sessions of a simulator are; times in s of the clock."""

    transcription_delay: float = 0.0
    keep_audio: bool = False
    loopback: bool = False
    paraphrase: bool = False
    audio_pace: float = 4.0
    limits: Limits = Limits()  # noqa: RUF009 - frozen


class Session:
    """One client's session. Public attributes are for tests to look at."""

    taken: Callable[[str], None]
    """Is told the kind of each message of the client, before anything is done about it."""

    def __init__(
        self,
        brain: Realtime,
        door: Door,
        handles: Handles,
        options: SessionOptions,
        line: Line,
        clock: Clock,
    ) -> None:
        self._door = door
        self._handles = handles
        self._line = line
        self._clock = clock
        self._configured = asyncio.Event()
        self._ready = False
        self._early: list[Object] = []
        self._log = MessageLog()
        self._messages = -1
        self._seeded = False
        self._expectations: Expectations | None = None
        self.id = new_id("session")
        self.resumed = False
        """It goes on with the conversation of an older session."""
        self.closed = False
        self.taken = lambda _: None
        self.accepted: Callable[[], None] = lambda: None
        """Is told once the setup is good."""
        self._replies = Replies(
            brain,
            Conversation(),
            self.emit,
            clock,
            pace=options.audio_pace,
            paraphrase=options.paraphrase,
        )
        self._replies.changed = self._tell_state
        self._turns = Turns(
            self._replies,
            self.emit,
            clock,
            transcription_delay=options.transcription_delay,
            keep_audio=options.keep_audio,
        )
        self._life = Lifetime(options.limits, clock, self.emit, self.refuse)
        self._input = RealtimeInput(self._turns, self._life, self.emit, loopback=options.loopback)
        self._resumption = Resumption(handles, self.emit, self._snapshot)

    @property
    def messages_in(self) -> list[Object]:
        """The client's messages in order, with names in camelCase; of media only the length."""
        return self._log.taken.entries

    @property
    def messages_out(self) -> list[str]:
        """The kinds of the server's messages, in order."""
        return self._log.told.entries

    @property
    def conversation(self) -> list[Object]:
        """The contents in order; of what the model said, what was sent."""
        return self._replies.conversation.contents

    @property
    def not_kept(self) -> int:
        """Messages of either side, images and turns that were dropped as too many."""
        log = self._log
        kept = log.taken.dropped + log.told.dropped + log.sound_dropped
        return kept + self._input.kept.dropped + self._turns.kept.dropped

    @property
    def dropped(self) -> int:
        """Contents that compression has dropped."""
        return self._replies.conversation.dropped

    @property
    def tokens(self) -> int:
        """What the conversation costs now."""
        return self._replies.conversation.cost.total

    @property
    def setup(self) -> Object:
        """The setup with names in camelCase, as ``contextUpdate`` has changed it."""
        return self._replies.setup.value

    @property
    def system_instruction(self) -> str:
        """What the model is told."""
        return self._replies.setup.system_instruction

    @property
    def tools(self) -> list[Object]:
        """The functions that the model may call, as they were declared."""
        return self._replies.setup.declarations

    @property
    def heard(self) -> list[HeardTurn]:
        """The person's turns; with their sound if the simulator keeps it."""
        return self._turns.heard

    @property
    def images(self) -> list[Image]:
        """The newest images that the client sent."""
        return self._input.kept.entries

    @property
    def audio_in_samples(self) -> int:
        """Sound taken so far, in samples at 16 kHz."""
        return self._input.samples

    @property
    def brain(self) -> Realtime:
        """The model behind it."""
        return self._replies.link.brain

    def expect(self, expectations: Expectations | None) -> None:
        """Have the client's messages looked at, from now on."""
        self._expectations = expectations
        if expectations is not None:
            self._replies.link.on_turn = expectations.turn
            self._replies.link.on_reply = expectations.reply

    async def begin(self) -> None:
        """Nothing is told before the client has said what it wants."""

    async def run_brain(self) -> None:
        """Live as long as the brain does, from the client's setup on."""
        await self._configured.wait()
        link, setup = self._replies.link, self._replies.setup
        async with asyncio.TaskGroup() as tasks:
            greeting = tasks.create_task(self._greet(), name="simulator greets")
            await link.run(setup.system_instruction, setup.tools)
            greeting.cancel()
        if not self.closed:
            self.refuse(RefusedError(link.error or BROKEN, INTERNAL))

    def close(self) -> None:
        """The line is gone."""
        if self._configured.is_set() and not self.closed:
            self._handles.closed(self.id)
        self.closed = True
        self._replies.close()
        self._turns.close()
        self._life.stop()
        if self._expectations is not None:
            self._expectations.close()

    def emit(self, kind: str, message: Object) -> None:
        """Tell the client a message."""
        if self.closed:
            return
        self._log.tell(kind)
        self._line.send(kind, orjson.dumps(message).decode())

    def refuse(self, refusal: RefusedError) -> None:
        """End the session: the protocol has no errors that it survives."""
        if not self.closed:
            self._line.close(refusal.code, refusal.reason)
            self.close()

    def complain(self, error: Error) -> None:
        """A fault: the connection ends soon, for the code ``go_away``; else it ends at once."""
        if error.code == "go_away":
            self._life.go_away()
        else:
            self.refuse(RefusedError(error.message, INTERNAL))

    def go_away(self, time_left: float) -> None:
        """Tell the client that the connection ends in so many seconds, and end it then."""
        self._life.go_away(time_left)

    def take(self, text: str | bytes) -> None:
        """A message of the client, as it came."""
        if self.closed:
            return
        self._messages += 1
        try:
            self._admit(_read(text), len(text))
        except RefusedError as refusal:
            self.refuse(refusal)

    def _admit(self, message: Object, size: int) -> None:
        kinds = _kinds(message)
        self._log.take(kinds[0][0], message, size)
        for kind, _ in kinds:
            self.taken(kind)
        if self.closed:
            return
        if not self._configured.is_set():
            if "setup" not in message:
                raise RefusedError("The first message must be setup.")
            self._configure(_object(message["setup"]))
        elif not self._ready:
            if len(self._early) >= MOST_EARLY:
                raise RefusedError(GENERAL)
            self._early.append(message)
        else:
            self._take(message)
        if self._expectations is not None:
            for kind, body in kinds:
                self._expectations.saw({"type": kind, **body})

    def _configure(self, value: Object) -> None:
        setup = self._door.admit(value)
        if setup.handle:
            snapshot = self._handles.take(setup.handle)
            if snapshot.model != setup.model:
                raise RefusedError(GENERAL)
            self.resumed = True
            self.id = snapshot.session_id
            self._life.began = snapshot.began
            self._life.video_since = snapshot.video_since
            self._replies.conversation = snapshot.conversation.copy()
        self._replies.setup = setup
        self._turns.configure(setup)
        self._handles.opened(self.id)
        self.accepted()
        self._configured.set()

    async def _greet(self) -> None:
        try:
            await self.brain.ready()
        except SessionClosedError:
            return  # `run_brain` tells it.
        self._replies.restore(self.conversation)
        self._ready = True
        if self._replies.setup.resumable:
            self._resumption.begin(transparent=self._replies.setup.transparent)
        self._life.begin(compressed=self._replies.setup.compression is not None)
        known: Object = {"sessionId": self.id} if self._replies.setup.rules.session_id else {}
        self.emit("setupComplete", {"setupComplete": known})
        self._tell_state()
        for message in self._early:
            if not self.closed:
                try:
                    self._take(message)
                except RefusedError as refusal:
                    self.refuse(refusal)
        self._early.clear()

    def _take(self, message: Object) -> None:
        for kind, body in message.items():
            match kind:
                case "realtimeInput":
                    if self._waits_for_history:
                        raise RefusedError(GENERAL)
                    self._input.take(_object(body))
                case "clientContent":
                    self._content(_object(body))
                case "toolResponse":
                    self._replies.respond(objects_at(body, "functionResponses"))
                case "contextUpdate":
                    self._update(_object(body))
                case _:
                    raise RefusedError(GENERAL)

    def _content(self, body: Object) -> None:
        setup = self._replies.setup
        complete = flag_at(body, "turnComplete")
        history = self._waits_for_history
        if not history and (complete or setup.rules.content_interrupts):
            self._replies.interrupt()
        for turn in objects_at(body, "turns"):
            content: Object = {"role": turn.get("role") or "user", "parts": turn.get("parts") or []}
            cost = cost_of(content, setup.image_tokens)
            parts = [without_media(part) for part in objects_at(turn, "parts")]
            self._replies.conversation.add(str(content["role"]), parts, cost)
            for item in for_brain(content, {}):
                self._replies.link.add(item)
        if complete and history:
            self._seeded = True
        elif complete:
            self._replies.want()
        self._tell_state()

    def _update(self, body: Object) -> None:
        setup = self._replies.setup.updated(body)
        self._replies.setup = self._turns.setup = setup
        self._replies.link.configure(
            setup.system_instruction if "systemInstruction" in body else None,
            setup.tools if "tools" in body else None,
        )

    @property
    def _waits_for_history(self) -> bool:
        return self._replies.setup.seeded and not self._seeded and not self.resumed

    def _tell_state(self) -> None:
        """Tell by which handle the session can be resumed as it is now, if it can."""
        self._resumption.tell(self._messages, resumable=self._replies.idle)

    def _snapshot(self) -> Snapshot:
        return Snapshot(
            self.id,
            self._replies.setup.model,
            self._replies.conversation.copy(),
            self._life.began,
            self._life.video_since,
            self._clock.now(),
        )


def _read(text: str | bytes) -> Object:
    try:
        value = read_json(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise RefusedError("Invalid JSON payload received. Unexpected token.")
    return read_object(CLIENT, value)


def _kinds(message: Object) -> list[tuple[str, Object]]:
    """What a message is called here, and what is in it; one of ``realtimeInput`` may be several."""
    found: list[tuple[str, Object]] = []
    for name, body in message.items():
        if name not in MESSAGES:
            continue
        if name == "realtimeInput" and isinstance(body, dict) and body:
            found += [(f"{name}.{field}", {field: value}) for field, value in body.items()]
        else:
            found.append((name, _object(body)))
    if not found:
        raise RefusedError(GENERAL)
    return found


def _object(value: Json) -> Object:
    return value if isinstance(value, dict) else {}
