"""What a Realtime tells a model: one closed union, translated by a provider's codec."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from duologue.audio import AudioFrame
from duologue.items import Item
from duologue.json_types import Json
from duologue.video import VideoFrame

type Scheduling = Literal["silent", "when_idle", "interrupt"]


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A tool as the model sees it; ``parameters`` is a JSON schema of type object.

    ``scheduling``: what becomes of its result where the model goes on talking while it runs: known
    and not spoken of, spoken of when nobody speaks, or at once. None: the model waits for it.
    """

    name: str
    description: str
    parameters: dict[str, Json]
    scheduling: Scheduling | None = None


@dataclass(frozen=True, slots=True, eq=False)
class SendAudio:
    """The next sound of the person, at the profile's input rate."""

    frame: AudioFrame


@dataclass(frozen=True, slots=True, eq=False)
class SendVideo:
    """One picture that the model may look at.

    ``now``: it keeps its place among the other commands instead of giving way to sound, because
    what follows is about it. ``jpeg`` is the picture as its connection has encoded it, in a
    thread, for a provider that wants JPEG.
    """

    frame: VideoFrame
    in_order: bool = False
    jpeg: bytes | None = None


@dataclass(frozen=True, slots=True)
class EndTurn:
    """The person's turn is over (manual turns); takes its place behind the audio sent so far.

    ``reply=False``: the model is not to answer it by itself.
    """

    reply: bool = True


@dataclass(frozen=True, slots=True)
class ClearInput:
    """Forget the audio of the turn that has not ended yet."""


@dataclass(frozen=True, slots=True)
class AddItem:
    """Add an item to the end of the model's history, without requesting a reply.

    ``before``: insert it before the first of these items that the model knows, if its history can
    be changed (`Capabilities.truncates`).
    """

    item: Item
    before: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class DeleteItem:
    """Take an item out of the model's history."""

    item_id: str


@dataclass(frozen=True, slots=True)
class Truncate:
    """Cut an agent item to what was heard: ``played_ms`` of its sound, ``heard_text``."""

    item_id: str
    played_ms: int
    heard_text: str


@dataclass(frozen=True, slots=True)
class RequestReply:
    """Make the model speak; ``instructions`` hold for this reply only."""

    request_id: str
    instructions: str | None = None


@dataclass(frozen=True, slots=True)
class Say:
    """Make the model speak exactly ``text``; the person may talk it down if ``interruptible``."""

    request_id: str
    text: str
    interruptible: bool = True


@dataclass(frozen=True, slots=True)
class CancelReply:
    """Stop making this reply, and drop what the provider has buffered of it."""

    reply_id: str


@dataclass(frozen=True, slots=True)
class SendToolResult:
    """The one answer to a tool call; with ``more``, a part of it, and others follow.

    The last part comes twice: once as such, and once as the answer. ``quiet``: the
    model must not speak about it, because the call was interrupted.
    """

    call_id: str
    name: str
    output: str
    failed: bool = False
    more: bool = False
    quiet: bool = False


@dataclass(frozen=True, slots=True)
class UpdateSession:
    """Change instructions or tools in mid-session; None leaves a part as it is."""

    instructions: str | None = None
    tools: Sequence[ToolSpec] | None = None


@dataclass(frozen=True, slots=True)
class Ping:
    """Request a sign of life: `Alive` or any other output.

    Sent only to a model whose profile has ``answers_pings``.
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
