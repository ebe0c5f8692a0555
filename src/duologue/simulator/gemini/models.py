"""What differs from model to model.

Source: https://ai.google.dev/gemini-api/docs/models/gemini-3.8-live (migration from 3.1).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ModelRules:
    """What one model takes and how it behaves."""

    text: bool = True
    """It can answer in text."""
    thinking_level: bool = True
    """It takes ``thinkingConfig.thinkingLevel``."""
    affective: bool = True
    """It takes ``enableAffectiveDialog``."""
    silent: bool = True
    """``proactiveAudio`` can be false."""
    non_blocking: bool = False
    """Functions are NON_BLOCKING where their declaration does not say."""
    completes_calls: bool = False
    """Whether a turn that calls a function completes after a while; the result begins a new one."""
    thinks: bool = False
    """Whether it sends thoughts as text parts before it speaks, unless the setup forbids that."""
    session_id: bool = True
    """Whether ``setupComplete`` has a ``sessionId``."""
    untold_tokens: float = 0.0
    """Fraction by which the totals of usage exceed the sums by modality."""
    content_interrupts: bool = True
    """Every ``clientContent`` stops what is generated, not only one with ``turnComplete``."""
    status: bool = False
    """``turnComplete`` comes with an ``interactionStatus``."""
    thinks_on: bool = False
    """While functions run that it does not wait for, that status is IN_PROGRESS."""
    all_video: bool = False
    """The turn coverage that is meant when none is asked for includes all video."""


_NATIVE_2_5 = ModelRules(text=False, completes_calls=True, thinks=True, session_id=False)

_RULES = {
    "gemini-3.8-live": ModelRules(
        text=False,
        thinking_level=False,
        affective=False,
        silent=False,
        non_blocking=True,
        content_interrupts=False,
        status=True,
        all_video=True,
    ),
    "gemini-3.8-live-extended-thinking": ModelRules(
        text=False,
        affective=False,
        silent=False,
        non_blocking=True,
        content_interrupts=False,
        status=True,
        thinks_on=True,
        all_video=True,
    ),
    "gemini-3.1-flash-live": ModelRules(text=False, affective=False, untold_tokens=0.2),
    "gemini-live-2.5-flash-native-audio": _NATIVE_2_5,
    "gemini-2.5-flash-native-audio": _NATIVE_2_5,
}


def rules_of(model: str) -> ModelRules:
    """The rules of a model by its name, with or without the path before it."""
    name = model.rpartition("/")[2]
    known = [prefix for prefix in _RULES if name.startswith(prefix)]
    return _RULES[max(known, key=len)] if known else ModelRules()
