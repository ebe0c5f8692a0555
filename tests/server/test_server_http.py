import asyncio
import json
import re
import ssl
import subprocess
from pathlib import Path

import pytest
from server_fixture import served

import duologue.server
from duologue.errors import ConfigError
from duologue.rtc.config import IceServer
from duologue.server import ServerConfig, create_call_app, serve_app

STATIC = Path(duologue.server.__file__).parent / "static"
TOKEN = "correct-horse-battery"  # noqa: S105


async def refuse_calls(signalling) -> None:
    raise AssertionError("no call is expected here")


async def test_the_page_and_its_files_are_served():
    async with served(refuse_calls) as server:
        status, headers, body = await server.get("/")
        assert status == 200
        assert headers["content-type"] == "text/html; charset=utf-8"
        links = re.findall(r'(?:href|src)="((?:static/|favicon)[^"]+)"', body.decode())
        assert len(links) >= 3
        kinds = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
        for name in [*links, *(f"static/{file.name}" for file in STATIC.glob("*.js"))]:
            status, headers, body = await server.get(f"/{name}")
            assert (status, bool(body)) == (200, True)
            assert headers["content-type"].startswith(kinds[name.rpartition(".")[2]])
            again, _, empty = await server.get(f"/{name}", if_none_match=headers["etag"])
            assert (again, empty) == (304, b"")


async def test_only_the_files_of_the_page_are_served():
    async with served(refuse_calls) as server:
        for path in ("../config.py", "..%2fconfig.py", "%2e%2e/app.py", "x", ""):
            status, _, body = await server.get(f"/static/{path}")
            assert status == 404
            assert b"import" not in body


def test_the_page_loads_nothing_from_elsewhere_and_has_no_inline_script():
    for file in STATIC.iterdir():
        text = file.read_text()
        outside = set(re.findall(r"https?://[^\s\"'<)]+", text)) - {"http://www.w3.org/2000/svg"}
        assert not outside, file
    html = (STATIC / "index.html").read_text()
    assert not re.findall(r"<script(?![^>]*\ssrc=)|<style|\sstyle=|\son\w+=|javascript:", html)


async def test_every_response_has_the_security_headers():
    async with served(refuse_calls) as server:
        for path in ("/", "/static/app.js", "/health", "/none"):
            _, headers, _ = await server.get(path)
            policy = headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert headers["x-content-type-options"] == "nosniff"
            assert "microphone=(self), camera=(self)" in headers["permissions-policy"]
            assert headers["referrer-policy"] == "no-referrer"


async def test_health_reports_sessions_and_limit():
    async with served(refuse_calls, max_sessions=3) as server:
        status, _, body = await server.get("/health")
        assert status == 200
        assert json.loads(body) == {
            "status": "ok",
            "sessions": 0,
            "limit": 3,
            "tick_delay_ms": 0,
            "refused": 0,
            "late": False,
        }


async def test_a_rebound_name_is_refused():
    async with served(refuse_calls, allowed_hosts=("me.example",)) as server:
        for host, status in [
            (f"127.0.0.1:{server.port}", 200),
            (f"[::1]:{server.port}", 200),
            ("LOCALHOST", 200),
            (f"me.example:{server.port}", 200),
            (f"evil.example:{server.port}", 421),
            ("127.0.0.1.evil.example", 421),
            ("localhost@evil.example", 421),
            ("", 421),
        ]:
            got, headers, body = await server.get("/", host=host)
            assert (host, got) == (host, status)
            assert "content-security-policy" in headers
            assert status == 200 or b"address" in body


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"host": "0.0.0.0"}, "pass a token"),  # noqa: S104
        ({"host": "::"}, "pass a token"),
        ({"host": "example.org", "token": "short"}, "16 characters"),
        ({"token": "short"}, "16 characters"),
        ({"port": 70000}, "65535"),
        ({"max_sessions": 0}, "above 0"),
        ({"max_tick_delay_ms": 0}, "above 0, or None"),
        ({"max_tick_delay_ms": float("nan")}, "above 0, or None"),
        ({"certfile": Path("none.pem")}, "go together"),
        ({"certfile": Path("none.pem"), "keyfile": Path("none.key")}, "no file none.pem"),
        ({"certfile": "none.pem", "keyfile": "none.key"}, "no file none.pem"),
    ],
)
def test_impossible_settings_are_refused(settings, says):
    with pytest.raises(ConfigError, match=says) as caught:
        ServerConfig(**settings)
    assert "\n" not in str(caught.value)


def test_the_token_is_neither_shown_nor_sent():
    config = ServerConfig(host="192.0.2.7", token=TOKEN)
    assert TOKEN not in repr(config)
    assert config.address(80) == f"http://192.0.2.7:80/#token={TOKEN}"
    assert "https" in (config.warning or "")
    assert ServerConfig().warning is None
    assert ServerConfig(host="::1").address(5) == "http://[::1]:5/"


def test_ice_servers_reach_the_page():
    turn = IceServer("turn:relay.example", "me", "secret")
    greeting = ServerConfig(ice_servers=(IceServer(("stun:a", "stun:b")), turn)).config_message()
    assert greeting["ice_servers"] == [
        {"urls": ["stun:a", "stun:b"]},
        {"urls": ["turn:relay.example"], "username": "me", "credential": "secret"},
    ]


async def test_a_taken_port_causes_one_clear_line():
    async with served(refuse_calls) as server:
        config = ServerConfig(port=server.port)
        with pytest.raises(ConfigError, match=f"port {server.port} .*choose another port"):
            await serve_app(create_call_app(refuse_calls, config), config, signals=False)


async def test_an_invalid_certificate_causes_one_clear_line(tmp_path):
    file = tmp_path / "cert.pem"
    file.write_text("no certificate")
    config = ServerConfig(port=0, certfile=file, keyfile=file)
    with pytest.raises(ConfigError, match="certificate"):
        await serve_app(create_call_app(refuse_calls, config), config, signals=False)


async def test_the_server_speaks_tls(tmp_path):
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost"
    command += f" -addext subjectAltName=DNS:localhost -keyout {key} -out {cert}"
    made = subprocess.run(
        command.split(),
        capture_output=True,
        check=False,
    )
    if made.returncode:
        pytest.skip("openssl can't make a certificate here")
    async with served(refuse_calls, certfile=cert, keyfile=key) as server:
        assert server.url.startswith("https://localhost:")
        context = ssl.create_default_context(cafile=str(cert))
        reader, writer = await asyncio.open_connection("localhost", server.port, ssl=context)
        writer.write(b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 200")
        writer.close()
