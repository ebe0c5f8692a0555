"""Live spoken conversation between people and models."""

from typing import TYPE_CHECKING

from duologue import _telemetry
from duologue._lazy import lazy_names

if TYPE_CHECKING:
    from duologue._running import run
    from duologue.agent.agent import Agent, User
    from duologue.agent.barge_in import BargeInPolicy
    from duologue.agent.conversation import Conversation
    from duologue.agent.jsonl_store import JsonlStore
    from duologue.agent.processors import Processor
    from duologue.agent.speech import Speech
    from duologue.agent.stats import AgentStats
    from duologue.audio import AudioFrame, Framer, Resampler
    from duologue.errors import (
        ConfigError,
        DuologueError,
        MissingExtraError,
        ReplyRefusedError,
        SessionClosedError,
        SessionError,
        UnsupportedError,
    )
    from duologue.pipeline.pipeline import Pipeline
    from duologue.realtime.capabilities import Capabilities, Profile
    from duologue.realtime.options import ManualTurns, SemanticVAD, ServerVAD, Transcription
    from duologue.realtime.realtime import Realtime
    from duologue.realtime.reconnect import ReconnectPolicy
    from duologue.rtc.config import IceServer
    from duologue.vad.endpointing import Endpointing
    from duologue.video import VideoFrame

__version__ = "0.1.0"

_telemetry.switch_off()  # Before anything can import what sends it.

__all__ = [
    "Agent",
    "AgentStats",
    "AudioFrame",
    "BargeInPolicy",
    "Capabilities",
    "ConfigError",
    "Conversation",
    "DuologueError",
    "Endpointing",
    "Framer",
    "IceServer",
    "JsonlStore",
    "ManualTurns",
    "MissingExtraError",
    "Pipeline",
    "Processor",
    "Profile",
    "Realtime",
    "ReconnectPolicy",
    "ReplyRefusedError",
    "Resampler",
    "SemanticVAD",
    "ServerVAD",
    "SessionClosedError",
    "SessionError",
    "Speech",
    "Transcription",
    "UnsupportedError",
    "User",
    "VideoFrame",
    "run",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "duologue._running": ["run"],
            "duologue.agent.agent": ["Agent", "User"],
            "duologue.agent.barge_in": ["BargeInPolicy"],
            "duologue.agent.conversation": ["Conversation"],
            "duologue.agent.jsonl_store": ["JsonlStore"],
            "duologue.agent.processors": ["Processor"],
            "duologue.agent.speech": ["Speech"],
            "duologue.agent.stats": ["AgentStats"],
            "duologue.audio": ["AudioFrame", "Framer", "Resampler"],
            "duologue.errors": [
                "ConfigError",
                "DuologueError",
                "MissingExtraError",
                "ReplyRefusedError",
                "SessionClosedError",
                "SessionError",
                "UnsupportedError",
            ],
            "duologue.pipeline.pipeline": ["Pipeline"],
            "duologue.realtime.capabilities": ["Capabilities", "Profile"],
            "duologue.realtime.options": [
                "ManualTurns",
                "SemanticVAD",
                "ServerVAD",
                "Transcription",
            ],
            "duologue.realtime.realtime": ["Realtime"],
            "duologue.realtime.reconnect": ["ReconnectPolicy"],
            "duologue.rtc.config": ["IceServer"],
            "duologue.vad.endpointing": ["Endpointing"],
            "duologue.video": ["VideoFrame"],
        },
    )
