"""The interface that every model has here, and all that is needed to write one.

`Realtime` is the interface. A provider on a network subclasses `NetworkRealtime` with the
`Capabilities` of its model, a `Codec` that translates between commands, outputs and the service's
messages, and a `Wire` that carries these, such as `WebSocketWire`. docs/realtime.md shows a whole
provider.
"""

from typing import TYPE_CHECKING

from duologue._lazy import lazy_names

if TYPE_CHECKING:
    from duologue.errors import ErrorKind, SessionError
    from duologue.realtime._session.history_diff import diff_histories
    from duologue.realtime._websocket_frames import BinaryMessage
    from duologue.realtime.capabilities import Capabilities
    from duologue.realtime.codec import (
        AudioCodec,
        AudioConnection,
        ClosingCodec,
        Codec,
        Connection,
        NonBlockingWire,
        SessionSetup,
        Wire,
    )
    from duologue.realtime.commands import (
        AddItem,
        CancelReply,
        ClearInput,
        Command,
        DeleteItem,
        EndTurn,
        Ping,
        RequestReply,
        Say,
        Scheduling,
        SendAudio,
        SendToolResult,
        SendVideo,
        ToolSpec,
        Truncate,
        UpdateSession,
    )
    from duologue.realtime.network import NetworkRealtime
    from duologue.realtime.observer import SessionObserver
    from duologue.realtime.options import ManualTurns, SemanticVAD, ServerVAD, Transcription
    from duologue.realtime.outputs import (
        Alive,
        GoAway,
        Output,
        ProviderError,
        RateLimits,
        ReplyAudio,
        ReplyDone,
        ReplyHeard,
        ReplyInterrupted,
        ReplyRefused,
        ReplyStarted,
        ReplyText,
        Resumable,
        SayMismatch,
        SessionStarted,
        SpeechStarted,
        SpeechStopped,
        ToolCall,
        ToolCallsCancelled,
        Usage,
        UserTranscript,
        UserTurnEnded,
    )
    from duologue.realtime.realtime import Realtime
    from duologue.realtime.reconnect import ReconnectPolicy
    from duologue.realtime.reply_slicer import ReplySlicer
    from duologue.realtime.websocket import WebSocketWire
    from duologue.realtime.wire_connection import WireConnection

__all__ = [
    "AddItem",
    "Alive",
    "AudioCodec",
    "AudioConnection",
    "BinaryMessage",
    "CancelReply",
    "Capabilities",
    "ClearInput",
    "ClosingCodec",
    "Codec",
    "Command",
    "Connection",
    "DeleteItem",
    "EndTurn",
    "ErrorKind",
    "GoAway",
    "ManualTurns",
    "NetworkRealtime",
    "NonBlockingWire",
    "Output",
    "Ping",
    "ProviderError",
    "RateLimits",
    "Realtime",
    "ReconnectPolicy",
    "ReplyAudio",
    "ReplyDone",
    "ReplyHeard",
    "ReplyInterrupted",
    "ReplyRefused",
    "ReplySlicer",
    "ReplyStarted",
    "ReplyText",
    "RequestReply",
    "Resumable",
    "Say",
    "SayMismatch",
    "Scheduling",
    "SemanticVAD",
    "SendAudio",
    "SendToolResult",
    "SendVideo",
    "ServerVAD",
    "SessionError",
    "SessionObserver",
    "SessionSetup",
    "SessionStarted",
    "SpeechStarted",
    "SpeechStopped",
    "ToolCall",
    "ToolCallsCancelled",
    "ToolSpec",
    "Transcription",
    "Truncate",
    "UpdateSession",
    "Usage",
    "UserTranscript",
    "UserTurnEnded",
    "WebSocketWire",
    "Wire",
    "WireConnection",
    "diff_histories",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "duologue.errors": ["ErrorKind", "SessionError"],
            "duologue.realtime._session.history_diff": ["diff_histories"],
            "duologue.realtime.capabilities": ["Capabilities"],
            "duologue.realtime.codec": [
                "AudioCodec",
                "AudioConnection",
                "ClosingCodec",
                "Codec",
                "Connection",
                "NonBlockingWire",
                "SessionSetup",
                "Wire",
            ],
            "duologue.realtime.commands": [
                "AddItem",
                "CancelReply",
                "ClearInput",
                "Command",
                "DeleteItem",
                "EndTurn",
                "Ping",
                "RequestReply",
                "Say",
                "Scheduling",
                "SendAudio",
                "SendToolResult",
                "SendVideo",
                "ToolSpec",
                "Truncate",
                "UpdateSession",
            ],
            "duologue.realtime.network": ["NetworkRealtime"],
            "duologue.realtime.observer": ["SessionObserver"],
            "duologue.realtime.options": [
                "ManualTurns",
                "SemanticVAD",
                "ServerVAD",
                "Transcription",
            ],
            "duologue.realtime.outputs": [
                "Alive",
                "GoAway",
                "Output",
                "ProviderError",
                "RateLimits",
                "ReplyAudio",
                "ReplyDone",
                "ReplyHeard",
                "ReplyInterrupted",
                "ReplyRefused",
                "ReplyStarted",
                "ReplyText",
                "Resumable",
                "SayMismatch",
                "SessionStarted",
                "SpeechStarted",
                "SpeechStopped",
                "ToolCall",
                "ToolCallsCancelled",
                "Usage",
                "UserTranscript",
                "UserTurnEnded",
            ],
            "duologue.realtime.realtime": ["Realtime"],
            "duologue.realtime.reconnect": ["ReconnectPolicy"],
            "duologue.realtime.reply_slicer": ["ReplySlicer"],
            "duologue.realtime._websocket_frames": ["BinaryMessage"],
            "duologue.realtime.websocket": ["WebSocketWire"],
            "duologue.realtime.wire_connection": ["WireConnection"],
        },
    )
