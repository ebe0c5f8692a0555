"""What the echo provider records, and how it reports that."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Self

import orjson


@dataclass(slots=True)
class Noted:
    """When each numbered frame arrived and left, and the numbers and arrival times of images.

    ``cpu`` is the CPU time in s that the provider's process has used; it is set in a report only.
    """

    came: dict[int, float] = field(default_factory=dict)
    left: dict[int, float] = field(default_factory=dict)
    pictures: list[tuple[int, float]] = field(default_factory=list)
    cpu: float = 0.0

    def told(self) -> str:
        """Return the log as a line of JSON."""
        self.cpu = time.process_time()
        return orjson.dumps(self, option=orjson.OPT_NON_STR_KEYS).decode()

    def clear(self) -> None:
        """Start an empty log."""
        for noted in (self.came, self.left, self.pictures):
            noted.clear()

    @classmethod
    def read(cls, line: str) -> Self:
        """Parse a line of JSON."""
        told = orjson.loads(line)
        came, left = ({int(n): at for n, at in told[k].items()} for k in ("came", "left"))
        return cls(came, left, [(n, at) for n, at in told["pictures"]], told["cpu"])
