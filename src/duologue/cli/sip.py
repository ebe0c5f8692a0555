"""The options of ``duologue serve`` for calls over SIP."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import click

if TYPE_CHECKING:
    from duologue.edges.telephone.sip import SIP

_NAMES = {
    "sip": "address",
    "sip_listen": "listen",
    "sip_register": "register",
    "sip_user": "auth_user",
    "sip_proxy": "proxy",
    "sip_transport": "transport",
    "sip_allow": "allow",
    "sip_codecs": "codecs",
    "sip_srtp": "srtp",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SIPOptions:
    """Options of calls over SIP; ``address`` is None for a server without them."""

    address: str | None = None
    listen: str = "127.0.0.1:5060"
    register: bool = False
    auth_user: str | None = None
    proxy: str | None = None
    transport: Literal["udp", "tcp", "tls"] = "udp"
    allow: tuple[str, ...] = ()
    codecs: tuple[Literal["pcmu", "pcma", "g722", "opus"], ...] = ()
    srtp: Literal["off", "optional", "required", "dtls"] = "off"

    def make(self, udp_ports: tuple[int, int] | None) -> SIP | None:
        """Return the `SIP`, with the password that is in the environment; None without one.

        Raises:
            ConfigError: An option can't work.
        """
        if self.address is None:
            return None
        from duologue.edges.telephone import SIP

        return SIP(
            self.address,
            auth_user=self.auth_user,
            register=self.register,
            proxy=self.proxy,
            transport=self.transport,
            listen=self.listen,
            allow="any" if "any" in self.allow else self.allow,
            codecs=self.codecs or ("pcmu", "pcma"),
            srtp=self.srtp,
            udp_ports=udp_ports,
        )


def sip_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add ``--sip`` and what belongs to it to a command, which gets `SIPOptions`."""

    @functools.wraps(function)
    def command(**params: Any) -> None:
        taken = {field: params.pop(name) for name, field in _NAMES.items()}
        function(**params, sip=SIPOptions(**taken))

    options = (
        click.option(
            "--sip",
            metavar="ADDRESS",
            help="Take calls over SIP too, as sip:user@host; password: DUOLOGUE_SIP_PASSWORD.",
        ),
        click.option(
            "--sip-listen",
            default="127.0.0.1:5060",
            show_default=True,
            metavar="ADDRESS:PORT",
            help="Where SIP listens.",
        ),
        click.option("--sip-register", is_flag=True, help="Register at the host of --sip."),
        click.option("--sip-user", metavar="NAME", help="User name that goes with the password."),
        click.option("--sip-proxy", metavar="HOST[:PORT]", help="Where requests of SIP go."),
        click.option(
            "--sip-transport",
            type=click.Choice(["udp", "tcp", "tls"]),
            default="udp",
            show_default=True,
            help="How SIP travels.",
        ),
        click.option(
            "--sip-allow",
            multiple=True,
            metavar="ADDRESS|any",
            help="Address or network that may call, besides those of --sip and --sip-proxy.",
        ),
        click.option(
            "--sip-codec",
            "sip_codecs",
            multiple=True,
            type=click.Choice(["pcmu", "pcma", "g722", "opus"]),
            help="Codec, best first; pcmu and pcma by default.",
        ),
        click.option(
            "--sip-srtp",
            type=click.Choice(["off", "optional", "required", "dtls"]),
            default="off",
            show_default=True,
            help="Encryption of audio over SIP.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command
