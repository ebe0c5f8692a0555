"""Addresses of SIP, and who may call."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass

from duologue.errors import ConfigError

SIP_PORT = 5060

_ADDRESS = re.compile(
    r"(?P<scheme>sips?):(?P<user>[^\s@:;<>\"?&]{1,128})"
    r"@(?P<host>[A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:]+\])(?::(?P<port>\d{1,5}))?"
    r"(?P<parameters>(?:;[A-Za-z0-9_.%=+-]+)*)"
)
_REFER_TO = re.compile(
    r"(?:<(?P<quoted>[^<>?\s\",]+)(?:\?Replaces=[^<>&\s\",]+(?:&Require=replaces)?)?>|(?P<plain>[^<>?;\s\",]+))"
    r"(?P<parameters>(?:;[^<>\s\",]+)?)",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"\+?[0-9*#]{1,32}")
_INVITE = re.compile(
    r"RX \S+ (?P<source>\S+) -> \S+\r?\nINVITE (?:[^\r\n]+\r?\n)*?"
    r"(?:call-id|i)[ \t]*:[ \t]*(?P<call_id>[^\r\n]*?)[ \t]*\r?\n",
    re.IGNORECASE,
)

type Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class SipAddress:
    """An address such as ``sip:bot@pbx.example.org:5061``; ``port`` is None without one."""

    user: str
    host: str
    port: int | None = None
    secure: bool = False

    @property
    def domain(self) -> str:
        """The host, with the port where there is one."""
        return self.host if self.port is None else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        return f"{'sips' if self.secure else 'sip'}:{self.user}@{self.domain}"


def parse_address(name: str, value: object) -> SipAddress:
    """Return the parts of a SIP address.

    Raises:
        ConfigError: It is not one.
    """
    match = _ADDRESS.fullmatch(value) if isinstance(value, str) else None
    port = None if match is None or match["port"] is None else int(match["port"])
    if match is None or match["parameters"] or not (port is None or 0 < port < 65536):
        raise ConfigError(
            f"{name} must be an address such as sip:bot@example.org, not {value!r:.60}"
        )
    return SipAddress(match["user"], match["host"], port, secure=match["scheme"] == "sips")


def target_address(name: str, value: object, domain: str) -> str:
    """Return the SIP address to call for an address, or for a number at ``domain``.

    Raises:
        ConfigError: It is neither.
    """
    if isinstance(value, str):
        if _ADDRESS.fullmatch(value):
            return value
        if _NUMBER.fullmatch(value):
            return f"sip:{value.replace('#', '%23')}@{domain}"
    raise ConfigError(
        f"{name} must be a number such as +15551234567, or an address such as "
        f"sip:sales@example.org, not {value!r:.60}"
    )


def called_number(address: str) -> str:
    """Return the number in an address, or the address without parameters if it has no number."""
    address = address.partition(";")[0].partition("?")[0]
    match = re.fullmatch(r"sips?:([^@]+)@.*", address)
    number = "" if match is None else match[1].replace("%23", "#")
    return number if _NUMBER.fullmatch(number) else address


def host_of(proxy: str) -> str:
    """Return the host of a proxy, such as that of ``sip:sbc.example.org:5061;transport=tcp``."""
    address = re.sub(r"^sips?:", "", proxy).partition(";")[0].rpartition("@")[2]
    match = re.fullmatch(r"(\[[^\]]*\]|[^:]*)(?::\d+)?", address)
    return address if match is None else match[1].strip("[]")


def header_address(header: str) -> str:
    """Return the address in a header such as ``"Ann" <sip:ann@example.org>;tag=1``."""
    match = re.search(r"<([^>]*)>", header)
    return header.partition(";")[0].strip() if match is None else match[1]


def refer_target(header: str) -> str:
    """Return the address to call that a ``Refer-To`` header names, without ``Replaces``.

    Only a header that can be read in one way counts, because the stack reads it again when it
    calls. For any other one, and for one that asks for something else than a call, return "".
    """
    match = _REFER_TO.fullmatch(header.strip())
    if match is None:
        return ""
    target: str = match["quoted"] or match["plain"]
    method = re.search(r"(?:^|;)method=([^;]*)", match["parameters"], re.IGNORECASE)
    if method is not None and method[1].upper() != "INVITE":
        return ""
    return target if _ADDRESS.fullmatch(target) else ""


@dataclass(frozen=True, slots=True)
class InviteSeen:
    """A request for a call, by a trace of the messages, with the address that it came from."""

    call_id: str
    source: str


def read_invite(trace: str) -> InviteSeen | None:
    """Return the request for a call in one message of a trace; None for any other message.

    The trace begins with a line such as ``RX UDP 192.0.2.1:5060 -> 192.0.2.7:5060``, which the
    stack writes and the sender of the message can't.
    """
    match = _INVITE.match(trace)
    if match is None:
        return None
    host = match["source"].rpartition(":")[0].strip("[]")
    return InviteSeen(match["call_id"], host)


class Sources:
    """The addresses from which calls are accepted.

    Args:
        networks: Addresses and networks, such as ``192.0.2.7`` and ``198.51.100.0/24``.

    Raises:
        ConfigError: One of them is neither.
    """

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks = [_network(each) for each in networks]

    def allow(self, host: str) -> bool:
        """Return whether ``host`` is one of them; False if it is not an address."""
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None)
        return any((mapped or address) in network for network in self._networks)


def _network(value: object) -> Network:
    try:
        return ipaddress.ip_network(str(value), strict=False)
    except ValueError:
        raise ConfigError(
            f"allow must have addresses or networks such as 192.0.2.0/24, not {value!r:.60}"
        ) from None
