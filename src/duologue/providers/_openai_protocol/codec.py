"""Translate OpenAI Realtime events to and from the session's commands and outputs, sans-IO."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

from duologue._optional import optional
from duologue.audio import AudioFrame, trusted_frame
from duologue.events.events import RateLimit
from duologue.json_types import JsonObject
from duologue.providers._json_fields import (
    MalformedError,
    int_field,
    is_shallow,
    number_field,
    object_field,
    object_list,
    optional_str,
    str_field,
)
from duologue.providers._openai_protocol.audio_deltas import DeltaShape, RecentEvents
from duologue.providers._openai_protocol.dialect import Dialect, ServerHistory, Transport
from duologue.providers._openai_protocol.encoder import Encoder
from duologue.providers._openai_protocol.errors import Meaning
from duologue.providers._openai_protocol.input_turns import InputTurns
from duologue.providers._openai_protocol.pending_requests import PendingRequests
from duologue.providers._openai_protocol.responses import Response, Responses
from duologue.providers._openai_protocol.sent_events import SentEvents
from duologue.providers._openai_protocol.server_conversation import ServerConversation
from duologue.providers._openai_protocol.uninterruptible import UninterruptibleReplies
from duologue.realtime.codec import SessionSetup
from duologue.realtime.commands import (
    ClearInput,
    Command,
    EndTurn,
    RequestReply,
    Say,
    SendAudio,
    SendVideo,
)
from duologue.realtime.outputs import (
    Alive,
    Output,
    RateLimits,
    ReplyAudio,
    ReplyInterrupted,
    SessionStarted,
)
from duologue.realtime.reply_slicer import ReplySlicer
from duologue.video import VideoFrame

with optional("openai"):
    import pybase64

    from duologue.providers._json_text import decode_object


type Message = bytes | AudioFrame | VideoFrame
"""One event as JSON or, over WebRTC, audio or an image for the video track."""


SESSION_UNCONFIRMED = "duologue.session.unconfirmed"
"""Not in the protocol: an event of our wire for a server that does not confirm the session."""

_APPEND = b'{"type":"input_audio_buffer.append","audio":"'
_APPEND_WITH_ID = b'{"event_id":"%b","type":"input_audio_buffer.append","audio":"'
_END = b'"}'
_LEAD_IN_S = 0.1
"""Seconds of silence to insert before an image when the server requires audio first."""
_MAX_UNKNOWN_NAMES = 256
"""Number of unknown event names that are counted separately; the rest are counted together."""

_TRANSCRIPTION = "conversation.item.input_audio_transcription"

_IGNORED_EVENTS = frozenset(
    {
        "conversation.created",
        "conversation.item.done",
        "conversation.item.input_audio_transcription.segment",
        "conversation.item.retrieved",
        "conversation.item.truncated",
        "input_audio_buffer.cleared",
        "input_audio_buffer.dtmf_event_received",
        "mcp_list_tools.completed",
        "mcp_list_tools.failed",
        "mcp_list_tools.in_progress",
        "response.content_part.done",
        "response.function_call_arguments.delta",
        "response.mcp_call.completed",
        "response.mcp_call.failed",
        "response.mcp_call.in_progress",
        "response.mcp_call_arguments.delta",
        "response.mcp_call_arguments.done",
        "response.output_audio.done",
        "session.finished",
    }
)


class Codec:
    """A `duologue.realtime.codec.Codec` for one connection; each connection needs a new one.

    Args:
        dialect: What differs between the servers of this protocol.
        transport: How events and audio are carried.
        history: The server's conversation; by default one as OpenAI keeps it.
        images_kept: Number of images that stay in the default conversation.
        video_track: Send images over WebRTC's own video track.
        now: Returns Unix seconds, to calculate when the server's session expires.

    Attributes:
        unknown: Counts unknown events by name.
        malformed: Counts messages that do not have the structure that the protocol requires.
    """

    __slots__ = (
        "_audio_lane",
        "_clock_ahead_s",
        "_conversation",
        "_created",
        "_dialect",
        "_encoder",
        "_expires_at",
        "_input_turns",
        "_interrupted",
        "_now",
        "_output_rate",
        "_pending_requests",
        "_recent_events",
        "_reply_slicer",
        "_responses",
        "_rtc",
        "_sent_events",
        "_started",
        "_uninterruptible",
        "_video_track",
        "malformed",
        "unknown",
    )

    def __init__(
        self,
        dialect: Dialect,
        *,
        transport: Transport = "websocket",
        history: ServerHistory | None = None,
        images_kept: int = 20,
        video_track: bool = False,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._dialect = dialect
        self._rtc = transport == "webrtc"
        self._video_track = video_track
        self._now = now
        self._started = False
        self._created: JsonObject = {}
        self._expires_at: float | None = None
        self._clock_ahead_s = 0.0
        """How many seconds this machine's clock is ahead of the server's."""
        self._conversation = history or ServerConversation(dialect.output_rate, images_kept)
        self._input_turns = InputTurns(dialect.input_rate, has_positions=not self._rtc)
        self._responses = Responses(
            kind_of=dialect.kind_of,
            confirms_cancel=dialect.confirms_cancel,
            make_decoder=dialect.make_decoder,
        )
        self._pending_requests = PendingRequests(correlates_errors=dialect.correlates_errors)
        self._sent_events = SentEvents(dialect, self._conversation, self._pending_requests)
        self._uninterruptible = UninterruptibleReplies(dialect.session, self._input_turns)
        self._reply_slicer = ReplySlicer()
        self._encoder = Encoder(
            dialect,
            self._conversation,
            self._responses,
            self._uninterruptible,
            reply_slicer=self._reply_slicer if self._rtc else None,
        )
        self._interrupted: deque[str] = deque(maxlen=64)
        self._recent_events = RecentEvents()
        self._output_rate = dialect.output_rate
        self._audio_lane: tuple[DeltaShape, Response] | None = None
        """What the next message will most likely look like, and the response that it continues.

        Only until anything but audio and its transcript is decoded or encoded, which might end the
        response or change what audio means.
        """
        self.unknown: Counter[str] = Counter()
        self.malformed = 0

    @property
    def repeated(self) -> int:
        """Number of events that had the id of an earlier one."""
        return self._recent_events.repeated

    def set_server_time(self, now: float) -> None:
        """Record the server's time in Unix seconds, because this machine's clock may be wrong."""
        self._clock_ahead_s = self._now() - now

    def open(self, setup: SessionSetup) -> Sequence[Message]:
        """Return the session, which over WebRTC was sent with the offer, and the history."""
        self._encoder.instructions = setup.instructions
        session = self._dialect.session.build(setup)
        self._input_turns.configure(session)
        events: list[JsonObject] = []
        if not self._rtc:
            events.append({"type": "session.update", "session": session})
        for item in setup.history:
            events += self._conversation.put(item)
        return self._send(events)

    def encode(self, command: Command) -> Sequence[Message]:
        """Return the messages that carry a command."""
        if isinstance(command, SendAudio):
            return (self.encode_audio(command.frame),)
        self._audio_lane = None
        match command:
            case SendVideo(frame=image) if self._video_track:
                return (image,)
            case SendVideo(jpeg=bytes()):
                return [*self._lead_in(), *self._send(self._encoder.encode(command))]
            case RequestReply(request_id=request_id) | Say(request_id=request_id):
                return self._send(self._encoder.encode(command), request_id)
            case EndTurn() | ClearInput():
                self._input_turns.has_audio = False
        return self._send(self._encoder.encode(command))

    def encode_audio(self, frame: AudioFrame) -> Message:
        """Return the message that carries a frame of the person's audio."""
        if self._rtc:
            return frame
        self._input_turns.count_audio(len(frame.samples))
        return self._append_event(frame)

    def closing_messages(self) -> Sequence[Message]:
        """Return the messages that end the session."""
        return self._send([{"type": name} for name in self._dialect.closing_events])

    def decode(self, message: Message) -> Sequence[Output]:
        """Translate an event or received audio."""
        outputs = self._decode(message)
        if outputs and self._uninterruptible.active:
            self._sent_events.queue(self._uninterruptible.release_ended(outputs))
        return outputs

    def decode_audio(self, message: Message) -> ReplyAudio | None:
        """Decode a message that brings the next audio of an item, and means nothing else.

        Return None, without any effect, for every other message, and whenever `decode` has more to
        do than to take out the audio.
        """
        lane = self._audio_lane
        if lane is None or not isinstance(message, bytes):
            return None
        shape, response = lane
        found = shape.read(message)
        if found is None:
            return None
        event_id, data = found
        samples = response.audio_decoder.whole(data)
        if samples is None or not self._recent_events.add(event_id, message):
            return None
        item_id = shape.item_id
        if response.verbatim_text is None:
            self._conversation.audio_received(item_id, len(samples), shape.content_index)
        return ReplyAudio(shape.reply_id, item_id, trusted_frame(samples, self._output_rate))

    def _decode(self, message: Message) -> Sequence[Output]:
        if not isinstance(message, bytes):
            if isinstance(message, VideoFrame):
                return ()
            return self._count_audio(self._reply_slicer.push(message))
        try:
            event = decode_object(message)
        except MalformedError:
            self.malformed += 1
            return ()
        name = event.get("type")
        if not isinstance(name, str):
            self.malformed += 1
            return ()
        event_id = event.get("event_id")
        if isinstance(event_id, str):
            key = event_id.encode(errors="surrogatepass")
            if self._recent_events.is_duplicate(key, message):
                return ()
        name = self._dialect.event_names.get(name, name)
        handler = self._handlers.get(name)
        if handler is None:
            if name not in _IGNORED_EVENTS:
                self._count_unknown(name)
            return ()
        if handler is not Codec._transcript_delta:
            self._audio_lane = None
        try:
            outputs = handler(self, event)
            if handler is Codec._audio_delta and outputs:
                self._learn_audio_lane(message, event)
        except MalformedError:
            self.malformed += 1
            return ()
        return outputs

    def _learn_audio_lane(self, message: bytes, event: JsonObject) -> None:
        shape = DeltaShape.learn(message, event)
        response = None if shape is None else self._responses.get(shape.reply_id)
        if shape is not None and response is not None and not self._rtc:
            self._audio_lane = shape, response

    def pending(self) -> Sequence[Message]:
        """Return the messages that the codec itself has to send, each once."""
        return self._sent_events.take_queued()

    def _send(self, events: Sequence[JsonObject], request_id: str | None = None) -> list[Message]:
        """Encode events; the last one is the request ``request_id`` if that is given."""
        messages: list[Message] = [self._sent_events.encode(event) for event in events[:-1]]
        return [*messages, *(self._sent_events.encode(event, request_id) for event in events[-1:])]

    def _append_event(self, frame: AudioFrame) -> bytes:
        head = _APPEND
        if self._dialect.audio_event_ids:
            head = _APPEND_WITH_ID % self._sent_events.next_id("audio").encode()
        return b"".join((head, pybase64.b64encode(self._dialect.encode_audio(frame)), _END))

    def _lead_in(self) -> Sequence[Message]:
        """Return silence to send before an image if the server requires audio first."""
        if not self._dialect.images_need_audio or self._input_turns.has_audio:
            return ()
        silence = AudioFrame.silence(_LEAD_IN_S, self._dialect.input_rate)
        self._input_turns.insert_silence(len(silence))
        return (self._append_event(silence),)

    def _count_unknown(self, name: str) -> None:
        # Bounded, so that a server with endless event names can't fill the memory.
        self.unknown[name[:80] if len(self.unknown) < _MAX_UNKNOWN_NAMES else "..."] += 1

    def _session_created(self, event: JsonObject) -> Sequence[Output]:
        self._created = session = object_field(event, "session")
        self._expires_at = number_field(session, "expires_at")
        return self._start(session) if self._rtc else ()

    def _session_unconfirmed(self, _: JsonObject) -> Sequence[Output]:
        """Start a session that the server has created but not confirmed."""
        # Assume that it detects turns as configured: ``session.created`` has its own defaults.
        detection = {"turn_detection": self._input_turns.turn_detection}
        return self._start({**self._created, **detection}, confirms=False)

    def _session_updated(self, event: JsonObject) -> Sequence[Output]:
        session = object_field(event, "session")
        self._input_turns.configure(session)
        return (Alive(),) if self._started else self._start(session)

    def _start(self, session: JsonObject, *, confirms: bool = True) -> Sequence[Output]:
        if self._started:
            return ()
        self._started = self._sent_events.session_started = True
        self._input_turns.configure(session)
        expires_at = number_field(session, "expires_at") or self._expires_at
        left = self._dialect.lifetime_s
        if expires_at is not None:
            left = expires_at - self._now() + self._clock_ahead_s
        left = left if left is not None and left > 0 else None
        if not is_shallow(session):
            session = {}
        return (SessionStarted(session, left, confirms_updates=confirms),)

    def _input_committed(self, event: JsonObject) -> Sequence[Output]:
        self._conversation.item_added(
            str_field(event, "item_id"), optional_str(event, "previous_item_id")
        )
        outputs = self._input_turns.turn_committed(event)
        return [
            *outputs,
            *self._pending_requests.turn_ended(reply_follows=self._input_turns.auto_replies),
        ]

    def _speech_started(self, event: JsonObject) -> Sequence[Output]:
        outputs = self._input_turns.speech_started(event)
        stops = self._dialect.auto_interrupts and self._input_turns.auto_interrupts
        running = (
            self._responses.active_reply if stops and not self._uninterruptible.active else None
        )
        if running is None or running in self._interrupted:
            return outputs
        self._interrupted.append(running)
        return [*outputs, ReplyInterrupted(running)]

    def _conversation_item_added(self, event: JsonObject) -> Sequence[Output]:
        self._conversation.item_added(
            str_field(object_field(event, "item"), "id"), optional_str(event, "previous_item_id")
        )
        return ()

    def _conversation_item_deleted(self, event: JsonObject) -> Sequence[Output]:
        self._conversation.item_deleted(str_field(event, "item_id"))
        return ()

    def _response_created(self, event: JsonObject) -> Sequence[Output]:
        response = object_field(event, "response")
        reply_id = str_field(response, "id")
        request_id = optional_str(object_field(response, "metadata"), "request_id")
        return self._responses.response_created(
            reply_id, self._pending_requests.match_response(request_id)
        )

    def _output_item_added(self, event: JsonObject) -> Sequence[Output]:
        self._responses.item_added(event)
        return ()

    def _part_added(self, event: JsonObject) -> Sequence[Output]:
        kind = object_field(event, "part").get("type")
        if kind in ("audio", "output_audio"):
            self._expect_audio(event)
        return ()

    def _expect_audio(self, event: JsonObject) -> None:
        if self._rtc and (reply_id := str_field(event, "response_id")) in self._responses:
            self._reply_slicer.expect_audio(reply_id, str_field(event, "item_id"))

    def _transcript_delta(self, event: JsonObject) -> Sequence[Output]:
        self._expect_audio(event)
        return self._responses.transcript_delta(event)

    def _text_delta(self, event: JsonObject) -> Sequence[Output]:
        self._conversation.text_received(str_field(event, "item_id"))
        return self._responses.transcript_delta(event)

    def _audio_delta(self, event: JsonObject) -> Sequence[Output]:
        reply_id, item_id = event.get("response_id"), event.get("item_id")
        delta = event.get("delta")
        if not (isinstance(reply_id, str) and isinstance(item_id, str) and isinstance(delta, str)):
            raise MalformedError("audio delta")
        try:
            data = pybase64.b64decode(delta)
        except ValueError as error:
            raise MalformedError("delta") from error
        response = self._responses.get(reply_id)
        decoder = self._dialect.make_decoder() if response is None else response.audio_decoder
        samples = decoder.push(data)
        if not len(samples):
            return ()
        if response is not None:
            part = int_field(event, "content_index") or 0
            scripted = response.verbatim_text is not None
            self._conversation.audio_received(item_id, len(samples), part, verbatim=scripted)
        return (ReplyAudio(reply_id, item_id, AudioFrame(samples, self._dialect.output_rate)),)

    def _count_audio(self, outputs: Sequence[Output]) -> Sequence[Output]:
        """Count the audio that arrived by RTP."""
        for output in outputs:
            if isinstance(output, ReplyAudio):
                scripted = self._responses.is_verbatim(output.reply_id)
                self._conversation.audio_received(
                    output.item_id, len(output.frame), verbatim=scripted
                )
        return outputs

    def _response_done(self, event: JsonObject) -> Sequence[Output]:
        ended = self._responses.response_done(event)
        if ended is None:
            return self._responses.late_response_done(event)
        outputs = list(ended.before)
        if ended.turn_detected and ended.done.reply_id not in self._interrupted:
            self._interrupted.append(ended.done.reply_id)
            outputs.append(ReplyInterrupted(ended.done.reply_id))
        outputs += self._reply_slicer.response_done(ended.done) if self._rtc else (ended.done,)
        for item_id, said in ended.verbatim_items:
            self._sent_events.queue(self._conversation.add_verbatim(item_id, said))
        return [*outputs, *ended.after]

    def _buffer_started(self, event: JsonObject) -> Sequence[Output]:
        return self._count_audio(self._reply_slicer.buffer_started(str_field(event, "response_id")))

    def _buffer_cleared(self, event: JsonObject) -> Sequence[Output]:
        reply_id = str_field(event, "response_id")
        known = reply_id in self._encoder.cleared_replies or reply_id in self._interrupted
        self._interrupted.append(reply_id)
        return self._reply_slicer.buffer_cleared(reply_id, by_client=known)

    def _error(self, event: JsonObject) -> Sequence[Output]:
        outputs = self._sent_events.error_received(event)
        error = object_field(event, "error")
        code, message = optional_str(error, "code") or "", optional_str(error, "message") or ""
        meaning = self._dialect.meaning_of(code, message)
        if self._dialect.confirms_cancel or meaning is not Meaning.NOT_ACTIVE:
            return outputs
        return [*self._responses.end_cancelled(), *outputs]

    # Shared by all connections, because a table of each session's own would take several kilobytes.
    _handlers: ClassVar[Mapping[str, Callable[[Codec, JsonObject], Sequence[Output]]]] = {
        "response.output_audio.delta": _audio_delta,
        "response.output_audio_transcript.delta": _transcript_delta,
        "response.output_audio_transcript.done": lambda c, e: c._responses.transcript_done(
            e, "transcript"
        ),
        "response.output_text.delta": _text_delta,
        "response.output_text.done": lambda c, e: c._responses.transcript_done(e, "text"),
        "response.content_part.added": _part_added,
        "response.output_item.added": _output_item_added,
        "response.function_call_arguments.done": lambda c, e: c._responses.arguments_done(e),
        "response.output_item.done": lambda c, e: c._responses.item_done(e),
        "response.created": _response_created,
        "response.done": _response_done,
        "input_audio_buffer.speech_started": _speech_started,
        "input_audio_buffer.speech_stopped": lambda c, e: c._input_turns.speech_stopped(e),
        "input_audio_buffer.timeout_triggered": lambda c, e: c._input_turns.idle_timed_out(e),
        "input_audio_buffer.committed": _input_committed,
        f"{_TRANSCRIPTION}.delta": lambda c, e: c._input_turns.transcript_delta(e),
        f"{_TRANSCRIPTION}.completed": lambda c, e: c._input_turns.transcript_completed(e),
        f"{_TRANSCRIPTION}.failed": lambda c, e: c._input_turns.transcription_failed(e),
        "conversation.item.added": _conversation_item_added,
        "conversation.item.created": _conversation_item_added,
        "conversation.item.deleted": _conversation_item_deleted,
        "output_audio_buffer.started": _buffer_started,
        "output_audio_buffer.stopped": lambda c, e: c._reply_slicer.buffer_stopped(
            str_field(e, "response_id")
        ),
        "output_audio_buffer.cleared": _buffer_cleared,
        "session.created": _session_created,
        SESSION_UNCONFIRMED: _session_unconfirmed,
        "session.updated": _session_updated,
        "rate_limits.updated": lambda _, e: _rate_limits(e),
        "error": _error,
    }


def _rate_limits(event: JsonObject) -> Sequence[Output]:
    limits = [
        RateLimit(
            optional_str(limit, "name") or "",
            int(number_field(limit, "limit") or 0),
            int(number_field(limit, "remaining") or 0),
            number_field(limit, "reset_seconds") or 0.0,
        )
        for limit in object_list(event, "rate_limits")
    ]
    return (RateLimits(limits),) if limits else ()
