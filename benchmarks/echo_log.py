"""What the thin provider notes, and how it hands that to who asked."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Self

import orjson


@dataclass(slots=True)
class Noted:
    """When each numbered frame came, and when it left again; pictures' numbers, and when each came.

    ``cpu`` is what the provider's process has used so far, in s; known in a report only.
    """

    came: dict[int, float] = field(default_factory=dict)
    left: dict[int, float] = field(default_factory=dict)
    pictures: list[tuple[int, float]] = field(default_factory=list)
    cpu: float = 0.0

    def told(self) -> str:
        """All of it as a line of JSON."""
        self.cpu = time.process_time()
        return orjson.dumps(self, option=orjson.OPT_NON_STR_KEYS).decode()

    def clear(self) -> None:
        """Note anew."""
        for noted in (self.came, self.left, self.pictures):
            noted.clear()

    @classmethod
    def read(cls, line: str) -> Self:
        """The other way round."""
        told = orjson.loads(line)
        came, left = ({int(n): at for n, at in told[k].items()} for k in ("came", "left"))
        return cls(came, left, [(n, at) for n, at in told["pictures"]], told["cpu"])
