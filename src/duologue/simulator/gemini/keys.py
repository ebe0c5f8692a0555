"""Who may come in: the simulator's key, and the ephemeral tokens that it gave out."""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime

from duologue.clock import Clock
from duologue.items import Json
from duologue.simulator.fields import Object, inside, text_at
from duologue.simulator.gemini.schema import SETUP
from duologue.simulator.gemini.shapes import (
    INTERNAL,
    POLICY,
    RefusedError,
    Table,
    Text,
    Whole,
    camel,
    read_object,
)

BAD_KEY = "API key not valid. Please pass a valid API key."
NO_KEY = (
    "Method doesn't allow unregistered callers (callers without established identity). Please use "
    "API Key or other form of API consumer identity to call this API."
)
BAD_TOKEN = "Request had invalid authentication credentials."  # noqa: S105 - what is said of one
SPENT = "Token has been used too many times"

EXPIRES_S = 1800.0
NEW_SESSION_S = 60.0
MOST_S = 20 * 3600.0
MOST_TOKENS = 1000

_REQUEST = Table(
    {
        "name": Text(),
        "uses": Whole(),
        "expireTime": Text(),
        "newSessionExpireTime": Text(),
        "bidiGenerateContentSetup": SETUP,
        "fieldMask": Text(),
    }
)


@dataclass(slots=True, eq=False)
class _Token:
    """Times in s of the clock; ``uses`` left, None when they are not counted."""

    expires: float
    new_sessions_until: float
    uses: int | None
    setup: Object | None
    mask: tuple[str, ...] | None


class Keys:
    """Checks keys and tokens; a token may bring parts of the setup."""

    def __init__(self, key: str, clock: Clock) -> None:
        self._key = key
        self._clock = clock
        self._tokens: dict[str, _Token] = {}

    def good(self, key: str) -> bool:
        """It is the simulator's key."""
        return hmac.compare_digest(key.encode(), self._key.encode())

    def give(self, request: Json) -> Object:
        """A new token, as ``auth_tokens`` is asked for it. Raises `RefusedError`."""
        wanted = read_object(_REQUEST, request)
        now = self._clock.now()
        expires = now + self._left(wanted, "expireTime", EXPIRES_S)
        uses = wanted.get("uses", 1)
        mask = text_at(wanted, "fieldMask")
        setup = wanted.get("bidiGenerateContentSetup")
        token = _Token(
            expires,
            min(expires, now + self._left(wanted, "newSessionExpireTime", NEW_SESSION_S)),
            uses if isinstance(uses, int) and uses > 0 else None,
            setup if isinstance(setup, dict) else None,
            tuple(mask.split(",")) if mask else None,
        )
        name = f"auth_tokens/{secrets.token_hex(32)}"
        while len(self._tokens) >= MOST_TOKENS:
            del self._tokens[next(iter(self._tokens))]
        self._tokens[name] = token
        return {"name": name}

    def admit(self, name: str, setup: Object) -> Object:
        """The setup as the token has it, for the client's. Raises `RefusedError`."""
        token = self._tokens.get(name)
        now = self._clock.now()
        if token is None or now > token.expires:
            raise RefusedError(BAD_TOKEN, POLICY)
        # Going on with a session is not a use: the service's guide to ephemeral tokens says so.
        if not text_at(setup, "sessionResumption", "handle"):
            if now > token.new_sessions_until:
                raise RefusedError(BAD_TOKEN, POLICY)
            if token.uses == 0:
                raise RefusedError(SPENT, INTERNAL)
            if token.uses is not None:
                token.uses -= 1
        return _locked(setup, token)

    def _left(self, wanted: Object, name: str, usual: float) -> float:
        """Seconds from now until the time of that field."""
        text = text_at(wanted, name)
        if not text:
            return usual
        try:
            until = datetime.fromisoformat(text)
        except ValueError:
            raise RefusedError(f"Invalid value at '{name}' (Timestamp), \"{text[:40]}\"") from None
        left = (until.astimezone(UTC) - datetime.now(UTC)).total_seconds()
        if not 0 < left <= MOST_S:
            raise RefusedError(f"Invalid value at '{name}': it is past, or too far away.")
        return left


def _locked(setup: Object, token: _Token) -> Object:
    if token.setup is None:
        return setup
    if token.mask is None:
        # The token has the whole setup; by which handle it goes on only the client knows.
        kept = {key: setup[key] for key in ("sessionResumption",) if key in setup}
        return {**token.setup, **kept}
    out = dict(setup)
    for path in token.mask:
        first, _, second = (camel(name) for name in path.partition("."))
        if not second:
            out[first] = token.setup.get(first)
            continue
        below = out.get(first)
        changed: Object = dict(below) if isinstance(below, dict) else {}
        changed[second] = inside(token.setup, first, second)
        out[first] = changed
    return {key: value for key, value in out.items() if value is not None}
