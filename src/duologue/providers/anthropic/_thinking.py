"""How a Claude model is told whether to think before it replies; sans-IO.

A person waits for the first word, so thinking is off unless the program asks for it. How it is
turned off differs by model: most take ``disabled``, Sonnet 5.5 takes ``between_tools``, Opus 5.5,
Fable and Mythos always think, and can only be told to think little. Where the name of a model does
not tell, its refusal does: ``"thinking.type.disabled" is not supported for this model``. Then the
next way is tried, and what the model accepts is kept for the requests that follow.

A model that thinks before it calls a tool wants its thoughts back with the result, unchanged and
signed. They are kept by the id of the call. Newer models bind them to all that was said before:
they refuse thoughts whose conversation has changed since, as it does when a reply was cut to what
was heard. Such thoughts are forgotten, because a conversation without them is accepted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from duologue._bounded_dict import BoundedDict
from duologue.errors import ConfigError
from duologue.json_types import JsonObject

type Thinking = Literal["off", "low", "medium", "high", "xhigh", "max"] | int | None
"""How much a model thinks: an effort, a number of tokens, or None for the model's own default."""

EFFORTS = ("low", "medium", "high", "xhigh", "max")
MIN_BUDGET = 1024
"""Tokens of thought at least, where they are given as a number."""
MAX_KEPT = 64
"""Replies whose thoughts are kept."""

_DISABLED: JsonObject = {"thinking": {"type": "disabled"}}
_BETWEEN_TOOLS: JsonObject = {"thinking": {"type": "between_tools"}}
_ADAPTIVE: JsonObject = {"type": "adaptive"}
_LITTLE: JsonObject = {"thinking": _ADAPTIVE, "output_config": {"effort": "low"}}

_ALWAYS_THINK = ("opus-5-5", "fable", "mythos")


class ThinkingPolicy:
    """What the requests to one model say about thinking.

    Args:
        model: The model's name.
        thinking: How much it should think.

    Raises:
        ConfigError: ``thinking`` is invalid.
    """

    def __init__(self, model: str, thinking: Thinking) -> None:
        self._budget = 0
        self._kept: BoundedDict[str, Sequence[JsonObject]] = BoundedDict(MAX_KEPT)
        self._ways: list[JsonObject]
        match thinking:
            case None:
                self._ways = [{}]
            case "off":
                self._ways = _ways_off(model)
            case str() if thinking in EFFORTS:
                self._ways = [{"thinking": _ADAPTIVE, "output_config": {"effort": thinking}}]
            case int() if thinking >= MIN_BUDGET and not isinstance(thinking, bool):
                self._budget = thinking
                self._ways = [{"thinking": {"type": "enabled", "budget_tokens": thinking}}]
            case _:
                raise ConfigError(
                    f"thinking must be off, {', '.join(EFFORTS)}, or {MIN_BUDGET} tokens or more, "
                    f"not {thinking!r}"
                )

    @property
    def budget(self) -> int:
        """Tokens of thought, which count as output; 0 if they are not given as a number."""
        return self._budget

    @property
    def kept(self) -> Mapping[str, Sequence[JsonObject]]:
        """The blocks of thought that came before a tool call, by the call's id."""
        return self._kept

    def fields(self, *, calls_without_thoughts: bool) -> JsonObject:
        """Return the fields of a request.

        Args:
            calls_without_thoughts: Whether the request ends with results of calls whose thoughts
                are unknown. With a number of tokens, the service then refuses to think.
        """
        return _DISABLED if self._budget and calls_without_thoughts else self._ways[0]

    def keep(self, call_id: str, blocks: Sequence[JsonObject]) -> None:
        """Keep the thoughts that came before a call."""
        self._kept[call_id] = blocks

    def refused(self, message: str, *, with_thoughts: bool) -> bool:
        """Change what later requests say, and return whether there is another way.

        Args:
            message: The server's words.
            with_thoughts: Whether the request contained kept thoughts.
        """
        words = message.lower()
        if not any(word in words for word in ("thinking", "effort", "output_config")):
            return False
        if with_thoughts:
            self._kept.clear()
            return True
        if len(self._ways) > 1:
            self._ways = self._ways[1:]
            return True
        return False


def _ways_off(model: str) -> list[JsonObject]:
    """Return the ways to turn thinking off, or nearly so, the likeliest first."""
    if any(name in model for name in _ALWAYS_THINK):
        return [_LITTLE, {}]
    if "sonnet-5-5" in model:
        return [_BETWEEN_TOOLS, _LITTLE, {}]
    return [_DISABLED, _BETWEEN_TOOLS, _LITTLE, {}]
