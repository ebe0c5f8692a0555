"""OpenAI Realtime events to and from the session's commands and outputs, without a socket."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import numpy as np

from duologue.audio import AudioFrame
from duologue.extras import require
from duologue.items import Json
from duologue.providers.fields import (
    MalformedError,
    inner,
    is_shallow,
    number,
    objects,
    some_text,
    text,
    whole,
)
from duologue.providers.openai.asked import Asked
from duologue.providers.openai.dialect import Dialect, ServerHistory, Transport
from duologue.providers.openai.encoder import Encoder
from duologue.providers.openai.errors import Meaning
from duologue.providers.openai.guard import Guard
from duologue.providers.openai.hearing import Hearing
from duologue.providers.openai.outbox import Outbox
from duologue.providers.openai.responses import Responses
from duologue.providers.openai.rtc_sound import RtcSound
from duologue.providers.openai.server_items import ServerItems
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
    RateLimit,
    RateLimits,
    ReplyAudio,
    ReplyInterrupted,
    SessionStarted,
)
from duologue.video import VideoFrame

require("orjson", "openai")
require("pybase64", "openai")

import pybase64  # noqa: E402

from duologue.providers.json_text import decode_object  # noqa: E402

type Message = bytes | AudioFrame | VideoFrame
"""One event as JSON, or (WebRTC) a piece of sound, or a picture for our video track."""

type JsonObject = dict[str, Json]

UNCONFIRMED = "duologue.session.unconfirmed"
"""Not in the protocol: the event of our wire for a server that does not confirm the session."""

_APPEND = b'"type":"input_audio_buffer.append","audio":"'
_END = b'"}'
_LEAD_IN_S = 0.1
"""Silence that goes before a picture where some sound has to, in seconds."""
_REMEMBERED = 32
"""Ids of the newest events, to know one that comes twice."""
_MARK = 64
"""Bytes at the end of an event that, with its length, distinguish it from others of its id."""
_MOST_UNKNOWN = 256
"""Names of events that are counted each; the rest together."""

_TRANSCRIPTION = "conversation.item.input_audio_transcription"

_IGNORED = frozenset(
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
    """A `duologue.realtime.codec.Codec` for one connection; a new connection takes a new one.

    ``video_track``: pictures go by WebRTC's own video. ``history`` keeps the server's conversation,
    by default as OpenAI takes it, with no more than ``pictures_kept`` pictures left in it. ``now``
    gives Unix seconds, to tell when the server's session expires. ``unknown`` counts events by name
    that are not of the protocol, ``malformed`` what is not built as it says.
    """

    def __init__(
        self,
        dialect: Dialect,
        *,
        transport: Transport = "websocket",
        history: ServerHistory | None = None,
        pictures_kept: int = 20,
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
        self._ahead_s = 0.0
        """Seconds that this machine's clock is ahead of the server's."""
        self._items = history or ServerItems(dialect.output_rate, pictures_kept)
        self._hearing = Hearing(dialect.input_rate, placed=not self._rtc)
        self._responses = Responses(kind_of=dialect.kind_of, ends_cancelled=dialect.ends_cancelled)
        self._asked = Asked(tells_which=dialect.tells_which)
        self._outbox = Outbox(dialect, self._items, self._asked)
        self._guard = Guard(dialect.session, self._hearing)
        self._sound = RtcSound()
        rtc_sound = self._sound if self._rtc else None
        self._encoder = Encoder(dialect, self._items, self._responses, self._guard, sound=rtc_sound)
        self._interrupted: deque[str] = deque(maxlen=64)
        self._seen: dict[str, tuple[int, bytes]] = {}
        self._ids_repeat = False
        """Whether the server gives different events the same id."""
        self.unknown: Counter[str] = Counter()
        self.malformed = 0

    def set_time(self, now: float) -> None:
        """Record the server's own time, in Unix seconds, because this machine's may be wrong."""
        self._ahead_s = self._now() - now

    def open(self, setup: SessionSetup) -> Sequence[Message]:
        """The session (which over WebRTC went with the offer) and the history."""
        self._encoder.instructions = setup.instructions
        session = self._dialect.session.whole(setup)
        self._hearing.configure(session)
        events: list[JsonObject] = []
        if not self._rtc:
            events.append({"type": "session.update", "session": session})
        for item in setup.history:
            events += self._items.put(item)
        return self._send(events)

    def encode(self, command: Command) -> Sequence[Message]:
        """The messages that carry a command."""
        match command:
            case SendAudio(frame=frame):
                if self._rtc:
                    return (frame,)
                self._hearing.sent(len(frame))
                return (self._append(frame),)
            case SendVideo(frame=picture) if self._video_track:
                return (picture,)
            case SendVideo(jpeg=bytes()):
                return [*self._lead_in(), *self._send(self._encoder.events(command))]
            case RequestReply(request_id=request_id) | Say(request_id=request_id):
                return self._send(self._encoder.events(command), request_id)
            case EndTurn() | ClearInput():
                self._hearing.has_sound = False
        return self._send(self._encoder.events(command))

    def farewell(self) -> Sequence[Message]:
        """The messages that end the session."""
        return self._send([{"type": name} for name in self._dialect.farewell])

    def decode(self, message: Message) -> Sequence[Output]:
        """What an event or a piece of sound means."""
        outputs = self._outputs(message)
        if outputs and self._guard.active:
            self._outbox.send(self._guard.follow(outputs))
        return outputs

    def _outputs(self, message: Message) -> Sequence[Output]:
        if isinstance(message, AudioFrame):
            return self._heard(self._sound.frame(message))
        if isinstance(message, VideoFrame):
            return ()
        try:
            event = decode_object(message)
        except MalformedError:
            self.malformed += 1
            return ()
        name = event.get("type")
        if not isinstance(name, str):
            self.malformed += 1
            return ()
        if self._came_before(event.get("event_id"), message):
            return ()
        name = self._dialect.names.get(name, name)
        handler = self._handlers.get(name)
        if handler is None:
            if name not in _IGNORED:
                self._count_unknown(name)
            return ()
        try:
            return handler(self, event)
        except MalformedError:
            self.malformed += 1
            return ()

    def pending(self) -> Sequence[Message]:
        """What the codec itself has to send, each once."""
        return self._outbox.pending()

    def _send(self, events: Sequence[JsonObject], request_id: str | None = None) -> list[Message]:
        """The last of ``events`` is that request, if it is given."""
        messages: list[Message] = [self._outbox.message(event) for event in events[:-1]]
        return [*messages, *(self._outbox.message(event, request_id) for event in events[-1:])]

    def _append(self, frame: AudioFrame) -> bytes:
        head = b"{"
        if self._dialect.sound_ids:
            head = b'{"event_id":"%b",' % self._outbox.next_id("sound").encode()
        return b"".join((head, _APPEND, pybase64.b64encode(frame.to_bytes()), _END))

    def _lead_in(self) -> Sequence[Message]:
        """Silence before a picture, where the server takes it only behind some sound."""
        if not self._dialect.pictures_need_sound or self._hearing.has_sound:
            return ()
        silence = AudioFrame.silence(_LEAD_IN_S, self._dialect.input_rate)
        self._hearing.insert(len(silence))
        return (self._append(silence),)

    def _came_before(self, event_id: object, message: bytes) -> bool:
        """Return whether an event has come before. Some servers give all events the same id."""
        if not isinstance(event_id, str) or self._ids_repeat:
            return False
        mark = len(message), message[-_MARK:]
        before = self._seen.get(event_id)
        if before is not None:
            self._ids_repeat = before != mark
            return before == mark
        self._seen[event_id] = mark
        if len(self._seen) > _REMEMBERED:
            del self._seen[next(iter(self._seen))]
        return False

    def _count_unknown(self, name: str) -> None:
        # Bounded: a server that invents names must not fill the memory.
        self.unknown[name[:80] if len(self.unknown) < _MOST_UNKNOWN else "..."] += 1

    def _session_created(self, event: JsonObject) -> Sequence[Output]:
        self._created = session = inner(event, "session")
        self._expires_at = number(session, "expires_at")
        return self._start(session) if self._rtc else ()

    def _unconfirmed(self, _: JsonObject) -> Sequence[Output]:
        """Begin a session that the server has created but not confirmed."""
        # Assume that it detects turns as configured: ``session.created`` has its own defaults.
        detection = {"turn_detection": self._hearing.detection}
        return self._start({**self._created, **detection}, confirms=False)

    def _session_updated(self, event: JsonObject) -> Sequence[Output]:
        session = inner(event, "session")
        self._hearing.configure(session)
        return (Alive(),) if self._started else self._start(session)

    def _start(self, session: JsonObject, *, confirms: bool = True) -> Sequence[Output]:
        if self._started:
            return ()
        self._started = self._outbox.started = True
        self._hearing.configure(session)
        expires_at = number(session, "expires_at") or self._expires_at
        left = self._dialect.lifetime_s
        if expires_at is not None:
            left = expires_at - self._now() + self._ahead_s
        left = left if left is not None and left > 0 else None
        if not is_shallow(session):
            session = {}
        return (SessionStarted(session, left, confirms=confirms),)

    def _committed(self, event: JsonObject) -> Sequence[Output]:
        self._items.added(text(event, "item_id"), some_text(event, "previous_item_id"))
        outputs = self._hearing.committed(event)
        return [*outputs, *self._asked.turn_ended(reply_follows=self._hearing.replies)]

    def _speech_started(self, event: JsonObject) -> Sequence[Output]:
        outputs = self._hearing.started(event)
        stops = self._dialect.stops_at_speech and self._hearing.interrupts
        running = self._responses.running if stops and not self._guard.active else None
        if running is None or running in self._interrupted:
            return outputs
        self._interrupted.append(running)
        return [*outputs, ReplyInterrupted(running)]

    def _item_there(self, event: JsonObject) -> Sequence[Output]:
        self._items.added(text(inner(event, "item"), "id"), some_text(event, "previous_item_id"))
        return ()

    def _item_gone(self, event: JsonObject) -> Sequence[Output]:
        self._items.gone(text(event, "item_id"))
        return ()

    def _response_created(self, event: JsonObject) -> Sequence[Output]:
        made = inner(event, "response")
        reply_id = text(made, "id")
        named = some_text(inner(made, "metadata"), "request_id")
        return self._responses.created(reply_id, self._asked.began(named))

    def _item_added(self, event: JsonObject) -> Sequence[Output]:
        self._responses.item(event)
        return ()

    def _part(self, event: JsonObject) -> Sequence[Output]:
        kind = inner(event, "part").get("type")
        if kind in ("audio", "output_audio"):
            self._will_sound(event)
        return ()

    def _will_sound(self, event: JsonObject) -> None:
        if self._rtc and (reply_id := text(event, "response_id")) in self._responses:
            self._sound.sounds(reply_id, text(event, "item_id"))

    def _words(self, event: JsonObject) -> Sequence[Output]:
        self._will_sound(event)
        return self._responses.words(event)

    def _audio(self, event: JsonObject) -> Sequence[Output]:
        reply_id, item_id = text(event, "response_id"), text(event, "item_id")
        try:
            pcm = pybase64.b64decode(text(event, "delta"))
        except ValueError as error:
            raise MalformedError("delta") from error
        response = self._responses.get(reply_id)
        if response is not None:
            pcm = response.rest + pcm
            even = len(pcm) & ~1
            response.rest, pcm = pcm[even:], pcm[:even]
        else:
            pcm = pcm[: len(pcm) & ~1]
        if not pcm:
            return ()
        samples = np.frombuffer(pcm, "<i2")
        if response is not None:
            part, scripted = whole(event, "content_index") or 0, response.wanted is not None
            self._items.sounded(item_id, len(samples), part, scripted=scripted)
        return (ReplyAudio(reply_id, item_id, AudioFrame(samples, self._dialect.output_rate)),)

    def _heard(self, outputs: Sequence[Output]) -> Sequence[Output]:
        """Keep account of sound that came by RTP."""
        for output in outputs:
            if isinstance(output, ReplyAudio):
                scripted = self._responses.scripted(output.reply_id)
                self._items.sounded(output.item_id, len(output.frame), scripted=scripted)
        return outputs

    def _response_done(self, event: JsonObject) -> Sequence[Output]:
        ended = self._responses.done(event)
        if ended is None:
            return self._responses.late(event)
        outputs = list(ended.before)
        if ended.turn_detected and ended.done.reply_id not in self._interrupted:
            self._interrupted.append(ended.done.reply_id)
            outputs.append(ReplyInterrupted(ended.done.reply_id))
        outputs += self._sound.done(ended.done) if self._rtc else (ended.done,)
        for item_id, said in ended.spoken:
            self._outbox.send(self._items.spoke(item_id, said))
        return [*outputs, *ended.after]

    def _buffer_started(self, event: JsonObject) -> Sequence[Output]:
        return self._heard(self._sound.started(text(event, "response_id")))

    def _buffer_cleared(self, event: JsonObject) -> Sequence[Output]:
        reply_id = text(event, "response_id")
        known = reply_id in self._encoder.cleared or reply_id in self._interrupted
        self._interrupted.append(reply_id)
        return self._sound.cleared(reply_id, asked=known)

    def _error(self, event: JsonObject) -> Sequence[Output]:
        outputs = self._outbox.refused(event)
        error = inner(event, "error")
        code, message = some_text(error, "code") or "", some_text(error, "message") or ""
        meaning = self._dialect.meaning_of(code, message)
        if self._dialect.ends_cancelled or meaning is not Meaning.NOT_ACTIVE:
            return outputs
        return [*self._responses.none_active(), *outputs]

    # One for all connections: a session's own table would be several kilobytes.
    _handlers: ClassVar[Mapping[str, Callable[[Codec, JsonObject], Sequence[Output]]]] = {
        "response.output_audio.delta": _audio,
        "response.output_audio_transcript.delta": _words,
        "response.output_audio_transcript.done": lambda c, e: c._responses.worded(e, "transcript"),
        "response.output_text.delta": lambda c, e: c._responses.words(e),
        "response.output_text.done": lambda c, e: c._responses.worded(e, "text"),
        "response.content_part.added": _part,
        "response.output_item.added": _item_added,
        "response.function_call_arguments.done": lambda c, e: c._responses.arguments(e),
        "response.output_item.done": lambda c, e: c._responses.item_done(e),
        "response.created": _response_created,
        "response.done": _response_done,
        "input_audio_buffer.speech_started": _speech_started,
        "input_audio_buffer.speech_stopped": lambda c, e: c._hearing.stopped(e),
        "input_audio_buffer.timeout_triggered": lambda c, e: c._hearing.timed_out(e),
        "input_audio_buffer.committed": _committed,
        f"{_TRANSCRIPTION}.delta": lambda c, e: c._hearing.words(e),
        f"{_TRANSCRIPTION}.completed": lambda c, e: c._hearing.worded(e),
        f"{_TRANSCRIPTION}.failed": lambda c, e: c._hearing.failed(e),
        "conversation.item.added": _item_there,
        "conversation.item.created": _item_there,
        "conversation.item.deleted": _item_gone,
        "output_audio_buffer.started": _buffer_started,
        "output_audio_buffer.stopped": lambda c, e: c._sound.stopped(text(e, "response_id")),
        "output_audio_buffer.cleared": _buffer_cleared,
        "session.created": _session_created,
        UNCONFIRMED: _unconfirmed,
        "session.updated": _session_updated,
        "rate_limits.updated": lambda _, e: _rate_limits(e),
        "error": _error,
    }


def _rate_limits(event: JsonObject) -> Sequence[Output]:
    limits = [
        RateLimit(
            some_text(limit, "name") or "",
            int(number(limit, "limit") or 0),
            int(number(limit, "remaining") or 0),
            number(limit, "reset_seconds") or 0.0,
        )
        for limit in objects(event, "rate_limits")
    ]
    return (RateLimits(limits),) if limits else ()
