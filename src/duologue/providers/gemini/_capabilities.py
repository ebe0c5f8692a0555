"""What each Gemini Live model can do, as `Capabilities`."""

from __future__ import annotations

from duologue.providers.gemini._config import LiveConfig
from duologue.providers.gemini._models import model_traits
from duologue.realtime.capabilities import Capabilities
from duologue.realtime.options import ManualTurns

INPUT_RATE = 16000
OUTPUT_RATE = 24000


def capabilities_of(
    config: LiveConfig, *, video: bool, report_truncation: bool, vertex: bool
) -> Capabilities:
    """Return the capabilities of ``config.model``; for an unknown name those of the newest."""
    traits = model_traits(config.model)
    manual = isinstance(config.turn_detection, ManualTurns)
    proactive = traits.proactivity == "always" or config.proactivity is not None
    return Capabilities(
        provider="gemini",
        model=config.model,
        input_rate=INPUT_RATE,
        output_rate=OUTPUT_RATE,
        video=video,
        tools="reliable",
        tool_reply="automatic",
        say="instructed",
        truncation="as_text" if report_truncation else "none",
        confirms_cancel=False,
        speech_detection="local",
        user_transcripts="none" if config.transcription is None else "final",
        manual_turns=manual,
        turn_reply="automatic",
        may_ignore=not manual or proactive,
        async_tools=traits.async_tools != "none",
        tool_updates=traits.async_tools != "none" and not vertex,
        accepts_history=True,
        mutable_instructions=traits.context_update,
        mutable_tools=traits.context_update,
    )
