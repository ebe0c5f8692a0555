"""The capabilities of each OpenAI Realtime model."""

from __future__ import annotations

from duologue.providers.openai._config import RealtimeConfig
from duologue.realtime.capabilities import Capabilities
from duologue.realtime.options import ManualTurns

DEPRECATED = frozenset(
    {
        "gpt-realtime",
        "gpt-realtime-2025-08-28",
        "gpt-realtime-mini",
        "gpt-realtime-mini-2025-12-15",
    }
)
"""Will be shut down on 2027-01-20, according to OpenAI."""


def capabilities_of(config: RealtimeConfig, *, video: bool = True) -> Capabilities:
    """Return the capabilities of ``config.model``; an unknown name gets those of the newest model.

    All models accept images, call tools and truncate items; the rest depends on the options. User
    transcripts are ``final``, because the server transcribes a turn only when it has ended.
    """
    return Capabilities(
        provider="openai",
        model=config.model,
        input_rate=config.rate,
        output_rate=config.rate,
        output=config.output,
        video=video,
        tools="reliable",
        tool_reply="requested",
        say="instructed",
        truncation="native",
        confirms_cancel=True,
        speech_detection="none" if isinstance(config.turn_detection, ManualTurns) else "server",
        user_transcripts="none" if config.transcription is None else "final",
        manual_turns=isinstance(config.turn_detection, ManualTurns),
        turn_reply="requested",
        answers_pings=True,
        accepts_history=True,
        mutable_instructions=True,
        mutable_tools=True,
    )
