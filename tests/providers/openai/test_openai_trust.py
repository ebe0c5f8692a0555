"""Certificates that a WebRTC call trusts."""

import asyncio
import datetime as dt
import re
import ssl

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from duologue.errors import SessionError
from duologue.providers import openai
from duologue.providers._openai_protocol.webrtc import WebRTCWire
from duologue.realtime.codec import SessionSetup


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


async def test_ssl_context_says_which_certificates_are_trusted(tmp_path):
    requests = []

    async def answer(request):
        requests.append(request.headers["X-Trace"])
        return web.json_response({"error": {"message": "Wrong key."}}, status=401)

    application = web.Application()
    application.router.add_post("/v1/realtime/calls", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=self_signed(tmp_path))
    await site.start()
    trusted = ssl.create_default_context(cafile=str(tmp_path / "server.pem"))
    model = openai.Realtime(
        base_url=f"https://localhost:{runner.addresses[0][1]}/v1",
        api_key="k",
        headers={"X-Trace": "1"},
        ssl_context=trusted,
    )
    with pytest.raises(SessionError, match="Wrong key"):
        await model.open(SessionSetup()).run(lambda output: None)
    await runner.cleanup()
    assert requests == ["1"]


async def test_given_proxy_is_used_even_for_this_machine():
    heads = []

    async def refuse(reader, writer):
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        length = re.search(rb"content-length: (\d+)", heads[-1].lower())
        await reader.readexactly(int(length[1]))
        writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        model = openai.Realtime(
            base_url="http://127.0.0.1:9/v1", api_key="k", proxy=f"http://127.0.0.1:{port}"
        )
        with pytest.raises(SessionError, match="403"):
            await model.open(SessionSetup()).run(lambda output: None)
    assert heads[0].startswith(b"POST http://127.0.0.1:9/v1/realtime/calls HTTP/1.1")
