"""The conversation as the protocol's contents, and its cost in tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import orjson

from duologue.items import AgentItem, Item, SystemItem, ToolCallItem, ToolResultItem, UserItem
from duologue.json_types import Json, JsonObject
from duologue.simulators._fields import new_id, objects_at, text_at
from duologue.simulators.gemini._schema import IN_RATE
from duologue.simulators.gemini._setup import Compression, content_text

AUDIO_TOKENS_PER_S = 25
"""Tokens that one second of audio costs, in either direction."""

MAX_CONTENTS = 10_000
"""Contents of a session; beyond it the oldest are dropped."""
MAX_TOKENS = 16 * 1024 * 1024
"""Tokens of all contents; beyond it the oldest are dropped. No model's context is as large."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Numbers of tokens by modality."""

    text: int = 0
    audio: int = 0
    image: int = 0

    @property
    def total(self) -> int:
        """The sum of all modalities."""
        return self.text + self.audio + self.image

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.text + other.text, self.audio + other.audio, self.image + other.image)

    def details(self) -> list[Json]:
        """Return the numbers that are not zero, as usage metadata lists them."""
        named = {"TEXT": self.text, "AUDIO": self.audio, "IMAGE": self.image}
        return [{"modality": name, "tokenCount": count} for name, count in named.items() if count]


@dataclass(slots=True, eq=False)
class Entry:
    """A content, and its cost."""

    content: JsonObject
    cost: Cost


@dataclass(slots=True, eq=False)
class Conversation:
    """The contents of one session, in order."""

    entries: list[Entry] = field(default_factory=list)
    dropped: int = 0
    """Number of contents that compression has dropped."""
    _tokens: int = 0

    @property
    def contents(self) -> list[JsonObject]:
        """The contents as JSON."""
        return [entry.content for entry in self.entries]

    @property
    def cost(self) -> Cost:
        """The cost of all contents."""
        total = Cost()
        for entry in self.entries:
            total += entry.cost
        return total

    def last_user_text(self) -> str:
        """Return the text of the last content if it is the user's, else an empty string."""
        last = self.entries[-1].content if self.entries else {}
        if last.get("role") != "user":
            return ""
        return "".join(text_at(part, "text") for part in objects_at(last, "parts"))

    def add(self, role: str, parts: list[Json], cost: Cost) -> Entry:
        """Append a content."""
        entry = Entry({"role": role, "parts": parts}, cost)
        self.entries.append(entry)
        self._tokens += cost.total
        while len(self.entries) > MAX_CONTENTS or (
            self._tokens > MAX_TOKENS and len(self.entries) > 1
        ):
            self._tokens -= self.entries.pop(0).cost.total
        return entry

    def copy(self) -> Conversation:
        """Return a copy with the same contents; later transcripts of these are added to both."""
        return Conversation(list(self.entries), self.dropped, self._tokens)

    def compress(self, compression: Compression) -> int:
        """If there are too many tokens, drop the oldest contents up to the start of a user turn.

        Returns the number of dropped contents.
        """
        total = self.cost.total
        if total <= compression.trigger:
            return 0
        count = 0
        while count < len(self.entries) and (
            total > compression.target or not _begins_user_turn(self.entries[count].content)
        ):
            total -= self.entries[count].cost.total
            count += 1
        del self.entries[:count]
        self._tokens = total
        self.dropped += count
        return count


def _begins_user_turn(content: JsonObject) -> bool:
    """Return whether the content is a user turn and not the results of functions."""
    answers = any("functionResponse" in part for part in objects_at(content, "parts"))
    return content.get("role") == "user" and not answers


def text_tokens(text: str) -> int:
    """Return the tokens of a text, at 4 characters a token."""
    return -(-len(text) // 4)


def audio_tokens(samples: int, rate: int) -> int:
    """Return the tokens of ``samples`` of audio."""
    return -(-samples * AUDIO_TOKENS_PER_S // rate)


def cost_of(content: JsonObject, image_tokens: int) -> Cost:
    """Return the cost of a content that the client sent."""
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


def backend_items(content: JsonObject, call_ids: Mapping[str, str]) -> Sequence[Item]:
    """Return a content as items of the backend's history.

    ``call_ids`` maps the protocol's ids of function calls to the backend's.
    """
    items: list[Item] = []
    role = text_at(content, "role")
    text = content_text(content)
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


def _json(part: JsonObject, kind: str, name: str) -> str:
    inner = part[kind]
    value = inner.get(name) if isinstance(inner, dict) else None
    return orjson.dumps(value or {}).decode()
