"""How many replicas run, and how many calls each takes."""

from __future__ import annotations

import math
from dataclasses import dataclass

from duologue._optional import optional
from duologue.errors import ConfigError

with optional("ray"):
    from duologue.server.config import SESSIONS_PER_CORE


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """How many replicas run, and how many calls each takes.

    Raises:
        ConfigError: A value can't work.
    """

    max_sessions: int = SESSIONS_PER_CORE
    """Most calls at once in one replica; one more is refused with a sentence."""
    spare_sessions: int = 2
    """Places that a replica has free on average: with fewer, another replica is started. They take
    the calls that come until it is ready."""
    min_replicas: int = 1
    """Replicas that always run."""
    max_replicas: int = 8
    """Most replicas."""
    max_call_s: float = 3600.0
    """Longest call. Then it ends with close code 1012, on which the page calls again. Serve kills a
    replica that it stops only later than this, so that its calls end in time."""
    warn_s: float = 30.0
    """Seconds before the end of the longest call at which people are warned; at most half of it."""
    num_cpus: float = 1.0
    """Cores that a replica reserves. It is one process, which uses one."""
    look_back_s: float = 5.0
    """Seconds over which the number of calls is averaged."""
    upscale_delay_s: float = 1.0
    """Seconds that a replica must have been missing before it is started."""
    downscale_delay_s: float = 300.0
    """Seconds that a replica must have been superfluous before it is stopped; its calls go on."""

    def __post_init__(self) -> None:
        if self.max_sessions < 1:
            raise ConfigError(f"max_sessions must be above 0, not {self.max_sessions}")
        if not 0 <= self.spare_sessions < self.max_sessions:
            raise ConfigError(
                f"spare_sessions must be from 0 to {self.max_sessions - 1}, because a replica "
                f"takes {self.max_sessions} calls, not {self.spare_sessions}"
            )
        if not 0 < self.min_replicas <= self.max_replicas:
            raise ConfigError(
                "min_replicas must be above 0 and at most max_replicas, not "
                f"{self.min_replicas} and {self.max_replicas}"
            )
        for name in ("max_call_s", "num_cpus", "look_back_s"):
            value: float = getattr(self, name)
            if not 0 < value < math.inf:
                raise ConfigError(f"{name} must be above 0, not {value}")
        for name in ("warn_s", "upscale_delay_s", "downscale_delay_s"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise ConfigError(f"{name} must be 0 or more seconds, not {value}")
