"""The client's events: their fields, types and bounds.

Source: "Handling input events with the bidirectional API" in the Amazon Nova user guides.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    TypeAdapter,
)
from pydantic.alias_generators import to_camel

from duologue.json_types import Json, JsonObject
from duologue.simulators import _json_shapes
from duologue.simulators._fields import read_json
from duologue.simulators._json_shapes import JsonShape, Problem, ShapeError

type Rate = Literal[8000, 16000, 24000]
type Sensitivity = Literal["HIGH", "MEDIUM", "LOW"]
type Name = Annotated[str, Field(min_length=1, max_length=256)]


class RefusedError(Exception):
    """The client's event is refused; the stream ends with this message."""


class EventShape(JsonShape):
    """An object of the protocol, whose names are in camelCase."""

    model_config = ConfigDict(alias_generator=to_camel)


def _check_schema(text: str) -> str:
    try:
        value = read_json(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise ValueError("Input should be a JSON schema as a string")
    return text


class InferenceConfiguration(EventShape):
    """How the model generates text."""

    max_tokens: Annotated[int, Field(ge=1, le=10_000)] = 1024
    top_p: Annotated[float, Field(ge=0, le=1)] = 0.9
    temperature: Annotated[float, Field(ge=0, le=1)] = 0.7


class TurnDetectionConfiguration(EventShape):
    """How much silence ends a turn."""

    endpointing_sensitivity: Sensitivity


class SessionStart(EventShape):
    """``sessionStart``."""

    inference_configuration: InferenceConfiguration = Field(default_factory=InferenceConfiguration)
    turn_detection_configuration: TurnDetectionConfiguration | None = None
    endpointing_sensitivity: Sensitivity | None = None


class TextConfiguration(EventShape):
    """Format of text, input or output."""

    media_type: Literal["text/plain", "application/json"] = "text/plain"


class AudioConfiguration(EventShape):
    """Format of audio, input or output; ``voice_id`` is only for output."""

    sample_rate_hertz: Rate
    media_type: Literal["audio/lpcm"] = "audio/lpcm"
    sample_size_bits: Literal[16] = 16
    channel_count: Literal[1] = 1
    voice_id: str | None = None
    encoding: Literal["base64"] = "base64"
    audio_type: Literal["SPEECH"] = "SPEECH"


class InputSchema(EventShape):
    """A tool's parameters: a JSON schema, as a string."""

    json_schema: Annotated[str, AfterValidator(_check_schema)] = Field(alias="json")


class ToolSpecification(EventShape):
    """A tool that the model may call."""

    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    input_schema: InputSchema
    description: Annotated[str, Field(min_length=1)]


class Tool(EventShape):
    """The wrapper of a tool."""

    tool_spec: ToolSpecification


class NamedTool(EventShape):
    """The name of the tool that must be called."""

    name: str


class EmptyObject(EventShape):
    """An empty object."""


class ToolChoice(EventShape):
    """Which tool the model calls: exactly one of the three fields."""

    auto: EmptyObject | None = None
    any: EmptyObject | None = None
    tool: NamedTool | None = None


class ToolConfiguration(EventShape):
    """All tools, and which of them the model calls."""

    tools: list[Tool] = Field(default_factory=list)
    tool_choice: ToolChoice | None = None


class PromptStart(EventShape):
    """``promptStart``."""

    prompt_name: Name
    audio_output_configuration: AudioConfiguration
    text_output_configuration: TextConfiguration = Field(default_factory=TextConfiguration)
    tool_use_output_configuration: TextConfiguration | None = None
    tool_configuration: ToolConfiguration | None = None


class ToolResultConfiguration(EventShape):
    """The tool call that a TOOL block answers."""

    tool_use_id: str
    type: Literal["TEXT"] = "TEXT"
    text_input_configuration: TextConfiguration = Field(default_factory=TextConfiguration)


class ContentStart(EventShape):
    """``contentStart``, which begins a block."""

    prompt_name: Name
    content_name: Name
    type: Literal["TEXT", "AUDIO", "TOOL"]
    role: Literal["SYSTEM", "USER", "ASSISTANT", "TOOL", "SYSTEM_SPEECH"]
    interactive: bool = False
    text_input_configuration: TextConfiguration | None = None
    audio_input_configuration: AudioConfiguration | None = None
    tool_result_input_configuration: ToolResultConfiguration | None = None


class TextInput(EventShape):
    """``textInput``."""

    prompt_name: Name
    content_name: Name
    content: str


class AudioInput(EventShape):
    """``audioInput``; ``content`` is 16-bit PCM in base64."""

    prompt_name: Name
    content_name: Name
    content: str


class ToolResult(EventShape):
    """``toolResult``."""

    prompt_name: Name
    content_name: Name
    content: str


class ContentEnd(EventShape):
    """``contentEnd``, which ends a block."""

    prompt_name: Name
    content_name: Name


class PromptEnd(EventShape):
    """``promptEnd``."""

    prompt_name: Name


class SessionEnd(EventShape):
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
        return _json_shapes.parse(_ADAPTERS[name], fields)
    except ShapeError as error:
        problem = error.declared
        where = ".".join(str(part) for part in (name, *problem.path))
        raise RefusedError(f"Invalid input request: {where}: {_message(problem)}.") from None


def _message(problem: Problem) -> str:
    """Return the service's words for a problem: pydantic's, with two exceptions."""
    match problem.kind:
        case "unknown":
            return "Unexpected keyword argument"
        case "type" if problem.wanted == ("object",):
            return "Input should be an object"
        case _:
            return problem.message
