"""A history as the steps of a text chat: what was said, and tool calls with their results; sans-IO.

Chat APIs require a result right after every tool call. In a conversation by voice, people talk
while a tool runs, so the result may come after other messages. A call whose result came later is
therefore placed where its result came, so that the model speaks about the result next. A call
without a result yet gets `PENDING_RESULT`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from duologue.items import AgentItem, Item, SystemItem, ToolCallItem, ToolResultItem, UserItem

PENDING_RESULT = "This call is still running and has no result yet. Do not make it again."
"""Result of a call that is still running when other messages follow it."""

BEGINNING = "[The conversation begins.]"
"""The person's message where the agent speaks first, for services that want one."""
CONTINUE = "[Nothing was said. Continue.]"
"""The person's message where the agent speaks again, for services that want one."""


@dataclass(frozen=True, slots=True)
class Message:
    """What somebody said, or guidance of the program; never empty."""

    role: Literal["user", "agent", "system"]
    text: str


@dataclass(frozen=True, slots=True)
class AnsweredCall:
    """A tool call and its result."""

    call: ToolCallItem
    output: str
    failed: bool = False


@dataclass(frozen=True, slots=True)
class CallGroup:
    """Tool calls that belong together, with their results."""

    calls: Sequence[AnsweredCall]


type ChatStep = Message | CallGroup


def chat_steps(history: Sequence[Item]) -> list[ChatStep]:
    """Return a history as steps of a chat.

    Items without text are left out, and so is a result whose call is not in the history.
    """
    calls = {item.call_id: item for item in history if isinstance(item, ToolCallItem)}
    answered = {item.call_id for item in history if isinstance(item, ToolResultItem)}
    steps: list[ChatStep] = []
    group: list[AnsweredCall] = []

    def add_message(role: Literal["user", "agent", "system"], text: str) -> None:
        flush_calls()
        if text.strip():
            steps.append(Message(role, text))

    def flush_calls() -> None:
        if group:
            steps.append(CallGroup(tuple(group)))
            group.clear()

    for item in history:
        match item:
            case ToolCallItem(call_id=call_id):
                if any(one.output is not PENDING_RESULT for one in group):
                    flush_calls()  # It was made after those results had come.
                if call_id not in answered:
                    group.append(AnsweredCall(item, PENDING_RESULT))
            case ToolResultItem(call_id=call_id, output=output, failed=failed):
                call = calls.pop(call_id, None)
                if call is not None:
                    group.append(AnsweredCall(call, output, failed))
            case UserItem(text=text):
                add_message("user", text or "")
            case AgentItem(text=text):
                add_message("agent", text)
            case SystemItem(text=text):
                add_message("system", text)
    flush_calls()
    return steps


def program_note(text: str) -> str:
    """Return guidance of the program, for services that take it in the person's messages only."""
    return f"[Not said by the person: {text}]"


def last_message_of_person(steps: Sequence[ChatStep]) -> int:
    """Return the position of the last message that is not the agent's; -1 without one."""
    found = (at for at, step in enumerate(steps) if isinstance(step, Message))
    return max((at for at in found if not _is_agent(steps[at])), default=-1)


def _is_agent(step: ChatStep) -> bool:
    return isinstance(step, Message) and step.role == "agent"
