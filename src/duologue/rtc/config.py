"""Configuration, states and errors of a peer; imports no aiortc."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from duologue.errors import ConfigError, DuologueError
from duologue.rtc.udp_ports import check_addresses, check_udp_ports

type Application = Literal["voip", "restricted_lowdelay"]
"""What Opus is tuned for."""

RATES = (8000, 12000, 16000, 24000, 48000)
"""Rates in Hz that libopus supports."""

BITRATE = 40000
"""Bitrate of a voice in bit/s, unless another is wanted."""

type PeerState = Literal["new", "connecting", "connected", "interrupted", "failed", "closed"]
"""``interrupted`` means that the far side has been silent for a while and may come back."""


class PeerError(DuologueError):
    """The far side could not be reached, or sent something that can't be used."""


class MessageTooLongError(PeerError):
    """A message is longer than the far side accepts on its data channel."""


@dataclass(frozen=True, slots=True)
class IceServer:
    """A STUN or TURN server.

    aioice uses the first STUN and the first TURN server of a list.

    Args:
        urls: One or several addresses, such as ``stun:host:3478`` or ``turn:host?transport=tcp``.
        username: User name for a TURN server.
        credential: Password for a TURN server.

    Raises:
        ConfigError: An address does not begin with ``stun:``, ``stuns:``, ``turn:`` or ``turns:``.
    """

    urls: str | tuple[str, ...]
    username: str | None = None
    credential: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        urls = (self.urls,) if isinstance(self.urls, str) else self.urls
        for url in urls:
            if not url.startswith(("stun:", "stuns:", "turn:", "turns:")):
                raise ConfigError(
                    f"the address of an ICE server must begin with stun: or turn:, not {url!r}"
                )


@dataclass(frozen=True, slots=True)
class PeerConfig:
    """How a `Peer` connects, and what it sends and accepts.

    Args:
        send_rate: Rate in Hz of the audio to send.
        receive_rate: Rate in Hz to which received audio is decoded.
        bitrate: Opus bitrate in bit/s.
        application: Opus mode; ``restricted_lowdelay`` has less delay and no forward error
            correction.
        video: Accept the far side's video.
        send_video: Offer a video track of our own.
        channel: Label of the data channel.
        ice_servers: STUN and TURN servers.
        loopback: Also offer 127.0.0.1; only for signalling over loopback.
        udp_ports: First and last local UDP port; None is any.
        public_addresses: Addresses by which this machine is reached from outside, if a network
            translates them one to one, with the same ports.
        gather_timeout: Seconds for STUN and TURN servers to answer.
        connect_timeout: Seconds from the descriptions to a connection.
        interrupted_after: Seconds of silence from the far side until the state is ``interrupted``.
        failed_after: Seconds of silence until the state is ``failed``.

    Raises:
        ConfigError: Opus does not support a rate, the silences are out of order, or a port or an
            address is none.
    """

    send_rate: int = 24000
    receive_rate: int = 24000
    bitrate: int = BITRATE
    application: Application = "voip"
    video: bool = False
    send_video: bool = False
    channel: str = "duologue"
    ice_servers: tuple[IceServer, ...] = ()
    loopback: bool = False
    udp_ports: tuple[int, int] | None = None
    public_addresses: tuple[str, ...] = ()
    gather_timeout: int = 2
    connect_timeout: float = 10.0
    interrupted_after: float = 3.0
    failed_after: float = 10.0

    def __post_init__(self) -> None:
        for rate in (self.send_rate, self.receive_rate):
            if rate not in RATES:
                raise ConfigError(
                    f"rate must be {', '.join(map(str, RATES))} Hz for Opus, not {rate}"
                )
        check_udp_ports(self.udp_ports)
        check_addresses("public_addresses", self.public_addresses)
        if not 1.5 <= self.interrupted_after <= self.failed_after:
            raise ConfigError("interrupted_after must be at least 1.5 s and at most failed_after")
