"""Let happen what happened, at its time and in its order."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import cast

from duologue.errors import DuologueError, SessionError
from duologue.json_types import Json, JsonObject
from duologue.observe.wire_journal import ADJACENT_TURNS
from duologue.observe.wire_json import (
    error_from_json,
    facts_from_json,
    received_from_json,
)
from duologue.realtime import commands, outputs
from duologue.realtime.border import (
    FactualWire,
)
from duologue.testing._replay_border import (
    ReplayBorder,
    WireState,
    resolve,
)
from duologue.testing._replay_subjects import Subject
from duologue.testing._wire_script import SAME_TIME_S, Record

_STEP_S = 1e-8
"""Virtual seconds between two turns of the event loop that had the same time."""
_SETTLE_S = 1e-4
"""Virtual seconds that the session gets at the end of the journal."""


def _wakes(record: Record) -> bool:
    """Return whether a record wakes a task, which ran within the same turn then."""
    match record.kind:
        case "tell":
            return record.raw.get("n") in ("prepared", "leave")
        case "fire":
            return record.raw.get("n") == "sleep"
        case kind:
            return kind != "in"


class Driver:
    """Lets happen what happened, at its time and in its order."""

    def __init__(self, border: ReplayBorder, subject: Subject, task: asyncio.Task[None]) -> None:
        self._border = border
        self._subject = subject
        self._task = task
        self._loop = asyncio.get_running_loop()
        self._has_left = False
        border.tell = self._tell

    async def run(self) -> None:
        beginning = asyncio.ensure_future(self._border.began.wait())
        await asyncio.wait([beginning, self._task], return_when=asyncio.FIRST_COMPLETED)
        beginning.cancel()
        over = self._loop.create_future()
        self._play(0, over)
        await over
        await self._until(self._loop.time() + _SETTLE_S)

    def _play(self, index: int, over: asyncio.Future[None]) -> None:
        """Let the inputs of one turn of the event loop happen, and plan the next one's."""
        try:
            self._play_group(index, over)
        except Exception as error:  # noqa: BLE001 - raised by run
            if not over.done():
                over.set_exception(error)

    def _play_group(self, index: int, over: asyncio.Future[None]) -> None:
        groups = self._border.script.turns
        if index == len(groups):
            over.set_result(None)
            return
        group = groups[index]
        if self._turns_until(index + 1) and groups[index + 1][0].kind == "tell":
            # Something that was woken before all that this group wakes.
            self._plan(index + 1, over, late=any(map(_wakes, group)))
            self._happen_all(group)
        else:
            self._happen_all(group)
            self._plan(index + 1, over, late=any(map(_wakes, group)))

    def _turns_until(self, index: int) -> int:
        """Return how many turns of the event loop a group comes after the one before.

        0 if that is not known, because there were too many, or the journal is damaged.
        """
        groups = self._border.script.turns
        if index == 0 or index >= len(groups):
            return 0
        turns = groups[index][0].turn - groups[index - 1][0].turn
        return turns if 0 < turns <= ADJACENT_TURNS else 0

    def _plan(self, index: int, over: asyncio.Future[None], *, late: bool) -> None:
        """Plan a group; ``late``: the inside has got to where it was then one turn later."""
        groups = self._border.script.turns
        turns = self._turns_until(index)
        when = self._time_of(groups[index]) if index < len(groups) else self._loop.time()
        if turns and when < self._border.script.zero + groups[index][0].at + SAME_TIME_S:
            self._loop.call_soon(self._count_down, turns - 1 + late, index, over)
        else:
            self._loop.call_at(when, self._play, index, over)

    def _count_down(self, turns: int, index: int, over: asyncio.Future[None]) -> None:
        if turns:
            self._loop.call_soon(self._count_down, turns - 1, index, over)
        else:
            self._play(index, over)

    def _happen_all(self, group: Sequence[Record]) -> None:
        for record in group:
            self._border.at = record.at
            self._happen(record)

    def _time_of(self, group: Sequence[Record]) -> float:
        when = max(self._loop.time() + _STEP_S, self._border.script.zero + group[0].at)
        for record in group:
            if record.kind == "fire":
                key = str(record.raw["n"]), cast("int", record.raw["i"])
                timer = self._border.timers.get(key)
                if timer is not None and not timer.is_cancelled:
                    when = max(when, timer.when)
        return when

    async def _until(self, when: float) -> None:
        reached = asyncio.Event()
        self._loop.call_at(when, reached.set)
        await reached.wait()

    def _happen(self, record: Record) -> None:
        record.is_past = True
        raw = record.raw
        match record.kind:
            case "tell":
                self._tell(record)
                return
            case "fire":
                timer = self._border.timers.pop((str(raw["n"]), cast("int", raw["i"])), None)
                if timer is not None:
                    timer.fire()
                return
        state = self._border.wire_state(cast("int", raw["w"]))
        match record.kind:
            case "up" | "refused":
                error = self._error(state, raw)
                resolve(state.opened, error)
            case "in":
                end = self._border.script.by_wire.get(("end", cast("int", raw["w"])))
                fails = end is not None and bool(end.raw.get("own"))
                state.deliver(self._message(raw["m"]), fails=fails)
            case "sent" if raw.get("cancelled"):
                pass  # It never ended.
            case "sent":
                error = (
                    error_from_json(cast("JsonObject", raw["error"])) if "error" in raw else None
                )
                resolve(state.send_done(cast("int", raw["i"])), error)
            case "end":
                state.end(self._error(state, raw))
            case "closed":
                state.closed.set()

    def _message(self, recorded: Json) -> object:
        if isinstance(recorded, str):
            recorded = self._border.names.translate(recorded)
        return received_from_json(recorded)

    def _error(self, state: WireState, raw: JsonObject) -> Exception | None:
        """Return the error of a record, as the real wire makes it from the facts."""
        recorded = raw.get("error")
        facts = facts_from_json(raw.get("facts"))
        if raw.get("k") == "end":
            facts.server_time = facts.message_limit = None  # learned before
        error: SessionError | None = None
        if isinstance(state.real, FactualWire) and not raw.get("own"):
            error = state.real.apply(facts)
        if not isinstance(recorded, dict):
            return None
        return error or error_from_json(recorded)

    def _tell(self, record: Record) -> None:
        record.is_past = True
        name = str(record.raw["n"])
        args = cast("list[object]", self._border.decode(record.raw.get("a", [])))
        match name:
            case "prepared":
                self._border.prepared.set()
            case "leave" if not self._has_left:  # It is noted again at the end of closing.
                self._has_left = True
                self._task.cancel()
            case "leave":
                pass
            case "voice_output":
                self._voice_output(cast("int", args[0]), cast("outputs.Output", args[1]))
            case "voice_command":
                voiced = self._border.voiced.get(cast("int", args[0]))
                if voiced is not None:
                    voiced.command(cast("commands.Command", args[1]))
            case _:
                with suppress(DuologueError):  # as its caller then
                    self._subject.tell(name, args)

    def _voice_output(self, number: int, output: outputs.Output) -> None:
        voiced = self._border.voiced.get(number)
        if voiced is None:
            return
        try:
            voiced.receive(output)
        except SessionError as error:
            voiced.fail(error)
