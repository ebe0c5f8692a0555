"""Run tool calls in parallel with the audio, each once and with one result (contract C6)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from uuid import uuid4

from duologue._user_code import describe, log_failure, run_bounded
from duologue.agent.conversation import Conversation
from duologue.clock import Clock
from duologue.events.events import Event, ToolEndEvent, ToolStartEvent
from duologue.items import ToolCallItem, ToolResultItem
from duologue.realtime.outputs import ToolCall
from duologue.realtime.realtime import Realtime
from duologue.tools import ToolOutcome, ToolRegistry

log = logging.getLogger(__name__)

INTERRUPTED_OUTPUT = "Not run: the person interrupted."
CANCELLED_OUTPUT = "Cancelled."


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
        self._tool_names: dict[str, str] = {}

    @property
    def busy(self) -> bool:
        """Whether a tool is running."""
        return bool(self._running)

    @property
    def running_call_ids(self) -> tuple[str, ...]:
        """The ids of the calls that have no result yet."""
        return tuple(self._running)

    def start(self, call: ToolCall, *, stale: bool, tasks: asyncio.TaskGroup) -> None:
        """Run a call; answer a stale call without running it."""
        item = ToolCallItem(uuid4().hex, call.call_id, call.name, call.arguments)
        self._conversation.put(item)
        if stale:
            self._send_result(call, ToolOutcome("cancelled", INTERRUPTED_OUTPUT))
            return
        self._emit(ToolStartEvent(call.call_id, call.name, call.arguments))
        self._tool_names[call.call_id] = call.name
        task = tasks.create_task(self._run(call), name=f"tool {call.name}")
        self._running[call.call_id] = task
        began = self._clock.now()
        # A callback, because a task that is cancelled before it starts never runs its own code.
        task.add_done_callback(lambda task: self._call_ended(call, began, task))

    def cancel(self, call_ids: Sequence[str]) -> None:
        """Cancel calls whose results the model no longer wants; each still gets a result."""
        for call_id in call_ids:
            task = self._running.get(call_id)
            if task is not None:
                task.cancel()

    def person_interrupted(self) -> None:
        """Cancel the calls of tools registered with ``cancel_on_interrupt``."""
        self.cancel([call_id for call_id in self._running if self._cancels_on_interrupt(call_id)])

    async def close(self) -> None:
        """Cancel all calls and wait until they end; `run_bounded` limits how long."""
        running = list(self._running.values())
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)

    def _cancels_on_interrupt(self, call_id: str) -> bool:
        tool = self._registry.get(self._tool_names[call_id])
        return tool is not None and tool.cancel_on_interrupt

    async def _run(self, call: ToolCall) -> ToolOutcome:
        part = None
        if self._realtime.capabilities.tool_updates:

            def part(text: str) -> None:
                if self._realtime.alive:
                    self._realtime.send_tool_result(
                        call.call_id, call.name, text, failed=False, more=True
                    )

        work = self._registry.call(call.name, call.arguments, part)
        return await run_bounded(work, f"tool {call.name}")

    def _call_ended(self, call: ToolCall, began: float, task: asyncio.Task[ToolOutcome]) -> None:
        del self._running[call.call_id]
        del self._tool_names[call.call_id]
        seconds = self._clock.now() - began
        error = None if task.cancelled() else task.exception()
        if task.cancelled():
            outcome = ToolOutcome("cancelled", CANCELLED_OUTPUT)
        elif error is not None:
            # Not an error of the tool itself, because the registry returns those as outcomes.
            log_failure(log, f"tool {call.name}", error)
            outcome = ToolOutcome("failed", f"The tool failed: {describe(error)}")
        else:
            outcome = task.result()
        status, output = outcome.status, outcome.output
        self._emit(ToolEndEvent(call.call_id, call.name, status, output, seconds))
        self._send_result(call, outcome)

    def _send_result(self, call: ToolCall, outcome: ToolOutcome) -> None:
        failed = outcome.status != "done"
        quiet = outcome.status == "cancelled"
        self._conversation.put(ToolResultItem(uuid4().hex, call.call_id, outcome.output, failed))
        self._realtime.send_tool_result(
            call.call_id, call.name, outcome.output, failed=failed, quiet=quiet
        )
