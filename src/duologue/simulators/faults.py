"""Faults on purpose: a small language to describe what goes wrong in a simulated session."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from typing import Literal

from duologue.errors import ConfigError
from duologue.json_types import Json
from duologue.simulators._yaml_file import load_yaml, short_repr

MAX_S = 86_400.0
"""Seconds of the longest time in a fault: a day."""


def _check_range(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ConfigError(
            f"{name} must be a number from {low:g} to {high:g}, not {short_repr(value)}"
        )


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ConfigError(f"{name} must be {' or '.join(choices)}, not {short_repr(value)}")


@dataclass(frozen=True, slots=True)
class Close:
    """Close the WebSocket with a code; for 0, end the connection without one."""

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
    """Cut the TCP connection with a RST. Over WebRTC it does the same as `Ice`."""


@dataclass(frozen=True, slots=True)
class Stall:
    """Read nothing, or write nothing, for ``seconds``."""

    direction: Literal["reading", "writing"] = "writing"
    seconds: float = 2.0

    def __post_init__(self) -> None:
        _check_choice("direction", self.direction, ("reading", "writing"))
        _check_range("seconds", self.seconds, 0, MAX_S)


@dataclass(frozen=True, slots=True)
class Delay:
    """From now on send every event ``ms`` late, and up to ``jitter_ms`` later still, in order."""

    ms: float = 200.0
    jitter_ms: float = 0.0

    def __post_init__(self) -> None:
        _check_range("ms", self.ms, 0, MAX_S * 1000)
        _check_range("jitter_ms", self.jitter_ms, 0, MAX_S * 1000)


@dataclass(frozen=True, slots=True)
class Burst:
    """Hold events back for ``seconds``, then send them all at once."""

    seconds: float = 1.0

    def __post_init__(self) -> None:
        _check_range("seconds", self.seconds, 0, MAX_S)


@dataclass(frozen=True, slots=True)
class Duplicate:
    """Send an event of this type twice."""

    event: str = "response.output_audio.delta"


@dataclass(frozen=True, slots=True)
class Unknown:
    """Send an event of a type that no client knows."""

    type: str = "simulator.surprise"


@dataclass(frozen=True, slots=True)
class Garbage:
    """Send a message that is not an event."""

    kind: Literal["text", "binary"] = "text"

    def __post_init__(self) -> None:
        _check_choice("kind", self.kind, ("text", "binary"))


@dataclass(frozen=True, slots=True)
class Error:
    """Send an error event; the session continues."""

    code: str = "server_error"
    message: str = "The server had an error while processing your request."


@dataclass(frozen=True, slots=True)
class Handshake:
    """Refuse the connection with this HTTP status and code."""

    status: int = 500
    code: str = ""

    def __post_init__(self) -> None:
        _check_range("status", self.status, 400, 599)


@dataclass(frozen=True, slots=True)
class Ice:
    """WebRTC: send nothing from now on, without closing the connection."""


@dataclass(frozen=True, slots=True)
class Loss:
    """WebRTC: lose this fraction of the audio packets in both directions."""

    fraction: float = 0.05

    def __post_init__(self) -> None:
        _check_range("fraction", self.fraction, 0, 1)


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
    """One fault: an action, and when it is carried out.

    Without ``at`` and ``on`` that is when a session starts.

    Attributes:
        action: What happens.
        at: Seconds after the start of the session.
        on: The type of an event of either side.
        nth: Which event of that type in a session.
        times: How often it happens in all sessions together.

    Raises:
        ConfigError: A value is out of range, or both ``at`` and ``on`` are given.
    """

    action: Action
    at: float | None = None
    on: str | None = None
    nth: int = 1
    times: int = 1

    def __post_init__(self) -> None:
        if self.at is not None and self.on is not None:
            raise ConfigError("a fault happens `at` a time or `on` an event, not both")
        if self.nth < 1 or self.times < 1 or (self.at is not None and not 0 <= self.at <= MAX_S):
            raise ConfigError(
                f"nth and times of a fault must be 1 or more, and at from 0 to {MAX_S:g} seconds"
            )


PRESETS: Mapping[str, Fault] = {
    "close": Fault(Close(1011, "internal error"), on="response.created"),
    "restart": Fault(Close(1012, "service restart"), at=2.0),
    "expired": Fault(Close(1001, "Your session hit the maximum duration of 60 minutes."), at=2.0),
    "reset": Fault(Reset(), at=2.0),
    "reset-in-reply": Fault(Reset(), on="response.output_audio.delta", nth=2),
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
"""Presets by name."""


def preset_fault(name: str, presets: Mapping[str, Fault] = PRESETS) -> Fault:
    """Return the preset of that name.

    Raises:
        ConfigError: There is none.
    """
    fault = presets.get(name)
    if fault is None:
        raise ConfigError(f"no fault is called {short_repr(name)}: there are {', '.join(presets)}")
    return fault if not isinstance(fault.action, Duplicate) else _with_default_event(fault)


def load_faults(name: str, presets: Mapping[str, Fault] = PRESETS) -> list[Fault]:
    """Return the faults of a preset or of a YAML file.

    Raises:
        ConfigError: There is no such preset, or the file is wrong.
    """
    if name in presets or not name.endswith((".yaml", ".yml")):
        return [preset_fault(name, presets)]
    return parse_faults(load_yaml(Path(name)), name, presets)


def parse_faults(value: Json, where: str, presets: Mapping[str, Fault] = PRESETS) -> list[Fault]:
    """Return the faults of a parsed file: a list of names and of objects.

    Args:
        value: The list.
        where: The file, for errors.
        presets: The presets that names refer to.

    Raises:
        ConfigError: An entry is wrong.
    """
    if not isinstance(value, list):
        raise ConfigError(f"{where}: faults must be a list")
    return [
        _parse_fault(one, f"{where}: fault {index + 1}", presets) for index, one in enumerate(value)
    ]


def _parse_fault(value: Json, where: str, presets: Mapping[str, Fault]) -> Fault:
    if isinstance(value, str):
        if value in ACTIONS and value not in presets:
            return _with_default_event(Fault(ACTIONS[value]()))
        return preset_fault(value, presets)
    if not isinstance(value, dict):
        raise ConfigError(f"{where}: must be a name or an object")
    kinds = [key for key in value if key in ACTIONS]
    if len(kinds) != 1:
        raise ConfigError(f"{where}: must have one of {', '.join(ACTIONS)}")
    kind = kinds[0]
    options = {key: one for key, one in value.items() if key != kind}
    given = value[kind]
    action = _build(ACTIONS[kind], {} if given is None else given, f"{where}: {kind}")
    fault = _build(Fault, {**options, "action": None}, where)
    return _with_default_event(replace(fault, action=action))


def _with_default_event(fault: Fault) -> Fault:
    if isinstance(fault.action, Duplicate) and fault.on is None and fault.at is None:
        return replace(fault, on=fault.action.event)
    return fault


def _build[T](kind: type[T], values: Json, where: str) -> T:
    """Make an instance of a dataclass from values that have the types of the fields' defaults."""
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    if not isinstance(values, dict):
        raise ConfigError(f"{where}: must be an object with {', '.join(known) or 'nothing'}")
    for key, value in values.items():
        if key not in known:
            raise ConfigError(f"{where}: {key} is not known; known are {', '.join(known)}")
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
            raise ConfigError(f"{where}: {key} can't be {short_repr(value)}")
    try:
        return kind(**values)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
