"""The tickets by which a page takes up its call again after it has lost its network.

A ticket is a text, ``CALL.SESSION.SECRET``:

- *CALL* is the id of the call. With several workers, it begins with the number of the one that has
  the call. It names the process that has the call now.
- *SESSION* is the id of the conversation, which stays the same in every process that takes it up:
  by it a store finds the conversation.
- *SECRET* is random, and the only part that proves anything. It is used once: the page that takes
  the call up gets the next ticket. Only a hash of it is kept.

The ticket before the newest one stays valid until the page has confirmed the newest one, because
the socket may be lost in between.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass, field
from secrets import token_hex, token_urlsafe
from typing import Protocol, Self

from duologue._bounded_dict import BoundedDict
from duologue.server._rate_limits import TokenBucket, network_of

SECRET_BYTES = 32
"""Random bytes of a secret."""

MAX_FAILURES = 256
"""Wrong tickets that one network may show at once.

It bounds work only, because nobody guesses a secret of 256 bits. After a restart, all pages show
old tickets at once, and behind an unknown proxy they are one network.
"""

FAILURES_PER_S = 8.0
"""Wrong tickets that one network may show each second after that."""

_MAX_NETWORKS = 1024
"""Networks whose wrong tickets are counted."""

_TICKET = re.compile(r"((?:[0-9]{1,9}-)?[0-9a-f]{12})\.([0-9a-f]{32})\.([A-Za-z0-9_-]{43})")


def new_session_id() -> str:
    """Return the id of a new conversation: 32 hexadecimal digits."""
    return token_hex(16)


@dataclass(frozen=True, slots=True)
class Ticket:
    """A ticket by which a page takes up its call again.

    Attributes:
        call_id: Id of the call.
        session_id: Id of the conversation.
        secret: Random text; never logged.
    """

    call_id: str
    session_id: str
    secret: str = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Return the ticket that a page shows; None if the text is not a ticket."""
        match = _TICKET.fullmatch(text)
        return None if match is None else cls(*match.groups())

    @property
    def text(self) -> str:
        """The ticket as the page gets it."""
        return f"{self.call_id}.{self.session_id}.{self.secret}"

    @property
    def digest(self) -> str:
        """SHA-256 of the secret, hexadecimal."""
        return hashlib.sha256(self.secret.encode()).hexdigest()


class TicketKeeper:
    """The valid tickets of one call: the newest one, and the one before until that is confirmed.

    Args:
        call_id: Id of the call.
        session_id: Id of the conversation.
    """

    __slots__ = ("_call_id", "_earlier", "_newest", "_session_id")

    def __init__(self, call_id: str, session_id: str) -> None:
        self._call_id = call_id
        self._session_id = session_id
        self._newest = ""
        self._earlier = ""

    def issue(self) -> Ticket:
        """Return a new ticket."""
        ticket = Ticket(self._call_id, self._session_id, token_urlsafe(SECRET_BYTES))
        # A claim has put the ticket that the page certainly has into `_earlier`.
        self._newest = ticket.digest
        return ticket

    def claim(self, ticket: Ticket) -> bool:
        """Return whether the ticket is valid; then the next one must be issued."""
        if ticket.session_id != self._session_id:
            return False
        shown = ticket.digest
        valid = False
        for digest in (self._newest, self._earlier):
            # Compare both in any case, so that the time reveals nothing.
            valid |= hmac.compare_digest(shown, digest)
        if valid:
            self._earlier = shown
        return valid

    def confirm(self) -> None:
        """Record that the page has the newest ticket: no other is valid any more."""
        self._earlier = ""


class WrongTickets:
    """Counts the wrong tickets of each network, and bounds them."""

    def __init__(self) -> None:
        self._networks: BoundedDict[str, TokenBucket] = BoundedDict(_MAX_NETWORKS)

    def may_try(self, host: str, now: float) -> bool:
        """Return whether a client may show another ticket.

        Args:
            host: Address of the client.
            now: Time in seconds.
        """
        bucket = self._networks.get(network_of(host))
        return bucket is None or bucket.holds(now)

    def count(self, host: str, now: float) -> None:
        """Count a wrong ticket of a client."""
        network = network_of(host)
        bucket = self._networks.get(network)
        if bucket is None:
            bucket = self._networks[network] = TokenBucket(FAILURES_PER_S, now, MAX_FAILURES)
        bucket.spend(now)


class SharedTickets(Protocol):
    """Tickets of conversations that another process, or another host, may take up.

    Without it, a call is taken up again only on the host that has it. With it, a ticket whose call
    has died with its process begins a new call with the same session id.
    """

    async def issued(self, session_id: str, digest: str, keep_s: float) -> None:
        """Record the newest ticket of a conversation, and forget the one before it.

        Args:
            session_id: Id of the conversation.
            digest: `Ticket.digest`.
            keep_s: Seconds for which the ticket must be known after this, unless `ended` is called
                or another one is issued.
        """

    async def claim(self, session_id: str, digest: str) -> bool:
        """Return True, once, if this is a valid ticket of the conversation."""
        ...

    async def ended(self, session_id: str) -> None:
        """Forget the tickets of a conversation that has ended regularly."""
