"""Anthropic's Claude, a text model for pipelines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from duologue._lazy import lazy_names

if TYPE_CHECKING:
    from duologue.providers.anthropic._llm import LLM

__all__ = ["LLM"]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {"duologue.providers.anthropic._llm": ["LLM"]},
    )
