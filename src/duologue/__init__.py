"""Live spoken conversation between people and models."""

from importlib import import_module
from typing import TYPE_CHECKING

from duologue import _telemetry

if TYPE_CHECKING:
    from duologue._running import run
    from duologue.agent.agent import Agent, User
    from duologue.agent.barge_in import BargeInPolicy
    from duologue.agent.conversation import Conversation
    from duologue.agent.jsonl_store import JsonlStore
    from duologue.agent.processors import Processor
    from duologue.agent.speech import Speech
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
    from duologue.realtime.capabilities import Capabilities
    from duologue.realtime.realtime import Realtime
    from duologue.video import VideoFrame

__version__ = "0.1.0"

_telemetry.switch_off()  # Before anything can import what sends it.

__all__ = [
    "Agent",
    "AudioFrame",
    "BargeInPolicy",
    "ConfigError",
    "Conversation",
    "DuologueError",
    "Framer",
    "JsonlStore",
    "MissingExtraError",
    "Pipeline",
    "Processor",
    "Capabilities",
    "Realtime",
    "ReplyRefusedError",
    "Resampler",
    "SessionClosedError",
    "SessionError",
    "Speech",
    "UnsupportedError",
    "User",
    "VideoFrame",
    "run",
]

_HOMES = {
    "Agent": "duologue.agent.agent",
    "AudioFrame": "duologue.audio",
    "BargeInPolicy": "duologue.agent.barge_in",
    "ConfigError": "duologue.errors",
    "Conversation": "duologue.agent.conversation",
    "DuologueError": "duologue.errors",
    "Framer": "duologue.audio",
    "JsonlStore": "duologue.agent.jsonl_store",
    "MissingExtraError": "duologue.errors",
    "Pipeline": "duologue.pipeline.pipeline",
    "Processor": "duologue.agent.processors",
    "Capabilities": "duologue.realtime.capabilities",
    "Realtime": "duologue.realtime.realtime",
    "ReplyRefusedError": "duologue.errors",
    "Resampler": "duologue.audio",
    "SessionClosedError": "duologue.errors",
    "SessionError": "duologue.errors",
    "Speech": "duologue.agent.speech",
    "UnsupportedError": "duologue.errors",
    "User": "duologue.agent.agent",
    "VideoFrame": "duologue.video",
    "run": "duologue._running",
}


def __getattr__(name: str) -> object:
    """Load a public name on first use: numpy alone takes longer than an import should."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
