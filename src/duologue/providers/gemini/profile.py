"""What each Gemini Live model can do."""

from __future__ import annotations

from duologue.providers.gemini.config import LiveConfig, ManualTurns
from duologue.providers.gemini.models import traits_of
from duologue.realtime.profile import Profile

INPUT_RATE = 16000
OUTPUT_RATE = 24000


def profile_of(config: LiveConfig, *, video: bool, told_cuts: bool, vertex: bool) -> Profile:
    """The profile of ``config.model``; a name that is not known here gets the newest one."""
    traits = traits_of(config.model)
    manual = isinstance(config.turn_detection, ManualTurns)
    proactive = traits.proactivity == "always" or config.proactivity is not None
    return Profile(
        provider="gemini",
        model=config.model,
        input_rate=INPUT_RATE,
        output_rate=OUTPUT_RATE,
        video=video,
        tools="reliable",
        tool_reply="automatic",
        say="instructed",
        truncates=False,
        told_cuts=told_cuts,
        cancels=False,
        speech_signals="found",
        user_transcripts="none" if config.input_transcription is None else "final",
        manual_turns=manual,
        turn_reply="automatic",
        may_ignore=not manual or proactive,
        async_tools=traits.async_tools != "none",
        tool_updates=traits.async_tools != "none" and not vertex,
        replays=True,
        mutable_instructions=traits.context_update,
        mutable_tools=traits.context_update,
    )
