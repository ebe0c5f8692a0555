"""The agent: one conversation between a person on an edge and a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from duologue._lazy import lazy_names

if TYPE_CHECKING:
    from duologue.agent.agent import Agent, User
    from duologue.agent.barge_in import BargeInPolicy
    from duologue.agent.conversation import AsyncStore, Conversation, Store
    from duologue.agent.instructions import escape, load_instructions
    from duologue.agent.jsonl_store import JsonlStore
    from duologue.agent.processors import Processor
    from duologue.agent.speech import Speech, SpeechState
    from duologue.agent.stats import AgentStats

__all__ = [
    "Agent",
    "AgentStats",
    "AsyncStore",
    "BargeInPolicy",
    "Conversation",
    "JsonlStore",
    "Processor",
    "Speech",
    "SpeechState",
    "Store",
    "User",
    "escape",
    "load_instructions",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "duologue.agent.agent": ["Agent", "User"],
            "duologue.agent.barge_in": ["BargeInPolicy"],
            "duologue.agent.conversation": ["AsyncStore", "Conversation", "Store"],
            "duologue.agent.instructions": ["escape", "load_instructions"],
            "duologue.agent.jsonl_store": ["JsonlStore"],
            "duologue.agent.processors": ["Processor"],
            "duologue.agent.speech": ["Speech", "SpeechState"],
            "duologue.agent.stats": ["AgentStats"],
        },
    )
