"""One session: takes the client's messages, and tells it the server's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import orjson

from duologue.clock import Clock, Timer
from duologue.items import Json
from duologue.realtime.errors import SessionClosedError
from duologue.realtime.session import Realtime
from duologue.simulator.expectations import Expectations
from duologue.simulator.faults import Error
from duologue.simulator.fields import Object, flag_at, new_id, objects_at
from duologue.simulator.gemini.answer import sound_message
from duologue.simulator.gemini.conversation import Conversation, cost_of, for_brain
from duologue.simulator.gemini.loopback import Loopback
from duologue.simulator.gemini.media import AudioInput, Image, image_of
from duologue.simulator.gemini.message_log import MessageLog
from duologue.simulator.gemini.replies import Replies
from duologue.simulator.gemini.resumption import Handles, Snapshot
from duologue.simulator.gemini.schema import CLIENT, MESSAGES
from duologue.simulator.gemini.setup import GENERAL, Setup
from duologue.simulator.gemini.shapes import INTERNAL, POLICY, RefusedError, read_object
from duologue.simulator.gemini.turns import HeardTurn, Turns

GONE = (
    "Connection aborted because the client failed to close the connection after receiving a GoAway "
    "signal once the session duration expired"
)
DEADLINE = "Deadline expired before operation could complete."
BROKEN = "Internal error encountered."

MOST_IMAGES = 2000
"""Pictures that are kept to be looked at; the oldest go."""
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
    """How the sessions of a simulator are; times in s of the clock.

    ``audio_limit_s`` and ``video_limit_s``: how long a session without compression may be.
    """

    transcription_delay: float = 0.0
    keep_audio: bool = False
    loopback: bool = False
    paraphrase: bool = False
    audio_pace: float = 4.0
    max_connection_s: float = 600.0
    go_away_s: float = 10.0
    max_session_s: float = 3480.0
    audio_limit_s: float = 900.0
    video_limit_s: float = 120.0


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
        self._options = options
        self._line = line
        self._clock = clock
        self._timers: list[Timer] = []
        self._configured = asyncio.Event()
        self._ready = False
        self._early: list[Object] = []
        self._log = MessageLog()
        self._messages = -1
        self._input = AudioInput()
        self._setup: Setup | None = None
        self._began = self._connected = 0.0
        self._video_since: float | None = None
        self._seeded = False
        self._told_idle = False
        self._leaving = False
        self._expectations: Expectations | None = None
        self.id = new_id("session")
        self.images: list[Image] = []
        """The pictures that the client sent."""
        self.audio_in_samples = 0
        """Sound taken so far, in samples at 16 kHz."""
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
        self._loopback = Loopback() if options.loopback else None

    @property
    def messages_in(self) -> list[Object]:
        """The client's messages in order, with names in camelCase; of media only the length."""
        return self._log.taken

    @property
    def messages_out(self) -> list[str]:
        """The kinds of the server's messages, in order."""
        return self._log.told

    @property
    def conversation(self) -> list[Object]:
        """The contents in order; of what the model said, what was sent."""
        return self._replies.conversation.contents

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
        return self._setup.value if self._setup is not None else {}

    @property
    def system_instruction(self) -> str:
        """What the model is told."""
        return self._setup.system_instruction if self._setup is not None else ""

    @property
    def tools(self) -> list[Object]:
        """The functions that the model may call, as they were declared."""
        return self._setup.declarations if self._setup is not None else []

    @property
    def heard(self) -> list[HeardTurn]:
        """The person's turns; with their sound if the simulator keeps it."""
        return self._turns.heard

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
        link = self._replies.link
        setup = self._setup or Setup({})
        async with asyncio.TaskGroup() as tasks:
            greeting = tasks.create_task(self._greet(), name="simulator greets")
            await link.run(setup.system_instruction, setup.tools)
            greeting.cancel()
        if not self.closed:
            self.refuse(RefusedError(link.error or BROKEN, INTERNAL))

    def close(self) -> None:
        """The line is gone."""
        if self._setup is not None and not self.closed:
            self._handles.closed(self.id)
        self.closed = True
        self._replies.close()
        self._turns.close()
        self._stop_timers()
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
            self.go_away(self._options.go_away_s)
        else:
            self.refuse(RefusedError(error.message, INTERNAL))

    def go_away(self, time_left: float) -> None:
        """Tell the client that the connection ends in so many seconds, and end it then."""
        self._stop_timers()
        self._say_go_away(time_left)
        self._at(self._clock.now() + time_left, lambda: self.refuse(RefusedError(GONE, POLICY)))

    def take(self, text: str | bytes) -> None:
        """A message of the client, as it came."""
        if self.closed:
            return
        try:
            value: Json = orjson.loads(text)
        except orjson.JSONDecodeError:
            value = None
        self._messages += 1
        try:
            if not isinstance(value, dict):
                raise RefusedError("Invalid JSON payload received. Unexpected token.")
            self._admit(read_object(CLIENT, value))
        except RefusedError as refusal:
            self.refuse(refusal)

    def _admit(self, message: Object) -> None:
        kinds = _kinds(message)
        self._log.take(kinds[0][0], message)
        for kind, _ in kinds:
            self.taken(kind)
        if self.closed:
            return
        if self._setup is None:
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
        self._began = self._connected = self._clock.now()
        if setup.handle:
            snapshot = self._handles.take(setup.handle)
            if snapshot.model != setup.model:
                raise RefusedError(GENERAL)
            self.resumed = True
            self.id = snapshot.session_id
            self._began, self._video_since = snapshot.began, snapshot.video_since
            self._replies.conversation = snapshot.conversation.copy()
        self._setup = self._replies.setup = setup
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
        self._arm()
        self.emit("setupComplete", {"setupComplete": {"sessionId": self.id}})
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
                    self._hear(_object(body))
                case "clientContent":
                    self._content(_object(body))
                case "toolResponse":
                    self._replies.respond(objects_at(body, "functionResponses"))
                case "contextUpdate":
                    self._update(_object(body))
                case _:
                    raise RefusedError(GENERAL)

    def _hear(self, body: Object) -> None:
        if self._waits_for_history:
            raise RefusedError(GENERAL)
        for name, value in body.items():
            match name:
                case "audio":
                    self._audio(value)
                case "video":
                    self._video(value)
                case "mediaChunks":
                    for blob in objects_at(body, name):
                        spoken = str(blob.get("mimeType", "")).startswith("audio/")
                        (self._audio if spoken else self._video)(blob)
                case "text":
                    self._turns.write(str(value))
                case "audioStreamEnd" if value is True:
                    self._turns.stream_end()
                case "activityStart":
                    self._turns.activity_start()
                case "activityEnd":
                    self._turns.activity_end()
                case _:
                    """``audioStreamEnd`` that is false."""

    def _audio(self, blob: Json) -> None:
        samples = self._input.read(blob)
        self.audio_in_samples += len(samples)
        if self._loopback is not None:
            self.emit(*sound_message(self._loopback.push(samples)))
        else:
            self._turns.push(samples)

    def _video(self, blob: Json) -> None:
        self.images.append(image_of(blob))
        del self.images[:-MOST_IMAGES]
        self._turns.picture()
        if self._video_since is None:
            self._video_since = self._clock.now()
            self._arm()

    def _content(self, body: Object) -> None:
        setup = self._replies.setup
        complete = flag_at(body, "turnComplete")
        history = self._waits_for_history
        if not history and setup.rules.seeds_only:
            raise RefusedError(GENERAL)
        if not history and (complete or setup.rules.content_interrupts):
            self._replies.interrupt()
        for turn in objects_at(body, "turns"):
            content: Object = {"role": turn.get("role") or "user", "parts": turn.get("parts") or []}
            cost = cost_of(content, setup.image_tokens)
            parts = content["parts"] if isinstance(content["parts"], list) else []
            self._replies.conversation.add(str(content["role"]), parts, cost)
            for item in for_brain(content, {}):
                self._replies.link.add(item)
        if complete and history:
            self._seeded = True
        elif complete:
            self._replies.want()
        self._tell_state(again=True)

    def _update(self, body: Object) -> None:
        setup = self._replies.setup.updated(body)
        self._setup = self._replies.setup = self._turns.setup = setup
        self._replies.link.configure(
            setup.system_instruction if "systemInstruction" in body else None,
            setup.tools if "tools" in body else None,
        )

    @property
    def _waits_for_history(self) -> bool:
        return self._replies.setup.seeded and not self._seeded and not self.resumed

    def _tell_state(self, *, again: bool = False) -> None:
        """Tell whether the session can be resumed, and by which handle, when that has changed."""
        setup = self._replies.setup
        idle = self._replies.idle
        if not self._ready or not setup.resumable or (not idle and not self._told_idle):
            return
        if idle and self._told_idle and not again:
            return
        self._told_idle = idle
        told: Object = {}
        if idle:
            told = {"newHandle": self._handles.give(self._snapshot()), "resumable": True}
            if setup.transparent:
                told["lastConsumedClientMessageIndex"] = str(self._messages)
        # What is false or empty is left out by proto JSON: not resumable is an empty object.
        self.emit("sessionResumptionUpdate", {"sessionResumptionUpdate": told})

    def _snapshot(self) -> Snapshot:
        return Snapshot(
            self.id,
            self._replies.setup.model,
            self._replies.conversation.copy(),
            self._began,
            self._video_since,
            self._clock.now(),
        )

    def _arm(self) -> None:
        """Have the connection end when it is to."""
        if self._leaving:
            return
        self._stop_timers()
        options, now = self._options, self._clock.now()
        ends = self._connected + options.max_connection_s
        if self._replies.setup.compression is None:
            ends = min(ends, self._began + options.audio_limit_s)
            if self._video_since is not None:
                ends = min(ends, self._video_since + options.video_limit_s)
        left = min(options.go_away_s, max(0.0, ends - now))
        self._at(ends - left, lambda: self._say_go_away(left))
        self._at(ends, lambda: self.refuse(RefusedError(GONE, POLICY)))
        deadline = self._connected + options.max_session_s
        self._at(deadline, lambda: self.refuse(RefusedError(DEADLINE, INTERNAL)))

    def _say_go_away(self, seconds: float) -> None:
        self._leaving = True
        self.emit("goAway", {"goAway": {"timeLeft": f"{seconds:.9g}s"}})

    def _at(self, when: float, then: Callable[[], None]) -> None:
        self._timers.append(self._clock.call_at(max(when, self._clock.now()), then))

    def _stop_timers(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()


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
