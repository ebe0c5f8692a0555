"""Every client event of the protocol, with all its fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, TypeAdapter

from duologue.simulators._json_shapes import AS_SENT, LEFT_OUT, JsonShape, Shape

RATE = 24000
"""Hz of ``audio/pcm``, which has no other rate."""

type AnyObject = dict[str, object]
type Milliseconds = Annotated[int, Field(ge=0)]
type Modalities = list[Literal["text", "audio"]]
type Tokens = Annotated[int, Field(ge=1, le=4096)] | Literal["inf"]
type Fraction = Annotated[float, Field(ge=0.0, le=1.0), AS_SENT]
type Effort = Literal["minimal", "low", "medium", "high", "xhigh"]


class PcmFormat(JsonShape):
    type: Literal["audio/pcm"]
    rate: Annotated[int, Field(ge=RATE, le=RATE)] = LEFT_OUT


class MuLawFormat(JsonShape):
    type: Literal["audio/pcmu"]


class ALawFormat(JsonShape):
    type: Literal["audio/pcma"]


type Format = Annotated[PcmFormat | MuLawFormat | ALawFormat, Field(discriminator="type")]


class CustomVoice(JsonShape):
    id: str


type Voice = str | CustomVoice
"""Any name is accepted. The service refuses unknown names, but new ones are added often."""


class Reasoning(JsonShape):
    effort: Effort = LEFT_OUT


class Prompt(JsonShape):
    id: str
    version: str | None = None
    variables: AnyObject | None = None


class ServerVad(JsonShape):
    type: Literal["server_vad"]
    threshold: Fraction = LEFT_OUT
    prefix_padding_ms: Milliseconds = LEFT_OUT
    silence_duration_ms: Milliseconds = LEFT_OUT
    create_response: bool = LEFT_OUT
    interrupt_response: bool = LEFT_OUT
    idle_timeout_ms: Annotated[int, Field(ge=5000, le=30000)] | None = None


class SemanticVad(JsonShape):
    type: Literal["semantic_vad"]
    eagerness: Literal["low", "medium", "high", "auto"] = LEFT_OUT
    create_response: bool = LEFT_OUT
    interrupt_response: bool = LEFT_OUT


class Transcription(JsonShape):
    model: str = LEFT_OUT
    language: str | None = None
    languages: list[str] = LEFT_OUT
    prompt: str | None = None
    delay: Effort = LEFT_OUT
    keywords: list[str] = LEFT_OUT


class NoiseReduction(JsonShape):
    type: Literal["near_field", "far_field"] = LEFT_OUT
    strength: Annotated[float, Field(ge=0.0), AS_SENT] = LEFT_OUT


class FunctionTool(JsonShape):
    type: Literal["function"]
    name: str
    description: str = LEFT_OUT
    parameters: AnyObject = LEFT_OUT


class McpTool(JsonShape):
    type: Literal["mcp"]
    server_label: str
    allowed_callers: object = LEFT_OUT
    allowed_tools: object = LEFT_OUT
    authorization: object = LEFT_OUT
    connector_id: object = LEFT_OUT
    defer_loading: object = LEFT_OUT
    headers: object = LEFT_OUT
    require_approval: object = LEFT_OUT
    server_description: object = LEFT_OUT
    server_url: object = LEFT_OUT
    tunnel_id: object = LEFT_OUT


type Tools = list[Annotated[FunctionTool | McpTool, Field(discriminator="type")]]


class FunctionChoice(JsonShape):
    type: Literal["function"]
    name: str


class McpChoice(JsonShape):
    type: Literal["mcp"]
    server_label: str
    name: str | None = None


type ToolChoice = (
    Literal["auto", "none", "required"]
    | Annotated[FunctionChoice | McpChoice, Field(discriminator="type")]
)


class TokenLimits(JsonShape):
    post_instructions: Annotated[int, Field(ge=0)] = LEFT_OUT


class RetentionRatio(JsonShape):
    TAG: ClassVar[str] = "type"

    type: Literal["retention_ratio"]
    retention_ratio: Fraction
    token_limits: TokenLimits = LEFT_OUT


class Tracing(JsonShape):
    group_id: str = LEFT_OUT
    workflow_name: str = LEFT_OUT
    metadata: AnyObject = LEFT_OUT


class AudioInput(JsonShape):
    format: Format = LEFT_OUT
    noise_reduction: NoiseReduction | None = None
    transcription: Transcription | None = None
    turn_detection: Annotated[ServerVad | SemanticVad, Field(discriminator="type")] | None = None


class AudioOutput(JsonShape):
    format: Format = LEFT_OUT
    voice: Voice = LEFT_OUT
    speed: Annotated[float, Field(ge=0.25, le=1.5), AS_SENT] = LEFT_OUT


class Audio(JsonShape):
    input: AudioInput = LEFT_OUT
    output: AudioOutput = LEFT_OUT


class Session(JsonShape):
    TAG: ClassVar[str] = "type"

    type: Literal["realtime"]
    model: str = LEFT_OUT
    output_modalities: Modalities = LEFT_OUT
    instructions: str = LEFT_OUT
    audio: Audio = LEFT_OUT
    tools: Tools = LEFT_OUT
    tool_choice: ToolChoice = LEFT_OUT
    parallel_tool_calls: bool | None = None
    reasoning: Reasoning | None = None
    max_output_tokens: Tokens = LEFT_OUT
    truncation: Literal["auto", "disabled"] | RetentionRatio = LEFT_OUT
    tracing: Literal["auto"] | Tracing | None = None
    prompt: Prompt | None = None
    include: list[Literal["item.input_audio_transcription.logprobs"]] | None = None


class Item(JsonShape):
    id: str = LEFT_OUT
    object: Literal["realtime.item"] = LEFT_OUT
    status: Literal["completed", "incomplete", "in_progress"] = LEFT_OUT
    type: str = LEFT_OUT


class InputText(JsonShape):
    type: Literal["input_text"]
    text: str


class SystemText(InputText):
    TAG: ClassVar[str] = "type"


class InputAudio(JsonShape):
    type: Literal["input_audio"]
    audio: str
    transcript: str | None = None


class InputImage(JsonShape):
    type: Literal["input_image"]
    image_url: str
    detail: Literal["auto", "low", "high"] = LEFT_OUT


class OutputText(JsonShape):
    type: Literal["output_text"]
    text: str


class OutputAudio(JsonShape):
    type: Literal["output_audio"]
    audio: str | None = None
    transcript: str | None = None


class SystemMessage(Item):
    role: Literal["system"]
    content: list[SystemText]


class UserMessage(Item):
    role: Literal["user"]
    content: list[Annotated[InputText | InputAudio | InputImage, Field(discriminator="type")]]


class AssistantMessage(Item):
    role: Literal["assistant"]
    content: list[Annotated[OutputText | OutputAudio, Field(discriminator="type")]]


class FunctionCall(Item):
    name: str
    arguments: str
    call_id: str = LEFT_OUT


class FunctionCallOutput(Item):
    call_id: str
    output: str


ITEMS: Mapping[str, Shape] = {
    "message": TypeAdapter(
        Annotated[SystemMessage | UserMessage | AssistantMessage, Field(discriminator="role")]
    ),
    "function_call": TypeAdapter(FunctionCall),
    "function_call_output": TypeAdapter(FunctionCallOutput),
}
"""The shape of each item that a client may create, by its type."""


class ResponseOutput(JsonShape):
    format: Format = LEFT_OUT
    voice: Voice = LEFT_OUT


class ResponseAudio(JsonShape):
    output: ResponseOutput = LEFT_OUT


class Response(JsonShape):
    audio: ResponseAudio = LEFT_OUT
    conversation: Literal["auto", "none"] = LEFT_OUT
    input: list[AnyObject] = LEFT_OUT
    instructions: str = LEFT_OUT
    max_output_tokens: Tokens = LEFT_OUT
    metadata: dict[str, str] | None = None
    output_modalities: Modalities = LEFT_OUT
    parallel_tool_calls: bool = LEFT_OUT
    prompt: Prompt | None = None
    reasoning: Reasoning = LEFT_OUT
    tool_choice: ToolChoice = LEFT_OUT
    tools: Tools = LEFT_OUT


class ClientEvent(JsonShape):
    event_id: str = LEFT_OUT


class ItemCreate(ClientEvent):
    type: Literal["conversation.item.create"]
    item: AnyObject
    previous_item_id: str | None = None


class ItemDelete(ClientEvent):
    type: Literal["conversation.item.delete"]
    item_id: str


class ItemRetrieve(ClientEvent):
    type: Literal["conversation.item.retrieve"]
    item_id: str


class ItemTruncate(ClientEvent):
    type: Literal["conversation.item.truncate"]
    item_id: str
    content_index: Annotated[int, Field(ge=0)]
    audio_end_ms: Milliseconds


class AudioAppend(ClientEvent):
    type: Literal["input_audio_buffer.append"]
    audio: str


class AudioClear(ClientEvent):
    type: Literal["input_audio_buffer.clear"]


class AudioCommit(ClientEvent):
    type: Literal["input_audio_buffer.commit"]


class OutputClear(ClientEvent):
    type: Literal["output_audio_buffer.clear"]


class ResponseCancel(ClientEvent):
    type: Literal["response.cancel"]
    response_id: str | None = None


class ResponseCreate(ClientEvent):
    type: Literal["response.create"]
    response: Response | None = None


class SessionUpdate(ClientEvent):
    type: Literal["session.update"]
    session: Session


class ExpiresAfter(JsonShape):
    anchor: Literal["created_at"] = LEFT_OUT
    seconds: Annotated[int, Field(ge=10, le=7200)] = LEFT_OUT


CLIENT_EVENTS: Shape = TypeAdapter(
    Annotated[
        ItemCreate
        | ItemDelete
        | ItemRetrieve
        | ItemTruncate
        | AudioAppend
        | AudioClear
        | AudioCommit
        | OutputClear
        | ResponseCancel
        | ResponseCreate
        | SessionUpdate,
        Field(discriminator="type"),
    ]
)
SESSION: Shape = TypeAdapter(Session)
EXPIRES_AFTER: Shape = TypeAdapter(ExpiresAfter | None)
"""How long an ephemeral key is valid."""
