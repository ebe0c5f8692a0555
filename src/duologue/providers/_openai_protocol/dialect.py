"""The differences between the servers that speak the OpenAI Realtime protocol."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from duologue._g711 import G711Decoder, Law, encode
from duologue.audio import AudioFrame, PcmDecoder
from duologue.errors import ErrorKind
from duologue.items import Item
from duologue.json_types import Json, JsonObject
from duologue.providers._openai_protocol.errors import Meaning, kind_of, meaning_of
from duologue.providers._openai_protocol.tagged_requests import TaggedRequests
from duologue.realtime.codec import SessionSetup
from duologue.realtime.commands import SendToolResult, UpdateSession

type Transport = Literal["webrtc", "websocket"]


BETA_NAMES = {
    "response.audio.delta": "response.output_audio.delta",
    "response.audio.done": "response.output_audio.done",
    "response.audio_transcript.delta": "response.output_audio_transcript.delta",
    "response.audio_transcript.done": "response.output_audio_transcript.done",
    "response.text.delta": "response.output_text.delta",
    "response.text.done": "response.output_text.done",
}
"""Current event names, by their names in the beta protocol, which Qwen and Azure use."""


class SessionBuilder(Protocol):
    """Builds the session object of one server."""

    def build(self, setup: SessionSetup) -> JsonObject:
        """Return the initial session."""
        ...

    def build_update(self, update: UpdateSession) -> JsonObject:
        """Return the session fields that change."""
        ...

    def build_ping(self) -> JsonObject:
        """Return a session without changes, which the server confirms."""
        ...

    def build_turn_detection(self, detection: Json) -> JsonObject:
        """Return a session that changes only the turn detection."""
        ...


class RequestBuilder(Protocol):
    """Builds the events that request and cancel a response."""

    def reply(
        self, request_id: str, session_instructions: str, reply_instructions: str | None
    ) -> JsonObject:
        """Request a response; ``reply_instructions`` hold in addition to the
        ``session_instructions``.
        """
        ...

    def say(self, request_id: str, text: str) -> JsonObject:
        """Request a response that says exactly ``text``."""
        ...

    def cancel(self, reply_id: str) -> JsonObject:
        """Cancel a response."""
        ...


class ServerHistory(Protocol):
    """The conversation as one server stores it; methods return the events to send."""

    def put(self, item: Item, before: Sequence[str] = ()) -> Sequence[JsonObject]:
        """Append an item, or replace the one that has its id.

        Insert a new item before the first known item of ``before``, where the server supports it.
        """
        ...

    def add_tool_result(self, result: SendToolResult) -> Sequence[JsonObject]:
        """Add the result of a tool call."""
        ...

    def add_image(self, item_id: str, base64: str) -> Sequence[JsonObject]:
        """Add an image."""
        ...

    def add_verbatim(self, item_id: str, text: str) -> Sequence[JsonObject]:
        """Add the scripted text that a response has said."""
        ...

    def truncate(self, item_id: str, played_ms: int, heard_text: str) -> Sequence[JsonObject]:
        """Truncate an agent item to what was heard of it."""
        ...

    def delete(self, item_id: str) -> Sequence[JsonObject]:
        """Delete an item."""
        ...

    def item_added(self, item_id: str, previous: str | None) -> None:
        """Record that the server added an item behind ``previous``."""
        ...

    def item_deleted(self, item_id: str) -> None:
        """Record that the server deleted an item."""
        ...

    def audio_received(
        self, item_id: str, samples: int, content_index: int = 0, *, verbatim: bool = False
    ) -> None:
        """Record ``samples`` of received audio of an item; ``verbatim`` if it is scripted text."""
        ...

    def text_received(self, item_id: str) -> None:
        """Record that the model has written text of an item."""
        ...


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one server speaks the protocol.

    ``event_names`` maps its event names to those of OpenAI where they differ. Rates are in Hz.
    """

    session: SessionBuilder
    requests: RequestBuilder = field(default_factory=TaggedRequests)
    event_names: Mapping[str, str] = field(default_factory=lambda: BETA_NAMES)
    input_rate: int = 24000
    output_rate: int = 24000
    law: Law | None = None
    """Audio is G.711 of this law both ways; None: 16-bit PCM."""
    lifetime_s: float | None = None
    """Seconds that a session lasts if the server does not say when it expires."""
    closing_events: Sequence[str] = ()
    """Events to send before closing a session."""
    kind_of: Callable[[str, str, str], ErrorKind] = kind_of
    meaning_of: Callable[[str, str], Meaning | None] = meaning_of
    correlates_errors: bool = True
    """Responses and errors name the request that they belong to; otherwise match them by order."""
    confirms_cancel: bool = True
    """A cancelled response has its own ``response.done``; otherwise it ends with its last item."""
    auto_interrupts: bool = False
    """When interruption is enabled, a response ends as soon as the server detects speech."""
    audio_event_ids: bool = False
    """Audio events have ids, too."""
    images_need_audio: bool = False
    """An image is accepted only after some audio."""

    def make_decoder(self) -> PcmDecoder | G711Decoder:
        """Return a decoder of one response's audio."""
        return PcmDecoder() if self.law is None else G711Decoder(self.law)

    def encode_audio(self, frame: AudioFrame) -> bytes:
        """Return the person's audio, which has ``input_rate``, as the server takes it."""
        return frame.to_bytes() if self.law is None else encode(frame.samples, self.law)
