"""One session of OpenAI's own dialect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Protocol

from duologue.clock import Clock
from duologue.items import Json
from duologue.realtime.commands import DeleteItem
from duologue.realtime.session import Realtime
from duologue.simulator.expectations import Expectations
from duologue.simulator.fields import Object, inside, int_at, objects_at, text_at
from duologue.simulator.hearing import LEAST_S
from duologue.simulator.openai.answer import Voice
from duologue.simulator.openai.configuration import Configuration
from duologue.simulator.openai.conversation import for_brain, images_of
from duologue.simulator.openai.dialect import GA
from duologue.simulator.openai.event_session import EventSession, Line, SessionOptions
from duologue.simulator.openai.formats import AudioDecoder
from duologue.simulator.openai.responses import Responses
from duologue.simulator.openai.schema import CLIENT_EVENTS, ITEMS
from duologue.simulator.openai.shapes import RefusedError, Shape, Tagged
from duologue.simulator.openai.turns import Turns
from duologue.simulator.openai.voices import EventVoice

TOO_LONG = "Your session hit the maximum duration of 60 minutes."


class Player(Voice, Protocol):
    """The server's own output buffer, where there is one: over WebRTC."""

    def clear(self) -> Sequence[tuple[str, int]]:
        """Drop what was not sent; the items that this cut, and what was sent of each, in ms."""


class Session(EventSession):
    """One client's session. Public attributes are for tests to look at."""

    client_events: ClassVar[Tagged] = CLIENT_EVENTS
    items: ClassVar[Mapping[str, Shape]] = ITEMS

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
        super().__init__(configuration, options, line, clock, expectations)
        self._configuration = configuration
        self._player = player
        self._decoder = AudioDecoder(configuration.input_format)
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
        self._begin_with_them(self._interrupt)

    def expire(self) -> None:
        """An hour is over."""
        self._line.close(1001, TOO_LONG)

    def error_of(self, refusal: RefusedError, event_id: str | None) -> Object:
        """The error as OpenAI tells it."""
        return {
            "type": refusal.kind,
            "code": refusal.code,
            "message": refusal.message,
            "param": refusal.param,
            "event_id": event_id,
        }

    def too_short(self, seconds: float) -> RefusedError:
        """The refusal of a turn of so few seconds."""
        return RefusedError(
            "input_audio_buffer_commit_empty",
            "Error committing input audio buffer: buffer too small. Expected at least "
            f"{LEAST_S * 1000:.0f}ms of audio, but buffer only has {seconds * 1000:.2f}ms "
            "of audio.",
        )

    def handle(self, kind: str, event: Object) -> None:
        """An event of the client, of a right shape. Raises `RefusedError`."""
        match kind:
            case "input_audio_buffer.append":
                self.hear(self._decoder.decode(text_at(event, "audio")))
            case "input_audio_buffer.commit":
                self.commit()
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
        for image in images:
            self._images.add(image, len(image.data))
        self._responses.link.add(for_brain(item))
        GA.tell_put(self.emit, before, item)

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
