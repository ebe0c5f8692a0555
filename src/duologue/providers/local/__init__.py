"""The built-in engine: speech recognition, a small language model and a voice, on this machine."""

from __future__ import annotations

from duologue.providers.local._chat_model import LLM
from duologue.providers.local._realtime import Realtime

__all__ = ["LLM", "Realtime"]
