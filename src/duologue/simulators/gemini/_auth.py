"""Authentication: the simulator's key, and the ephemeral tokens that it has created."""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime

from duologue._bounded_dict import BoundedDict
from duologue.clock import Clock
from duologue.json_types import Json, JsonObject
from duologue.simulators._fields import text_at, value_at
from duologue.simulators.gemini._json_shapes import (
    INTERNAL,
    POLICY,
    RefusedError,
    camel,
    read_object,
)
from duologue.simulators.gemini._schema import TOKEN_REQUEST

BAD_KEY = "API key not valid. Please pass a valid API key."
NO_KEY = (
    "Method doesn't allow unregistered callers (callers without established identity). Please use "
    "API Key or other form of API consumer identity to call this API."
)
BAD_TOKEN = "Request had invalid authentication credentials."  # noqa: S105 - an error text
TOKEN_SPENT = "Token has been used too many times"  # noqa: S105 - an error text

TOKEN_VALID_S = 1800.0
NEW_SESSION_VALID_S = 60.0
MAX_VALID_S = 20 * 3600.0
MAX_TOKENS = 1000


@dataclass(slots=True, eq=False)
class _Token:
    """A token. Times in seconds of the clock; ``uses`` left, None for any number."""

    expires_at: float
    new_sessions_until: float
    uses: int | None
    setup: JsonObject | None
    mask: tuple[str, ...] | None


class Auth:
    """Checks keys and tokens; a token may determine parts of the setup."""

    def __init__(self, key: str, clock: Clock) -> None:
        self._key = key
        self._clock = clock
        self._tokens: BoundedDict[str, _Token] = BoundedDict(MAX_TOKENS)

    def is_valid_key(self, key: str) -> bool:
        """Return whether it is the simulator's key."""
        return hmac.compare_digest(key.encode(), self._key.encode())

    def create_token(self, request: Json) -> JsonObject:
        """Create a token for a request of ``auth_tokens``. Raises `RefusedError`."""
        fields = read_object(TOKEN_REQUEST, request)
        now = self._clock.now()
        expires = now + self._seconds_until(fields, "expireTime", TOKEN_VALID_S)
        uses = fields.get("uses", 1)
        mask = text_at(fields, "fieldMask")
        setup = fields.get("bidiGenerateContentSetup")
        token = _Token(
            expires,
            min(
                expires,
                now + self._seconds_until(fields, "newSessionExpireTime", NEW_SESSION_VALID_S),
            ),
            uses if isinstance(uses, int) and uses > 0 else None,
            setup if isinstance(setup, dict) else None,
            tuple(mask.split(",")) if mask else None,
        )
        name = f"auth_tokens/{secrets.token_hex(32)}"
        self._tokens[name] = token
        return {"name": name}

    def apply_token(self, name: str, setup: JsonObject) -> JsonObject:
        """Return the client's setup as the token changes it. Raises `RefusedError`."""
        token = self._tokens.get(name)
        now = self._clock.now()
        if token is None or now > token.expires_at:
            raise RefusedError(BAD_TOKEN, POLICY)
        # Resuming a session is not a use, as the service's guide to ephemeral tokens says.
        if not text_at(setup, "sessionResumption", "handle"):
            if now > token.new_sessions_until:
                raise RefusedError(BAD_TOKEN, POLICY)
            if token.uses == 0:
                raise RefusedError(TOKEN_SPENT, INTERNAL)
            if token.uses is not None:
                token.uses -= 1
        return _apply_token_fields(setup, token)

    def _seconds_until(self, fields: JsonObject, name: str, default: float) -> float:
        """Return the seconds from now until the time in that field."""
        text = text_at(fields, name)
        if not text:
            return default
        try:
            until = datetime.fromisoformat(text)
        except ValueError:
            raise RefusedError(f"Invalid value at '{name}' (Timestamp), \"{text[:40]}\"") from None
        seconds = (until.astimezone(UTC) - datetime.now(UTC)).total_seconds()
        if not 0 < seconds <= MAX_VALID_S:
            raise RefusedError(f"Invalid value at '{name}': it is past, or too far away.")
        return seconds


def _apply_token_fields(setup: JsonObject, token: _Token) -> JsonObject:
    if token.setup is None:
        return setup
    if token.mask is None:
        # The token has the whole setup; only the client knows the handle of the session to resume.
        resumption = {key: setup[key] for key in ("sessionResumption",) if key in setup}
        return {**token.setup, **resumption}
    out = dict(setup)
    for path in token.mask:
        first, _, second = (camel(name) for name in path.partition("."))
        if not second:
            out[first] = token.setup.get(first)
            continue
        part = out.get(first)
        changed: JsonObject = dict(part) if isinstance(part, dict) else {}
        changed[second] = value_at(token.setup, first, second)
        out[first] = changed
    return {key: value for key, value in out.items() if value is not None}
