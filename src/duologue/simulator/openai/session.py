"""One session: takes the client's events, and tells it the server's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import orjson

from duologue.audio import Samples
from duologue.clock import Clock, Timer
from duologue.items import Json
from duologue.realtime.commands import DeleteItem
from duologue.realtime.errors import SessionClosedError
from duologue.realtime.session import Realtime
from duologue.simulator.expectations import Expectations
from duologue.simulator.fields import Object, inside, int_at, new_id, objects_at, text_at
from duologue.simulator.hearing import LEAST_S, TurnTooShortError
from duologue.simulator.openai.answer import Voice
from duologue.simulator.openai.configuration import Configuration
from duologue.simulator.openai.conversation import Conversation, Image, for_brain, images_of
from duologue.simulator.openai.event_log import EventLog
from duologue.simulator.openai.formats import AudioDecoder
from duologue.simulator.openai.loopback import Loopback
from duologue.simulator.openai.responses import Responses
from duologue.simulator.openai.schema import CLIENT_EVENTS
from duologue.simulator.openai.shapes import RefusedError, check
from duologue.simulator.openai.turns import HeardTurn, Turns
from duologue.simulator.openai.voices import EventVoice

TOO_LONG = "Your session hit the maximum duration of 60 minutes."


class Line(Protocol):
    """Where a session's events go."""

    def send(self, kind: str, text: str) -> None:
        """Send an event, in order; never waits."""

    def close(self, code: int, reason: str) -> None:
        """End the line, behind what was sent."""


class Player(Voice, Protocol):
    """The server's own output buffer, where there is one: over WebRTC."""

    def clear(self) -> Sequence[tuple[str, int]]:
        """Drop what was not sent; the items that this cut, and what was sent of each, in ms."""


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """How the sessions of a simulator are; times in s of the clock."""

    transcription_delay: float = 0.0
    paraphrase: bool = False
    max_session_s: float = 3600.0
    keep_audio: bool = False
    loopback: bool = False


class Session:
    """One client's session. Public attributes are for tests to look at."""

    def __init__(
        self,
        brain: Realtime,
        configuration: Configuration,
        options: SessionOptions,
        line: Line,
        clock: Clock,
        *,
        player: Player | None = None,
        expectations: Expectations | None = None,
    ) -> None:
        self._configuration = configuration
        self._options = options
        self._line = line
        self._clock = clock
        self._player = player
        self._timer: Timer | None = None
        self._decoder = AudioDecoder(configuration.input_format)
        self._expectations = expectations
        self._log = EventLog()
        self._conversation = Conversation()
        self.images: list[Image] = []
        """The pictures that the client sent."""
        self.audio_in_samples = 0
        """Sound taken so far, in samples at 24 kHz."""
        self.closed = False
        self.taken: Callable[[str], None] = lambda _: None
        """Is told the type of each event of the client, before anything is done about it."""
        self._responses = Responses(
            brain,
            configuration,
            self._conversation,
            self.emit,
            player or EventVoice(self.emit),
            clock,
            paraphrase=options.paraphrase,
        )
        self._turns = Turns(
            configuration,
            self._conversation,
            self._responses,
            self.emit,
            clock,
            transcription_delay=options.transcription_delay,
            keep_audio=options.keep_audio,
        )
        self._turns.interrupt = self._interrupt
        self._turns.refused = self.refuse
        self._loopback = (
            Loopback(self._responses, configuration, self._conversation.id)
            if options.loopback
            else None
        )
        if expectations is not None:
            self._responses.link.on_turn = expectations.turn
            self._responses.link.on_reply = expectations.reply

    @property
    def events_in(self) -> list[Object]:
        """The client's events in order; of sound only the length of its text."""
        return self._log.taken

    @property
    def events_out(self) -> list[str]:
        """The types of the server's events, in order."""
        return self._log.told

    @property
    def conversation(self) -> list[Object]:
        """The items in order, as the client would be shown them."""
        return self._conversation.items

    @property
    def configuration(self) -> Object:
        """The session object."""
        return self._configuration.value

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
        await link.run(self._configuration.instructions, self._configuration.tools)
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
            self._clock.now() + self._options.max_session_s,
            lambda: self._line.close(1001, TOO_LONG),
        )
        self.emit("session.created", {"session": self._configuration.value})

    def close(self) -> None:
        """The line is gone."""
        self.closed = True
        self._turns.close()
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
        error: Object = {
            "type": refusal.kind,
            "code": refusal.code,
            "message": refusal.message,
            "param": refusal.param,
            "event_id": event_id,
        }
        self.emit("error", {"error": error})

    def take(self, text: str | bytes) -> None:
        """An event of the client, as it came."""
        try:
            event: Json = orjson.loads(text)
        except orjson.JSONDecodeError:
            event = None
        if not isinstance(event, dict):
            self.refuse(RefusedError("invalid_json", "The event is not a JSON object."))
            return
        self._log.take(event)
        self.taken(text_at(event, "type"))
        try:
            check(CLIENT_EVENTS, event, "")
            self._take(text_at(event, "type"), event)
        except RefusedError as refusal:
            self.refuse(refusal, text_at(event, "event_id") or None)
        if self._expectations is not None:
            self._expectations.saw(event)

    def hear(self, samples: Samples) -> None:
        """The client's next sound, at 24 kHz."""
        self.audio_in_samples += len(samples)
        if self._loopback is not None:
            self._loopback.push(samples)
        else:
            self._turns.hearing.push(samples)

    def _take(self, kind: str, event: Object) -> None:
        match kind:
            case "input_audio_buffer.append":
                self.hear(self._decoder.decode(text_at(event, "audio")))
            case "input_audio_buffer.commit":
                self._commit()
            case "input_audio_buffer.clear":
                self._turns.clear()
            case "output_audio_buffer.clear":
                if self._player is None:
                    raise RefusedError(
                        "invalid_value",
                        "output_audio_buffer.clear is for WebRTC and SIP sessions only.",
                        "type",
                    )
                self._clear_output()
            case "response.create":
                self._responses.create(event.get("response"))
            case "response.cancel":
                self._responses.cancel("client_cancelled", text_at(event, "response_id") or None)
            case "conversation.item.create":
                self._create_item(event)
            case "conversation.item.delete":
                self._delete_item(text_at(event, "item_id"))
            case "conversation.item.retrieve":
                item = self._conversation.find(text_at(event, "item_id"))
                self.emit("conversation.item.retrieved", {"item": item})
            case "conversation.item.truncate":
                end_ms = int_at(event, "audio_end_ms")
                self._truncate(text_at(event, "item_id"), int_at(event, "content_index"), end_ms)
            case "session.update":
                self._update(event["session"])

    def _commit(self) -> None:
        try:
            self._turns.hearing.commit()
        except TurnTooShortError as error:
            raise RefusedError(
                "input_audio_buffer_commit_empty",
                "Error committing input audio buffer: buffer too small. Expected at least "
                f"{LEAST_S * 1000:.0f}ms of audio, but buffer only has "
                f"{error.seconds * 1000:.2f}ms of audio.",
            ) from None

    def _update(self, change: Json) -> None:
        before = self._configuration.value
        self._configuration.update(change, spoken=self._responses.spoken)
        now = self._configuration.value
        if inside(before, "audio", "input", "format") != self._configuration.input_format:
            self._decoder = AudioDecoder(self._configuration.input_format)
        detection = ("audio", "input", "turn_detection")
        if inside(before, *detection) != inside(now, *detection):
            self._turns.configure()
        changed = now["instructions"] != before["instructions"]
        self._responses.link.configure(
            self._configuration.instructions if changed else None,
            self._configuration.tools if now["tools"] != before["tools"] else None,
        )
        self.emit("session.updated", {"session": now})

    def _create_item(self, event: Object) -> None:
        item = self._conversation.create(event["item"])
        images = images_of(item)
        for part in objects_at(item, "content"):
            if part["type"] == "input_audio":
                decoder = AudioDecoder(self._configuration.input_format)
                samples = len(decoder.decode(text_at(part, "audio")))
                self._conversation.audio_ms[text_at(item, "id")] = samples // 24
                del part["audio"]
        before = self._conversation.put(item, text_at(event, "previous_item_id") or None)
        self.images += images
        self._responses.link.add(for_brain(item))
        for kind in ("added", "done"):
            self.emit(f"conversation.item.{kind}", {"previous_item_id": before, "item": item})

    def _delete_item(self, item_id: str) -> None:
        self._conversation.delete(item_id)
        brain_id = self._conversation.brain_ids.pop(item_id, item_id)
        self._responses.link.edit(DeleteItem(brain_id))
        self.emit("conversation.item.deleted", {"item_id": item_id})

    def _truncate(self, item_id: str, content_index: int, end_ms: int) -> None:
        heard = self._conversation.truncate(item_id, content_index, end_ms)
        self._responses.cut(item_id, end_ms, heard)
        self.emit(
            "conversation.item.truncated",
            {"item_id": item_id, "content_index": content_index, "audio_end_ms": end_ms},
        )

    def _interrupt(self) -> None:
        """The person speaks: end the response, and over WebRTC what still plays of it."""
        if self._responses.active is not None:
            self._responses.cancel("turn_detected")
        self._clear_output()

    def _clear_output(self) -> None:
        for item_id, sent_ms in self._player.clear() if self._player is not None else ():
            if self._conversation.has(item_id):
                length = self._conversation.audio_ms.get(item_id, 0)
                self._truncate(item_id, 0, min(sent_ms, length))
