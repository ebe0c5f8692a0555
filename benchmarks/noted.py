"""What the thin provider notes, and how it hands that to who asked."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Self

import orjson


@dataclass(slots=True)
class Noted:
    """When each numbered frame came, and when it left again; when each numbered picture came.

    ``cpu`` is what the provider's process has used so far, in s; known in a report only.
    """

    came: dict[int, float] = field(default_factory=dict)
    left: dict[int, float] = field(default_factory=dict)
    pictures: dict[int, float] = field(default_factory=dict)
    cpu: float = 0.0

    def told(self) -> str:
        """All of it as a line of JSON."""
        self.cpu = time.process_time()
        return orjson.dumps(self, option=orjson.OPT_NON_STR_KEYS).decode()

    def clear(self) -> None:
        """Note anew."""
        for times in (self.came, self.left, self.pictures):
            times.clear()

    @classmethod
    def read(cls, line: str) -> Self:
        """The other way round."""
        told = orjson.loads(line)
        times = ({int(n): at for n, at in told[k].items()} for k in ("came", "left", "pictures"))
        return cls(*times, cpu=told["cpu"])
