"""Runs tools beside the audio, each call once, with exactly one result (contract C6)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from uuid import uuid4

from duologue.clock import Clock
from duologue.conversation import Conversation
from duologue.events import Event, ToolEndEvent, ToolStartEvent
from duologue.items import ToolCallItem, ToolResultItem
from duologue.realtime.outputs import ToolCall
from duologue.realtime.session import Realtime
from duologue.tools import ToolOutcome, ToolRegistry
from duologue.user_code import bounded, describe, log_failure

log = logging.getLogger(__name__)

INTERRUPTED = "Not run: the person interrupted."
CANCELLED = "Cancelled."


class ToolRunner:
    """The tool calls of one conversation."""

    def __init__(
        self,
        registry: ToolRegistry,
        realtime: Realtime,
        conversation: Conversation,
        emit: Callable[[Event], None],
        clock: Clock,
    ) -> None:
        self._registry = registry
        self._realtime = realtime
        self._conversation = conversation
        self._emit = emit
        self._clock = clock
        self._running: dict[str, asyncio.Task[ToolOutcome]] = {}
        self._names: dict[str, str] = {}

    @property
    def busy(self) -> bool:
        """Some tool is running."""
        return bool(self._running)

    @property
    def running(self) -> tuple[str, ...]:
        """The ids of the calls whose results are still to come."""
        return tuple(self._running)

    def call(self, call: ToolCall, *, stale: bool, tasks: asyncio.TaskGroup) -> None:
        """Run a call; a stale one is answered without being run."""
        item = ToolCallItem(uuid4().hex, call.call_id, call.name, call.arguments)
        self._conversation.put(item)
        if stale:
            self._answer(call, ToolOutcome("cancelled", INTERRUPTED))
            return
        self._emit(ToolStartEvent(call.call_id, call.name, call.arguments))
        self._names[call.call_id] = call.name
        task = tasks.create_task(self._run(call), name=f"tool {call.name}")
        self._running[call.call_id] = task
        began = self._clock.now()
        # A callback and not the task itself, which would never run if cancelled before it began.
        task.add_done_callback(lambda task: self._ended(call, began, task))

    def cancel(self, call_ids: Sequence[str]) -> None:
        """The model wants no result of these calls any more; they get one all the same."""
        for call_id in call_ids:
            task = self._running.get(call_id)
            if task is not None:
                task.cancel()

    def interrupted(self) -> None:
        """The person interrupted: cancel the calls that asked for it at registration."""
        self.cancel([call_id for call_id in self._running if self._cancels(call_id)])

    async def close(self) -> None:
        """Cancel what runs and wait for the ends of it; bounded by `user_code.bounded`."""
        running = list(self._running.values())
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)

    def _cancels(self, call_id: str) -> bool:
        tool = self._registry.get(self._names[call_id])
        return tool is not None and tool.cancel_on_interrupt

    async def _run(self, call: ToolCall) -> ToolOutcome:
        part = None
        if self._realtime.profile.tool_updates:

            def part(text: str) -> None:
                if self._realtime.alive:
                    self._realtime.send_tool_result(
                        call.call_id, call.name, text, failed=False, more=True
                    )

        work = self._registry.call(call.name, call.arguments, part)
        return await bounded(work, f"tool {call.name}")

    def _ended(self, call: ToolCall, began: float, task: asyncio.Task[ToolOutcome]) -> None:
        del self._running[call.call_id]
        del self._names[call.call_id]
        seconds = self._clock.now() - began
        error = None if task.cancelled() else task.exception()
        if task.cancelled():
            outcome = ToolOutcome("cancelled", CANCELLED)
        elif error is not None:
            # Not an error of the tool, because these are outcomes.
            log_failure(log, f"tool {call.name}", error)
            outcome = ToolOutcome("failed", f"The tool failed: {describe(error)}")
        else:
            outcome = task.result()
        status, output = outcome.status, outcome.output
        self._emit(ToolEndEvent(call.call_id, call.name, status, output, seconds))
        self._answer(call, outcome)

    def _answer(self, call: ToolCall, outcome: ToolOutcome) -> None:
        failed = outcome.status != "done"
        quiet = outcome.status == "cancelled"
        self._conversation.put(ToolResultItem(uuid4().hex, call.call_id, outcome.output, failed))
        self._realtime.send_tool_result(
            call.call_id, call.name, outcome.output, failed=failed, quiet=quiet
        )
