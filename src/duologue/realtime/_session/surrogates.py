"""Replace lone surrogates in all texts that go to a model or come from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from duologue._bounded_dict import BoundedDict
from duologue.items import (
    SurrogateJoiner,
    replace_surrogates,
    replace_surrogates_in_item,
    replace_surrogates_in_json,
)
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
"""Items for which half a character is held until its other half arrives."""


def replace_surrogates_in_tools(tools: Sequence[ToolSpec]) -> Sequence[ToolSpec]:
    """Return tools with the surrogates in all their texts replaced."""
    return tuple(
        replace(
            tool,
            name=replace_surrogates(tool.name),
            description=replace_surrogates(tool.description),
            parameters={
                replace_surrogates(key): replace_surrogates_in_json(v)
                for key, v in tool.parameters.items()
            },
        )
        for tool in tools
    )


def replace_surrogates_in_setup(setup: SessionSetup) -> SessionSetup:
    """Return a setup with the surrogates in all its texts replaced."""
    return SessionSetup(
        replace_surrogates(setup.instructions),
        replace_surrogates_in_tools(setup.tools),
        tuple(replace_surrogates_in_item(item) for item in setup.history),
    )


def replace_surrogates_in_command(command: Command) -> Command:
    """Return a command with the surrogates in all its texts replaced."""
    match command:
        case SendAudio():
            return command
        case AddItem(item=item):
            clean = replace_surrogates_in_item(item)
            return command if clean is item else replace(command, item=clean)
        case Truncate(heard_text=text):
            return replace(command, heard_text=replace_surrogates(text))
        case Say(text=text):
            return replace(command, text=replace_surrogates(text))
        case RequestReply(instructions=str(instructions)):
            return replace(command, instructions=replace_surrogates(instructions))
        case SendToolResult(output=output):
            return replace(command, output=replace_surrogates(output))
        case UpdateSession(instructions=instructions, tools=tools):
            return UpdateSession(
                None if instructions is None else replace_surrogates(instructions),
                None if tools is None else replace_surrogates_in_tools(tools),
            )
        case _:
            return command


class SurrogateFilter:
    """Replaces surrogates in the outputs of one connection, and joins split characters."""

    __slots__ = ("_open",)

    def __init__(self) -> None:
        self._open: BoundedDict[tuple[str, str, bool], SurrogateJoiner] = BoundedDict(_MAX_OPEN)

    def clean(self, output: Output) -> Sequence[Output]:
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
                message = None if output.message is None else replace_surrogates(output.message)
                return (*rest, replace(output, message=message))
            case ToolCall(name=name, arguments=arguments):
                return (
                    replace(
                        output,
                        name=replace_surrogates(name),
                        arguments=replace_surrogates(arguments),
                    ),
                )
            case SayMismatch(wanted=wanted, said=said):
                return (
                    replace(
                        output, wanted=replace_surrogates(wanted), said=replace_surrogates(said)
                    ),
                )
            case ProviderError(code=code, message=text) | ReplyRefused(code=code, message=text):
                return (
                    replace(
                        output, code=replace_surrogates(code), message=replace_surrogates(text)
                    ),
                )
            case _:
                return (output,)

    def _joined(self, output: ReplyText) -> Sequence[Output]:
        key = output.reply_id, output.item_id, output.planned
        joiner = self._open.pop(key, None) or SurrogateJoiner()
        text = joiner.push(output.text)
        if joiner.is_waiting:
            self._open[key] = joiner
        if text == output.text:
            return (output,)
        return (replace(output, text=text),) if text else ()
