"""One session of this service's dialect."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from duologue.audio import Resampler, Samples
from duologue.clock import Clock, Timer
from duologue.items import Json
from duologue.realtime.session import Realtime
from duologue.simulator.expectations import Expectations
from duologue.simulator.fields import Object, text_at
from duologue.simulator.openai.answer import Answer
from duologue.simulator.openai.conversation import Image, for_brain
from duologue.simulator.openai.event_session import EventSession, Line, SessionOptions
from duologue.simulator.openai.formats import AudioDecoder, bytes_of
from duologue.simulator.openai.shapes import RefusedError, Shape, Tagged
from duologue.simulator.openai.turns import HeardTurn
from duologue.simulator.openai.voices import EventVoice
from duologue.simulator.qwen.answer import QwenAnswer, UnfinishedAnswer
from duologue.simulator.qwen.configuration import Configuration
from duologue.simulator.qwen.dialect import BETA, HEARD_RATE
from duologue.simulator.qwen.faults import IDLE, LONG
from duologue.simulator.qwen.pictures import jpeg_of, pixels_of
from duologue.simulator.qwen.responses import QwenResponses
from duologue.simulator.qwen.schema import CLIENT_EVENTS, ITEMS
from duologue.simulator.qwen.turns import QwenTurns
from duologue.video import VideoFrame

_CODES = ("unknown_parameter", "missing_required_parameter", "cannot_update_voice")
"""Codes that say more than that a value is wrong."""


@dataclass(frozen=True, slots=True)
class QwenOptions(SessionOptions):
    """How the sessions of a simulator are; times in s of the clock."""

    idle_s: float = 300.0
    done_after_cancel: bool = True


class QwenSession(EventSession):
    """One client's session. Public attributes are for tests to look at."""

    client_events: ClassVar[Tagged] = CLIENT_EVENTS
    items: ClassVar[Mapping[str, Shape]] = ITEMS
    item_objects: ClassVar[bool] = BETA.objects

    def __init__(
        self,
        brain: Realtime,
        configuration: Configuration,
        options: QwenOptions,
        line: Line,
        clock: Clock,
        *,
        expectations: Expectations | None = None,
    ) -> None:
        super().__init__(configuration, options, line, clock, expectations)
        self._configuration = configuration
        self._idle_s = options.idle_s
        self._idle: Timer | None = None
        self._last = clock.now()
        self._finishing = False
        self._filled = False
        """There is sound in the input buffer: only then it takes pictures."""
        self._decoder = self._new_decoder()
        self._to_brain = Resampler(HEARD_RATE, brain.profile.output_rate)
        self._responses: QwenResponses = QwenResponses(
            brain,
            configuration,
            self._conversation,
            self.emit,
            EventVoice(self.emit),
            clock,
            paraphrase=options.paraphrase,
            rate=HEARD_RATE,
        )
        done = options.done_after_cancel
        self._responses.answer_type = QwenAnswer if done else UnfinishedAnswer
        self._turns: QwenTurns = QwenTurns(
            configuration,
            self._conversation,
            self._responses,
            self.emit,
            clock,
            transcription_delay=options.transcription_delay,
            keep_audio=options.keep_audio,
            rate=HEARD_RATE,
        )
        self._turns.manual_transcripts = configuration.abilities.manual_transcripts
        self._turns.on_heard = self._committed
        self._begin_with_them(self._interrupt)
        tell_turns = self._responses.on_end

        def ended(answer: Answer) -> None:
            tell_turns(answer)
            self._finish()

        self._responses.on_end = ended

    async def begin(self) -> None:
        """Tell the client that the session is there, once the brain is."""
        await super().begin()
        self._last = self._clock.now()
        self._watch()

    def close(self) -> None:
        """The line is gone."""
        super().close()
        if self._idle is not None:
            self._idle.cancel()

    def take(self, text: str | bytes) -> None:
        """An event of the client, as it came."""
        self._last = self._clock.now()
        super().take(text)

    def expire(self) -> None:
        """Two hours are over."""
        self._line.close(1000, LONG)

    def error_of(self, refusal: RefusedError, event_id: str | None) -> Object:
        """The error as this service tells it: without whose it is, and what it can't say."""
        error: Object = {"type": refusal.kind}
        if refusal.param and refusal.code not in _CODES:
            error["code"] = "invalid_value"
        elif refusal.code:
            error["code"] = refusal.code
        error["message"] = refusal.message
        if refusal.param:
            error["param"] = refusal.param
        return error

    def too_short(self, seconds: float) -> RefusedError:
        """The refusal of a turn of so few seconds, or of one that the service ends itself."""
        return RefusedError(
            "", "Error committing input audio buffer, maybe no invalid audio stream."
        )

    def hear(self, samples: Samples) -> None:
        """The client's next sound, at the rate of the session."""
        if self._loopback is None:
            super().hear(samples)
        else:
            self.audio_in_samples += len(samples)
            self._loopback.push(self._to_brain.push(samples))

    def handle(self, kind: str, event: Object) -> None:
        """An event of the client, of a right shape. Raises `RefusedError`."""
        match kind:
            case "input_audio_buffer.append":
                self._append(bytes_of(text_at(event, "audio")))
            case "input_image_buffer.append":
                self._look(text_at(event, "image"))
            case "input_audio_buffer.commit":
                if self._configuration.turn_detection is not None:
                    raise self.too_short(0.0)
                self.commit()
            case "input_audio_buffer.clear":
                self._filled = False
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
        self._configuration.update(change, spoken=self._responses.spoken)
        now = self._configuration.value
        if self._configuration.input_rate != rate:
            self._decoder = self._new_decoder()
        self._responses.output_rate = self._configuration.output_rate
        if before["turn_detection"] != now["turn_detection"]:
            self._turns.configure()
        changed = now["instructions"] != before["instructions"]
        self._responses.link.configure(
            self._configuration.instructions if changed else None,
            self._configuration.tools if now["tools"] != before["tools"] else None,
        )
        self.emit("session.updated", {"session": now})

    def _new_decoder(self) -> AudioDecoder:
        wire: Object = {"type": "audio/pcm", "rate": self._configuration.input_rate}
        return AudioDecoder(wire, HEARD_RATE)

    def _append(self, data: bytes) -> None:
        if self._configuration.input_wav and data.startswith(b"RIFF"):
            data = data[data.find(b"data") + 8 :]
        samples = self._decoder.read(data)
        self._filled = True
        self.hear(samples)

    def _create_item(self, event: Object) -> None:
        item = self._conversation.create(event["item"])
        if item["type"] == "message" and not self._configuration.abilities.text_items:
            raise RefusedError(
                "invalid_value",
                f"{self._configuration.value['model']} does not support items of text.",
                "item.type",
            )
        before = self._conversation.put(item, text_at(event, "previous_item_id") or None)
        self._responses.link.add(for_brain(item))
        BETA.tell_put(self.emit, before, item)

    def _look(self, text: str) -> None:
        """A picture: it belongs to the sound in the buffer, and needs some."""
        if not self._filled:
            raise RefusedError("", "Error append image before append audio.")
        jpeg = jpeg_of(text)
        pixels = pixels_of(jpeg)
        self._images.add(Image("", "image/jpeg", jpeg, "auto"), len(jpeg))
        self._responses.images += 1
        brain = self._responses.link.brain
        if brain.connected and brain.profile.video:
            brain.send_video(VideoFrame(pixels, self._clock.now()), now=True)

    def _committed(self, turn: HeardTurn) -> None:
        del turn
        self._filled = False

    def _interrupt(self) -> None:
        if self._responses.active is not None:
            self._responses.cancel("turn_detected")

    def _finish(self) -> None:
        """End the session, once what is under way, or owed to a turn, has been answered."""
        if not self._finishing or self._responses.pending or self._turns.owes:
            return
        if self._configuration.abilities.acknowledges_finish:
            self.emit("session.finished", {})
        self._line.close(1000, "")

    def _watch(self) -> None:
        """End the session when the client has sent no event for too long."""
        if self.closed:
            return
        # Compared with the very time of the timer: a difference may be rounded to less than it, and
        # the timer would be due for ever.
        due = self._last + self._idle_s
        if self._clock.now() >= due:
            self._line.close(1007, IDLE)
            return
        self._idle = self._clock.call_at(due, self._watch)
