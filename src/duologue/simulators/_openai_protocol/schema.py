"""Every client event of the protocol, and every field that it may have."""

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

RATE = 24000
"""Hz of ``audio/pcm``: the one rate that the protocol knows."""

_TEXT = Text()
_STATUS = Text(("completed", "incomplete", "in_progress"))

_FORMAT = Tagged(
    "type",
    {
        "audio/pcm": Table(optional={"rate": Whole(RATE, RATE)}),
        "audio/pcmu": Table(),
        "audio/pcma": Table(),
    },
)
_VOICE = OneOf((_TEXT, Table({"id": _TEXT})))
"""Any name: the service refuses unknown ones, but new ones are added often."""
_MODALITIES = Many(Text(("text", "audio")))
_TOKENS = OneOf((Whole(1, 4096), Text(("inf",))))
_REASONING = Table(optional={"effort": Text(("minimal", "low", "medium", "high", "xhigh"))})
_PROMPT = Table(
    {"id": _TEXT},
    {"version": Nullable(_TEXT), "variables": Nullable(Entries(Anything()))},
)
_TURN_DETECTION = Tagged(
    "type",
    {
        "server_vad": Table(
            optional={
                "threshold": Number(0.0, 1.0),
                "prefix_padding_ms": Whole(0),
                "silence_duration_ms": Whole(0),
                "create_response": Flag(),
                "interrupt_response": Flag(),
                "idle_timeout_ms": Nullable(Whole(5000, 30000)),
            }
        ),
        "semantic_vad": Table(
            optional={
                "eagerness": Text(("low", "medium", "high", "auto")),
                "create_response": Flag(),
                "interrupt_response": Flag(),
            }
        ),
    },
)
_TRANSCRIPTION = Table(
    optional={
        "model": _TEXT,
        "language": Nullable(_TEXT),
        "languages": Many(_TEXT),
        "prompt": Nullable(_TEXT),
        "delay": Text(("minimal", "low", "medium", "high", "xhigh")),
        "keywords": Many(_TEXT),
    }
)
_NOISE_REDUCTION = Table(
    optional={"type": Text(("near_field", "far_field")), "strength": Number(0.0)}
)
_TOOL = Tagged(
    "type",
    {
        "function": Table(
            {"name": _TEXT}, {"description": _TEXT, "parameters": Entries(Anything())}
        ),
        "mcp": Table(
            {"server_label": _TEXT},
            dict.fromkeys(
                (
                    "allowed_callers",
                    "allowed_tools",
                    "authorization",
                    "connector_id",
                    "defer_loading",
                    "headers",
                    "require_approval",
                    "server_description",
                    "server_url",
                    "tunnel_id",
                ),
                Anything(),
            ),
        ),
    },
)
_TOOL_CHOICE = OneOf(
    (
        Text(("auto", "none", "required")),
        Tagged(
            "type",
            {
                "function": Table({"name": _TEXT}),
                "mcp": Table({"server_label": _TEXT}, {"name": Nullable(_TEXT)}),
            },
        ),
    )
)
_TRUNCATION = OneOf(
    (
        Text(("auto", "disabled")),
        Tagged(
            "type",
            {
                "retention_ratio": Table(
                    {"retention_ratio": Number(0.0, 1.0)},
                    {"token_limits": Table(optional={"post_instructions": Whole(0)})},
                )
            },
        ),
    )
)
_TRACING = OneOf(
    (
        Text(("auto",)),
        Table(
            optional={
                "group_id": _TEXT,
                "workflow_name": _TEXT,
                "metadata": Entries(Anything()),
            }
        ),
    )
)

SESSION = Tagged(
    "type",
    {
        "realtime": Table(
            optional={
                "model": _TEXT,
                "output_modalities": _MODALITIES,
                "instructions": _TEXT,
                "audio": Table(
                    optional={
                        "input": Table(
                            optional={
                                "format": _FORMAT,
                                "noise_reduction": Nullable(_NOISE_REDUCTION),
                                "transcription": Nullable(_TRANSCRIPTION),
                                "turn_detection": Nullable(_TURN_DETECTION),
                            }
                        ),
                        "output": Table(
                            optional={
                                "format": _FORMAT,
                                "voice": _VOICE,
                                "speed": Number(0.25, 1.5),
                            }
                        ),
                    }
                ),
                "tools": Many(_TOOL),
                "tool_choice": _TOOL_CHOICE,
                "parallel_tool_calls": Nullable(Flag()),
                "reasoning": Nullable(_REASONING),
                "max_output_tokens": _TOKENS,
                "truncation": _TRUNCATION,
                "tracing": Nullable(_TRACING),
                "prompt": Nullable(_PROMPT),
                "include": Nullable(Many(Text(("item.input_audio_transcription.logprobs",)))),
            }
        )
    },
)

_OF_ITEMS: dict[str, Shape] = {
    "id": _TEXT,
    "object": Text(("realtime.item",)),
    "status": _STATUS,
}
_SYSTEM = Tagged("type", {"input_text": Table({"text": _TEXT})})
_USER = Tagged(
    "type",
    {
        "input_text": Table({"text": _TEXT}),
        "input_audio": Table({"audio": _TEXT}, {"transcript": Nullable(_TEXT)}),
        "input_image": Table({"image_url": _TEXT}, {"detail": Text(("auto", "low", "high"))}),
    },
)
_ASSISTANT = Tagged(
    "type",
    {
        "output_text": Table({"text": _TEXT}),
        "output_audio": Table(optional={"audio": Nullable(_TEXT), "transcript": Nullable(_TEXT)}),
    },
)
_KIND = Text()
_MESSAGE = Tagged(
    "role",
    {
        "system": Table({"content": Many(_SYSTEM)}, {**_OF_ITEMS, "type": _KIND}),
        "user": Table({"content": Many(_USER)}, {**_OF_ITEMS, "type": _KIND}),
        "assistant": Table({"content": Many(_ASSISTANT)}, {**_OF_ITEMS, "type": _KIND}),
    },
)
_CALL = Table({"name": _TEXT, "arguments": _TEXT}, {**_OF_ITEMS, "type": _KIND, "call_id": _TEXT})
_RESULT = Table({"call_id": _TEXT, "output": _TEXT}, {**_OF_ITEMS, "type": _KIND})

ITEMS: dict[str, Shape] = {
    "message": _MESSAGE,
    "function_call": _CALL,
    "function_call_output": _RESULT,
}
"""The shape of an item by its type; to be checked once the type is known."""

_RESPONSE = Table(
    optional={
        "audio": Table(optional={"output": Table(optional={"format": _FORMAT, "voice": _VOICE})}),
        "conversation": Text(("auto", "none")),
        "input": Many(Entries(Anything())),
        "instructions": _TEXT,
        "max_output_tokens": _TOKENS,
        "metadata": Nullable(Entries(_TEXT)),
        "output_modalities": _MODALITIES,
        "parallel_tool_calls": Flag(),
        "prompt": Nullable(_PROMPT),
        "reasoning": _REASONING,
        "tool_choice": _TOOL_CHOICE,
        "tools": Many(_TOOL),
    }
)

_EVENT_ID: dict[str, Shape] = {"event_id": _TEXT}

CLIENT_EVENTS = Tagged(
    "type",
    {
        "conversation.item.create": Table(
            {"item": Entries(Anything())}, {**_EVENT_ID, "previous_item_id": Nullable(_TEXT)}
        ),
        "conversation.item.delete": Table({"item_id": _TEXT}, _EVENT_ID),
        "conversation.item.retrieve": Table({"item_id": _TEXT}, _EVENT_ID),
        "conversation.item.truncate": Table(
            {"item_id": _TEXT, "content_index": Whole(0), "audio_end_ms": Whole(0)}, _EVENT_ID
        ),
        "input_audio_buffer.append": Table({"audio": _TEXT}, _EVENT_ID),
        "input_audio_buffer.clear": Table({}, _EVENT_ID),
        "input_audio_buffer.commit": Table({}, _EVENT_ID),
        "output_audio_buffer.clear": Table({}, _EVENT_ID),
        "response.cancel": Table({}, {**_EVENT_ID, "response_id": Nullable(_TEXT)}),
        "response.create": Table({}, {**_EVENT_ID, "response": Nullable(_RESPONSE)}),
        "session.update": Table({"session": SESSION}, _EVENT_ID),
    },
)
