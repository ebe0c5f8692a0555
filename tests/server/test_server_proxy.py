"""The page behind a proxy like nginx, with and without passing on the host name."""

import asyncio
import re
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from page import CallScene, chromium, open_page, talk
from server_fixture import served

NGINX = shutil.which("nginx")

_CONF = """
daemon off; pid {dir}/nginx.pid; error_log {dir}/error.log; worker_processes 1;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {dir}/1; proxy_temp_path {dir}/2; fastcgi_temp_path {dir}/3;
    uwsgi_temp_path {dir}/4; scgi_temp_path {dir}/5;
    server {{
        listen 127.0.0.1:{port};
        location /voice/ {{
            proxy_pass http://127.0.0.1:{backend}/;
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection upgrade;
            {host}
        }}
    }}
}}
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@asynccontextmanager
async def nginx(directory, backend: int, port: int, host: str) -> AsyncIterator[str]:
    if NGINX is None:
        pytest.skip("nginx is not installed: apt-get install nginx-light")
    conf = directory / "nginx.conf"
    conf.write_text(_CONF.format(dir=directory, port=port, backend=backend, host=host))
    process = await asyncio.create_subprocess_exec(
        NGINX, "-c", str(conf), "-p", str(directory), stderr=asyncio.subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(5):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    break
                except OSError:
                    await asyncio.sleep(0.05)
            writer.close()
        yield f"http://localhost:{port}/voice/"
    finally:
        process.terminate()
        await process.wait()


@asynccontextmanager
async def renaming_proxy(backend: int) -> AsyncIterator[str]:
    """Requests the server by the address of its own socket, as nginx does by default."""

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        there, back = await asyncio.open_connection("127.0.0.1", backend)
        name = f"Host: 127.0.0.1:{backend}\r\n".encode()
        head = re.sub(rb"(?i)^host:.*\r\n", name, head, flags=re.MULTILINE)
        if b"upgrade: websocket" not in head.lower():
            head = re.sub(rb"(?i)^connection:.*\r\n", b"", head, flags=re.MULTILINE)
            head = head.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
        back.write(head)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(pipe(there, writer))
            tasks.create_task(pipe(reader, back))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://localhost:{server.sockets[0].getsockname()[1]}/"


@pytest.mark.browser
async def test_the_page_says_that_it_is_refused_and_the_log_says_why(caplog):
    stage = CallScene()
    async with (
        chromium() as browser,
        served(stage) as server,
        renaming_proxy(server.port) as address,
        open_page(browser, address) as page,
    ):
        await page.click("#talk")
        await page.wait_for_selector("#notice:not([hidden])")
        said = await page.locator("#notice-text").inner_text()
        assert "calls are taken from this server's own page only" in said
        page.complaints.clear()  # Chromium itself reports the 403
    lines = [r.getMessage() for r in caplog.records if "refused a call" in r.getMessage()]
    assert len(lines) == 1
    assert f"public_url='{address[:-1]}'" in lines[0]


@pytest.mark.browser
@pytest.mark.parametrize(
    ("host", "settings"),
    [
        ("proxy_set_header Host $host;", {}),
        ("proxy_set_header Host $http_host;", {}),
        ("", {"public_url": "http://localhost:{port}/voice/"}),
    ],
)
async def test_a_call_through_nginx_works(host, settings, tmp_path):
    stage, port = CallScene(), free_port()
    settings = {name: value.format(port=port) for name, value in settings.items()}
    async with (
        served(stage, port=free_port(), **settings) as server,
        nginx(tmp_path, server.port, port, host) as address,
        chromium() as browser,
        open_page(browser, address) as page,
    ):
        await talk(page, stage)
        await page.click("#talk")
