"""One session of OpenAI's own dialect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Protocol

from duologue.clock import Clock
from duologue.json_types import Json, JsonObject
from duologue.realtime.commands import DeleteItem
from duologue.realtime.realtime import Realtime
from duologue.simulators._expectations import Expectations
from duologue.simulators._fields import int_at, objects_at, text_at, value_at
from duologue.simulators._json_shapes import Shape
from duologue.simulators._openai_protocol.audio_formats import AudioDecoder
from duologue.simulators._openai_protocol.audio_sinks import EventAudioSink
from duologue.simulators._openai_protocol.conversation import parse_images, to_item
from duologue.simulators._openai_protocol.dialect import GA
from duologue.simulators._openai_protocol.event_session import (
    Channel,
    EventSession,
    SessionOptions,
)
from duologue.simulators._openai_protocol.refusals import RefusedError
from duologue.simulators._openai_protocol.reply import AudioSink
from duologue.simulators._openai_protocol.responses import Responses
from duologue.simulators._openai_protocol.schema import CLIENT_EVENTS, ITEMS
from duologue.simulators._openai_protocol.session_object import OpenAISessionObject
from duologue.simulators._openai_protocol.turns import UserTurns
from duologue.simulators._turn_detector import MIN_TURN_S

MAX_DURATION_REASON = "Your session hit the maximum duration of 60 minutes."


class OutputPlayer(AudioSink, Protocol):
    """The server's own output buffer, which exists over WebRTC only."""

    def clear(self) -> Sequence[tuple[str, int]]:
        """Drop the unsent audio; return each item that this cuts, and the ms sent of it."""


class OpenAISession(EventSession):
    """One client's session. Public attributes are for tests to inspect."""

    client_events: ClassVar[Shape] = CLIENT_EVENTS
    items: ClassVar[Mapping[str, Shape]] = ITEMS

    def __init__(
        self,
        backend: Realtime,
        configuration: OpenAISessionObject,
        options: SessionOptions,
        channel: Channel,
        clock: Clock,
        *,
        player: OutputPlayer | None = None,
        expectations: Expectations | None = None,
    ) -> None:
        super().__init__(configuration, options, channel, clock, expectations)
        self._configuration = configuration
        self._player = player
        self._decoder = AudioDecoder(configuration.input_format)
        self._responses = Responses(
            backend,
            self,
            configuration,
            self._conversation,
            self.emit,
            player or EventAudioSink(self.emit),
            clock,
            reply_ended=self._reply_ended,
            paraphrase=options.paraphrase,
        )
        self._turns = UserTurns(
            configuration,
            self._conversation,
            self._responses,
            self.emit,
            clock,
            interrupt=self._interrupt,
            refused=self.send_error,
            transcription_delay=options.transcription_delay,
            keep_audio=options.keep_audio,
        )
        self._create_loopback()

    def expire(self) -> None:
        """Close the session, because it has reached its maximum duration."""
        self._channel.close(1001, MAX_DURATION_REASON)

    def error_object(self, refusal: RefusedError, event_id: str | None) -> JsonObject:
        """Return the error in OpenAI's form."""
        return {
            "type": refusal.kind,
            "code": refusal.code,
            "message": refusal.message,
            "param": refusal.param,
            "event_id": event_id,
        }

    def turn_too_short(self, seconds: float) -> RefusedError:
        """Return the refusal of a turn of only ``seconds``."""
        return RefusedError(
            "input_audio_buffer_commit_empty",
            "Error committing input audio buffer: buffer too small. Expected at least "
            f"{MIN_TURN_S * 1000:.0f}ms of audio, but buffer only has {seconds * 1000:.2f}ms "
            "of audio.",
        )

    def handle(self, kind: str, event: JsonObject) -> None:
        """Process an event of the client that has the right shape.

        Raises:
            RefusedError: It cannot be carried out.
        """
        match kind:
            case "input_audio_buffer.append":
                self.accept_audio(self._decoder.decode(text_at(event, "audio")))
            case "input_audio_buffer.commit":
                self.commit_turn()
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

    def read_event(self, event: JsonObject) -> JsonObject:
        """Return an event of the client that has the right shape."""
        if value_at(event, "session", "type") == "transcription":
            raise RefusedError(
                "invalid_model",
                "You must not provide a model parameter for transcription sessions.",
                "session.type",
            )
        return super().read_event(event)

    def _update(self, change: Json) -> None:
        before = self._configuration.value
        self._configuration.update(change, has_spoken=self._responses.has_spoken)
        now = self._configuration.value
        if value_at(before, "audio", "input", "format") != self._configuration.input_format:
            self._decoder = AudioDecoder(self._configuration.input_format)
        detection = ("audio", "input", "turn_detection")
        if value_at(before, *detection) != value_at(now, *detection):
            self._turns.configure()
        changed = now["instructions"] != before["instructions"]
        self._responses.backend_session.configure(
            self._configuration.instructions if changed else None,
            self._configuration.tools if now["tools"] != before["tools"] else None,
        )
        self.emit("session.updated", {"session": now})

    def _create_item(self, event: JsonObject) -> None:
        item = self._conversation.create(event["item"])
        images = parse_images(item)
        for part in objects_at(item, "content"):
            if part["type"] == "input_audio":
                decoder = AudioDecoder(self._configuration.input_format)
                samples = len(decoder.decode(text_at(part, "audio")))
                self._conversation.audio_ms[text_at(item, "id")] = samples // 24
                del part["audio"]
        before = self._conversation.insert(item, text_at(event, "previous_item_id") or None)
        for image in images:
            self._images.add(image, len(image.data))
        self._responses.backend_session.add_item(to_item(item))
        GA.send_item_added(self.emit, before, item)

    def _delete_item(self, item_id: str) -> None:
        self._conversation.delete(item_id)
        backend_item_id = self._conversation.backend_ids.pop(item_id, item_id)
        self._responses.backend_session.edit_item(DeleteItem(backend_item_id))
        self.emit("conversation.item.deleted", {"item_id": item_id})

    def _truncate(self, item_id: str, content_index: int, end_ms: int) -> None:
        text_before = self._conversation.truncate(item_id, content_index, end_ms)
        self._responses.truncate(item_id, end_ms, text_before)
        self.emit(
            "conversation.item.truncated",
            {"item_id": item_id, "content_index": content_index, "audio_end_ms": end_ms},
        )

    def _interrupt(self) -> None:
        """End the reply because the user speaks; over WebRTC also drop what still plays of it."""
        if self._responses.active is not None:
            self._responses.cancel("turn_detected")
        self._clear_output()

    def _clear_output(self) -> None:
        for item_id, sent_ms in self._player.clear() if self._player is not None else ():
            if self._conversation.has(item_id):
                length = self._conversation.audio_ms.get(item_id, 0)
                self._truncate(item_id, 0, min(sent_ms, length))
