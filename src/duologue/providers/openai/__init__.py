"""OpenAI, and every server that speaks its protocols."""

from __future__ import annotations

from duologue.providers.openai.llm import LLM

__all__ = ["LLM"]
