"""Take a WebSocket's messages in the read callback of its transport, and send without a task.

An ASGI server puts each message into a queue and wakes a task for it, which costs more than all
that an edge does with 20 ms of audio. uvicorn's protocol class, which `limit_connections` extends
anyway, offers this shorter way in the scope of the connection. Under any other ASGI server, and in
tests without one, the scope does not have it, and messages take the way of ASGI.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from typing import Any, Protocol, runtime_checkable

EXTENSION = "duologue.direct_socket"
"""Name of the extension in the scope of a connection."""


@runtime_checkable
class DirectSocket(Protocol):
    """An open WebSocket, as its ASGI server sees it."""

    def receive_directly(self, receive: Callable[[str | bytes], None] | None) -> bool:
        """Call ``receive`` for each message from now on, in the read callback.

        The end still comes as an ASGI event.

        Args:
            receive: Must not raise. None returns to ASGI events.

        Returns:
            Whether that is so; False if an ASGI event waits, which has to be received before.
        """
        ...

    def try_send(self, message: str | bytes) -> bool:
        """Send a message at once; return False, without sending, if that has to wait."""
        ...


def direct_socket_of(scope: MutableMapping[str, Any]) -> DirectSocket | None:
    """Return the shorter way of a connection; None without one."""
    found: object = scope.get("extensions", {}).get(EXTENSION)
    return found if isinstance(found, DirectSocket) else None
