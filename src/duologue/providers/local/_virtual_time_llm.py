"""A language model for virtual time: the clock stops while it computes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

from duologue.items import Item
from duologue.pipeline.interfaces import LLM, LLMOutput, PrefillingLLM
from duologue.realtime.commands import ToolSpec


class ClockHoldingLLM:
    """Wraps an LLM that computes in threads, and stops virtual time while it does.

    It changes nothing in real time.
    """

    def __init__(self, llm: LLM) -> None:
        self._llm = llm

    @property
    def model(self) -> str:
        """The model's name."""
        return self._llm.model

    @property
    def tools_reliable(self) -> bool:
        """Whether the wrapped LLM's tool calls can be trusted."""
        return self._llm.tools_reliable

    async def prepare(self, instructions: str, tools: Sequence[ToolSpec]) -> None:
        """Prepare the wrapped LLM while the virtual clock is stopped."""
        with _hold_clock():
            await self._llm.prepare(instructions, tools)

    async def prefill(
        self, instructions: str, history: Sequence[Item], tools: Sequence[ToolSpec]
    ) -> None:
        """Let the wrapped LLM read ahead, if it can, while the virtual clock is stopped."""
        if isinstance(self._llm, PrefillingLLM):
            with _hold_clock():
                await self._llm.prefill(instructions, history, tools)

    async def generate(
        self, instructions: str, history: Sequence[Item], tools: Sequence[ToolSpec]
    ) -> AsyncGenerator[LLMOutput]:
        """Stream the model's next turn; the virtual clock stops while a part is computed."""
        stream = self._llm.generate(instructions, history, tools)
        try:
            while True:
                with _hold_clock():
                    part = await anext(stream, None)
                if part is None:
                    return
                yield part
        finally:
            await stream.aclose()


def _hold_clock() -> AbstractContextManager[None]:
    """Stop the clock of a virtual-time loop (`duologue.testing`), which has a method ``hold``."""
    hold: Callable[[], AbstractContextManager[None]] | None = getattr(
        asyncio.get_running_loop(), "hold", None
    )
    return nullcontext() if hold is None else hold()
