"""Token usage of a reply, by modality."""

from __future__ import annotations

from collections.abc import Sequence

from duologue.json_types import JsonObject
from duologue.providers._json_fields import object_list, optional_str
from duologue.realtime.outputs import Usage

_MAX_MODALITIES = 32
"""Modalities that are counted separately; Google has six."""
_OUTPUT_DETAILS = ("responseTokensDetails", "candidatesTokensDetails")
_OUTPUT_TOTALS = ("responseTokenCount", "candidatesTokenCount")
"""Fields of the output usage: first the Gemini API's name, then Vertex AI's."""


def parse_usage(usage: JsonObject) -> Sequence[Usage]:
    """Return ``usageMetadata`` as `Usage`, or nothing if it has no counts.

    Tokens of a total without a modality count as ``other``, or as ``tokens`` if there are no
    modalities. ``tool_use`` and ``thoughts`` are counted beside them; ``cached`` is part of the
    input.
    """
    given = _by_modality(usage, ("promptTokensDetails",), ("promptTokenCount",))
    made = _by_modality(usage, _OUTPUT_DETAILS, _OUTPUT_TOTALS)
    for counts, key, name in (
        (given, "toolUsePromptTokenCount", "tool_use"),
        (made, "thoughtsTokenCount", "thoughts"),
    ):
        count = _count(usage, key)
        if count:
            counts[name] = count
    if not made:
        rest = _count(usage, "totalTokenCount") - sum(given.values())
        if rest > 0 and given:
            made["tokens"] = rest
    cached = _count(usage, "cachedContentTokenCount")
    if cached:
        given["cached"] = cached
    return (Usage(given, made),) if given or made else ()


def _by_modality(
    usage: JsonObject, details: Sequence[str], totals: Sequence[str]
) -> dict[str, int]:
    counts: dict[str, int] = {}
    lists = (object_list(usage, key) for key in details)
    for one in next(filter(None, lists), [])[:_MAX_MODALITIES]:
        name = (optional_str(one, "modality") or "other").lower()[:_MAX_MODALITIES]
        counts[name] = counts.get(name, 0) + _count(one, "tokenCount")
    rest = max(_count(usage, key) for key in totals) - sum(counts.values())
    if rest > 0:
        kind = "other" if counts else "tokens"
        counts[kind] = counts.get(kind, 0) + rest
    return counts


def _count(event: JsonObject, key: str) -> int:
    """Return a token count; 0 if it is invalid. Protocol buffers write some as strings in JSON."""
    value = event.get(key)
    if isinstance(value, str) and value.isdecimal() and len(value) < 16:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
