"""What a reply has cost, by modality."""

from __future__ import annotations

from collections.abc import Sequence

from duologue.items import Json
from duologue.providers.fields import objects, some_text
from duologue.realtime.outputs import Usage

type JsonObject = dict[str, Json]

_MOST_KINDS = 32
"""Modalities that are counted each; Google knows six."""


def usage_of(usage: JsonObject) -> Sequence[Usage]:
    """``usageMetadata`` as the house has it; nothing where it says nothing.

    Parts that are counted twice have names of their own: ``cached``, ``tool_use``, ``thoughts``.
    """
    given = _by_modality(usage, "promptTokensDetails", "promptTokenCount")
    made = _by_modality(usage, "responseTokensDetails", "responseTokenCount")
    for counts, key, name in (
        (given, "toolUsePromptTokenCount", "tool_use"),
        (given, "cachedContentTokenCount", "cached"),
        (made, "thoughtsTokenCount", "thoughts"),
    ):
        count = _count(usage, key)
        if count:
            counts[name] = count
    return (Usage(given, made),) if given or made else ()


def _by_modality(usage: JsonObject, details: str, total: str) -> dict[str, int]:
    counts: dict[str, int] = {}
    for one in objects(usage, details)[:_MOST_KINDS]:
        name = (some_text(one, "modality") or "other").lower()[:_MOST_KINDS]
        counts[name] = counts.get(name, 0) + _count(one, "tokenCount")
    count = _count(usage, total)
    if not counts and count:
        counts["tokens"] = count
    return counts


def _count(event: JsonObject, key: str) -> int:
    """A number of tokens; 0 for what is none. JSON of protocol buffers has some as strings."""
    value = event.get(key)
    if isinstance(value, str) and value.isdecimal() and len(value) < 16:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
