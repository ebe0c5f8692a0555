"""Credentials for a TURN server that expire, in the REST form that coturn checks.

With ``use-auth-secret`` and ``static-auth-secret=SECRET`` in its configuration, coturn accepts any
user name that begins with a Unix time in the future, and as password the HMAC of that name. So a
page gets credentials for one call, and never the secret.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Sequence

from duologue.errors import ConfigError
from duologue.rtc.config import IceServer

TTL_S = 6 * 3600
"""Seconds that credentials are valid: a call needs them again to refresh its relay."""


def turn_server(
    urls: str | Sequence[str],
    secret: str,
    *,
    user: str = "duologue",
    ttl_s: int = TTL_S,
    now: float | None = None,
) -> IceServer:
    """Return a TURN server with credentials for one call.

    Args:
        urls: One or several addresses, such as ``turn:turn.example.org:3478``.
        secret: The ``static-auth-secret`` of the server.
        user: Who calls, for the log of the TURN server.
        ttl_s: Seconds that the credentials are valid; longer than any call.
        now: Unix time; by default that of the system.

    Raises:
        ConfigError: The secret is empty, or an address is not that of a TURN server.
    """
    if not secret:
        raise ConfigError("the secret of a TURN server must not be empty")
    expires = int((time.time() if now is None else now) + ttl_s)
    name = f"{expires}:{user}"
    # SHA-1 is what coturn and the draft (draft-uberti-behave-turn-rest) use.
    digest = hmac.new(secret.encode(), name.encode(), hashlib.sha1).digest()
    return IceServer(
        urls if isinstance(urls, str) else tuple(urls),
        username=name,
        credential=base64.b64encode(digest).decode(),
    )
