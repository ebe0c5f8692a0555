"""All client messages of the protocol and their fields."""

from __future__ import annotations

from typing import Literal

from pydantic import TypeAdapter

from duologue.json_types import Json, JsonObject
from duologue.simulators._json_shapes import LEFT_OUT
from duologue.simulators.gemini._json_shapes import (
    Integer,
    Number,
    ProtoShape,
    RefusedError,
    camel,
    read_object,
)

IN_RATE = 16000
"""Sample rate of input audio in Hz; audio of other rates is resampled."""
OUT_RATE = 24000
"""Sample rate of the model's audio in Hz."""

type AnyObject = dict[str, object]


class Blob(ProtoShape):
    """Media in base64."""

    data: str = LEFT_OUT
    mime_type: str = LEFT_OUT
    display_name: str = LEFT_OUT


class FunctionResponse(ProtoShape):
    """The result of a function."""

    id: str = LEFT_OUT
    name: str = LEFT_OUT
    response: AnyObject = LEFT_OUT
    scheduling: Literal["SCHEDULING_UNSPECIFIED", "SILENT", "WHEN_IDLE", "INTERRUPT"] = LEFT_OUT
    will_continue: bool = LEFT_OUT
    parts: list[object] = LEFT_OUT


class FunctionCall(ProtoShape):
    """A function call."""

    id: str = LEFT_OUT
    name: str = LEFT_OUT
    args: AnyObject = LEFT_OUT


class Part(ProtoShape):
    """A part of a content."""

    text: str = LEFT_OUT
    thought: bool = LEFT_OUT
    thought_signature: str = LEFT_OUT
    inline_data: Blob = LEFT_OUT
    file_data: object = LEFT_OUT
    function_call: FunctionCall = LEFT_OUT
    function_response: FunctionResponse = LEFT_OUT
    executable_code: object = LEFT_OUT
    code_execution_result: object = LEFT_OUT
    tool_call: object = LEFT_OUT
    tool_response: object = LEFT_OUT
    video_metadata: object = LEFT_OUT
    media_resolution: object = LEFT_OUT
    part_metadata: object = LEFT_OUT
    audio_transcription: object = LEFT_OUT
    media_processing: object = LEFT_OUT
    speech_metadata: object = LEFT_OUT
    document_metadata: object = LEFT_OUT
    spreadsheet_metadata: object = LEFT_OUT
    audio_metadata: object = LEFT_OUT


class Content(ProtoShape):
    """One turn of the conversation, or the system instruction."""

    role: Literal["user", "model", "system", ""] = LEFT_OUT
    parts: list[Part] = LEFT_OUT


class FunctionDeclaration(ProtoShape):
    """A function that the model may call."""

    name: str = LEFT_OUT
    description: str = LEFT_OUT
    parameters: AnyObject = LEFT_OUT
    parameters_json_schema: object = LEFT_OUT
    response: AnyObject = LEFT_OUT
    response_json_schema: object = LEFT_OUT
    behavior: Literal["UNSPECIFIED", "BLOCKING", "NON_BLOCKING"] = LEFT_OUT


class Tool(ProtoShape):
    """Functions, or a tool of the service itself."""

    function_declarations: list[FunctionDeclaration] = LEFT_OUT
    google_search: AnyObject = LEFT_OUT
    google_search_retrieval: AnyObject = LEFT_OUT
    code_execution: AnyObject = LEFT_OUT
    url_context: AnyObject = LEFT_OUT
    google_maps: AnyObject = LEFT_OUT
    enterprise_web_search: AnyObject = LEFT_OUT
    retrieval: AnyObject = LEFT_OUT
    computer_use: AnyObject = LEFT_OUT
    file_search: AnyObject = LEFT_OUT
    parallel_ai_search: AnyObject = LEFT_OUT
    exa_ai_search: AnyObject = LEFT_OUT
    mcp_servers: list[object] = LEFT_OUT


class AudioTranscriptionConfig(ProtoShape):
    """Options of transcripts."""

    language_codes: list[str] = LEFT_OUT
    language_auto: AnyObject = LEFT_OUT
    language_hints: AnyObject = LEFT_OUT
    custom_vocabulary: list[str] = LEFT_OUT
    adaptation_phrases: list[str] = LEFT_OUT
    word_timestamp: bool = LEFT_OUT
    diarization: bool = LEFT_OUT
    mode: str = LEFT_OUT
    source_text: str = LEFT_OUT


class PrebuiltVoiceConfig(ProtoShape):
    """A voice of the service."""

    voice_name: str = LEFT_OUT


class VoiceConfig(ProtoShape):
    """The voice of the model."""

    prebuilt_voice_config: PrebuiltVoiceConfig = LEFT_OUT
    replicated_voice_config: AnyObject = LEFT_OUT
    voice: str = LEFT_OUT


class SpeechConfig(ProtoShape):
    """The speech of the model."""

    voice_config: VoiceConfig = LEFT_OUT
    language_code: str = LEFT_OUT
    multi_speaker_voice_config: object = LEFT_OUT


class ThinkingConfig(ProtoShape):
    """The thoughts of the model."""

    include_thoughts: bool = LEFT_OUT
    thinking_budget: Integer = LEFT_OUT
    thinking_level: Literal[
        "THINKING_LEVEL_UNSPECIFIED", "MINIMAL", "LOW", "MEDIUM", "HIGH", "XHIGH"
    ] = LEFT_OUT


class GenerationConfig(ProtoShape):
    """How the model replies."""

    response_modalities: list[
        Literal["MODALITY_UNSPECIFIED", "TEXT", "IMAGE", "AUDIO", "VIDEO"]
    ] = LEFT_OUT
    temperature: Number = LEFT_OUT
    top_p: Number = LEFT_OUT
    top_k: Number = LEFT_OUT
    max_output_tokens: Integer = LEFT_OUT
    candidate_count: Integer = LEFT_OUT
    presence_penalty: Number = LEFT_OUT
    frequency_penalty: Number = LEFT_OUT
    stop_sequences: list[str] = LEFT_OUT
    media_resolution: Literal[
        "MEDIA_RESOLUTION_UNSPECIFIED",
        "MEDIA_RESOLUTION_LOW",
        "MEDIA_RESOLUTION_MEDIUM",
        "MEDIA_RESOLUTION_HIGH",
        "MEDIA_RESOLUTION_ULTRA_HIGH",
    ] = LEFT_OUT
    seed: Integer = LEFT_OUT
    speech_config: SpeechConfig = LEFT_OUT
    thinking_config: ThinkingConfig = LEFT_OUT
    enable_affective_dialog: bool = LEFT_OUT
    translation_config: AnyObject = LEFT_OUT


class AutomaticActivityDetection(ProtoShape):
    """How user turns are detected."""

    disabled: bool = LEFT_OUT
    start_of_speech_sensitivity: Literal[
        "START_SENSITIVITY_UNSPECIFIED", "START_SENSITIVITY_HIGH", "START_SENSITIVITY_LOW"
    ] = LEFT_OUT
    end_of_speech_sensitivity: Literal[
        "END_SENSITIVITY_UNSPECIFIED", "END_SENSITIVITY_HIGH", "END_SENSITIVITY_LOW"
    ] = LEFT_OUT
    prefix_padding_ms: Integer = LEFT_OUT
    silence_duration_ms: Integer = LEFT_OUT


class RealtimeInputConfig(ProtoShape):
    """How realtime input makes turns."""

    automatic_activity_detection: AutomaticActivityDetection = LEFT_OUT
    activity_handling: Literal[
        "ACTIVITY_HANDLING_UNSPECIFIED", "START_OF_ACTIVITY_INTERRUPTS", "NO_INTERRUPTION"
    ] = LEFT_OUT
    turn_coverage: Literal[
        "TURN_COVERAGE_UNSPECIFIED",
        "TURN_INCLUDES_ONLY_ACTIVITY",
        "TURN_INCLUDES_ALL_INPUT",
        "TURN_INCLUDES_AUDIO_ACTIVITY_AND_ALL_VIDEO",
    ] = LEFT_OUT
    interim_transcript_timestamp_enabled: bool = LEFT_OUT


class SessionResumptionConfig(ProtoShape):
    """The session to resume."""

    handle: str = LEFT_OUT
    transparent: bool = LEFT_OUT


class SlidingWindow(ProtoShape):
    """What compression keeps."""

    target_tokens: Integer = LEFT_OUT


class ContextWindowCompressionConfig(ProtoShape):
    """When and how far the context is compressed."""

    trigger_tokens: Integer = LEFT_OUT
    sliding_window: SlidingWindow = LEFT_OUT


class ProactivityConfig(ProtoShape):
    """Whether the model may ignore input."""

    proactive_audio: bool = LEFT_OUT
    proactive_video: bool = LEFT_OUT


class HistoryConfig(ProtoShape):
    """Where the initial history is."""

    initial_history_in_client_content: bool = LEFT_OUT


class Setup(ProtoShape):
    """``setup``, the first message."""

    model: str = LEFT_OUT
    generation_config: GenerationConfig = LEFT_OUT
    system_instruction: Content = LEFT_OUT
    tools: list[Tool] = LEFT_OUT
    realtime_input_config: RealtimeInputConfig = LEFT_OUT
    session_resumption: SessionResumptionConfig = LEFT_OUT
    context_window_compression: ContextWindowCompressionConfig = LEFT_OUT
    input_audio_transcription: AudioTranscriptionConfig = LEFT_OUT
    output_audio_transcription: AudioTranscriptionConfig = LEFT_OUT
    proactivity: ProactivityConfig = LEFT_OUT
    explicit_vad_signal: bool = LEFT_OUT
    history_config: HistoryConfig = LEFT_OUT
    avatar_config: AnyObject = LEFT_OUT
    safety_settings: list[object] = LEFT_OUT
    translation_config: AnyObject = LEFT_OUT
    labels: AnyObject = LEFT_OUT


class ClientContent(ProtoShape):
    """``clientContent``: turns of the conversation."""

    turns: list[Content] = LEFT_OUT
    turn_complete: bool = LEFT_OUT


class EmptyObject(ProtoShape):
    """An object without fields."""


class RealtimeInput(ProtoShape):
    """``realtimeInput``: audio, images, text, and the user's activity."""

    audio: Blob = LEFT_OUT
    video: Blob = LEFT_OUT
    media_chunks: list[Blob] = LEFT_OUT
    text: str = LEFT_OUT
    audio_stream_end: bool = LEFT_OUT
    activity_start: EmptyObject = LEFT_OUT
    activity_end: EmptyObject = LEFT_OUT


class ToolResponse(ProtoShape):
    """``toolResponse``: results of functions."""

    function_responses: list[FunctionResponse] = LEFT_OUT


class ToolsUpdate(ProtoShape):
    """All tools of a changed session."""

    tools: list[Tool] = LEFT_OUT


class ContextUpdate(ProtoShape):
    """``contextUpdate``: changes of a session."""

    system_instruction: Content = LEFT_OUT
    tools: ToolsUpdate = LEFT_OUT


class ClientMessage(ProtoShape):
    """A message of the client; it has one of the fields."""

    setup: Setup = LEFT_OUT
    client_content: ClientContent = LEFT_OUT
    realtime_input: RealtimeInput = LEFT_OUT
    tool_response: ToolResponse = LEFT_OUT
    context_update: ContextUpdate = LEFT_OUT


class TokenRequest(ProtoShape):
    """A request for an ephemeral token."""

    name: str = LEFT_OUT
    uses: Integer = LEFT_OUT
    expire_time: str = LEFT_OUT
    new_session_expire_time: str = LEFT_OUT
    bidi_generate_content_setup: Setup = LEFT_OUT
    field_mask: str = LEFT_OUT


CLIENT = TypeAdapter(ClientMessage)
"""The shape of a client message."""

TOKEN_REQUEST = TypeAdapter(TokenRequest)
"""The shape of a request for an ephemeral token."""

MESSAGES = ("setup", "clientContent", "realtimeInput", "toolResponse", "contextUpdate")
"""The names of client messages."""


def read_message(value: Json) -> JsonObject:
    """Return a client message with names in camelCase. Raises `RefusedError`.

    The parts of ``realtimeInput`` stay in the order in which the client sent them.
    """
    message = read_object(CLIENT, value)
    names = [name for name in MESSAGES if name in message]
    if len(names) > 1:
        raise RefusedError(
            "Invalid value at '' (oneof), oneof field 'message_type' is already set. "
            f"Cannot set '{names[1]}'"
        )
    parts = message.get("realtimeInput")
    if isinstance(parts, dict) and isinstance(value, dict):
        sent = [one for key, one in value.items() if camel(key) == "realtimeInput" and one]
        order = [camel(key) for key in sent[-1]] if sent and isinstance(sent[-1], dict) else []
        message["realtimeInput"] = {name: parts[name] for name in order if name in parts}
    return message
