"""A reply in progress: text from the LLM, synthesised as it comes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from uuid import uuid4

from duologue._user_code import describe, log_failure, run_contained
from duologue.audio import AudioFrame
from duologue.items import SurrogateJoiner, replace_surrogates
from duologue.pipeline._markup import MarkupFilter
from duologue.pipeline._thoughts import ThoughtFilter
from duologue.pipeline.interfaces import (
    LLMOutput,
    SpokenText,
    StoppedText,
    SynthesisOutput,
    TextDelta,
    TokenUsage,
    ToolRequest,
    TTSConnection,
)
from duologue.realtime.outputs import (
    Output,
    ReplyAudio,
    ReplyDone,
    ReplyHeard,
    ReplyStarted,
    ReplyText,
    ToolCall,
    Usage,
)

log = logging.getLogger(__name__)


class SpeculativeReply:
    """One reply, whose outputs are held until `commit`.

    An error of the LLM, of the TTS or of ``generate`` fails only this reply.

    Args:
        generate: Starts the LLM.
        voice: Speaks the text.
        emit: Called with each output after `commit`.
        basis: What the reply was made from, for its owner to compare.
        script: The text comes from the program and is spoken unchanged. A model's text may contain
            thoughts, which are not spoken.
    """

    def __init__(
        self,
        generate: Callable[[], AsyncGenerator[LLMOutput]],
        voice: TTSConnection,
        emit: Callable[[Output], None],
        basis: object,
        *,
        script: bool = False,
    ) -> None:
        self.id = uuid4().hex
        self.item_id = uuid4().hex
        self.basis = basis
        self.done = asyncio.Event()
        self._generate = generate
        self._script = script
        self._emit = emit
        self._held_outputs: list[Output] | None = []
        self._synthesis = voice.synthesize(self._receive, hurry=not script)
        self._task: asyncio.Task[None] | None = None
        self._cancelled = False
        self._text = ""
        """The text of all outputs."""

    @property
    def is_committed(self) -> bool:
        """Whether its outputs are emitted."""
        return self._held_outputs is None

    def start(self, tasks: asyncio.TaskGroup) -> None:
        """Start to generate the reply."""
        self._task = tasks.create_task(self._run(), name="reply")

    def commit(self, request_id: str | None) -> None:
        """Emit the outputs made so far, and all that follow.

        Args:
            request_id: The request that the reply answers, if any.
        """
        held, self._held_outputs = self._held_outputs or [], None
        self._emit(ReplyStarted(self.id, request_id))
        for output in held:
            self._emit(output)

    def cancel(self, *, stops_voice: bool = True) -> None:
        """Stop generating the reply; a committed one emits that it is cancelled.

        Without ``stops_voice``, `stop_voice` must follow at once.
        """
        if self.done.is_set() or self._cancelled:
            return
        self._cancelled = True
        if stops_voice:
            self.stop_voice(None)
        if self._task is not None:
            self._task.cancel()
        self.done.set()
        self._put_output(ReplyDone(self.id, "cancelled"))

    def stop_voice(self, played: int | None) -> None:
        """Stop the voice of a cancelled reply, of which the person heard ``played`` samples."""
        self._synthesis.cancel(played)

    def _put_output(self, output: Output) -> None:
        if self._held_outputs is None:
            self._emit(output)
        else:
            self._held_outputs.append(output)

    async def _run(self) -> None:
        end = ReplyDone(self.id)
        try:
            async with asyncio.TaskGroup() as tasks:
                speaking = self._run_component("the TTS", self._synthesis.wait)
                tasks.create_task(speaking, name="speak")
                await self._run_component("the LLM", self._run_llm)
        except* Exception as errors:  # noqa: BLE001 - reported
            end = ReplyDone(self.id, "failed", describe(errors))
            self._synthesis.cancel()
        finally:
            self.done.set()
        if not self._cancelled:
            self._put_output(end)

    async def _run_component(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await run_contained(work())
        except Exception as error:
            log_failure(log, name, error)
            raise

    async def _run_llm(self) -> None:
        thoughts = None if self._script else ThoughtFilter()
        markup = MarkupFilter()
        joiner = SurrogateJoiner()
        async with aclosing(self._generate()) as outputs:
            async for output in outputs:
                match output:
                    case TextDelta(text=piece):
                        text = joiner.push(piece)
                        reply_text = text if thoughts is None else thoughts.push(text)
                        await self._speak(markup.push(reply_text))
                    case ToolRequest(call_id=call_id, name=name, arguments=arguments):
                        text = replace_surrogates(_check_arguments(arguments))
                        self._put_output(ToolCall(self.id, call_id, replace_surrogates(name), text))
                    case TokenUsage():
                        self._put_output(_usage(output))
                    case _:
                        raise TypeError(
                            "an LLM must yield TextDelta, ToolRequest or TokenUsage, "
                            f"not {type(output).__name__}"
                        )
        rest = joiner.flush()
        rest = rest if thoughts is None else thoughts.push(rest) + thoughts.flush()
        await self._speak(markup.push(rest) + markup.flush())
        self._synthesis.finish()

    async def _speak(self, text: str) -> None:
        if text:
            await self._synthesis.send(text)

    def _receive(self, output: SynthesisOutput) -> None:
        match output:
            case StoppedText(text=said):
                heard = prefix_of(self._text, said)
                if heard is not None and self.is_committed:
                    self._emit(ReplyHeard(self.id, self.item_id, heard))
            case _ if self._cancelled:
                pass  # It came before the voice was stopped.
            case AudioFrame():
                self._put_output(ReplyAudio(self.id, self.item_id, output))
            case SpokenText(text=text, start=start, end=end):
                self._text += text
                self._put_output(ReplyText(self.id, self.item_id, text, start, end=end))


def _usage(tokens: TokenUsage) -> Usage:
    cached = {"cached": tokens.cached} if tokens.cached else {}
    reasoning = {"reasoning": tokens.reasoning} if tokens.reasoning else {}
    return Usage({"text": tokens.input, **cached}, {"text": tokens.output, **reasoning})


def _check_arguments(arguments: object) -> str:
    if not isinstance(arguments, str):
        kind = type(arguments).__name__
        raise TypeError(f"arguments of a ToolRequest must be JSON text, not {kind}")
    return arguments


def prefix_of(text: str, said: str) -> str | None:
    """Return the beginning of ``text`` that ``said`` is, spaces apart; None if it is none."""
    length = 0
    for character in said:
        if character.isspace():
            continue
        while length < len(text) and text[length].isspace():
            length += 1
        if length == len(text) or text[length] != character:
            return None
        length += 1
    return text[:length]


async def scripted(text: str) -> AsyncGenerator[LLMOutput]:
    """Yield a known text as an LLM would."""
    yield TextDelta(text)
