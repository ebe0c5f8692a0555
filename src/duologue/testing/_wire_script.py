"""The wire journal of one session or part, as a replay needs it."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

from duologue.json_types import Json, JsonObject

SAME_TIME_S = 1e-5
"""Virtual seconds behind a record in which the time is still that of the record."""


@dataclass(slots=True, eq=False)
class Record:
    """One record, with the inputs that came within it."""

    raw: JsonObject
    kind: str
    at: float
    turn: int
    inputs: list[Record] = field(default_factory=list)
    result: Json = None
    is_past: bool = False


_INPUTS = frozenset({"tell", "fire", "up", "refused", "in", "sent", "end", "closed"})


_SUBJECTS = frozenset({"session", "pipeline", "stt", "tts"})

_FIELDS: dict[str, dict[str, type]] = {
    "tell": {"n": str, "a": list},
    "ask": {"n": str, "a": list},
    "fire": {"n": str, "i": int},
    "voice": {"i": int, "v": list},
    "unix": {"v": object},
    "dial": {"w": int},
    "up": {"w": int},
    "refused": {"w": int},
    "in": {"w": int, "m": object},
    "out": {"w": int, "m": object},
    "sent": {"w": int, "i": int},
    "full": {"w": int, "i": int},
    "end": {"w": int},
    "closed": {"w": int},
}
"""Fields that a record of each kind must have."""


class Script:
    """The journal of one session or part.

    Raises:
        ValueError: It is damaged; so do `KeyError` and `TypeError`.
    """

    def __init__(self, log: Sequence[JsonObject]) -> None:
        self.begin = log[0]
        _check_begin(self.begin)
        self.zero = float(cast("float", self.begin.get("zero", 0.0)))
        self.unix = float(cast("float", self.begin.get("unix", 0.0)))
        self.inputs: list[Record] = []
        self.asks: dict[str, list[Record]] = {}
        self.sent: dict[int, list[Record]] = {}
        self.dials = 0
        self.fires: dict[tuple[str, int], Record] = {}
        self.by_wire: dict[tuple[str, int], Record] = {}
        self.sends: dict[tuple[int, int], Record] = {}
        self.full: dict[tuple[int, int], int] = {}
        self.unix_readings: deque[float] = deque()
        self.verdicts: dict[int, list[tuple[float, float, float]]] = {}
        open_asks: dict[int, Record] = {}
        for raw in log[1:]:
            _check_fields(raw)
            record = Record(
                raw,
                str(raw.get("k")),
                float(cast("float", raw.get("t", 0.0))),
                cast("int", raw.get("b", 0)),
            )
            depth = cast("int", raw.get("d", 0))
            if record.kind in _INPUTS:
                (open_asks[depth].inputs if depth else self.inputs).append(record)
            match record.kind:
                case "ret":
                    open_asks[depth].result = raw.get("v")
                case "ask":
                    open_asks[depth + 1] = record
                    self.asks.setdefault(channel_of(str(raw.get("n"))), []).append(record)
                case "dial":
                    self.dials += 1
                case "out":
                    self.sent.setdefault(cast("int", raw["w"]), []).append(record)
                case "fire":
                    self.fires[str(raw["n"]), cast("int", raw["i"])] = record
                case "up" | "refused" | "end" | "closed":
                    self.by_wire[record.kind, cast("int", raw["w"])] = record
                case "sent":
                    self.sends[cast("int", raw["w"]), cast("int", raw["i"])] = record
                case "full":
                    key = cast("int", raw["w"]), cast("int", raw["i"])
                    self.full[key] = self.full.get(key, 0) + 1
                case "unix":
                    self.unix_readings.append(float(cast("float", raw["v"])))
                case "voice":
                    verdicts = cast("list[tuple[float, float, float]]", raw["v"])
                    self.verdicts[cast("int", raw["i"])] = [
                        (float(voice), float(seconds), float(at)) for voice, seconds, at in verdicts
                    ]
        self.turns = _grouped(self.inputs)
        self.keeps_audio = bool(self.begin.get("keep_audio"))
        is_whole = any(one.raw.get("n") == "leave" for one in self.inputs) or any(
            one.raw.get("n") == "disconnected" for one in self.asks.get("agent", ())
        )
        self.cut_at = float("inf") if is_whole else float(cast("float", log[-1].get("t", 0.0)))
        """Where the journal ends before the session does, in seconds of the recording."""


def _check_begin(begin: JsonObject) -> None:
    subject = begin.get("subject")
    if begin.get("k") != "begin" or subject not in _SUBJECTS:
        raise ValueError("its beginning is missing")
    if subject == "session" and not (
        isinstance(begin.get("input_rate"), int) and isinstance(begin.get("setup"), dict)
    ):
        raise ValueError("its beginning has no input_rate or no setup")
    if not isinstance(begin.get("options", {}), dict):
        raise ValueError("its options are no object")


def _check_fields(raw: JsonObject) -> None:
    for name, kind in _FIELDS.get(str(raw.get("k")), {}).items():
        if name not in raw or not isinstance(raw[name], kind):
            raise ValueError(f"a record {raw.get('k')} has no valid {name}")
    if not isinstance(raw.get("b", 0), int):
        raise ValueError("a record has no valid b")


def _grouped(inputs: Sequence[Record]) -> list[list[Record]]:
    """Return the inputs by the turn of the event loop in which they came."""
    groups: list[list[Record]] = []
    for record in inputs:
        if groups and groups[-1][0].turn == record.turn:
            groups[-1].append(record)
        else:
            groups.append([record])
    return groups


QUERIES = frozenset({"history", "spoken_text"})


def channel_of(ask: str) -> str:
    """Return in which order an ask is compared: with those of the same channel."""
    if ask in QUERIES:
        return ask
    return "voice" if ask.startswith("voice_") else "agent"
