"""How a Gemini text model is told how much to think, and the signatures of its thoughts; sans-IO.

Thinking is off unless the program asks for it, because a person waits for the first word. How it is
turned off differs by model: 2.5 Flash takes a budget of 0, 2.5 Pro one of 128 at least, later ones
a level, of which not all take ``minimal``. Where the name of a model does not tell, its refusal
does (``Thinking level is not supported for this model.``): then the next way is tried, and what the
model accepts is kept for the requests that follow.

Since Gemini 3 a model signs its tool calls, and refuses calls of the current turn without their
signature. Signatures are kept by the id of the call. Calls that the model has not signed, because
they are from another session or another model, get the word that Google documents for them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

from duologue._bounded_dict import BoundedDict
from duologue.errors import ConfigError
from duologue.json_types import JsonObject

type Thinking = Literal["off", "minimal", "low", "medium", "high", "xhigh"] | int | None
"""How much a model thinks: a level, a number of tokens, or None for the model's own default."""

LEVELS = ("minimal", "low", "medium", "high", "xhigh")
UNSIGNED = b"skip_thought_signature_validator"
"""The signature of a call that the model has not signed."""
MAX_KEPT = 256
"""Signatures that are kept."""

_MINIMAL: JsonObject = {"thinking_level": "MINIMAL"}
_LOW: JsonObject = {"thinking_level": "LOW"}
_NONE: JsonObject = {"thinking_budget": 0}


class ThinkingPolicy:
    """What the requests to one model say about thinking.

    Args:
        model: The model's name.
        thinking: How much it should think.

    Raises:
        ConfigError: ``thinking`` is invalid.
    """

    def __init__(self, model: str, thinking: Thinking) -> None:
        self._signs = re.search(r"gemini-[12](\D|$)", model) is None
        self._signatures: BoundedDict[str, bytes] = BoundedDict(MAX_KEPT)
        self._ways: list[JsonObject]
        match thinking:
            case None:
                self._ways = [{}]
            case "off":
                self._ways = _ways_off(model)
            case str() if thinking in LEVELS:
                self._ways = [{"thinking_level": thinking.upper()}]
            case int() if thinking >= 0 and not isinstance(thinking, bool):
                self._ways = [{"thinking_budget": thinking}]
            case _:
                raise ConfigError(
                    f"thinking must be off, {', '.join(LEVELS)}, or a number of tokens, "
                    f"not {thinking!r}"
                )

    @property
    def config(self) -> JsonObject:
        """The thinking of the next request; empty if it says nothing about it."""
        return self._ways[0]

    @property
    def signatures(self) -> Mapping[str, bytes]:
        """Signatures by the id of the call."""
        return self._signatures

    @property
    def unsigned(self) -> bytes | None:
        """The signature of calls that have none; None for a model that does not check."""
        return UNSIGNED if self._signs else None

    def keep(self, call_id: str, signature: bytes) -> None:
        """Keep the signature of a call."""
        self._signatures[call_id] = signature

    def refused(self, message: str) -> bool:
        """Change what later requests say, and return whether there is another way."""
        words = message.lower()
        if "signature" in words and self._signatures:
            self._signatures.clear()
            return True
        if "thinking" in words and len(self._ways) > 1:
            self._ways = self._ways[1:]
            return True
        return False


def _ways_off(model: str) -> list[JsonObject]:
    """Return the ways to turn thinking off, or nearly so, the likeliest first."""
    if re.search(r"gemini-(1|2\.0)", model):
        return [{}]
    if "gemini-2.5-pro" in model:
        return [{"thinking_budget": 128}, {}]
    if re.search(r"gemini-3.*flash", model):
        return [_MINIMAL, _LOW, {}]
    if re.search(r"gemini-[3-9]", model):
        return [_LOW, {}]
    return [_NONE, _MINIMAL, _LOW, {}]
