"""What each OpenAI Realtime model can do."""

from __future__ import annotations

from duologue.providers.openai._config import ManualTurns, RealtimeConfig
from duologue.realtime.capabilities import Capabilities

DEPRECATED = frozenset(
    {
        "gpt-realtime",
        "gpt-realtime-2025-08-28",
        "gpt-realtime-mini",
        "gpt-realtime-mini-2025-12-15",
    }
)
"""Shut down on 2027-01-20, as OpenAI says."""


def capabilities_of(config: RealtimeConfig, *, video: bool = True) -> Capabilities:
    """The profile of ``config.model``; a name that is not known here gets the newest one.

    All of them take pictures, call tools and can be cut; what differs comes with the config.
    Transcripts are ``final``: the server writes a turn down only when it has ended.
    """
    return Capabilities(
        provider="openai",
        model=config.model,
        input_rate=24000,
        output_rate=24000,
        video=video,
        tools="reliable",
        tool_reply="requested",
        say="instructed",
        truncation="native",
        speech_detection="none" if isinstance(config.turn_detection, ManualTurns) else "server",
        user_transcripts="none" if config.transcription is None else "final",
        manual_turns=isinstance(config.turn_detection, ManualTurns),
        turn_reply="requested",
        answers_pings=True,
        accepts_history=True,
    )
