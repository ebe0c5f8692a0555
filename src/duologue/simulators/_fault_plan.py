"""Carries out the faults of a simulator in its sessions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from duologue.clock import Clock, Timer
from duologue.simulators._bounded_log import BoundedLog
from duologue.simulators.faults import (
    PRESETS,
    Action,
    Duplicate,
    Fault,
    Handshake,
    Loss,
    preset_fault,
)

MAX_FIRED_ACTIONS = 1000
"""Newest actions that are kept for inspection."""


class FaultTarget(Protocol):
    """What faults happen to: the channel of one session."""

    def apply_fault(self, action: Action) -> None:
        """Carry out an action."""


class FaultPlan:
    """The faults of a simulator, and how often each may still happen."""

    def __init__(
        self, faults: Sequence[Fault | str] = (), presets: Mapping[str, Fault] = PRESETS
    ) -> None:
        self._presets = presets
        self.faults: tuple[Fault, ...] = ()
        self._remaining: dict[int, int] = {}
        self._runners: set[FaultRunner] = set()
        self._fired_actions: BoundedLog[Action] = BoundedLog(MAX_FIRED_ACTIONS)
        self.set(faults)

    def set(self, faults: Sequence[Fault | str]) -> None:
        """Replace the faults, also in running sessions, where their times start now."""
        self.faults = tuple(
            fault if isinstance(fault, Fault) else preset_fault(fault, self._presets)
            for fault in faults
        )
        self._remaining = {index: fault.times for index, fault in enumerate(self.faults)}
        for runner in [*self._runners]:
            runner.arm()

    def try_fire(self, index: int) -> bool:
        """Record that a fault happens; return False if it has happened often enough."""
        if self._remaining.get(index, 0) < 1:
            return False
        self._remaining[index] -= 1
        self._fired_actions.add(self.faults[index].action)
        return True

    @property
    def fired_actions(self) -> list[Action]:
        """The newest `MAX_FIRED_ACTIONS` actions that were carried out."""
        return self._fired_actions.entries

    def take_handshake(self) -> Handshake | None:
        """Return how to refuse the next connection, or None."""
        for index, fault in enumerate(self.faults):
            if isinstance(fault.action, Handshake) and self.try_fire(index):
                return fault.action
        return None

    @property
    def has_loss(self) -> bool:
        """Whether some fault loses packets."""
        return any(isinstance(fault.action, Loss) for fault in self.faults)

    def start(self, target: FaultTarget, clock: Clock) -> FaultRunner:
        """Start to apply the faults to a session. Close the runner with the session."""
        runner = FaultRunner(self, target, clock, self._runners.discard)
        self._runners.add(runner)
        runner.arm()
        return runner


class FaultRunner:
    """Carries out the faults of one session."""

    def __init__(
        self,
        plan: FaultPlan,
        target: FaultTarget,
        clock: Clock,
        on_closed: Callable[[FaultRunner], None],
    ) -> None:
        self._plan = plan
        self._target = target
        self._clock = clock
        self._on_closed = on_closed
        self._counts: Counter[str] = Counter()
        self._timers: list[Timer] = []

    def arm(self) -> None:
        """Set the timers and counters of the plan's faults."""
        self._stop()
        self._counts.clear()
        now = self._clock.now()
        for index, fault in enumerate(self._plan.faults):
            if isinstance(fault.action, Handshake) or fault.on is not None:
                continue
            self._timers.append(self._clock.call_at(now + (fault.at or 0.0), self._fire(index)))

    def event_passed(self, event_type: str) -> None:
        """Count an event of either side, and carry out what it triggers."""
        if not any(fault.on == event_type for fault in self._plan.faults):
            return
        self._counts[event_type] += 1
        for index, fault in enumerate(self._plan.faults):
            again = isinstance(fault.action, Duplicate) and fault.times > 1
            due = self._counts[event_type] == fault.nth or again
            if fault.on == event_type and due and not isinstance(fault.action, Handshake):
                self._fire(index)()

    def close(self) -> None:
        """Stop, because the session is over."""
        self._stop()
        self._on_closed(self)

    def _fire(self, index: int) -> Callable[[], None]:
        def fire() -> None:
            if self._plan.try_fire(index):
                self._target.apply_fault(self._plan.faults[index].action)

        return fire

    def _stop(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
