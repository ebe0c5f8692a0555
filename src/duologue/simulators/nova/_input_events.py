"""The client's events: their fields, types and bounds.

Source: "Handling input events with the bidirectional API" in the Amazon Nova user guides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    TypeAdapter,
    ValidationError,
)
from pydantic.alias_generators import to_camel
from pydantic.dataclasses import dataclass

from duologue.json_types import Json, JsonObject
from duologue.simulators._fields import read_json

_FIELDS = ConfigDict(alias_generator=to_camel, extra="forbid")

type Rate = Literal[8000, 16000, 24000]
type Sensitivity = Literal["HIGH", "MEDIUM", "LOW"]
type Name = Annotated[str, Field(min_length=1, max_length=256)]


class RefusedError(Exception):
    """The client's event is refused; the stream ends with this message."""


def _check_schema(text: str) -> str:
    try:
        value = read_json(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise ValueError("Input should be a JSON schema as a string")
    return text


@dataclass(frozen=True, slots=True, config=_FIELDS)
class InferenceConfiguration:
    """How the model generates text."""

    max_tokens: Annotated[StrictInt, Field(ge=1, le=10_000)] = 1024
    top_p: Annotated[StrictFloat, Field(ge=0, le=1)] = 0.9
    temperature: Annotated[StrictFloat, Field(ge=0, le=1)] = 0.7


@dataclass(frozen=True, slots=True, config=_FIELDS)
class TurnDetectionConfiguration:
    """How much silence ends a turn."""

    endpointing_sensitivity: Sensitivity


@dataclass(frozen=True, slots=True, config=_FIELDS)
class SessionStart:
    """``sessionStart``."""

    inference_configuration: InferenceConfiguration = field(default_factory=InferenceConfiguration)
    turn_detection_configuration: TurnDetectionConfiguration | None = None
    endpointing_sensitivity: Sensitivity | None = None


@dataclass(frozen=True, slots=True, config=_FIELDS)
class TextConfiguration:
    """Format of text, input or output."""

    media_type: Literal["text/plain", "application/json"] = "text/plain"


@dataclass(frozen=True, slots=True, config=_FIELDS)
class AudioConfiguration:
    """Format of audio, input or output; ``voice_id`` is only for output."""

    sample_rate_hertz: Rate
    media_type: Literal["audio/lpcm"] = "audio/lpcm"
    sample_size_bits: Literal[16] = 16
    channel_count: Literal[1] = 1
    voice_id: str | None = None
    encoding: Literal["base64"] = "base64"
    audio_type: Literal["SPEECH"] = "SPEECH"


@dataclass(frozen=True, slots=True, config=_FIELDS)
class InputSchema:
    """A tool's parameters: a JSON schema, as a string."""

    json: Annotated[str, AfterValidator(_check_schema)]


@dataclass(frozen=True, slots=True, config=_FIELDS)
class ToolSpecification:
    """A tool that the model may call."""

    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    input_schema: InputSchema
    description: Annotated[str, Field(min_length=1)]


@dataclass(frozen=True, slots=True, config=_FIELDS)
class Tool:
    """The wrapper of a tool."""

    tool_spec: ToolSpecification


@dataclass(frozen=True, slots=True, config=_FIELDS)
class NamedTool:
    """The name of the tool that must be called."""

    name: str


@dataclass(frozen=True, slots=True, config=_FIELDS)
class EmptyObject:
    """An empty object."""


@dataclass(frozen=True, slots=True, config=_FIELDS)
class ToolChoice:
    """Which tool the model calls: exactly one of the three fields."""

    auto: EmptyObject | None = None
    any: EmptyObject | None = None
    tool: NamedTool | None = None


@dataclass(frozen=True, slots=True, config=_FIELDS)
class ToolConfiguration:
    """All tools, and which of them the model calls."""

    tools: list[Tool] = field(default_factory=list)
    tool_choice: ToolChoice | None = None


@dataclass(frozen=True, slots=True, config=_FIELDS)
class PromptStart:
    """``promptStart``."""

    prompt_name: Name
    audio_output_configuration: AudioConfiguration
    text_output_configuration: TextConfiguration = field(default_factory=TextConfiguration)
    tool_use_output_configuration: TextConfiguration | None = None
    tool_configuration: ToolConfiguration | None = None


@dataclass(frozen=True, slots=True, config=_FIELDS)
class ToolResultConfiguration:
    """The tool call that a TOOL block answers."""

    tool_use_id: str
    type: Literal["TEXT"] = "TEXT"
    text_input_configuration: TextConfiguration = field(default_factory=TextConfiguration)


@dataclass(frozen=True, slots=True, config=_FIELDS)
class ContentStart:
    """``contentStart``, which begins a block."""

    prompt_name: Name
    content_name: Name
    type: Literal["TEXT", "AUDIO", "TOOL"]
    role: Literal["SYSTEM", "USER", "ASSISTANT", "TOOL", "SYSTEM_SPEECH"]
    interactive: StrictBool = False
    text_input_configuration: TextConfiguration | None = None
    audio_input_configuration: AudioConfiguration | None = None
    tool_result_input_configuration: ToolResultConfiguration | None = None


@dataclass(frozen=True, slots=True, config=_FIELDS)
class TextInput:
    """``textInput``."""

    prompt_name: Name
    content_name: Name
    content: str


@dataclass(frozen=True, slots=True, config=_FIELDS)
class AudioInput:
    """``audioInput``; ``content`` is 16-bit PCM in base64."""

    prompt_name: Name
    content_name: Name
    content: str


@dataclass(frozen=True, slots=True, config=_FIELDS)
class ToolResult:
    """``toolResult``."""

    prompt_name: Name
    content_name: Name
    content: str


@dataclass(frozen=True, slots=True, config=_FIELDS)
class ContentEnd:
    """``contentEnd``, which ends a block."""

    prompt_name: Name
    content_name: Name


@dataclass(frozen=True, slots=True, config=_FIELDS)
class PromptEnd:
    """``promptEnd``."""

    prompt_name: Name


@dataclass(frozen=True, slots=True, config=_FIELDS)
class SessionEnd:
    """``sessionEnd``."""


type InputEvent = (
    SessionStart
    | PromptStart
    | ContentStart
    | TextInput
    | AudioInput
    | ToolResult
    | ContentEnd
    | PromptEnd
    | SessionEnd
)

_ADAPTERS: Mapping[str, TypeAdapter[InputEvent]] = {
    "sessionStart": TypeAdapter(SessionStart),
    "promptStart": TypeAdapter(PromptStart),
    "contentStart": TypeAdapter(ContentStart),
    "textInput": TypeAdapter(TextInput),
    "audioInput": TypeAdapter(AudioInput),
    "toolResult": TypeAdapter(ToolResult),
    "contentEnd": TypeAdapter(ContentEnd),
    "promptEnd": TypeAdapter(PromptEnd),
    "sessionEnd": TypeAdapter(SessionEnd),
}


def split_event(value: Json) -> tuple[str, JsonObject]:
    """Return name and fields of ``{"event": {name: {...}}}``. Raises `RefusedError`.

    Fields beside the event have no effect. Some clients send ``turnDetectionConfiguration`` beside
    ``sessionStart``, and the service accepts that.
    """
    event = value.get("event") if isinstance(value, dict) else None
    if not isinstance(event, dict) or not event or value != {"event": event}:
        raise RefusedError('Invalid input request: an event is {"event": {NAME: {...}}}.')
    name = next((key for key in event if key in _ADAPTERS), next(iter(event)))
    fields = event[name]
    if name not in _ADAPTERS or not isinstance(fields, dict):
        raise RefusedError(f"Invalid input request: {name[:80]} is not an event.")
    return name, fields


def parse(name: str, fields: JsonObject) -> InputEvent:
    """Validate the fields of an event of that name. Raises `RefusedError`."""
    try:
        return _ADAPTERS[name].validate_python(fields)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in (name, *first["loc"]))
        raise RefusedError(f"Invalid input request: {where}: {first['msg']}.") from None
