"""A reply in progress: text from the LLM, synthesised as it comes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from uuid import uuid4

from duologue._user_code import describe, log_failure, run_contained
from duologue.items import replace_surrogates
from duologue.pipeline._reply_speaker import ReplySpeaker, SpokenOutput
from duologue.pipeline.interfaces import (
    LLMOutput,
    TextDelta,
    TokenUsage,
    ToolRequest,
    TTSConnection,
)
from duologue.realtime.outputs import (
    Output,
    ReplyDone,
    ReplyHeard,
    ReplyStarted,
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
        self._emit = emit
        self._held_outputs: list[Output] | None = []
        self._speaker = ReplySpeaker(voice, self.id, self.item_id, self._put_spoken, script=script)
        self._task: asyncio.Task[None] | None = None
        self._cancelled = False

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
        self._speaker.cancel(played)

    def _put_spoken(self, output: SpokenOutput) -> None:
        if isinstance(output, ReplyHeard):
            if self.is_committed:
                self._emit(output)
        elif not self._cancelled:  # Else it came before the voice was stopped.
            self._put_output(output)

    def _put_output(self, output: Output) -> None:
        if self._held_outputs is None:
            self._emit(output)
        else:
            self._held_outputs.append(output)

    async def _run(self) -> None:
        end = ReplyDone(self.id)
        try:
            async with asyncio.TaskGroup() as tasks:
                speaking = self._run_component("the TTS", self._speaker.wait)
                tasks.create_task(speaking, name="speak")
                await self._run_component("the LLM", self._run_llm)
        except* Exception as errors:  # noqa: BLE001 - reported
            end = ReplyDone(self.id, "failed", describe(errors))
            self._speaker.cancel()
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
        async with aclosing(self._generate()) as outputs:
            async for output in outputs:
                match output:
                    case TextDelta(text=piece):
                        await self._speaker.send(piece)
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
        await self._speaker.finish()


def _usage(tokens: TokenUsage) -> Usage:
    cached = {"cached": tokens.cached} if tokens.cached else {}
    reasoning = {"reasoning": tokens.reasoning} if tokens.reasoning else {}
    return Usage({"text": tokens.input, **cached}, {"text": tokens.output, **reasoning})


def _check_arguments(arguments: object) -> str:
    if not isinstance(arguments, str):
        kind = type(arguments).__name__
        raise TypeError(f"arguments of a ToolRequest must be JSON text, not {kind}")
    return arguments


async def scripted(text: str) -> AsyncGenerator[LLMOutput]:
    """Yield a known text as an LLM would."""
    yield TextDelta(text)
