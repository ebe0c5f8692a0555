"""Say when the next connection is made, and how often that is tried (contract C5)."""

from __future__ import annotations

import random
from dataclasses import dataclass

from duologue.errors import ConfigError

STABLE_S = 2.0
"""Seconds after which a connection counts as stable: attempts start from 1 again after it."""


@dataclass(frozen=True, slots=True)
class ReconnectPolicy:
    """How a session outlives its connections.

    Args:
        max_attempts: connections tried after one was lost, before the session ends; 0: none.
        first_attempts: the same for the very first one.
        base_s: seconds before the second attempt. They double from one attempt to the next, less up
            to half by chance.
        cap_s: the longest such wait, in seconds.
        connect_timeout_s: seconds for one attempt.
        keep_s: seconds of input audio that are kept to be sent again.
        max_age_s: seconds after which a connection is replaced; None takes the provider's limit.
        roll_over_ahead_s: seconds before its end from which the next silence is used to change to
            the next connection, but at most a fifth of its age; without a silence it changes
            anyway.
        silence_s: seconds after which a connection is replaced on which something due has not come
            (a reply, the rest of one, a sign that the person's speech has arrived); None: never.

    Raises:
        ConfigError: a value can't work.
    """

    max_attempts: int = 10
    first_attempts: int = 3
    base_s: float = 0.2
    cap_s: float = 10.0
    connect_timeout_s: float = 10.0
    keep_s: float = 10.0
    max_age_s: float | None = None
    roll_over_ahead_s: float = 60.0
    silence_s: float | None = 25.0

    def __post_init__(self) -> None:
        if self.max_attempts < 0 or self.first_attempts < 1:
            raise ConfigError("ReconnectPolicy: max_attempts must be >= 0, first_attempts >= 1")
        if not 0 < self.base_s <= self.cap_s:
            raise ConfigError("ReconnectPolicy: base_s must be above 0, and at most cap_s")
        if self.connect_timeout_s <= 0 or self.keep_s <= 0 or self.roll_over_ahead_s < 0:
            raise ConfigError("ReconnectPolicy: times must be above 0 s")
        if self.max_age_s is not None and self.max_age_s <= 0:
            raise ConfigError("ReconnectPolicy: max_age_s must be above 0, or None")
        if self.silence_s is not None and self.silence_s <= 0:
            raise ConfigError("ReconnectPolicy: silence_s must be above 0, or None")

    def wait_s(self, attempt: int, rng: random.Random) -> float:
        """Return the seconds to wait before an attempt, the first being 1."""
        longest = min(self.cap_s, self.base_s * 2.0 ** min(attempt - 1, 30))
        return longest * (1 - rng.random() / 2)

    def roll_over_at(self, expires_in: float | None) -> tuple[float, float] | None:
        """Return the ages from which, and by which at the latest, the next connection takes over.

        ``expires_in`` is the provider's limit. None: the age of a connection is not limited.
        """
        limits = [limit for limit in (expires_in, self.max_age_s) if limit is not None]
        if not limits:
            return None
        age = max(0.0, min(limits))
        ahead = min(self.roll_over_ahead_s, age / 5)
        return age - ahead, age - ahead / 10
