"""The conversation as Qwen stores it: items are only appended, and never deleted."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import assert_never

from duologue._bounded_dict import BoundedDict
from duologue.items import AgentItem, Item, SystemItem, ToolCallItem, ToolResultItem, UserItem
from duologue.json_types import Json, JsonObject
from duologue.providers._openai_protocol.items import tool_output
from duologue.realtime.commands import SendToolResult

HEARD_TEMPLATE = "Of what you said last, the person heard only this: {}"
HEARD_NOTHING = "Of what you said last, the person heard nothing."

_MAX_ITEMS = 4096
"""Maximum number of known item ids; the oldest is dropped beyond it."""


class AppendOnlyHistory:
    """Appends new items; describes in text what the person did not hear.

    ``takes_text``: the model accepts text items (qwen3.5 and later). An older one gets no history,
    and text that a person typed is sent with the request for the reply (`take_unsent_texts`).

    The service gives every item its own id, and treats a text message as the person's or the
    model's. Other items, such as guidance or the result of a tool call from an earlier connection,
    are added as a message within a tag.
    """

    __slots__ = ("_agent_items", "_calls", "_known", "_takes_text", "_unsent_texts")

    def __init__(self, *, takes_text: bool) -> None:
        self._takes_text = takes_text
        self._known: BoundedDict[str, None] = BoundedDict(_MAX_ITEMS)
        self._agent_items: BoundedDict[str, None] = BoundedDict(_MAX_ITEMS)
        self._calls: dict[str, ToolCallItem] = {}
        self._unsent_texts: list[str] = []

    def put(self, item: Item, before: Sequence[str] = ()) -> list[JsonObject]:
        """Append an item; send nothing for a known one, or one without text."""
        del before  # The service only appends.
        if item.id in self._known:
            return []
        self._known[item.id] = None
        match item:
            case UserItem(text=text):
                return self._user_message(text, spoken=item.spoken) if text else []
            case AgentItem(text=text):
                self._unsent_texts.clear()
                self._agent_items[item.id] = None
                return self._message("assistant", text) if text else []
            case SystemItem(text=text):
                return self._tagged_message("guidance", text) if text else []
            case ToolCallItem(call_id=call_id):
                self._calls[call_id] = item
                return []
            case ToolResultItem(call_id=call_id) if call_id not in self._calls:
                return []  # The call is unknown, so the service would refuse its result.
            case ToolResultItem(call_id=call_id, output=output, failed=failed):
                return self._tool_result(call_id, tool_output(output, failed=failed))
            case _:
                assert_never(item)

    def add_tool_result(self, result: SendToolResult) -> list[JsonObject]:
        """Add the result of a tool call."""
        return self._tool_result(result.call_id, tool_output(result.output, failed=result.failed))

    def add_image(self, item_id: str, base64: str) -> list[JsonObject]:
        """Send an image, which belongs to the input audio and is no item."""
        del item_id
        return [{"type": "input_image_buffer.append", "image": base64}]

    def add_verbatim(self, item_id: str, text: str) -> list[JsonObject]:
        """Do nothing, because what a response has said already is in the conversation."""
        del item_id, text
        return []

    def truncate(self, item_id: str, played_ms: int, heard_text: str) -> list[JsonObject]:
        """Tell the model what was heard of an agent item."""
        del played_ms
        if item_id not in self._agent_items:
            return []
        words = HEARD_TEMPLATE.format(heard_text) if heard_text else HEARD_NOTHING
        return self._tagged_message("heard", words)

    def delete(self, item_id: str) -> list[JsonObject]:
        """Tell the model that nothing was heard of an agent item; do nothing for other items."""
        return self.truncate(item_id, 0, "")

    def item_added(self, item_id: str, previous: str | None) -> None:
        """Record that the server added an item, which must not be sent again."""
        del previous
        self._known[item_id] = None

    def item_deleted(self, item_id: str) -> None:
        """Do nothing, because the service never deletes an item."""

    def audio_received(
        self, item_id: str, samples: int, content_index: int = 0, *, verbatim: bool = False
    ) -> None:
        """Record that an agent item has audio; scripted text is in the conversation, too."""
        del samples, content_index, verbatim
        self._agent_items[item_id] = None

    def text_received(self, item_id: str) -> None:
        """Record that an agent item has text."""
        self._agent_items[item_id] = None

    def take_unsent_texts(self) -> list[str]:
        """Return text that was typed to a model without text items, each once."""
        unsaid, self._unsent_texts = self._unsent_texts, []
        return unsaid

    def _user_message(self, text: str, *, spoken: bool) -> list[JsonObject]:
        if not self._takes_text and not spoken:
            self._unsent_texts.append(text)
        return self._message("user", text)

    def _tool_result(self, call_id: str, output: str) -> list[JsonObject]:
        call = self._calls.get(call_id)
        if call is None:
            item: JsonObject = {
                "type": "function_call_output",
                "call_id": call_id,
                "output": output,
            }
            return [_create(item)]
        # The server does not know this call, because it was made on an earlier connection.
        called = f'name="{escape(call.name)}" arguments="{escape(call.arguments)}"'
        return self._tagged_message("tool_result", output, called)

    def _tagged_message(self, mark: str, text: str, more: str = "") -> list[JsonObject]:
        opening = f"{mark} {more}".strip()
        return self._message("user", f"<{opening}>{escape(text, quote=False)}</{mark}>")

    def _message(self, role: str, text: str) -> list[JsonObject]:
        if not self._takes_text:
            return []
        kind = "text" if role == "assistant" else "input_text"
        content: list[Json] = [{"type": kind, "text": text}]
        return [_create({"type": "message", "role": role, "content": content})]


def _create(item: JsonObject) -> JsonObject:
    return {"type": "conversation.item.create", "item": item}
