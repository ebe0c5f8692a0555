"""Commands from a `Realtime` to a model: one closed union, translated by a provider's codec."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from duologue.audio import AudioFrame
from duologue.items import Item
from duologue.json_types import JsonObject
from duologue.video import VideoFrame

type Scheduling = Literal["silent", "when_idle", "interrupt"]


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A tool as the model sees it; ``parameters`` is a JSON schema of type object.

    ``scheduling`` says how the model uses the result if it continues to talk while the tool runs:
    ``silent`` without speaking about it, ``when_idle`` once nobody speaks, ``interrupt`` at once.
    None: the model waits for the result.
    """

    name: str
    description: str
    parameters: JsonObject
    scheduling: Scheduling | None = None


@dataclass(frozen=True, slots=True, eq=False)
class SendAudio:
    """The person's next audio, at the model's input rate."""

    frame: AudioFrame


@dataclass(frozen=True, slots=True, eq=False)
class SendVideo:
    """One image that the model may look at.

    ``in_order``: it keeps its place among the other commands instead of waiting behind audio,
    because what follows is about it. ``jpeg`` is the image as encoded by its connection, in a
    thread, for a provider that needs JPEG.
    """

    frame: VideoFrame
    in_order: bool = False
    jpeg: bytes | None = None


@dataclass(frozen=True, slots=True)
class EndTurn:
    """End the person's turn (manual turns), behind the audio sent so far.

    ``reply=False``: the model must not reply to it by itself.
    """

    reply: bool = True


@dataclass(frozen=True, slots=True)
class ClearInput:
    """Drop the audio of the turn that has not ended yet."""


@dataclass(frozen=True, slots=True)
class AddItem:
    """Add an item to the end of the model's history, without requesting a reply.

    ``before``: insert it before the first of these items that the model knows, if its history can
    be changed (`Capabilities.truncation` is ``native``).
    """

    item: Item
    before: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class DeleteItem:
    """Delete an item from the model's history."""

    item_id: str


@dataclass(frozen=True, slots=True)
class Truncate:
    """Truncate an agent item to what was heard: ``played_ms`` of its audio, ``heard_text``."""

    item_id: str
    played_ms: int
    heard_text: str


@dataclass(frozen=True, slots=True)
class RequestReply:
    """Make the model speak; ``instructions`` apply to this reply only."""

    request_id: str
    instructions: str | None = None


@dataclass(frozen=True, slots=True)
class Say:
    """Make the model speak exactly ``text``; ``interruptible``: the person may talk over it."""

    request_id: str
    text: str
    interruptible: bool = True


@dataclass(frozen=True, slots=True)
class CancelReply:
    """Stop making this reply, and drop what the provider has buffered of it."""

    reply_id: str


@dataclass(frozen=True, slots=True)
class SendToolResult:
    """The one result of a tool call; with ``more``, a part of it, which others follow.

    The last part is sent twice: as a part, and as the result. ``quiet``: the model must not speak
    about it, because the call was interrupted.
    """

    call_id: str
    name: str
    output: str
    failed: bool = False
    more: bool = False
    quiet: bool = False


@dataclass(frozen=True, slots=True)
class UpdateSession:
    """Change instructions or tools during the session; None leaves a part unchanged."""

    instructions: str | None = None
    tools: Sequence[ToolSpec] | None = None


@dataclass(frozen=True, slots=True)
class Ping:
    """Request a sign of life: `Alive` or any other output.

    Sent only to a model whose capabilities have ``answers_pings``.
    """


type Command = (
    SendAudio
    | SendVideo
    | EndTurn
    | ClearInput
    | AddItem
    | DeleteItem
    | Truncate
    | RequestReply
    | Say
    | CancelReply
    | SendToolResult
    | UpdateSession
    | Ping
)
