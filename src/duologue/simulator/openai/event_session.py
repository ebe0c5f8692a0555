"""What the sessions of all dialects do: take the client's events, and tell it the server's."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

import orjson

from duologue.audio import Samples
from duologue.clock import Clock, Timer
from duologue.realtime.errors import SessionClosedError
from duologue.realtime.session import Realtime
from duologue.simulator.expectations import Expectations
from duologue.simulator.faults import Error
from duologue.simulator.fields import Object, new_id, read_json, text_at
from duologue.simulator.hearing import TurnTooShortError
from duologue.simulator.kept import Kept
from duologue.simulator.openai.configuration import SessionObject
from duologue.simulator.openai.conversation import Conversation, Image
from duologue.simulator.openai.event_log import EventLog
from duologue.simulator.openai.formats import AudioDecoder
from duologue.simulator.openai.loopback import Loopback
from duologue.simulator.openai.responses import Responses
from duologue.simulator.openai.shapes import RefusedError, Shape, Tagged, check_object
from duologue.simulator.openai.turns import HeardTurn, Turns

MAX_IMAGES = 2000
"""Newest images of a session that are kept for inspection."""
MAX_IMAGE_BYTES = 64 * 1024 * 1024
"""Bytes of the images that are kept; beyond it the oldest are dropped."""


class Line(Protocol):
    """Where a session's events go."""

    def send(self, kind: str, text: str) -> None:
        """Send an event, in order; never waits."""

    def close(self, code: int, reason: str) -> None:
        """End the line, behind what was sent."""


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """How the sessions of a simulator are; times in s of the clock."""

    transcription_delay: float = 0.0
    paraphrase: bool = False
    max_session_s: float = 3600.0
    keep_audio: bool = False
    loopback: bool = False


class EventSession(ABC):
    """One client's session, in some dialect. Public attributes are for tests to look at.

    A dialect's own session sets ``_decoder``, ``_responses`` and ``_turns``, then calls
    `_begin_with_them`.
    """

    client_events: ClassVar[Tagged]
    """Every event that a client may send."""
    items: ClassVar[Mapping[str, Shape]]
    """Every item that a client may create, by its type."""
    item_objects: ClassVar[bool] = False
    """Whether items have a field ``object``."""

    taken: Callable[[str], None]
    """Is told the type of each event of the client, before anything is done about it."""

    _decoder: AudioDecoder
    _responses: Responses
    _turns: Turns

    def __init__(
        self,
        configuration: SessionObject,
        options: SessionOptions,
        line: Line,
        clock: Clock,
        expectations: Expectations | None,
    ) -> None:
        self._configured = configuration
        self._options = options
        self._line = line
        self._clock = clock
        self._timer: Timer | None = None
        self._expectations = expectations
        self._log = EventLog()
        self._conversation = Conversation(self.items, objects=self.item_objects)
        self._loopback: Loopback | None = None
        self._images: Kept[Image] = Kept(MAX_IMAGES, MAX_IMAGE_BYTES)
        self.audio_in_samples = 0
        """Sound taken so far, in samples at the rate of the session."""
        self.closed = False
        self.taken = lambda _: None

    def _begin_with_them(self, interrupt: Callable[[], None]) -> None:
        """Tie turns, responses and expectations together; ``interrupt`` stops what is said."""
        self._turns.interrupt = interrupt
        self._turns.refused = self.refuse
        if self._options.loopback:
            self._loopback = Loopback(self._responses)
        if self._expectations is not None:
            self._responses.link.on_turn = self._expectations.turn
            self._responses.link.on_reply = self._expectations.reply

    @property
    def events_in(self) -> list[Object]:
        """The client's events in order; of sound only the length of its text."""
        return self._log.taken.entries

    @property
    def events_out(self) -> list[str]:
        """The types of the server's events, in order."""
        return self._log.told.entries

    @property
    def dropped(self) -> int:
        """Events of either side, images and turns that were dropped as too many."""
        log = self._log
        kept = log.taken.dropped + log.told.dropped + log.appends_dropped
        return kept + self._images.dropped + self._turns.kept.dropped

    @property
    def images(self) -> list[Image]:
        """The newest images that the client sent."""
        return self._images.entries

    @property
    def conversation(self) -> list[Object]:
        """The items in order, as the client would be shown them."""
        return self._conversation.items

    @property
    def configuration(self) -> Object:
        """The session object."""
        return self._configured.value

    @property
    def heard(self) -> list[HeardTurn]:
        """The committed turns; with their sound if the simulator keeps it."""
        return self._turns.heard

    @property
    def brain(self) -> Realtime:
        """The model behind it."""
        return self._responses.link.brain

    async def run_brain(self) -> None:
        """Live as long as the brain; when that fails the session ends with an error."""
        link = self._responses.link
        await link.run(self._configured.instructions, self._configured.tools)
        if not self.closed:
            message = link.error or "The server had an error while processing your request."
            self._responses.fail("server_error", message)
            self.refuse(RefusedError("server_error", message, kind="server_error"))
            self._line.close(1011, "internal error")

    async def begin(self) -> None:
        """Tell the client that the session is there, once the brain is."""
        try:
            await self.brain.ready()
        except SessionClosedError:
            return  # `run_brain` has told it.
        self._timer = self._clock.call_at(
            self._clock.now() + self._options.max_session_s, self.expire
        )
        self.emit("session.created", {"session": self._configured.value})

    def close(self) -> None:
        """The line is gone."""
        self.closed = True
        self._turns.close()
        self._responses.close()
        if self._timer is not None:
            self._timer.cancel()
        if self._expectations is not None:
            self._expectations.close()

    def emit(self, kind: str, fields: Object) -> None:
        """Tell the client an event."""
        if self.closed:
            return
        self._log.tell(kind)
        event = {"type": kind, "event_id": new_id("event"), **fields}
        self._line.send(kind, orjson.dumps(event).decode())

    def refuse(self, refusal: RefusedError, event_id: str | None = None) -> None:
        """Tell the client an error; the session goes on."""
        self.emit("error", {"error": self.error_of(refusal, event_id)})

    def complain(self, error: Error) -> None:
        """Tell the client an error that nobody made."""
        self.refuse(RefusedError(error.code, error.message, kind="server_error"))

    def take(self, text: str | bytes) -> None:
        """An event of the client, as it came."""
        try:
            event = read_json(text)
        except ValueError:
            event = None
        if not isinstance(event, dict):
            self.refuse(RefusedError("invalid_json", "The event is not a JSON object."))
            return
        self._log.take(event, len(text))
        self.taken(text_at(event, "type"))
        try:
            given = check_object(self.client_events, event, "")
            self.handle(text_at(given, "type"), given)
        except RefusedError as refusal:
            self.refuse(refusal, text_at(event, "event_id") or None)
        if self._expectations is not None:
            self._expectations.saw(event)

    def hear(self, samples: Samples) -> None:
        """The client's next sound, at the rate of the session."""
        self.audio_in_samples += len(samples)
        if self._loopback is not None:
            self._loopback.push(samples)
        else:
            self._turns.hearing.push(samples)

    @abstractmethod
    def error_of(self, refusal: RefusedError, event_id: str | None) -> Object:
        """The error as the client is told it."""

    @abstractmethod
    def handle(self, kind: str, event: Object) -> None:
        """An event of the client, of a right shape. Raises `RefusedError`."""

    @abstractmethod
    def expire(self) -> None:
        """The session has lasted as long as it may."""

    def commit(self) -> None:
        """The client ends its turn. Raises `RefusedError` when it is too short."""
        self.hear(self._decoder.flush())
        try:
            self._turns.hearing.commit()
        except TurnTooShortError as error:
            raise self.too_short(error.seconds) from None

    @abstractmethod
    def too_short(self, seconds: float) -> RefusedError:
        """The refusal of a turn of so few seconds."""
