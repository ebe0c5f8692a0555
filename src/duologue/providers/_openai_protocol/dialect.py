"""What may differ between the servers that speak this protocol."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

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
"""Current names of events, by their names in the beta protocol, which Qwen and Azure use."""


class SessionBuilder(Protocol):
    """Makes the session object of one server."""

    def build(self, setup: SessionSetup) -> JsonObject:
        """The session to begin with."""
        ...

    def build_update(self, update: UpdateSession) -> JsonObject:
        """What changes in mid-session."""
        ...

    def build_ping(self) -> JsonObject:
        """Return a session without changes, which the server confirms."""
        ...

    def build_turn_detection(self, detection: Json) -> JsonObject:
        """A session in which just the turn detection changes."""
        ...


class RequestBuilder(Protocol):
    """Makes the events that ask a server for a response, and the one that stops it."""

    def reply(
        self, request_id: str, session_instructions: str, reply_instructions: str | None
    ) -> JsonObject:
        """Ask for a response; ``special`` are instructions for it beside the ``general`` ones."""
        ...

    def say(self, request_id: str, text: str) -> JsonObject:
        """Ask for a response that says just that."""
        ...

    def cancel(self, reply_id: str) -> JsonObject:
        """Stop a response."""
        ...


class ServerHistory(Protocol):
    """The conversation as one server has it; methods return the events to send."""

    def put(self, item: Item, before: Sequence[str] = ()) -> Sequence[JsonObject]:
        """Add an item at the end, or replace the one that has its id.

        A new one may go before the first of other items that is known, where the server can.
        """
        ...

    def add_tool_result(self, result: SendToolResult) -> Sequence[JsonObject]:
        """Give the result of a call."""
        ...

    def add_image(self, item_id: str, base64: str) -> Sequence[JsonObject]:
        """Show a picture."""
        ...

    def add_verbatim(self, item_id: str, text: str) -> Sequence[JsonObject]:
        """Put in scripted text that a response has said."""
        ...

    def truncate(self, item_id: str, played_ms: int, heard_text: str) -> Sequence[JsonObject]:
        """Cut an item of the model to what was heard of it."""
        ...

    def delete(self, item_id: str) -> Sequence[JsonObject]:
        """Take an item out."""
        ...

    def item_added(self, item_id: str, previous: str | None) -> None:
        """The server has put in an item."""
        ...

    def item_deleted(self, item_id: str) -> None:
        """The server has taken out an item."""
        ...

    def audio_received(
        self, item_id: str, samples: int, content_index: int = 0, *, verbatim: bool = False
    ) -> None:
        """The server has sent so much sound of one of its items; ``scripted``: as told."""
        ...


@dataclass(frozen=True, slots=True)
class Dialect:
    """One server's way to speak the protocol.

    ``names`` maps its names of events to the ones of OpenAI where they differ. Rates in Hz.
    """

    session: SessionBuilder
    requests: RequestBuilder = field(default_factory=TaggedRequests)
    event_names: Mapping[str, str] = field(default_factory=lambda: BETA_NAMES)
    input_rate: int = 24000
    output_rate: int = 24000
    lifetime_s: float | None = None
    """How long a session lives whose end the server does not tell."""
    closing_events: Sequence[str] = ()
    """Events by which a session is taken leave of."""
    kind_of: Callable[[str, str, str], ErrorKind] = kind_of
    meaning_of: Callable[[str, str], Meaning | None] = meaning_of
    correlates_errors: bool = True
    """Responses and errors say which request they are about; else their order tells."""
    confirms_cancel: bool = True
    """A response that is cancelled has an end of its own; else its last item is the end."""
    auto_interrupts: bool = False
    """Where the person may interrupt, a response is over with the sign that they speak."""
    audio_event_ids: bool = False
    """Events that carry sound have ids as well."""
    images_need_audio: bool = False
    """A picture is taken only behind some sound."""
