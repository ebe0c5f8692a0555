"""Who may come in: the simulator's key, and the ephemeral keys that it gave out."""

from __future__ import annotations

import hmac

from duologue.clock import Clock
from duologue.items import Json
from duologue.simulator.fields import Object, new_id

MOST_KEYS = 1000


class Keys:
    """Checks bearer keys; an ephemeral one brings the session that it was made for."""

    def __init__(self, key: str, clock: Clock) -> None:
        self._key = key
        self._clock = clock
        self._ephemeral: dict[str, tuple[float, Json]] = {}

    def give(self, seconds: float, session: Json) -> str:
        """A new ephemeral key that is good for so many seconds."""
        value = new_id("ek")
        while len(self._ephemeral) >= MOST_KEYS:
            self._ephemeral.pop(next(iter(self._ephemeral)))
        self._ephemeral[value] = (self._clock.now() + seconds, session)
        return value

    def admit(self, key: str) -> Object | None:
        """The session that a key brings, perhaps an empty one; None when the key is not good."""
        if hmac.compare_digest(key.encode(), self._key.encode()):
            return {}
        until, session = self._ephemeral.get(key, (0.0, None))
        if session is None or self._clock.now() > until:
            return None
        return session if isinstance(session, dict) else {}


def bearer(authorization: str, protocols: str) -> str:
    """The key in an ``Authorization`` header, or among a browser's subprotocols; else empty."""
    kind, _, key = authorization.partition(" ")
    if kind.lower() == "bearer":
        return key.strip()
    for protocol in protocols.split(","):
        name = protocol.strip()
        if name.startswith("openai-insecure-api-key."):
            return name.removeprefix("openai-insecure-api-key.")
    return ""
