"""Live spoken conversation between people and models."""

from importlib import import_module
from typing import TYPE_CHECKING

from duologue import telemetry

if TYPE_CHECKING:
    from duologue.agent import Agent, User
    from duologue.audio import AudioFrame, Framer, Resampler
    from duologue.barge_in import BargeInPolicy
    from duologue.conversation import Conversation
    from duologue.jsonl_store import JsonlStore
    from duologue.pipeline.pipeline import Pipeline
    from duologue.processors import Processor
    from duologue.realtime.errors import (
        ConfigError,
        DuologueError,
        MissingExtraError,
        ReplyRefusedError,
        SessionClosedError,
        SessionError,
        UnsupportedError,
    )
    from duologue.realtime.profile import Profile
    from duologue.realtime.session import Realtime
    from duologue.running import run
    from duologue.speech import Speech
    from duologue.video import VideoFrame

__version__ = "0.1.0"

telemetry.switch_off()  # Before anything can import what sends it.

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
    "Profile",
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
    "Agent": "duologue.agent",
    "AudioFrame": "duologue.audio",
    "BargeInPolicy": "duologue.barge_in",
    "ConfigError": "duologue.realtime.errors",
    "Conversation": "duologue.conversation",
    "DuologueError": "duologue.realtime.errors",
    "Framer": "duologue.audio",
    "JsonlStore": "duologue.jsonl_store",
    "MissingExtraError": "duologue.realtime.errors",
    "Pipeline": "duologue.pipeline.pipeline",
    "Processor": "duologue.processors",
    "Profile": "duologue.realtime.profile",
    "Realtime": "duologue.realtime.session",
    "ReplyRefusedError": "duologue.realtime.errors",
    "Resampler": "duologue.audio",
    "SessionClosedError": "duologue.realtime.errors",
    "SessionError": "duologue.realtime.errors",
    "Speech": "duologue.speech",
    "UnsupportedError": "duologue.realtime.errors",
    "User": "duologue.agent",
    "VideoFrame": "duologue.video",
    "run": "duologue.running",
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
