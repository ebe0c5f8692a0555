"""What a peer is set up with, and what it says about itself; imports no aiortc."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from duologue.errors import ConfigError, DuologueError
from duologue.rtc.opus import RATES, Application

type PeerState = Literal["new", "connecting", "connected", "interrupted", "failed", "closed"]
"""``interrupted``: nothing has been heard of the far side for a while; it may come back."""


class PeerError(DuologueError):
    """The far side could not be reached, or what it sent could not be used."""


class MessageTooLongError(PeerError):
    """A message is longer than the far side takes on its data channel."""


@dataclass(frozen=True, slots=True)
class IceServer:
    """A STUN or TURN server: ``urls`` such as ``stun:host:3478`` or ``turn:host?transport=tcp``.

    aioice uses the first STUN and the first TURN server that it is given.
    """

    urls: str | tuple[str, ...]
    username: str | None = None
    credential: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        urls = (self.urls,) if isinstance(self.urls, str) else self.urls
        for url in urls:
            if not url.startswith(("stun:", "stuns:", "turn:", "turns:")):
                raise ConfigError(f"an ICE server begins with stun: or turn:, not {url!r}")


@dataclass(frozen=True, slots=True)
class PeerConfig:
    """How a `Peer` connects and what it sends.

    ``send_rate`` and ``receive_rate`` in Hz: Opus is encoded from the one and decoded to the
    other. ``loopback`` offers 127.0.0.1 besides the machine's addresses: only where signalling
    came over loopback. ``video`` takes pictures, ``send_video`` offers a track for ours.
    ``channel`` is the data channel's label. Times in s: ``gather_timeout`` for STUN and TURN,
    ``connect_timeout`` from the descriptions to a connection, ``interrupted_after`` and
    ``failed_after`` without a sign of the far side.
    Raises `ConfigError`.
    """

    send_rate: int = 24000
    receive_rate: int = 24000
    bitrate: int = 32000
    application: Application = "voip"
    video: bool = False
    send_video: bool = False
    channel: str = "duologue"
    ice_servers: tuple[IceServer, ...] = ()
    loopback: bool = False
    gather_timeout: int = 2
    connect_timeout: float = 10.0
    interrupted_after: float = 3.0
    failed_after: float = 10.0

    def __post_init__(self) -> None:
        for rate in (self.send_rate, self.receive_rate):
            if rate not in RATES:
                raise ConfigError(f"Opus takes {', '.join(map(str, RATES))} Hz, not {rate}")
        if not 1.5 <= self.interrupted_after <= self.failed_after:
            raise ConfigError("interrupted_after takes 1.5 s or more, and up to failed_after")
