"""The part of a session that all dialects share: it receives events and sends events."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

import orjson

from duologue.audio import Samples
from duologue.clock import Clock, Timer
from duologue.errors import SessionClosedError
from duologue.json_types import JsonObject
from duologue.realtime.realtime import Realtime
from duologue.simulators._bounded_log import BoundedLog
from duologue.simulators._expectations import Expectations
from duologue.simulators._fields import new_id, read_json, text_at
from duologue.simulators._json_shapes import Shape
from duologue.simulators._openai_protocol.audio_formats import AudioDecoder
from duologue.simulators._openai_protocol.conversation import Conversation, Image
from duologue.simulators._openai_protocol.event_log import EventLog
from duologue.simulators._openai_protocol.loopback import Loopback
from duologue.simulators._openai_protocol.refusals import RefusedError, check_object
from duologue.simulators._openai_protocol.reply import OutgoingReply
from duologue.simulators._openai_protocol.responses import Responses
from duologue.simulators._openai_protocol.session_object import SessionObject
from duologue.simulators._openai_protocol.turns import UserTurn, UserTurns
from duologue.simulators._turn_detector import TurnTooShortError
from duologue.simulators.faults import Error

MAX_IMAGES = 2000
"""Newest images of a session that are kept for inspection."""
MAX_IMAGE_BYTES = 64 * 1024 * 1024
"""Bytes of the images that are kept; beyond it the oldest are dropped."""


class Channel(Protocol):
    """Where a session sends its events."""

    def client_event(self, kind: str) -> None:
        """Carry out the faults that an event of the client triggers."""

    def send(self, kind: str, text: str) -> None:
        """Queue an event; never waits."""

    def close(self, code: int, reason: str) -> None:
        """Close the connection after everything that is queued."""


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """Options of all sessions of a simulator; times in seconds of the clock."""

    transcription_delay: float = 0.0
    paraphrase: bool = False
    max_session_s: float = 3600.0
    keep_audio: bool = False
    loopback: bool = False


class EventSession(ABC):
    """One client's session, in some dialect. Public attributes are for tests to inspect.

    The session of a dialect sets ``_decoder``, ``_responses`` and ``_turns``, then calls
    `_create_loopback`.
    """

    client_events: ClassVar[Shape]
    """Every event that a client may send."""
    items: ClassVar[Mapping[str, Shape]]
    """Every item that a client may create, by its type."""
    item_objects: ClassVar[bool] = False
    """Whether items have a field ``object``."""

    _decoder: AudioDecoder
    _responses: Responses
    _turns: UserTurns

    def __init__(
        self,
        configuration: SessionObject,
        options: SessionOptions,
        channel: Channel,
        clock: Clock,
        expectations: Expectations | None,
    ) -> None:
        self._session_object = configuration
        self._options = options
        self._channel = channel
        self._clock = clock
        self._timer: Timer | None = None
        self._expectations = expectations
        self._log = EventLog()
        self._conversation = Conversation(self.items, objects=self.item_objects)
        self._loopback: Loopback | None = None
        self._images: BoundedLog[Image] = BoundedLog(MAX_IMAGES, MAX_IMAGE_BYTES)
        self.audio_in_samples = 0
        """Audio received so far, in samples at the rate of the session."""
        self.closed = False

    def _create_loopback(self) -> None:
        """Create the loopback, if the simulator is one. The responses must exist."""
        if self._options.loopback:
            self._loopback = Loopback(self._responses)

    def _reply_ended(self, reply: OutgoingReply) -> None:
        """Start the idle timeout after a reply."""
        self._turns.reply_ended(reply)

    # BackendObserver: called by the backend session

    def turn_transcribed(self, item_id: str, text: str, backend_item_id: str) -> None:
        """Send the transcript of a turn, and count the turn for the expectations."""
        self._turns.turn_transcribed(item_id, text, backend_item_id)
        if self._expectations is not None:
            self._expectations.turn_ended()

    def partial_transcript(self, text: str) -> None:
        """Send the transcript so far of a turn that lasts."""
        self._turns.partial_transcript(text)

    def reply_started(self) -> None:
        """Count a reply for the expectations of the script."""
        if self._expectations is not None:
            self._expectations.reply_started()

    @property
    def events_in(self) -> list[JsonObject]:
        """The client's events in order, with lengths in place of audio and images."""
        return self._log.client_events.entries

    @property
    def events_out(self) -> list[str]:
        """The types of the server's events, in order."""
        return self._log.server_events.entries

    @property
    def dropped(self) -> int:
        """Number of events of either side, images and turns that are no longer kept."""
        log = self._log
        dropped = log.client_events.dropped + log.server_events.dropped + log.appends_dropped
        return dropped + self._images.dropped + self._turns.recorded.dropped

    @property
    def images(self) -> list[Image]:
        """The newest images that the client sent."""
        return self._images.entries

    @property
    def conversation(self) -> list[JsonObject]:
        """The items in order, as the client would see them."""
        return self._conversation.items

    @property
    def session_object(self) -> JsonObject:
        """The session object."""
        return self._session_object.value

    @property
    def user_turns(self) -> list[UserTurn]:
        """The committed turns, with their audio if the simulator keeps it."""
        return self._turns.newest

    @property
    def backend(self) -> Realtime:
        """The model behind the session."""
        return self._responses.backend_session.backend

    async def run_backend(self) -> None:
        """Run the backend; if it fails, end the session with an error."""
        backend_session = self._responses.backend_session
        await backend_session.run(self._session_object.instructions, self._session_object.tools)
        if not self.closed:
            message = (
                backend_session.error or "The server had an error while processing your request."
            )
            self._responses.fail_all("server_error", message)
            self.send_error(RefusedError("server_error", message, kind="server_error"))
            self._channel.close(1011, "internal error")

    async def begin(self) -> None:
        """Send ``session.created``, once the backend is ready."""
        try:
            await self.backend.ready()
        except SessionClosedError:
            return  # `run_backend` has reported it.
        self._timer = self._clock.call_at(
            self._clock.now() + self._options.max_session_s, self.expire
        )
        self.emit("session.created", {"session": self._session_object.value})

    def close(self) -> None:
        """End the session, because its channel has ended."""
        self.closed = True
        self._turns.close()
        self._responses.close()
        if self._timer is not None:
            self._timer.cancel()
        if self._expectations is not None:
            self._expectations.close()

    def emit(self, kind: str, fields: JsonObject) -> None:
        """Send the client an event."""
        if self.closed:
            return
        self._log.record_server_event(kind)
        event = {"type": kind, "event_id": new_id("event"), **fields}
        self._channel.send(kind, orjson.dumps(event).decode())

    def send_error(self, refusal: RefusedError, event_id: str | None = None) -> None:
        """Send the client an error event; the session continues."""
        self.emit("error", {"error": self.error_object(refusal, event_id)})

    def inject_error(self, error: Error) -> None:
        """Send the client an error event that nothing has caused."""
        self.send_error(RefusedError(error.code, error.message, kind="server_error"))

    def receive(self, text: str | bytes) -> None:
        """Process an event of the client."""
        try:
            event = read_json(text)
        except ValueError:
            event = None
        if not isinstance(event, dict):
            self.send_error(RefusedError("invalid_json", "The event is not a JSON object."))
            return
        self._log.record_client_event(event, len(text))
        self._channel.client_event(text_at(event, "type"))
        try:
            given = self.read_event(event)
            self.handle(text_at(given, "type"), given)
        except RefusedError as refusal:
            self.send_error(refusal, text_at(event, "event_id") or None)
        if self._expectations is not None:
            self._expectations.client_event(event)

    def read_event(self, event: JsonObject) -> JsonObject:
        """Return an event of the client, if it has the right shape.

        Raises:
            RefusedError: It does not.
        """
        return check_object(self.client_events, event, "")

    def accept_audio(self, samples: Samples) -> None:
        """Accept the client's next audio, at the rate of the session."""
        self.audio_in_samples += len(samples)
        if self._loopback is not None:
            self._loopback.push(samples)
        else:
            self._turns.detector.push(samples)

    @abstractmethod
    def error_object(self, refusal: RefusedError, event_id: str | None) -> JsonObject:
        """Return the error in the form that the client receives."""

    @abstractmethod
    def handle(self, kind: str, event: JsonObject) -> None:
        """Process an event of the client that has the right shape.

        Raises:
            RefusedError: It cannot be carried out.
        """

    @abstractmethod
    def expire(self) -> None:
        """Close the session, because it has reached its maximum duration."""

    def commit_turn(self) -> None:
        """End the turn, because the client says so.

        Raises:
            RefusedError: The turn is too short.
        """
        self.accept_audio(self._decoder.flush())
        try:
            self._turns.detector.commit()
        except TurnTooShortError as error:
            raise self.turn_too_short(error.seconds) from None

    @abstractmethod
    def turn_too_short(self, seconds: float) -> RefusedError:
        """Return the refusal of a turn of only ``seconds``."""
