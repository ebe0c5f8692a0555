"""Addresses, headers, proxies, redirects and voices: the same for every provider."""

import asyncio
import contextlib
import logging
import re
from contextlib import asynccontextmanager

import pytest

from duologue._net import (
    check_headers,
    host_and_port_of,
    proxy_from_environment,
    split_address,
    without_password,
)
from duologue.errors import ConfigError, ErrorKind, SessionError
from duologue.realtime.websocket import WebSocketWire

pytest.importorskip("duologue.providers.openai", reason="the openai extra is missing")
pytest.importorskip("duologue.providers.gemini", reason="the gemini extra is missing")
pytest.importorskip("duologue.providers.qwen", reason="the qwen extra is missing")
pytest.importorskip("duologue.providers.aws", reason="the aws extra is missing")

from duologue.providers import anthropic, aws, gemini, openai, qwen
from duologue.providers._openai_protocol.webrtc import WebRTCWire
from duologue.realtime.codec import SessionSetup

KEY = "sk-very-secret-0123456789"

MODELS = {
    "openai": lambda url: openai.Realtime(transport="websocket", base_url=url, api_key=KEY),
    "openai over WebRTC": lambda url: openai.Realtime(base_url=url, api_key=KEY),
    "gemini": lambda url: gemini.Realtime(base_url=url, api_key=KEY),
    "gemini by a token": lambda url: gemini.Realtime(base_url=url, token=f"auth_tokens/{KEY}"),
    "qwen": lambda url: qwen.Realtime(base_url=url, api_key=KEY),
    "nova": lambda url: aws.Realtime(base_url=url),
    "a text model": lambda url: openai.LLM("m", base_url=url),
    "claude": lambda url: anthropic.LLM("m", base_url=url),
    "gemini as a text model": lambda url: gemini.LLM("m", base_url=url),
}
BAD = (
    "http://127.0.0.1:port/v1",
    "http://127.0.0.1:99999",
    "http://127.0.0.1:0",
    "http://[::1",
    "http://",
    "http:///v1",
    "http://a..b/v1",
    "http://host name/v1",
    "http://127.0.0.1\n/v1",
    "ftp://127.0.0.1/v1",
    "127.0.0.1",
    b"http://127.0.0.1",
)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("address", BAD)
def test_invalid_address_raises_one_line_at_construction(name, address):
    with pytest.raises(ConfigError, match="must be an address such as") as caught:
        MODELS[name](address)
    assert "\n" not in str(caught.value)


def test_address_error_shows_no_password():
    with pytest.raises(ConfigError) as caught:
        split_address("base_url", "http://me:hunter2@host:port/v1", ("http",), "http://host")
    assert "hunter2" not in str(caught.value)
    assert without_password("me:hunter2@host/path@x") == "host/path@x"


@pytest.mark.parametrize(
    "headers",
    [{"X-Key": "a\nHost: b"}, {"X Key": "a"}, {"": "a"}, {"X-Key": "ä"}, {"X-Key": 1}, {1: "a"}],
)
def test_invalid_header_error_shows_no_value(headers):
    for make in (openai.Realtime, qwen.Realtime):
        with pytest.raises(ConfigError, match="headers must have") as caught:
            make(api_key=KEY, headers=headers)
        assert "Host: b" not in str(caught.value)
    assert check_headers("headers", {"X-Key": "a b"}) == {"X-Key": "a b"}


OPTIONS = {
    "anthropic.LLM": lambda **options: anthropic.LLM("m", **options),
    "gemini.LLM": lambda **options: gemini.LLM("m", **options),
    "gemini.Realtime": gemini.Realtime,
    "openai.LLM": lambda **options: openai.LLM("m", **options),
    "openai.STT": openai.STT,
    "openai.TTS": lambda **options: openai.TTS("v", **options),
    "openai.Realtime": openai.Realtime,
    "qwen.Realtime": qwen.Realtime,
}


@pytest.mark.parametrize("name", OPTIONS)
def test_option_of_a_wrong_type_raises_one_line_that_shows_no_value(name):
    takes_fields = name in ("anthropic.LLM", "gemini.LLM", "openai.LLM", "openai.TTS")
    fields = "options" if takes_fields else "extra"
    for option in ({"api_key": 5}, {"api_key": b"x"}, {"headers": ["x"]}, {fields: ["hunter2"]}):
        with pytest.raises(ConfigError, match=rf"^{next(iter(option))} must be a") as caught:
            OPTIONS[name](**{"api_key": KEY, **option})
        assert "hunter2" not in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("option", ["temperature", "top_p", "seed", "max_output_tokens", "top_k"])
def test_number_of_qwen_that_is_a_text_raises_one_line(option):
    with pytest.raises(ConfigError, match=f"^{option} must be .*'hot'"):
        qwen.Realtime(api_key=KEY, **{option: "hot"})


def test_host_is_shown_with_the_port_that_its_address_names():
    assert host_and_port_of("http://me:hunter2@127.0.0.1:19/v1") == "127.0.0.1:19"
    assert host_and_port_of("https://api.openai.com/v1") == "api.openai.com"
    assert host_and_port_of("http://[::1]:19/v1") == "[::1]:19"
    assert host_and_port_of("nothing") == ""


def test_query_of_base_url_is_kept(monkeypatch):
    model = openai.Realtime(
        transport="websocket", base_url="https://host/openai/v1/?api-version=1", api_key=KEY
    )
    wire = model.open(SessionSetup())._connect()
    assert wire._url == "wss://host/openai/v1/realtime?api-version=1&model=gpt-realtime-2.1"
    call = openai.Realtime(base_url="https://host/v1?a=b", api_key=KEY).open(SessionSetup())
    assert call._connect()._url == "https://host/v1/realtime/calls?a=b"


@asynccontextmanager
async def answering(head):
    """Run a server that answers every request with ``head``; yield its port and the requests."""
    seen = []

    async def take(reader, writer):
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            seen.append(await reader.readuntil(b"\r\n\r\n"))
            length = re.search(rb"content-length: (\d+)", seen[-1].lower())
            await reader.readexactly(int(length[1]) if length else 0)
            writer.write(head)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], seen


def redirect(status, where):
    return f"HTTP/1.1 {status} X\r\nLocation: {where}\r\nContent-Length: 0\r\n\r\n".encode()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("kind", ["websocket", "webrtc"])
async def test_redirects_are_not_followed(kind, status):
    async with answering(redirect(404, "")) as (other, stolen):
        # User, password and query could be secrets as well.
        where = f"//me:hunter2@localhost:{other}/x?key=hunter2"
        scheme = "ws" if kind == "websocket" else "http"
        async with answering(redirect(status, scheme + ":" + where)) as (port, seen):
            if kind == "websocket":
                wire = WebSocketWire(
                    f"ws://127.0.0.1:{port}/v1",
                    headers={"x-goog-api-key": KEY},
                    http_error=lambda status, _: SessionError(str(status)),
                    close_error=lambda code, _: SessionError(str(code)),
                )
            else:
                wire = WebRTCWire(
                    f"http://127.0.0.1:{port}/v1/calls", headers={"api-key": KEY}, session={}
                )
            with pytest.raises(SessionError) as caught:
                await wire.open()
            await wire.close()
    assert len(seen) == 1
    assert not stolen
    assert caught.value.kind is ErrorKind.FATAL
    assert str(caught.value) == (
        f"127.0.0.1 redirects to {scheme}://localhost:{other}/x (HTTP {status}), "
        "which is not followed: give the final address"
    )


async def test_vertex_token_request_follows_no_redirect():
    auth = pytest.importorskip("google.auth.exceptions", reason="the vertex extra is missing")
    from duologue.providers.gemini._vertex import _http_transport

    async with (
        answering(redirect(404, "")) as (other, stolen),
        answering(redirect(307, f"http://localhost:{other}/")) as (port, _),
    ):
        request = _http_transport(type("auth", (), {"exceptions": auth}))
        found = await asyncio.to_thread(
            request, f"http://127.0.0.1:{port}/token", "POST", b"assertion=" + KEY.encode()
        )
    assert found.status == 307
    assert not stolen


@pytest.mark.parametrize(
    "proxy",
    [
        "me:hunter2@127.0.0.1:9",
        "socks5://me:hunter2@127.0.0.1:9",
        "ftp://me:hunter2@127.0.0.1:9",
        "http://me:hunter2@127.0.0.1:port",
    ],
)
@pytest.mark.parametrize("name", ["openai", "openai over WebRTC", "gemini", "qwen", "nova"])
async def test_invalid_proxy_raises_one_line_without_its_password(name, proxy, monkeypatch):
    for variable in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    for variable in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(variable, proxy)
    model = MODELS[name]("https://voice.invalid/v1")
    if name == "nova":
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKID")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    connection = model.open(SessionSetup())
    await model.prepare(SessionSetup())
    with pytest.raises(SessionError) as caught:
        await connection.run(lambda _: None)
    assert "hunter2" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "proxy",
    ["socks5://me:hunter2@127.0.0.1:9", "ftp://me:hunter2@127.0.0.1:9", "http://me:hunter2@h:port"],
)
async def test_llm_reports_an_invalid_proxy(proxy, monkeypatch):
    for variable in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(variable, proxy)
    llm = openai.LLM("m", base_url="https://voice.invalid/v1")
    with pytest.raises(SessionError, match="the proxy of the environment") as caught:
        await anext(llm.generate("", [], []))
    await llm.close()
    assert "hunter2" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_environment_proxy_depends_on_the_host(monkeypatch):
    for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("all_proxy", "http://every:1")
    assert proxy_from_environment("https", "host.example") == "http://every:1"
    monkeypatch.setenv("https_proxy", "http://proxy:2")
    assert proxy_from_environment("https", "host.example") == "http://proxy:2"
    assert proxy_from_environment("https", "127.0.0.1") is None
    monkeypatch.setenv("no_proxy", "host.example")
    assert proxy_from_environment("https", "host.example") is None


@pytest.mark.parametrize(
    "make",
    [
        lambda voice: openai.Realtime(voice=voice, api_key=KEY),
        lambda voice: openai.Realtime("gpt-realtime-9", voice=voice, api_key=KEY),
        lambda voice: gemini.Realtime(voice=voice, api_key=KEY),
        lambda voice: aws.Realtime(voice=voice),
    ],
)
def test_unknown_voice_is_sent_with_a_warning(make, caplog):
    with caplog.at_level(logging.WARNING, "duologue"):
        make("Willow-2")
    assert "voice 'Willow-2' is not known here; the server decides" in caplog.text
    with pytest.raises(ConfigError, match="voice must be"):
        make("")
