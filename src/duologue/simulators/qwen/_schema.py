"""Every client event of the service, with all its fields (Model Studio, "Client events", 2026)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, TypeAdapter

from duologue.simulators._json_shapes import AS_SENT, LEFT_OUT, JsonShape, Shape

RATES = (8000, 16000, 24000, 48000)
"""Hz that ``audio.*.format`` accepts."""

type AnyObject = dict[str, object]
type LegacyFormat = Literal["pcm", "pcm16", "pcm24"]
"""What ``input_audio_format`` and ``output_audio_format`` may be; they don't change the rates."""
type SampleRate = Annotated[int, Field(ge=8000, le=48000)]
type Modalities = list[Literal["text", "audio"]]


class Format(JsonShape):
    type: Literal["pcm", "wav"] = LEFT_OUT
    sample_rate: SampleRate = LEFT_OUT
    speech_rate: Annotated[float, AS_SENT] = LEFT_OUT


class Detection(JsonShape):
    threshold: Annotated[float, Field(ge=-1.0, le=1.0), AS_SENT] = LEFT_OUT
    prefix_padding_ms: Annotated[int, Field(ge=0)] = LEFT_OUT
    silence_duration_ms: Annotated[int, Field(ge=200, le=6000)] = LEFT_OUT
    create_response: bool = LEFT_OUT
    interrupt_response: bool = LEFT_OUT


class ServerVad(Detection):
    type: Literal["server_vad"]
    idle_timeout_ms: Annotated[int, Field(ge=5000, le=30000)] | None = None


class SemanticVad(Detection):
    type: Literal["semantic_vad"]


class Function(JsonShape):
    name: str
    description: str = LEFT_OUT
    parameters: AnyObject = LEFT_OUT
    strict: bool | None = None


class FunctionTool(JsonShape):
    type: Literal["function"]
    function: Function


class McpTool(JsonShape):
    type: Literal["mcp"]
    server_label: str
    server_url: object = LEFT_OUT
    headers: object = LEFT_OUT
    allowed_tools: object = LEFT_OUT
    authorization: object = LEFT_OUT
    require_approval: object = LEFT_OUT


class NamedFunction(JsonShape):
    name: str


class FunctionChoice(JsonShape):
    TAG: ClassVar[str] = "type"

    type: Literal["function"]
    function: NamedFunction


class Sampling(JsonShape):
    temperature: Annotated[float, Field(ge=0.0, le=2.0), AS_SENT] = LEFT_OUT
    top_p: Annotated[float, Field(ge=0.0, le=1.0), AS_SENT] = LEFT_OUT
    top_k: Annotated[int, Field(ge=0)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] = LEFT_OUT
    repetition_penalty: Annotated[float, Field(ge=0.0), AS_SENT] = LEFT_OUT
    presence_penalty: Annotated[float, Field(ge=-2.0, le=2.0), AS_SENT] = LEFT_OUT
    seed: Annotated[int, Field(ge=-1, le=2**31 - 1)] = LEFT_OUT


class AudioInput(JsonShape):
    format: Format = LEFT_OUT


class AudioOutput(JsonShape):
    format: Format = LEFT_OUT
    voice: str | None = None


class Audio(JsonShape):
    input: AudioInput = LEFT_OUT
    output: AudioOutput = LEFT_OUT


class VideoInput(JsonShape):
    representation_compact: object = LEFT_OUT


class Video(JsonShape):
    input: VideoInput = LEFT_OUT


class Transcription(JsonShape):
    model: str | None = None
    language: str | None = None
    corpus: AnyObject = LEFT_OUT


class SearchOptions(JsonShape):
    enable_source: bool = LEFT_OUT


class Session(Sampling):
    modalities: Modalities = LEFT_OUT
    voice: str | None = None
    instructions: str | None = None
    input_audio_format: LegacyFormat = LEFT_OUT
    output_audio_format: LegacyFormat = LEFT_OUT
    sample_rate: SampleRate = LEFT_OUT
    audio: Audio = LEFT_OUT
    video: Video = LEFT_OUT
    input_audio_transcription: Transcription | None = None
    turn_detection: AnyObject | None = None
    tools: list[Annotated[FunctionTool | McpTool, Field(discriminator="type")]] = LEFT_OUT
    tool_choice: Literal["auto", "none", "required"] | FunctionChoice = LEFT_OUT
    enable_search: bool = LEFT_OUT
    search_options: SearchOptions = LEFT_OUT
    smooth_output: bool | None = None


class Item(JsonShape):
    id: str = LEFT_OUT
    object: Literal["realtime.item"] = LEFT_OUT
    status: Literal["completed", "incomplete", "in_progress"] = LEFT_OUT
    type: str = LEFT_OUT


class InputText(JsonShape):
    TAG: ClassVar[str] = "type"

    type: Literal["input_text"]
    text: str


class OutputText(JsonShape):
    TAG: ClassVar[str] = "type"

    type: Literal["text"]
    text: str


class SystemMessage(Item):
    role: Literal["system"]
    content: list[InputText]


class UserMessage(Item):
    role: Literal["user"]
    content: list[InputText]


class AssistantMessage(Item):
    role: Literal["assistant"]
    content: list[OutputText]


class FunctionCallOutput(Item):
    call_id: str
    output: str


class Response(Sampling):
    instructions: str | None = None
    modalities: Modalities | None = None


class ClientEvent(JsonShape):
    event_id: str = LEFT_OUT


class ItemCreate(ClientEvent):
    type: Literal["conversation.item.create"]
    item: AnyObject
    previous_item_id: str | None = None


class AudioAppend(ClientEvent):
    type: Literal["input_audio_buffer.append"]
    audio: str


class AudioClear(ClientEvent):
    type: Literal["input_audio_buffer.clear"]


class AudioCommit(ClientEvent):
    type: Literal["input_audio_buffer.commit"]


class ImageAppend(ClientEvent):
    type: Literal["input_image_buffer.append"]
    image: str


class ResponseCancel(ClientEvent):
    type: Literal["response.cancel"]
    response_id: str | None = None


class ResponseCreate(ClientEvent):
    type: Literal["response.create"]
    response: Response | None = None


class SessionFinish(ClientEvent):
    type: Literal["session.finish"]


class SessionUpdate(ClientEvent):
    type: Literal["session.update"]
    session: Session


SESSION: Shape = TypeAdapter(Session)
TURN_DETECTION: Shape = TypeAdapter(Annotated[ServerVad | SemanticVad, Field(discriminator="type")])
ITEMS: Mapping[str, Shape] = {
    "function_call_output": TypeAdapter(FunctionCallOutput),
    "message": TypeAdapter(
        Annotated[SystemMessage | UserMessage | AssistantMessage, Field(discriminator="role")]
    ),
}
"""The shape of each item that a client may create, by its type."""
CLIENT_EVENTS: Shape = TypeAdapter(
    Annotated[
        ItemCreate
        | AudioAppend
        | AudioClear
        | AudioCommit
        | ImageAppend
        | ResponseCancel
        | ResponseCreate
        | SessionFinish
        | SessionUpdate,
        Field(discriminator="type"),
    ]
)
