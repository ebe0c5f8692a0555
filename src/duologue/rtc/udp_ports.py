"""Bind UDP sockets to the ports that a firewall lets through."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import random
from collections.abc import Callable, Iterator, Sequence

from duologue.errors import ConfigError


def check_udp_ports(ports: tuple[int, int] | None) -> None:
    """Raise `ConfigError` unless ``ports`` are the first and the last of a range."""
    if ports is not None and not 0 < ports[0] <= ports[1] < 65536:
        raise ConfigError(
            f"udp_ports must be the first and the last port, such as (50000, 50999), not {ports!r}"
        )


def check_addresses(name: str, addresses: Sequence[str]) -> None:
    """Raise `ConfigError` unless all are IP addresses."""
    for address in addresses:
        try:
            ipaddress.ip_address(address)
        except ValueError:
            raise ConfigError(f"{name} must be IP addresses, not {address!r}") from None


def candidate_ports(ports: tuple[int, int]) -> Iterator[int]:
    """Yield each port of a range once, beginning anywhere.

    Several processes may use one range: their first tries rarely meet, and a taken port only costs
    another try.
    """
    first, last = ports
    count = last - first + 1
    start = random.randrange(count)  # noqa: S311 - no secret
    for step in range(count):
        yield first + (start + step) % count


async def bind_in_range[Protocol: asyncio.BaseProtocol](
    make_protocol: Callable[[], Protocol], address: str, ports: tuple[int, int]
) -> tuple[asyncio.DatagramTransport, Protocol]:
    """Bind a datagram endpoint to a free port of a range.

    Raises:
        OSError: The address can't be used, or all ports are taken.
    """
    loop = asyncio.get_running_loop()
    for port in candidate_ports(ports):
        try:
            return await loop.create_datagram_endpoint(make_protocol, local_addr=(address, port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
    raise OSError(errno.EADDRINUSE, f"no UDP port from {ports[0]} to {ports[1]} is free")
