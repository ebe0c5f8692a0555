"""What each Qwen Omni model can do, as the session asks for it."""

from __future__ import annotations

from duologue.providers.qwen.config import ManualTurns, QwenConfig
from duologue.providers.qwen.models import INPUT_RATE
from duologue.realtime.profile import Profile


def profile_of(config: QwenConfig, *, video: bool = True) -> Profile:
    """The profile of ``config.model``.

    None of them gives its history back to be cut. Those that take text are told instead what was
    heard, and are given the history on a new connection; the others begin it with none.
    """
    traits = config.traits
    manual = isinstance(config.turn_detection, ManualTurns)
    words = config.transcription is not None and (traits.words_in_manual or not manual)
    return Profile(
        provider="qwen",
        model=config.model,
        input_rate=INPUT_RATE,
        output_rate=config.output_rate,
        video=video,
        tools="reliable" if traits.tools else "none",
        tool_reply="requested",
        say="instructed",
        truncates=False,
        told_cuts=traits.text_items,
        cancels=True,
        speech_signals="none" if manual else "told",
        user_transcripts="final" if words else "none",
        manual_turns=manual,
        turn_reply="requested",
        may_ignore=True,
        answers_pings=True,
        replays=traits.text_items,
        mutable_tools=traits.tools,
    )
