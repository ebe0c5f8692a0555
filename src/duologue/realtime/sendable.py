"""Removes lone surrogates from all texts that go to a model or come from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from duologue.items import Halves, Json, sendable, sendable_item
from duologue.realtime.codec import SessionSetup
from duologue.realtime.commands import (
    AddItem,
    Command,
    RequestReply,
    Say,
    SendAudio,
    SendToolResult,
    ToolSpec,
    Truncate,
    UpdateSession,
)
from duologue.realtime.outputs import (
    Output,
    ProviderError,
    ReplyAudio,
    ReplyDone,
    ReplyRefused,
    ReplyText,
    SayMismatch,
    ToolCall,
)

_MAX_OPEN = 16
"""Items for which half a character is held until its other half comes."""


def sendable_json(value: Json) -> Json:
    """Return a JSON value with all its texts made `sendable`."""
    match value:
        case str():
            return sendable(value)
        case list():
            return [sendable_json(item) for item in value]
        case dict():
            return {sendable(key): sendable_json(item) for key, item in value.items()}
        case _:
            return value


def sendable_tools(tools: Sequence[ToolSpec]) -> Sequence[ToolSpec]:
    """Return tools with all their texts made `sendable`."""
    return tuple(
        replace(
            tool,
            name=sendable(tool.name),
            description=sendable(tool.description),
            parameters={sendable(key): sendable_json(v) for key, v in tool.parameters.items()},
        )
        for tool in tools
    )


def sendable_setup(setup: SessionSetup) -> SessionSetup:
    """Return a setup with all its texts made `sendable`."""
    return SessionSetup(
        sendable(setup.instructions),
        sendable_tools(setup.tools),
        tuple(sendable_item(item) for item in setup.history),
    )


def sendable_command(command: Command) -> Command:
    """Return a command with all its texts made `sendable`."""
    match command:
        case SendAudio():
            return command
        case AddItem(item=item):
            clean = sendable_item(item)
            return command if clean is item else replace(command, item=clean)
        case Truncate(heard_text=text):
            return replace(command, heard_text=sendable(text))
        case Say(text=text):
            return replace(command, text=sendable(text))
        case RequestReply(instructions=str(instructions)):
            return replace(command, instructions=sendable(instructions))
        case SendToolResult(output=output):
            return replace(command, output=sendable(output))
        case UpdateSession(instructions=instructions, tools=tools):
            return UpdateSession(
                None if instructions is None else sendable(instructions),
                None if tools is None else sendable_tools(tools),
            )
        case _:
            return command


class SendableOutputs:
    """Makes the texts of one connection's outputs `sendable`, and joins split characters."""

    __slots__ = ("_open",)

    def __init__(self) -> None:
        self._open: dict[tuple[str, str, bool], Halves] = {}

    def take(self, output: Output) -> Sequence[Output]:
        """Return the outputs to pass on in place of ``output``.

        Transcripts of the person are not changed here: pieces of one turn are joined later.
        """
        match output:
            case ReplyAudio():
                return (output,)
            case ReplyText(text=text) if text.isascii() and not self._open:
                return (output,)
            case ReplyText():
                return self._joined(output)
            case ReplyDone(reply_id=reply_id):
                rest = [
                    ReplyText(reply_id, item_id, self._open.pop(key).flush(), planned=planned)
                    for key in [*self._open]
                    for of_reply, item_id, planned in [key]
                    if of_reply == reply_id
                ]
                message = None if output.message is None else sendable(output.message)
                return (*rest, replace(output, message=message))
            case ToolCall(name=name, arguments=arguments):
                return (replace(output, name=sendable(name), arguments=sendable(arguments)),)
            case SayMismatch(wanted=wanted, said=said):
                return (replace(output, wanted=sendable(wanted), said=sendable(said)),)
            case ProviderError(code=code, message=text) | ReplyRefused(code=code, message=text):
                return (replace(output, code=sendable(code), message=sendable(text)),)
            case _:
                return (output,)

    def _joined(self, words: ReplyText) -> Sequence[Output]:
        key = words.reply_id, words.item_id, words.planned
        halves = self._open.pop(key, None) or Halves()
        text = halves.push(words.text)
        if halves.waits:
            self._open[key] = halves
            if len(self._open) > _MAX_OPEN:
                del self._open[next(iter(self._open))]
        if text == words.text:
            return (words,)
        return (replace(words, text=text),) if text else ()
