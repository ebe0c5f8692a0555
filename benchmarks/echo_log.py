"""What the echo provider records, and how it reports that."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Self

import orjson


@dataclass(slots=True)
class EchoLog:
    """When each numbered frame arrived and left, and the numbers and arrival times of images.

    ``cpu`` is the CPU time in s that the provider's process has used; it is set in a report only.
    """

    arrived: dict[int, float] = field(default_factory=dict)
    left: dict[int, float] = field(default_factory=dict)
    images: list[tuple[int, float]] = field(default_factory=list)
    cpu: float = 0.0

    def to_json(self) -> str:
        """Return the log as a line of JSON."""
        self.cpu = time.process_time()
        return orjson.dumps(self, option=orjson.OPT_NON_STR_KEYS).decode()

    def clear(self) -> None:
        """Start an empty log."""
        for times in (self.arrived, self.left, self.images):
            times.clear()

    @classmethod
    def read(cls, line: str) -> Self:
        """Parse a line of JSON."""
        fields = orjson.loads(line)
        arrived, left = ({int(n): at for n, at in fields[k].items()} for k in ("arrived", "left"))
        return cls(arrived, left, [(n, at) for n, at in fields["images"]], fields["cpu"])
