"""One session of this service's dialect."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from duologue.audio import Resampler, Samples
from duologue.clock import Clock, Timer
from duologue.json_types import Json, JsonObject
from duologue.realtime.realtime import Realtime
from duologue.simulators._expectations import Expectations
from duologue.simulators._fields import text_at
from duologue.simulators._json_shapes import Shape
from duologue.simulators._openai_protocol.audio_formats import AudioDecoder, decode_base64
from duologue.simulators._openai_protocol.audio_sinks import EventAudioSink
from duologue.simulators._openai_protocol.conversation import Image, to_item
from duologue.simulators._openai_protocol.event_session import (
    Channel,
    EventSession,
    SessionOptions,
)
from duologue.simulators._openai_protocol.refusals import RefusedError
from duologue.simulators._openai_protocol.reply import OutgoingReply
from duologue.simulators._openai_protocol.turns import UserTurn
from duologue.simulators.qwen._dialect import BETA, INPUT_RATE
from duologue.simulators.qwen._images import decode_pixels, parse_jpeg
from duologue.simulators.qwen._reply import QwenReply, UnfinishedReply
from duologue.simulators.qwen._responses import QwenResponses
from duologue.simulators.qwen._schema import CLIENT_EVENTS, ITEMS
from duologue.simulators.qwen._session_object import QwenSessionObject
from duologue.simulators.qwen._turns import QwenUserTurns
from duologue.simulators.qwen.faults import IDLE_REASON, MAX_DURATION_REASON
from duologue.video import VideoFrame

_CODES = ("unknown_parameter", "missing_required_parameter", "cannot_update_voice")
"""Error codes that are more specific than ``invalid_value``."""


@dataclass(frozen=True, slots=True)
class QwenOptions(SessionOptions):
    """Options of all sessions of a simulator; times in seconds of the clock."""

    idle_s: float = 300.0
    done_after_cancel: bool = True


class QwenSession(EventSession):
    """One client's session. Public attributes are for tests to inspect."""

    client_events: ClassVar[Shape] = CLIENT_EVENTS
    items: ClassVar[Mapping[str, Shape]] = ITEMS
    item_objects: ClassVar[bool] = BETA.item_objects

    def __init__(
        self,
        backend: Realtime,
        configuration: QwenSessionObject,
        options: QwenOptions,
        channel: Channel,
        clock: Clock,
        *,
        expectations: Expectations | None = None,
    ) -> None:
        super().__init__(configuration, options, channel, clock, expectations)
        self._configuration = configuration
        self._idle_s = options.idle_s
        self._idle_timer: Timer | None = None
        self._last_event_at = clock.now()
        self._finishing = False
        self._has_audio = False
        """Whether the input buffer holds audio; images are accepted only then."""
        self._decoder = self._new_decoder()
        self._to_backend = Resampler(INPUT_RATE, backend.capabilities.output_rate)
        self._responses: QwenResponses = QwenResponses(
            backend,
            self,
            configuration,
            self._conversation,
            self.emit,
            EventAudioSink(self.emit),
            clock,
            reply_ended=self._reply_ended,
            paraphrase=options.paraphrase,
            rate=INPUT_RATE,
        )
        done = options.done_after_cancel
        self._responses.reply_type = QwenReply if done else UnfinishedReply
        self._turns: QwenUserTurns = QwenUserTurns(
            configuration,
            self._conversation,
            self._responses,
            self.emit,
            clock,
            interrupt=self._interrupt,
            refused=self.send_error,
            committed=self._turn_committed,
            transcription_delay=options.transcription_delay,
            keep_audio=options.keep_audio,
            rate=INPUT_RATE,
        )
        self._turns.manual_transcripts = configuration.features.manual_transcripts
        self._create_loopback()

    async def begin(self) -> None:
        """Send ``session.created``, once the backend is ready."""
        await super().begin()
        self._last_event_at = self._clock.now()
        self._check_idle()

    def close(self) -> None:
        """End the session, because its channel has ended."""
        super().close()
        if self._idle_timer is not None:
            self._idle_timer.cancel()

    def receive(self, text: str | bytes) -> None:
        """Process an event of the client."""
        self._last_event_at = self._clock.now()
        super().receive(text)

    def expire(self) -> None:
        """Close the session, because it has reached its maximum duration."""
        self._channel.close(1000, MAX_DURATION_REASON)

    def error_object(self, refusal: RefusedError, event_id: str | None) -> JsonObject:
        """Return the error in the form of this service: without event id, and with fewer codes."""
        error: JsonObject = {"type": refusal.kind}
        if refusal.param and refusal.code not in _CODES:
            error["code"] = "invalid_value"
        elif refusal.code:
            error["code"] = refusal.code
        error["message"] = refusal.message
        if refusal.param:
            error["param"] = refusal.param
        return error

    def turn_too_short(self, seconds: float) -> RefusedError:
        """Return the refusal of a turn that is too short, or that the service detects itself."""
        return RefusedError(
            "", "Error committing input audio buffer, maybe no invalid audio stream."
        )

    def accept_audio(self, samples: Samples) -> None:
        """Accept the client's next audio, at the rate of the session."""
        if self._loopback is None:
            super().accept_audio(samples)
        else:
            self.audio_in_samples += len(samples)
            self._loopback.push(self._to_backend.push(samples))

    def handle(self, kind: str, event: JsonObject) -> None:
        """Process an event of the client that has the right shape.

        Raises:
            RefusedError: It cannot be carried out.
        """
        match kind:
            case "input_audio_buffer.append":
                self._append_audio(decode_base64(text_at(event, "audio")))
            case "input_image_buffer.append":
                self._append_image(text_at(event, "image"))
            case "input_audio_buffer.commit":
                if self._configuration.turn_detection is not None:
                    raise self.turn_too_short(0.0)
                self.commit_turn()
            case "input_audio_buffer.clear":
                self._has_audio = False
                self._turns.clear()
            case "response.create":
                self._responses.create(event.get("response"))
            case "response.cancel":
                self._responses.cancel("client_cancelled", text_at(event, "response_id") or None)
            case "conversation.item.create":
                self._create_item(event)
            case "session.update":
                self._update(event["session"])
            case "session.finish":
                self._finishing = True
                self._finish()

    def _update(self, change: Json) -> None:
        before, rate = self._configuration.value, self._configuration.input_rate
        self._configuration.update(change, has_spoken=self._responses.has_spoken)
        now = self._configuration.value
        if self._configuration.input_rate != rate:
            self._decoder = self._new_decoder()
        self._responses.output_rate = self._configuration.output_rate
        if before["turn_detection"] != now["turn_detection"]:
            self._turns.configure()
        changed = now["instructions"] != before["instructions"]
        self._responses.backend_session.configure(
            self._configuration.instructions if changed else None,
            self._configuration.tools if now["tools"] != before["tools"] else None,
        )
        self.emit("session.updated", {"session": now})

    def _new_decoder(self) -> AudioDecoder:
        wire: JsonObject = {"type": "audio/pcm", "rate": self._configuration.input_rate}
        return AudioDecoder(wire, INPUT_RATE)

    def _append_audio(self, data: bytes) -> None:
        if self._configuration.input_wav and data.startswith(b"RIFF"):
            data = data[data.find(b"data") + 8 :]
        samples = self._decoder.read(data)
        self._has_audio = True
        self.accept_audio(samples)

    def _create_item(self, event: JsonObject) -> None:
        item = self._conversation.create(event["item"])
        if item["type"] == "message" and not self._configuration.features.text_items:
            raise RefusedError(
                "invalid_value",
                f"{self._configuration.value['model']} does not support items of text.",
                "item.type",
            )
        before = self._conversation.insert(item, text_at(event, "previous_item_id") or None)
        self._responses.backend_session.add_item(to_item(item))
        BETA.send_item_added(self.emit, before, item)

    def _append_image(self, text: str) -> None:
        """Accept an image, which belongs to the audio in the buffer."""
        if not self._has_audio:
            raise RefusedError("", "Error append image before append audio.")
        jpeg = parse_jpeg(text)
        pixels = decode_pixels(jpeg)
        self._images.add(Image("", "image/jpeg", jpeg, "auto"), len(jpeg))
        self._responses.image_count += 1
        backend = self._responses.backend_session.backend
        if backend.connected and backend.capabilities.video:
            backend.send_video(VideoFrame(pixels, self._clock.now()), in_order=True)

    def _reply_ended(self, reply: OutgoingReply) -> None:
        super()._reply_ended(reply)
        self._finish()

    def _turn_committed(self, turn: UserTurn) -> None:
        del turn
        self._has_audio = False

    def _interrupt(self) -> None:
        if self._responses.active is not None:
            self._responses.cancel("turn_detected")

    def _finish(self) -> None:
        """Close the session, if it is to finish and no reply is in progress or due to a turn."""
        if not self._finishing or self._responses.pending or self._turns.awaits_transcript:
            return
        if self._configuration.features.acknowledges_finish:
            self.emit("session.finished", {})
        self._channel.close(1000, "")

    def _check_idle(self) -> None:
        """Close the session if the client has sent no event for too long."""
        if self.closed:
            return
        # Compared with the exact time of the timer: the difference of two times may be rounded
        # down, and
        # the timer would then be due again forever.
        due = self._last_event_at + self._idle_s
        if self._clock.now() >= due:
            self._channel.close(1007, IDLE_REASON)
            return
        self._idle_timer = self._clock.call_at(due, self._check_idle)
