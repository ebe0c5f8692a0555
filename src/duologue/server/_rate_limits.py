"""Limits for strangers: a rate of messages, and a pool of places that nobody can occupy alone."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Hashable


class TokenBucket:
    """A token bucket.

    Args:
        rate: Tokens added each second.
        now: Current time in seconds.
        burst: Most tokens in the bucket; at least one second's worth.
    """

    __slots__ = ("_at", "_burst", "_rate", "_tokens")

    def __init__(self, rate: float, now: float, burst: float = 0.0) -> None:
        self._rate = rate
        self._burst = self._tokens = max(rate, burst, 1.0)
        self._at = now

    def holds(self, now: float, cost: float = 1.0) -> bool:
        """Return whether ``cost`` tokens are in the bucket."""
        return min(self._burst, self._tokens + (now - self._at) * self._rate) >= cost

    def spend(self, now: float, cost: float = 1.0) -> bool:
        """Take ``cost`` tokens; if fewer are left, take none and return False."""
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        # A cost above the burst could never be paid, so a full bucket is enough for it.
        cost = min(cost, self._burst)
        if self._tokens < cost:
            return False
        self._tokens -= cost
        return True


class EvictingPool[Key: Hashable]:
    """Holds at most ``size`` entries; when it is full, a new entry evicts an older one.

    The evicted entry is the oldest of the network that has the most entries, so that a stranger who
    opens many connections evicts their own. A network is an IPv4 address or an IPv6 /64.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._networks: dict[str, dict[Key, Callable[[], None]]] = {}
        self._network_of: dict[Key, str] = {}
        self.evicted = 0
        """Entries evicted so far."""

    def __len__(self) -> int:
        return len(self._network_of)

    def add(self, key: Key, host: str, evict: Callable[[], None]) -> None:
        """Add an entry; call ``evict`` once if it is evicted before it is removed.

        Args:
            key: Identifies the entry.
            host: Address of the client.
            evict: Ends the connection of the entry.
        """
        while len(self._network_of) >= self._size:
            crowd = max(self._networks.values(), key=len)
            oldest = next(iter(crowd))
            go = crowd[oldest]
            self.remove(oldest)
            self.evicted += 1
            go()
        network = network_of(host)
        self._network_of[key] = network
        self._networks.setdefault(network, {})[key] = evict

    def remove(self, key: Key) -> None:
        """Remove an entry; do nothing if it is not in the pool."""
        network = self._network_of.pop(key, None)
        if network is None:
            return
        crowd = self._networks[network]
        del crowd[key]
        if not crowd:
            del self._networks[network]


def network_of(host: str) -> str:
    """Return the network that belongs to one client: an IPv4 address or an IPv6 /64."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.IPv6Network((int(address), 64), strict=False))
    return str(address)
