"""Decide to which addresses packets may be sent, because a stranger can name any address."""

from __future__ import annotations

import ipaddress
import re

MAX_CANDIDATES = 8
"""Most addresses with a port that one call may name, over all its descriptions.

More are not needed, because the far side's own checks reach us from whatever address it has.
"""

_MIN_FIELDS = 8
"""Fewest fields of a candidate (RFC 8839, section 5.1)."""

_PORT = re.compile(r"[0-9]{1,5}")


class CandidateGate:
    """Admits or refuses the candidates of one call.

    Only IP addresses of a single host beyond this machine are admitted: no loopback, link-local,
    multicast, unspecified or reserved addresses, and no names.

    Args:
        loopback: Also admit loopback addresses, for a far side on this machine.
    """

    def __init__(self, *, loopback: bool) -> None:
        self._loopback = loopback
        self._admitted: set[tuple[str, int]] = set()
        self.refused = 0
        """Candidates refused so far."""

    def admits(self, candidate: str) -> bool:
        """Return whether a candidate, given as the text after ``a=candidate:``, may be used."""
        if self._admits(candidate.split()):
            return True
        self.refused += 1
        return False

    def _admits(self, fields: list[str]) -> bool:
        if len(fields) < _MIN_FIELDS:
            return False
        component, transport, host, port_text = fields[1], fields[2], fields[4], fields[5]
        # ICE over TCP is not supported, and RTP and RTCP share one component.
        if component != "1" or transport.lower() != "udp" or not _PORT.fullmatch(port_text):
            return False
        port = int(port_text)
        if not 0 < port < 65536 or not self._is_sendable(host):
            return False
        address = (host.lower(), port)
        if address not in self._admitted and len(self._admitted) >= MAX_CANDIDATES:
            return False
        self._admitted.add(address)
        return True

    def _is_sendable(self, host: str) -> bool:
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return False
        if isinstance(address, ipaddress.IPv6Address):
            inner = address.ipv4_mapped or address.sixtofour
            if inner is not None:
                address = inner
            elif address.scope_id is not None:
                return False
        if address.is_loopback:
            return self._loopback
        return not (
            address.is_link_local
            or address.is_multicast
            or address.is_unspecified
            or address.is_reserved
            or (address.version == 4 and int(address) >> 24 == 0)
        )
