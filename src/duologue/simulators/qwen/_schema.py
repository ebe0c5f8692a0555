"""Every client event of the service, and every field that it may have (Model Studio, 2026)."""

from __future__ import annotations

from duologue.simulators._openai_protocol.json_shapes import (
    Anything,
    Entries,
    Flag,
    Many,
    Nullable,
    Number,
    OneOf,
    Shape,
    Table,
    Tagged,
    Text,
    Whole,
)

RATES = (8000, 16000, 24000, 48000)
"""Hz that ``audio.*.format`` may name."""

LEGACY_FORMATS = ("pcm", "pcm16", "pcm24")
"""What ``input_audio_format`` and ``output_audio_format`` may be: they don't change the rates."""

_TEXT = Text()
_OLD_FORMAT = Text(LEGACY_FORMATS)
_FORMAT = Table(
    optional={
        "type": Text(("pcm", "wav")),
        "sample_rate": Whole(8000, 48000),
        "speech_rate": Number(),
    }
)
_MODALITIES = Many(Text(("text", "audio")))
_FINDING: dict[str, Shape] = {
    "threshold": Number(-1.0, 1.0),
    "prefix_padding_ms": Whole(0),
    "silence_duration_ms": Whole(200, 6000),
    "create_response": Flag(),
    "interrupt_response": Flag(),
}
TURN_DETECTION = Tagged(
    "type",
    {
        "server_vad": Table(optional={**_FINDING, "idle_timeout_ms": Nullable(Whole(5000, 30000))}),
        "semantic_vad": Table(optional=_FINDING),
    },
)
_TOOL = Tagged(
    "type",
    {
        "function": Table(
            {
                "function": Table(
                    {"name": _TEXT},
                    {
                        "description": _TEXT,
                        "parameters": Entries(Anything()),
                        "strict": Nullable(Flag()),
                    },
                )
            }
        ),
        "mcp": Table(
            {"server_label": _TEXT},
            dict.fromkeys(
                ("server_url", "headers", "allowed_tools", "authorization", "require_approval"),
                Anything(),
            ),
        ),
    },
)
_TOOL_CHOICE = OneOf(
    (
        Text(("auto", "none", "required")),
        Tagged("type", {"function": Table({"function": Table({"name": _TEXT})})}),
    )
)
_SAMPLING: dict[str, Shape] = {
    "temperature": Number(0.0, 2.0),
    "top_p": Number(0.0, 1.0),
    "top_k": Nullable(Whole(0)),
    "max_tokens": Whole(1),
    "repetition_penalty": Number(0.0),
    "presence_penalty": Number(-2.0, 2.0),
    "seed": Whole(-1, 2**31 - 1),
}

SESSION = Table(
    optional={
        **_SAMPLING,
        "modalities": _MODALITIES,
        "voice": Nullable(_TEXT),
        "instructions": Nullable(_TEXT),
        "input_audio_format": _OLD_FORMAT,
        "output_audio_format": _OLD_FORMAT,
        "sample_rate": Whole(8000, 48000),
        "audio": Table(
            optional={
                "input": Table(optional={"format": _FORMAT}),
                "output": Table(optional={"format": _FORMAT, "voice": Nullable(_TEXT)}),
            }
        ),
        "video": Table(optional={"input": Table(optional={"representation_compact": Anything()})}),
        "input_audio_transcription": Nullable(
            Table(
                optional={
                    "model": Nullable(_TEXT),
                    "language": Nullable(_TEXT),
                    "corpus": Entries(Anything()),
                }
            )
        ),
        "turn_detection": Nullable(Entries(Anything())),
        "tools": Many(_TOOL),
        "tool_choice": _TOOL_CHOICE,
        "enable_search": Flag(),
        "search_options": Table(optional={"enable_source": Flag()}),
        "smooth_output": Nullable(Flag()),
    }
)

_OF_ITEMS: dict[str, Shape] = {
    "id": _TEXT,
    "object": Text(("realtime.item",)),
    "status": Text(("completed", "incomplete", "in_progress")),
    "type": _TEXT,
}
_SAID = Tagged("type", {"input_text": Table({"text": _TEXT})})
_ANSWERED = Tagged("type", {"text": Table({"text": _TEXT})})
_RESULT = Table({"call_id": _TEXT, "output": _TEXT}, _OF_ITEMS)
_MESSAGE = Tagged(
    "role",
    {
        "system": Table({"content": Many(_SAID)}, _OF_ITEMS),
        "user": Table({"content": Many(_SAID)}, _OF_ITEMS),
        "assistant": Table({"content": Many(_ANSWERED)}, _OF_ITEMS),
    },
)

ITEMS: dict[str, Shape] = {"function_call_output": _RESULT, "message": _MESSAGE}
"""The shape of an item that a client may create, by its type."""

_RESPONSE = Table(
    optional={**_SAMPLING, "instructions": Nullable(_TEXT), "modalities": Nullable(_MODALITIES)}
)
_EVENT_ID: dict[str, Shape] = {"event_id": _TEXT}

CLIENT_EVENTS = Tagged(
    "type",
    {
        "conversation.item.create": Table(
            {"item": Entries(Anything())}, {**_EVENT_ID, "previous_item_id": Nullable(_TEXT)}
        ),
        "input_audio_buffer.append": Table({"audio": _TEXT}, _EVENT_ID),
        "input_audio_buffer.clear": Table({}, _EVENT_ID),
        "input_audio_buffer.commit": Table({}, _EVENT_ID),
        "input_image_buffer.append": Table({"image": _TEXT}, _EVENT_ID),
        "response.cancel": Table({}, {**_EVENT_ID, "response_id": Nullable(_TEXT)}),
        "response.create": Table({}, {**_EVENT_ID, "response": Nullable(_RESPONSE)}),
        "session.finish": Table({}, _EVENT_ID),
        "session.update": Table({"session": SESSION}, _EVENT_ID),
    },
)
