"""SIP beside the page: `duologue.hosting.serve`, and the command line."""

import asyncio
import sys

import pytest

from duologue import Agent
from duologue.edges import telephone
from duologue.errors import ConfigError
from duologue.hosting import serve
from duologue.server import ServerConfig
from duologue.testing import ScriptedRealtime
from sip_peer import SipPeer

pytest.importorskip("baresip", reason="the extra sip is not installed")

APP = """
from duologue import Agent
from duologue.testing import ScriptedRealtime


def make_agent(edge):
    return Agent(edge=edge, llm=ScriptedRealtime())
"""


async def test_the_page_and_sip_share_one_server_and_its_limit():
    sip = telephone.SIP("sip:bot@127.0.0.1", listen="127.0.0.1:0")
    config = ServerConfig(port=0, max_sessions=1, max_tick_delay_ms=None, drain_s=1)
    ended = []
    ready = asyncio.Event()
    server = asyncio.create_task(
        serve(
            lambda edge: Agent(edge=edge, llm=ScriptedRealtime()),
            config,
            telephone=[sip],
            on_end=lambda end: ended.append(end.edge.call.carrier),
            ready=lambda _: ready.set(),
        )
    )
    async with asyncio.timeout(10):
        await ready.wait()
    async with SipPeer() as peer:
        call = await peer.call(f"sip:1@{sip.listening}")
        assert call.status == 200
        assert (await peer.call(f"sip:1@{sip.listening}")).status == 486
        await call.hang_up()
        async with asyncio.timeout(5):
            while not ended:
                await asyncio.sleep(0.01)
    assert ended == ["sip"]
    server.cancel()
    await asyncio.wait({server})


async def test_sip_needs_one_worker_and_make_agent():
    sip = telephone.SIP("sip:bot@127.0.0.1", listen="127.0.0.1:0")

    async def handle(edge):
        pass

    with pytest.raises(ConfigError, match="one worker"):
        await serve(lambda edge: None, ServerConfig(workers=2), telephone=[sip])
    with pytest.raises(ConfigError, match="make_agent"):
        await serve(None, ServerConfig(), handle_call=handle, telephone=[sip])


async def test_the_command_line_takes_calls(tmp_path):
    (tmp_path / "app.py").write_text(APP)
    arguments = ["app.py:make_agent", "--port", "0", "--sip", "sip:bot@127.0.0.1"]
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "duologue", "serve", *arguments, "--sip-listen", "127.0.0.1:0"),
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(30):
            line = b""
            while b"Calls over SIP at" not in line:
                line = await program.stdout.readline()
                assert line, "the program has ended"
        async with SipPeer() as peer:
            call = await peer.call(f"sip:1@{line.decode().split()[-1]}")
            assert call.status == 200
            program.terminate()
            await call.hang_up()
        async with asyncio.timeout(10):
            await program.wait()
    finally:
        if program.returncode is None:
            program.kill()
            await program.wait()
