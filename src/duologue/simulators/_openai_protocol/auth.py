"""Authentication: the simulator's own key, and the ephemeral keys that it has issued."""

from __future__ import annotations

import hmac

from duologue._bounded_dict import BoundedDict
from duologue.clock import Clock
from duologue.json_types import Json, JsonObject
from duologue.simulators._fields import new_id

MAX_KEYS = 1000


class Auth:
    """Checks bearer keys; an ephemeral key carries the session object that it was made for."""

    def __init__(self, key: str, clock: Clock) -> None:
        self._key = key
        self._clock = clock
        self._ephemeral: BoundedDict[str, tuple[float, Json]] = BoundedDict(MAX_KEYS)

    def create_key(self, seconds: float, session: Json) -> str:
        """Return a new ephemeral key that is valid for ``seconds``."""
        value = new_id("ek")
        self._ephemeral[value] = (self._clock.now() + seconds, session)
        return value

    def admit(self, key: str) -> JsonObject | None:
        """Return the session object of a key, which may be empty, or None for an invalid key."""
        if hmac.compare_digest(key.encode(), self._key.encode()):
            return {}
        until, session = self._ephemeral.get(key, (0.0, None))
        if session is None or self._clock.now() > until:
            return None
        return session if isinstance(session, dict) else {}


def bearer_key(authorization: str, protocols: str) -> str:
    """Return the key of an ``Authorization`` header or of a browser's subprotocol, or ""."""
    kind, _, key = authorization.partition(" ")
    if kind.lower() == "bearer":
        return key.strip()
    for protocol in protocols.split(","):
        name = protocol.strip()
        if name.startswith("openai-insecure-api-key."):
            return name.removeprefix("openai-insecure-api-key.")
    return ""
