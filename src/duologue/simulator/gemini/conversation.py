"""What was said, as the protocol's contents, and what it costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import orjson

from duologue.items import AgentItem, Item, Json, SystemItem, ToolCallItem, ToolResultItem, UserItem
from duologue.simulator.fields import Object, new_id, objects_at, text_at
from duologue.simulator.gemini.schema import IN_RATE
from duologue.simulator.gemini.setup import Compression, texts_of

AUDIO_TOKENS_PER_S = 25
"""What sound costs, of either side."""

MOST_CONTENTS = 10_000
"""Contents of a session; of more the oldest go."""
MAX_TOKENS = 16 * 1024 * 1024
"""Tokens of all contents; beyond it the oldest are dropped. No model takes nearly as many."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Tokens by modality."""

    text: int = 0
    audio: int = 0
    image: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.text + self.audio + self.image

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.text + other.text, self.audio + other.audio, self.image + other.image)

    def details(self) -> list[Json]:
        """As usage has them: those that are not zero."""
        named = {"TEXT": self.text, "AUDIO": self.audio, "IMAGE": self.image}
        return [{"modality": name, "tokenCount": count} for name, count in named.items() if count]


@dataclass(slots=True, eq=False)
class Entry:
    """A content, and what it costs."""

    content: Object
    cost: Cost


@dataclass(slots=True, eq=False)
class Conversation:
    """The contents of one session, in order."""

    entries: list[Entry] = field(default_factory=list)
    dropped: int = 0
    """Contents that compression has dropped."""
    _tokens: int = 0

    @property
    def contents(self) -> list[Object]:
        """What was said."""
        return [entry.content for entry in self.entries]

    @property
    def cost(self) -> Cost:
        """What all of it costs."""
        total = Cost()
        for entry in self.entries:
            total += entry.cost
        return total

    def last_said(self) -> str:
        """The text of the last content, if it is the person's."""
        last = self.entries[-1].content if self.entries else {}
        if last.get("role") != "user":
            return ""
        return "".join(text_at(part, "text") for part in objects_at(last, "parts"))

    def add(self, role: str, parts: list[Json], cost: Cost) -> Entry:
        """Put in a content behind all others."""
        entry = Entry({"role": role, "parts": parts}, cost)
        self.entries.append(entry)
        self._tokens += cost.total
        while len(self.entries) > MOST_CONTENTS or (
            self._tokens > MAX_TOKENS and len(self.entries) > 1
        ):
            self._tokens -= self.entries.pop(0).cost.total
        return entry

    def copy(self) -> Conversation:
        """As it is now. The contents are shared: words that come later are in both."""
        return Conversation(list(self.entries), self.dropped, self._tokens)

    def compress(self, compression: Compression) -> int:
        """Drop the oldest contents if there is too much, down to the beginning of a user's turn.

        How many were dropped.
        """
        total = self.cost.total
        if total <= compression.trigger:
            return 0
        count = 0
        while count < len(self.entries) and (
            total > compression.target or not _begins(self.entries[count].content)
        ):
            total -= self.entries[count].cost.total
            count += 1
        del self.entries[:count]
        self._tokens = total
        self.dropped += count
        return count


def _begins(content: Object) -> bool:
    """The content is a user's turn, and not the answers of functions."""
    answers = any("functionResponse" in part for part in objects_at(content, "parts"))
    return content.get("role") == "user" and not answers


def text_tokens(text: str) -> int:
    """What a text costs: a token is 4 letters."""
    return -(-len(text) // 4)


def audio_tokens(samples: int, rate: int) -> int:
    """What sound costs."""
    return -(-samples * AUDIO_TOKENS_PER_S // rate)


def cost_of(content: Object, image_tokens: int) -> Cost:
    """What a content costs that came as one."""
    cost = Cost()
    for part in objects_at(content, "parts"):
        if "text" in part:
            cost += Cost(text=text_tokens(text_at(part, "text")))
        elif "inlineData" not in part:
            cost += Cost(text=text_tokens(orjson.dumps(part).decode()))
        elif text_at(part, "inlineData", "mimeType").startswith("audio/"):
            samples = len(text_at(part, "inlineData", "data")) * 3 // 8
            cost += Cost(audio=audio_tokens(samples, IN_RATE))
        else:
            cost += Cost(image=image_tokens)
    return cost


def for_brain(content: Object, call_ids: Mapping[str, str]) -> Sequence[Item]:
    """The items that a content is to a model; ``call_ids`` are what the model calls calls."""
    items: list[Item] = []
    role = text_at(content, "role")
    text = texts_of(content)
    if text:
        match role:
            case "model":
                items.append(AgentItem(new_id("item"), text))
            case "system":
                items.append(SystemItem(new_id("item"), text))
            case _:
                items.append(UserItem(new_id("item"), text, spoken=False))
    for part in objects_at(content, "parts"):
        if "functionCall" in part:
            call_id = text_at(part, "functionCall", "id")
            items.append(
                ToolCallItem(
                    new_id("item"),
                    call_ids.get(call_id, call_id),
                    text_at(part, "functionCall", "name"),
                    _json(part, "functionCall", "args"),
                )
            )
        elif "functionResponse" in part:
            call_id = text_at(part, "functionResponse", "id")
            output = _json(part, "functionResponse", "response")
            items.append(ToolResultItem(new_id("item"), call_ids.get(call_id, call_id), output))
    return items


def _json(part: Object, kind: str, name: str) -> str:
    inner = part[kind]
    value = inner.get(name) if isinstance(inner, dict) else None
    return orjson.dumps(value or {}).decode()
