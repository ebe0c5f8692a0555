"""Compare messages with those of a wire journal, although random ids differ."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from duologue.json_types import Json, JsonObject
from duologue.testing._wire_script import Record

LOOK_AHEAD = 12
"""Messages that may be missing in a row before what follows is compared one by one."""
_MAX_DIFFERENCES = 200
_ID = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|(?<![0-9a-z])[0-9a-f]{12,}(?![0-9a-z])"
)


@dataclass(frozen=True, slots=True)
class Difference:
    """One message, or one report to the agent, that is not what it was.

    Attributes:
        where: Whose it is: ``session, connection 1``, or ``session, to the agent``.
        index: Its number there, from 0.
        at: Seconds of the recording.
        expected: The recorded one; None if there was none.
        got: The one of the replay; None if there is none.
        path: Where in it the first difference is, such as ``$.item.content[0].text``.
    """

    where: str
    index: int
    at: float
    expected: Json
    got: Json
    path: str

    def __str__(self) -> str:
        """Return it as one line."""
        start = f"{self.at:.3f} s, {self.where}, message {self.index}"
        if self.expected is None:
            return f"{start}: unexpected {_short(self.got)}"
        if self.got is None:
            return f"{start}: missing {_short(self.expected)}"
        was, now = (_short(_at_path(value, self.path)) for value in (self.expected, self.got))
        return f"{start} ({kind_of(self.expected)}): {self.path} was {was}, is {now}"


@dataclass(frozen=True, slots=True)
class Sent:
    """One message that the replay sent: to which connection, when, and what."""

    where: str
    at: float
    message: Json


@dataclass(slots=True)
class Replay:
    """What a replay found.

    Attributes:
        path: The folder of the call.
        differences: Where it was not as recorded, in order of time.
        compared: Messages and reports that were compared.
        sent: All messages that the replay sent.
        skipped: What could not be replayed, and why.
    """

    path: Path
    differences: list[Difference] = field(default_factory=list)
    compared: int = 0
    sent: list[Sent] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """Return the differences, one a line, below a summary."""
        count = len(self.differences)
        noun = "difference" if count == 1 else "differences"
        head = f"{self.path.name}: {count} {noun} in {self.compared} messages"
        return "\n".join((head, *self.skipped, *map(str, self.differences)))


class Names:
    """Which random ids of the journal and of the replay mean the same."""

    def __init__(self) -> None:
        self._now: dict[str, str] = {}
        self._then: dict[str, str] = {}

    def match(self, then: str, now: str, learned: dict[str, str]) -> bool:
        """Return whether two ids may mean the same; put what that teaches into ``learned``."""
        known = self._now.get(then) or learned.get(then)
        if known is not None:
            return known == now
        if then == now:
            return now not in self._then or self._then[now] == then
        if now in self._then or now in learned.values():
            return False
        learned[then] = now
        return True

    def learn(self, learned: Mapping[str, str]) -> None:
        """Keep what a comparison has taught."""
        self._now.update(learned)
        self._then.update({now: then for then, now in learned.items()})

    def translate(self, text: str) -> str:
        """Return a text of the journal with the ids of the replay."""
        if not self._now:
            return text
        return _ID.sub(lambda found: self._now.get(found[0], found[0]), text)

    def translate_json(self, value: Json) -> Json:
        """Return a value of the journal with the ids of the replay."""
        match value:
            case str():
                return self.translate(value)
            case list():
                return [self.translate_json(one) for one in value]
            case {"$": "audio"}:
                return value  # whose hash is no id
            case dict():
                return {self.translate(key): self.translate_json(one) for key, one in value.items()}
            case _:
                return value

    def first_difference(
        self, then: Json, now: Json, learned: dict[str, str], path: str = "$"
    ) -> str | None:
        """Return the JSON path of the first difference; None if there is none."""
        if isinstance(then, dict) and isinstance(now, dict):
            return self._first_in_objects(then, now, learned, path)
        if isinstance(then, list) and isinstance(now, list):
            for index, (one, other) in enumerate(zip(then, now, strict=False)):
                found = self.first_difference(one, other, learned, f"{path}[{index}]")
                if found is not None:
                    return found
            same = len(then) == len(now)
            return None if same else f"{path}[{min(len(then), len(now))}]"
        if isinstance(then, str) and isinstance(now, str):
            return None if self._same_text(then, now, learned) else path
        near = isinstance(then, float) and isinstance(now, float) and abs(then - now) < 0.002
        return None if near or then == now else path

    def _first_in_objects(
        self, then: JsonObject, now: JsonObject, learned: dict[str, str], path: str
    ) -> str | None:
        if then.get("$") == now.get("$") == "image":
            return None
        skipped: frozenset[str] = frozenset()
        is_media = isinstance(then.get("h"), str) and isinstance(now.get("h"), str)
        if is_media and "$" in then:
            # The replay has noise in place of audio that was not kept.
            skipped = frozenset({"h", "p", "data", "pcm"})
        for key in dict.fromkeys((*then, *now)):
            if key in skipped:
                continue
            if key not in then or key not in now:
                return f"{path}.{key}"
            found = self.first_difference(then[key], now[key], learned, f"{path}.{key}")
            if found is not None and key == "event_id":
                # Counts up, so all would differ behind one more or less.
                same = self.match(str(then[key]), str(now[key]), learned)
                found = None if same else found
            if found is not None:
                return found
        if skipped and not self.match(str(then["h"]), str(now["h"]), learned):
            return f"{path}.h"
        return None

    def _same_text(self, then: str, now: str, learned: dict[str, str]) -> bool:
        if then == now and not _ID.search(then):
            return True
        if _ID.sub("#", then) != _ID.sub("#", now):
            return False
        pairs = zip(_ID.findall(then), _ID.findall(now), strict=True)
        return all(self.match(one, other, learned) for one, other in pairs)


class Channel:
    """Compares one sequence with what was recorded, as it comes."""

    def __init__(
        self,
        where: str,
        expected: Sequence[Record],
        names: Names,
        found: Replay,
        cut_at: float = float("inf"),
    ) -> None:
        self._cut_at = cut_at
        self._where = where
        self._expected = expected
        self._values = [_value_of(record) for record in expected]
        self._names = names
        self._found = found
        self._next = 0
        self._index = 0

    def push(self, value: Json, at: float) -> Record | None:
        """Compare the next value; return the record that it is, if it is any."""
        if self._next == len(self._expected) and at >= self._cut_at:
            return None  # The journal does not tell.
        index, self._index = self._index, self._index + 1
        self._found.compared += 1
        learned: dict[str, str] = {}
        path: str | None = "$"
        for ahead in range(min(LOOK_AHEAD, len(self._expected) - self._next)):
            learned.clear()
            path = self._names.first_difference(self._values[self._next + ahead], value, learned)
            if path is None:
                for _ in range(ahead):
                    self._report_missing()
                self._names.learn(learned)
                return self._take()
        if self._next < len(self._expected):
            expected = self._values[self._next]
            if kind_of(expected) == kind_of(value):
                learned.clear()
                path = self._names.first_difference(expected, value, learned)
                self._report(Difference(self._where, index, at, expected, value, path or "$"))
                return self._take()
        self._report(Difference(self._where, index, at, None, value, "$"))
        return None

    def finish(self) -> None:
        """Report all that is missing."""
        while self._next < len(self._expected):
            self._report_missing()

    def _take(self) -> Record:
        self._next += 1
        return self._expected[self._next - 1]

    def _report_missing(self) -> None:
        number = self._next
        record = self._take()
        self._report(Difference(self._where, number, record.at, self._values[number], None, "$"))

    def _report(self, difference: Difference) -> None:
        if len(self._found.differences) < _MAX_DIFFERENCES:
            self._found.differences.append(difference)


def _value_of(record: Record) -> Json:
    if record.kind == "ask":
        return {"report": record.raw.get("n"), "args": record.raw.get("a")}
    return record.raw.get("m")


def kind_of(message: Json) -> str:
    """Return what kind of message it is, to say and to find it again."""
    match message:
        case {"report": str(name), "args": [{"$": str(kind)}, *_]}:
            return f"{name} {kind}"
        case (
            {"report": str(name)}
            | {"type": str(name)}
            | {"$": str(name)}
            | {"message_type": str(name)}
        ):
            return name
        case {"event": dict() as inner} if inner:
            return str(next(iter(inner)))
        case dict() if message:
            return str(next(iter(message)))
        case _:
            return type(message).__name__


def _short(value: Json) -> str:
    text = kind_of(value) if isinstance(value, dict) and len(str(value)) > 100 else repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


def _at_path(value: Json, path: str) -> Json:
    for name, number in re.findall(r"\.([^.\[]+)|\[(\d+)\]", path):
        match value:
            case dict():
                value = value.get(name)
            case list() if number and int(number) < len(value):
                value = value[int(number)]
            case _:
                return None
    return value
