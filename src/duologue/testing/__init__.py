"""Tools for testing agents: virtual time, scripted models, simulated providers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from duologue._lazy import lazy_names
from duologue.testing.scripted import SCRIPTED_CAPABILITIES, At, Reply, ScriptedRealtime, ToolUse
from duologue.testing.virtual_time import (
    DeadlockError,
    VirtualTimeLoop,
    run_virtual,
    virtual_time,
)

if TYPE_CHECKING:
    from duologue.simulators.cartesia.server import CartesiaSimulator
    from duologue.simulators.deepgram.server import DeepgramSimulator
    from duologue.simulators.elevenlabs.server import ElevenLabsSimulator
    from duologue.simulators.gemini.server import GeminiSimulator
    from duologue.simulators.nova.server import NovaSimulator
    from duologue.simulators.openai.server import OpenAISimulator
    from duologue.simulators.qwen.server import QwenSimulator
    from duologue.simulators.telephone.caller import (
        CallRejectedError,
        LineFaults,
        PlivoCaller,
        TelnyxCaller,
        TelnyxKey,
        TwilioCaller,
        VonageCaller,
    )
    from duologue.simulators.telephone.service import (
        PlivoSimulator,
        TelnyxSimulator,
        TwilioSimulator,
        VonageSimulator,
    )
    from duologue.testing.speech import synthesize, transcribe
    from duologue.testing.wire_replay import Difference, Replay, replay

__all__ = [
    "SCRIPTED_CAPABILITIES",
    "At",
    "CallRejectedError",
    "CartesiaSimulator",
    "DeadlockError",
    "DeepgramSimulator",
    "Difference",
    "ElevenLabsSimulator",
    "GeminiSimulator",
    "LineFaults",
    "NovaSimulator",
    "OpenAISimulator",
    "PlivoCaller",
    "PlivoSimulator",
    "QwenSimulator",
    "Replay",
    "Reply",
    "ScriptedRealtime",
    "TelnyxCaller",
    "TelnyxKey",
    "TelnyxSimulator",
    "ToolUse",
    "TwilioCaller",
    "TwilioSimulator",
    "VirtualTimeLoop",
    "VonageCaller",
    "VonageSimulator",
    "replay",
    "run_virtual",
    "synthesize",
    "transcribe",
    "virtual_time",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "duologue.simulators.cartesia.server": ["CartesiaSimulator"],
            "duologue.simulators.deepgram.server": ["DeepgramSimulator"],
            "duologue.simulators.elevenlabs.server": ["ElevenLabsSimulator"],
            "duologue.simulators.gemini.server": ["GeminiSimulator"],
            "duologue.simulators.nova.server": ["NovaSimulator"],
            "duologue.simulators.openai.server": ["OpenAISimulator"],
            "duologue.simulators.qwen.server": ["QwenSimulator"],
            "duologue.simulators.telephone.caller": [
                "CallRejectedError",
                "LineFaults",
                "PlivoCaller",
                "TelnyxCaller",
                "TelnyxKey",
                "TwilioCaller",
                "VonageCaller",
            ],
            "duologue.simulators.telephone.service": [
                "PlivoSimulator",
                "TelnyxSimulator",
                "TwilioSimulator",
                "VonageSimulator",
            ],
            "duologue.testing.speech": ["synthesize", "transcribe"],
            "duologue.testing.wire_replay": ["Difference", "Replay", "replay"],
        },
    )
