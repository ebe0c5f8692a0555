"""The capabilities of each Qwen Omni model."""

from __future__ import annotations

from duologue.providers.qwen._config import QwenConfig
from duologue.providers.qwen._models import INPUT_RATE
from duologue.realtime.capabilities import Capabilities
from duologue.realtime.options import ManualTurns


def capabilities_of(config: QwenConfig, *, video: bool = True) -> Capabilities:
    """Return the capabilities of ``config.model``.

    None of the models can truncate its history. Models with text items get a note of what was
    heard, and get the history on a new connection; the others start it with none.
    """
    traits = config.traits
    manual = isinstance(config.turn_detection, ManualTurns)
    words = config.transcription is not None and (traits.transcribes_manual_turns or not manual)
    return Capabilities(
        provider="qwen",
        model=config.model,
        input_rate=INPUT_RATE,
        output_rate=config.output_rate,
        output=config.output,
        video=video,
        tools="reliable" if traits.tools else "none",
        tool_reply="requested",
        say="instructed",
        truncation="as_text" if traits.text_items else "none",
        confirms_cancel=True,
        speech_detection="none" if manual else "server",
        user_transcripts="final" if words else "none",
        manual_turns=manual,
        turn_reply="requested",
        may_ignore=True,
        answers_pings=True,
        accepts_history=traits.text_items,
        mutable_instructions=True,
        mutable_tools=traits.tools,
    )
