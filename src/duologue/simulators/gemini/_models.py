"""The differences between models."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ModelRules:
    """What one model accepts and how it behaves."""

    text_output: bool = True
    """Whether it can reply in text."""
    thinking_level: bool = True
    """Whether it accepts ``thinkingConfig.thinkingLevel``."""
    affective_dialog: bool = True
    """Whether it accepts ``enableAffectiveDialog``."""
    proactive_audio_optional: bool = True
    """Whether it accepts ``proactiveAudio: false``."""
    non_blocking_by_default: bool = False
    """Whether functions are NON_BLOCKING unless their declaration says otherwise."""
    completes_turns_with_calls: bool = False
    """Whether a turn with function calls completes after a while; the results begin a new one."""
    sends_thoughts: bool = False
    """Whether it sends thoughts as text parts before it speaks, unless the setup forbids that."""
    session_id: bool = True
    """Whether ``setupComplete`` has a ``sessionId``."""
    unlisted_tokens: float = 0.0
    """How much the totals of usage exceed the sums by modality, as a fraction."""
    content_interrupts: bool = True
    """Whether every ``clientContent`` interrupts the reply, not only one with ``turnComplete``."""
    interaction_status: bool = False
    """Whether ``turnComplete`` has an ``interactionStatus``."""
    reports_background_calls: bool = False
    """Whether that status is IN_PROGRESS while non-blocking functions run."""
    covers_all_video: bool = False
    """Whether the default turn coverage includes all video."""


_NATIVE_2_5 = ModelRules(
    text_output=False, completes_turns_with_calls=True, sends_thoughts=True, session_id=False
)

_RULES = {
    "gemini-3.8-live": ModelRules(
        text_output=False,
        thinking_level=False,
        affective_dialog=False,
        proactive_audio_optional=False,
        non_blocking_by_default=True,
        content_interrupts=False,
        interaction_status=True,
        covers_all_video=True,
    ),
    "gemini-3.8-live-extended-thinking": ModelRules(
        text_output=False,
        affective_dialog=False,
        proactive_audio_optional=False,
        non_blocking_by_default=True,
        content_interrupts=False,
        interaction_status=True,
        reports_background_calls=True,
        covers_all_video=True,
    ),
    "gemini-3.1-flash-live": ModelRules(
        text_output=False, affective_dialog=False, unlisted_tokens=0.2
    ),
    "gemini-live-2.5-flash-native-audio": _NATIVE_2_5,
    "gemini-2.5-flash-native-audio": _NATIVE_2_5,
}


def rules_of(model: str) -> ModelRules:
    """Return the rules of a model, by its name with or without the path before it."""
    name = model.rpartition("/")[2]
    known = [prefix for prefix in _RULES if name.startswith(prefix)]
    return _RULES[max(known, key=len)] if known else ModelRules()
