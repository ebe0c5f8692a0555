"""What goes wrong on purpose: a small language of faults, and who fires them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from typing import Literal, Protocol

from duologue.clock import Clock, Timer
from duologue.items import Json
from duologue.realtime.errors import ConfigError
from duologue.simulator.kept import Kept
from duologue.simulator.yaml_file import load_yaml, shown

MAX_S = 86_400.0
"""Seconds that anything may take: a day."""
MAX_FIRED = 1000
"""Newest actions that are kept for inspection."""


def _within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ConfigError(f"{name} must be a number from {low:g} to {high:g}, not {shown(value)}")


def _one_of(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ConfigError(f"{name} must be {' or '.join(choices)}, not {shown(value)}")


@dataclass(frozen=True, slots=True)
class Close:
    """End the WebSocket with a code; for 0, end the connection without one."""

    code: int = 1011
    reason: str = "simulated"

    def __post_init__(self) -> None:
        # 1004 to 1006 and 1015 are never sent: https://www.rfc-editor.org/rfc/rfc6455#section-7.4
        sendable = 1000 <= self.code <= 1014 and self.code not in (1004, 1005, 1006)
        if self.code and not sendable and not 3000 <= self.code <= 4999:
            raise ConfigError(
                f"code must be a WebSocket close code, such as 1011 or 4000, not {self.code}"
            )


@dataclass(frozen=True, slots=True)
class Reset:
    """Cut the TCP connection by a RST; over WebRTC as `Ice`."""


@dataclass(frozen=True, slots=True)
class Stall:
    """Read nothing, or write nothing, for so many seconds."""

    direction: Literal["reading", "writing"] = "writing"
    seconds: float = 2.0

    def __post_init__(self) -> None:
        _one_of("direction", self.direction, ("reading", "writing"))
        _within("seconds", self.seconds, 0, MAX_S)


@dataclass(frozen=True, slots=True)
class Delay:
    """From now on every event leaves so late; jitter comes on top, and keeps the order."""

    ms: float = 200.0
    jitter_ms: float = 0.0

    def __post_init__(self) -> None:
        _within("ms", self.ms, 0, MAX_S * 1000)
        _within("jitter_ms", self.jitter_ms, 0, MAX_S * 1000)


@dataclass(frozen=True, slots=True)
class Burst:
    """Hold events back for so many seconds, then send them all at once."""

    seconds: float = 1.0

    def __post_init__(self) -> None:
        _within("seconds", self.seconds, 0, MAX_S)


@dataclass(frozen=True, slots=True)
class Duplicate:
    """Send an event of this type twice."""

    event: str = "response.output_audio.delta"


@dataclass(frozen=True, slots=True)
class Unknown:
    """Send an event of a type that nobody knows yet."""

    type: str = "simulator.surprise"


@dataclass(frozen=True, slots=True)
class Garbage:
    """Send what is no event."""

    kind: Literal["text", "binary"] = "text"

    def __post_init__(self) -> None:
        _one_of("kind", self.kind, ("text", "binary"))


@dataclass(frozen=True, slots=True)
class Error:
    """Send an error event; the session goes on."""

    code: str = "server_error"
    message: str = "The server had an error while processing your request."


@dataclass(frozen=True, slots=True)
class Handshake:
    """Refuse the connection with this HTTP status, and this code."""

    status: int = 500
    code: str = ""

    def __post_init__(self) -> None:
        _within("status", self.status, 400, 599)


@dataclass(frozen=True, slots=True)
class Ice:
    """WebRTC: be silent from now on, without a farewell."""


@dataclass(frozen=True, slots=True)
class Loss:
    """WebRTC: lose that part of the sound's packets, both ways."""

    fraction: float = 0.05

    def __post_init__(self) -> None:
        _within("fraction", self.fraction, 0, 1)


type Action = (
    Close
    | Reset
    | Stall
    | Delay
    | Burst
    | Duplicate
    | Unknown
    | Garbage
    | Error
    | Handshake
    | Ice
    | Loss
)

ACTIONS: Mapping[str, type[Action]] = {
    "close": Close,
    "reset": Reset,
    "stall": Stall,
    "delay": Delay,
    "burst": Burst,
    "duplicate": Duplicate,
    "unknown": Unknown,
    "garbage": Garbage,
    "error": Error,
    "handshake": Handshake,
    "ice": Ice,
    "loss": Loss,
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong: ``at`` s of a session, or ``on`` an event, or at its beginning.

    ``on`` is the type of an event of either side, ``nth`` which one of a session. It fires
    ``times`` times in all sessions together. Raises `ConfigError`.
    """

    action: Action
    at: float | None = None
    on: str | None = None
    nth: int = 1
    times: int = 1

    def __post_init__(self) -> None:
        if self.at is not None and self.on is not None:
            raise ConfigError("a fault comes `at` a time or `on` an event, not both")
        if self.nth < 1 or self.times < 1 or (self.at is not None and not 0 <= self.at <= MAX_S):
            raise ConfigError(
                f"nth and times of a fault must be 1 or more, and at from 0 to {MAX_S:g} seconds"
            )


PRESETS: Mapping[str, Fault] = {
    "close": Fault(Close(1011, "internal error"), on="response.created"),
    "restart": Fault(Close(1012, "service restart"), at=2.0),
    "expired": Fault(Close(1001, "Your session hit the maximum duration of 60 minutes."), at=2.0),
    "reset": Fault(Reset(), at=2.0),
    "reset-in-answer": Fault(Reset(), on="response.output_audio.delta", nth=2),
    "deaf": Fault(Stall("reading", 5.0), at=1.0),
    "stall": Fault(Stall("writing", 3.0), on="response.created"),
    "slow": Fault(Delay(300.0, 100.0)),
    "burst": Fault(Burst(1.5), on="response.created"),
    "duplicate": Fault(Duplicate(), times=1000),
    "unknown": Fault(Unknown(), on="session.created", times=1000),
    "garbage": Fault(Garbage(), on="session.created", times=1000),
    "error": Fault(Error(), on="response.created"),
    "unauthorized": Fault(Handshake(401), times=1000),
    "busy": Fault(Handshake(429), times=2),
    "quota": Fault(Handshake(429, "insufficient_quota"), times=1000),
    "down": Fault(Handshake(500), times=2),
    "ice": Fault(Ice(), at=2.0),
    "lossy": Fault(Loss(0.05), times=1000),
}
"""Faults by name."""


class FaultTarget(Protocol):
    """What faults happen to: the line of one session."""

    def fault(self, action: Action) -> None:
        """Let it happen."""


class FaultPlan:
    """The faults of a simulator, and how often each has yet to fire."""

    def __init__(
        self, faults: Sequence[Fault | str] = (), presets: Mapping[str, Fault] = PRESETS
    ) -> None:
        self._presets = presets
        self.faults: tuple[Fault, ...] = ()
        self._left: dict[int, int] = {}
        self._runners: set[FaultRunner] = set()
        self._fired: Kept[Action] = Kept(MAX_FIRED)
        self.set(faults)

    def set(self, faults: Sequence[Fault | str]) -> None:
        """Have these from now on, also in sessions that run; their times begin now."""
        self.faults = tuple(
            fault if isinstance(fault, Fault) else fault_named(fault, self._presets)
            for fault in faults
        )
        self._left = {index: fault.times for index, fault in enumerate(self.faults)}
        for runner in [*self._runners]:
            runner.arm()

    def take(self, index: int) -> bool:
        """Fire this one, if it may once more."""
        if self._left.get(index, 0) < 1:
            return False
        self._left[index] -= 1
        self._fired.add(self.faults[index].action)
        return True

    @property
    def fired(self) -> list[Action]:
        """The newest `MAX_FIRED` actions that have happened."""
        return self._fired.entries

    def handshake(self) -> Handshake | None:
        """How the next connection is refused, if it is."""
        for index, fault in enumerate(self.faults):
            if isinstance(fault.action, Handshake) and self.take(index):
                return fault.action
        return None

    @property
    def loss(self) -> bool:
        """Some fault loses packets."""
        return any(isinstance(fault.action, Loss) for fault in self.faults)

    def run(self, target: FaultTarget, clock: Clock) -> FaultRunner:
        """Begin on a session; to be closed with it."""
        runner = FaultRunner(self, target, clock, self._runners.discard)
        self._runners.add(runner)
        runner.arm()
        return runner


class FaultRunner:
    """Fires the faults of one session."""

    def __init__(
        self,
        plan: FaultPlan,
        target: FaultTarget,
        clock: Clock,
        gone: Callable[[FaultRunner], None],
    ) -> None:
        self._plan = plan
        self._target = target
        self._clock = clock
        self._gone = gone
        self._counts: Counter[str] = Counter()
        self._timers: list[Timer] = []

    def arm(self) -> None:
        """Begin on the plan's faults."""
        self._stop()
        self._counts.clear()
        now = self._clock.now()
        for index, fault in enumerate(self._plan.faults):
            if isinstance(fault.action, Handshake) or fault.on is not None:
                continue
            self._timers.append(self._clock.call_at(now + (fault.at or 0.0), self._fire(index)))

    def saw(self, event_type: str) -> None:
        """An event of this type went over the line."""
        if not any(fault.on == event_type for fault in self._plan.faults):
            return
        self._counts[event_type] += 1
        for index, fault in enumerate(self._plan.faults):
            again = isinstance(fault.action, Duplicate) and fault.times > 1
            due = self._counts[event_type] == fault.nth or again
            if fault.on == event_type and due and not isinstance(fault.action, Handshake):
                self._fire(index)()

    def close(self) -> None:
        """The session is over."""
        self._stop()
        self._gone(self)

    def _fire(self, index: int) -> Callable[[], None]:
        def fire() -> None:
            if self._plan.take(index):
                self._target.fault(self._plan.faults[index].action)

        return fire

    def _stop(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()


def fault_named(name: str, presets: Mapping[str, Fault] = PRESETS) -> Fault:
    """A fault of ``presets``. Raises `ConfigError`."""
    fault = presets.get(name)
    if fault is None:
        raise ConfigError(f"no fault is called {shown(name)}: there are {', '.join(presets)}")
    return fault if not isinstance(fault.action, Duplicate) else _on_its_event(fault)


def load_faults(name: str, presets: Mapping[str, Fault] = PRESETS) -> list[Fault]:
    """The faults of a name or of a YAML file. Raises `ConfigError`."""
    if name in presets or not name.endswith((".yaml", ".yml")):
        return [fault_named(name, presets)]
    return parse_faults(load_yaml(Path(name)), name, presets)


def parse_faults(value: Json, where: str, presets: Mapping[str, Fault] = PRESETS) -> list[Fault]:
    """Faults as they stand in a file: a list of names and of objects. Raises `ConfigError`."""
    if not isinstance(value, list):
        raise ConfigError(f"{where}: faults are a list")
    return [_parse(one, f"{where}: fault {index + 1}", presets) for index, one in enumerate(value)]


def _parse(value: Json, where: str, presets: Mapping[str, Fault]) -> Fault:
    if isinstance(value, str):
        if value in ACTIONS and value not in presets:
            return _on_its_event(Fault(ACTIONS[value]()))
        return fault_named(value, presets)
    if not isinstance(value, dict):
        raise ConfigError(f"{where}: takes a name or an object")
    kinds = [key for key in value if key in ACTIONS]
    if len(kinds) != 1:
        raise ConfigError(f"{where}: takes one of {', '.join(ACTIONS)}")
    kind = kinds[0]
    options = {key: one for key, one in value.items() if key != kind}
    given = value[kind]
    action = _made(ACTIONS[kind], {} if given is None else given, f"{where}: {kind}")
    fault = _made(Fault, {**options, "action": None}, where)
    return _on_its_event(replace(fault, action=action))


def _on_its_event(fault: Fault) -> Fault:
    if isinstance(fault.action, Duplicate) and fault.on is None and fault.at is None:
        return replace(fault, on=fault.action.event)
    return fault


def _made[T](kind: type[T], values: Json, where: str) -> T:
    """An instance of a dataclass from values of the types of its fields' defaults."""
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    if not isinstance(values, dict):
        raise ConfigError(f"{where}: takes an object with {', '.join(known) or 'nothing'}")
    for key, value in values.items():
        if key not in known:
            raise ConfigError(f"{where}: {key} is not known; it takes {', '.join(known)}")
        default = known[key].default
        if default is MISSING or (value is None and default is None):
            continue
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if isinstance(default, float) or key == "at":
            good = number
        elif isinstance(default, int):
            good = isinstance(value, int) and not isinstance(value, bool)
        else:
            good = isinstance(value, str)
        if not good:
            raise ConfigError(f"{where}: {key} can't be {shown(value)}")
    try:
        return kind(**values)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
