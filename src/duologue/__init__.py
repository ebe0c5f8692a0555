"""Live spoken conversation between people and models."""

from duologue.agent import Agent, User
from duologue.audio import AudioFrame, Framer, Resampler
from duologue.barge_in import BargeInPolicy
from duologue.conversation import Conversation, JsonlStore
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
from duologue.speech import Speech
from duologue.video import VideoFrame

__version__ = "0.1.0"

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
]
