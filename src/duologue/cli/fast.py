"""A language model for virtual time: the clock stands still while it computes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractContextManager, nullcontext

from duologue.items import Item
from duologue.pipeline.parts import LLM, LLMOutput
from duologue.realtime.commands import ToolSpec
from duologue.testing.virtual_time import VirtualTimeLoop


class HeldLLM:
    """Another LLM, which may compute in threads that the event loop does not know of."""

    def __init__(self, llm: LLM) -> None:
        self._llm = llm

    @property
    def model(self) -> str:
        """The model's name."""
        return self._llm.model

    @property
    def tools_reliable(self) -> bool:
        """As the other one says."""
        return self._llm.tools_reliable

    async def prepare(self, instructions: str, tools: Sequence[ToolSpec]) -> None:
        """Get ready, in no time."""
        with _held():
            await self._llm.prepare(instructions, tools)

    async def generate(
        self, instructions: str, history: Sequence[Item], tools: Sequence[ToolSpec]
    ) -> AsyncGenerator[LLMOutput]:
        """Stream the model's next turn, each part of it in no time."""
        stream = self._llm.generate(instructions, history, tools)
        try:
            while True:
                with _held():
                    part = await anext(stream, None)
                if part is None:
                    return
                yield part
        finally:
            await stream.aclose()


def _held() -> AbstractContextManager[None]:
    loop = asyncio.get_running_loop()
    return loop.hold() if isinstance(loop, VirtualTimeLoop) else nullcontext()
