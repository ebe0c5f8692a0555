"""A temporary certificate authority: TLS on loopback, for clients that insist on it."""

from __future__ import annotations

import ssl
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from duologue._net import LOOPBACK_NAMES
from duologue._optional import optional

with optional("simulate"):
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


_VALIDITY = timedelta(days=7)
_SKEW = timedelta(hours=1)


class TemporaryCA:
    """A certificate authority that signs one server certificate.

    The key of the authority is discarded once that is signed. The server's key lives as long as
    this object.

    Args:
        hosts: Names and addresses of the server.
    """

    def __init__(self, hosts: Sequence[str] = LOOPBACK_NAMES) -> None:
        now = datetime.now(UTC)
        ca_key = ec.generate_private_key(ec.SECP256R1())
        ca_name = _name("duologue simulator CA")
        ca = (
            _certificate(ca_name, ca_name, ca_key.public_key(), now)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(certificates=True), critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()), critical=False
            )
            .sign(ca_key, hashes.SHA256())
        )
        self._key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
        self._certificate = (
            _certificate(_name("duologue simulator"), ca_name, self._key.public_key(), now)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()),
                critical=False,
            )
            .add_extension(names, critical=False)
            .sign(ca_key, hashes.SHA256())
        )
        self.pem = ca.public_bytes(serialization.Encoding.PEM)
        """The authority's certificate, which a client has to trust."""

    def server_context(self, alpn: Sequence[str] = ()) -> ssl.SSLContext:
        """Return the TLS context of a server that offers the protocols of ``alpn``."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        chain = self._certificate.public_bytes(serialization.Encoding.PEM)
        key = self._key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        # The ssl module reads keys only from files.
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "server.pem"
            file.touch(mode=0o600)
            file.write_bytes(key + chain)
            context.load_cert_chain(file)
        if alpn:
            context.set_alpn_protocols([*alpn])
        return context

    def client_context(self, alpn: Sequence[str] = ()) -> ssl.SSLContext:
        """Return the TLS context of a client that trusts only this CA and offers ``alpn``."""
        context = ssl.create_default_context(cadata=self.pem.decode("ascii"))
        if alpn:
            context.set_alpn_protocols([*alpn])
        return context


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _general_name(host: str) -> x509.GeneralName:
    try:
        address: IPv4Address | IPv6Address = ip_address(host)
    except ValueError:
        return x509.DNSName(host)
    return x509.IPAddress(address)


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + _VALIDITY)
    )


def _usage(*, certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=certificates,
        crl_sign=certificates,
        encipher_only=False,
        decipher_only=False,
    )
