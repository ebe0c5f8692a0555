"""Certificates that a WebRTC call trusts."""

import datetime as dt
import ssl

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from duologue.errors import SessionError
from duologue.providers._openai_protocol.webrtc import WebRTCWire


def self_signed(folder):
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = folder / "server.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context


@pytest.mark.parametrize("scheme", ["https", "HTTPS"])
async def test_untrusted_server_receives_no_request(tmp_path, scheme):
    asked = []

    async def answer(request):
        asked.append(request)
        return web.Response(text="v=0")

    application = web.Application()
    application.router.add_post("/v1/realtime/calls", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=self_signed(tmp_path))
    await site.start()
    url = f"{scheme}://localhost:{runner.addresses[0][1]}/v1/realtime/calls"
    for _ in range(2):  # Trusted certificates are loaded only once.
        wire = WebRTCWire(url, headers={"Authorization": "Bearer k"}, session={})
        with pytest.raises(SessionError, match="CERTIFICATE_VERIFY_FAILED"):
            await wire.open()
        await wire.close()
    await runner.cleanup()
    assert not asked
