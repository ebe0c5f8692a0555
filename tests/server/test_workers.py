"""A server in several processes: real programs on a loopback port."""

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import httpx
import pytest
import websockets
from served_program import Server, running_program
from server_fixture import answer, receive_close, until

from duologue.errors import ConfigError
from duologue.server import ServerConfig
from duologue.server._fleet import SILENT_S
from duologue.server._worker import receive_connections
from duologue.server._worker_link import LinkClosedError, WorkerLink
from event_loops import EVENT_LOOPS

PROGRAM = """
import os, sys
from duologue._running import run_in_loop
from duologue.server import ServerConfig, create_call_app, serve_app, worker_number

async def handler(signalling):
    while (message := await signalling.receive()) is not None:
        if message["type"] == "bye":
            break
        await signalling.send({"type": "pid", "pid": os.getpid()})

config = ServerConfig(port=0, **SETTINGS)
BEFORE
run_in_loop(serve_app(create_call_app(handler, config), config), LOOP)
"""


@asynccontextmanager
async def running(loop: str = "asyncio", before: str = "", **settings) -> AsyncIterator[Server]:
    program = PROGRAM.replace(
        "SETTINGS",
        repr({"workers": 2, "offer_timeout_s": 60, "max_tick_delay_ms": None} | settings),
    )
    program = program.replace("LOOP", repr(loop)).replace("BEFORE", before)
    async with running_program(program) as server:
        yield server


@pytest.mark.parametrize("loop", EVENT_LOOPS)
async def test_calls_are_spread_and_operators_see_all_of_them(loop):
    async with running(loop) as server, AsyncExitStack() as calls:
        pids = await server.workers(2)
        made = [calls.enter_async_context(server.call()) for _ in range(8)]
        opened = await asyncio.gather(*made)
        assert Counter(pid for _, pid in opened) == dict.fromkeys(pids, 4)
        health = await server.get("/health")
        assert health["sessions"] == 8
        assert {worker["sessions"] for worker in health["workers"]} == {4}
        listed = (await server.get("/calls"))["calls"]
        assert Counter(call["pid"] for call in listed) == dict.fromkeys(pids, 4)
        async with httpx.AsyncClient(base_url=server.url) as client:
            for call in listed:
                # A new connection each time, so both workers are asked for calls of the other.
                shown = await client.get(f"/calls/{call['id']}", headers={"connection": "close"})
                assert shown.json()["id"] == call["id"]
            assert (await client.delete(f"/calls/{listed[0]['id']}")).status_code == 204
            assert (await client.get("/calls/9-none")).status_code == 404
        assert (await server.get("/health"))["sessions"] == 7


async def test_the_limit_is_that_of_all_workers():
    async with running(max_sessions=3) as server, AsyncExitStack() as calls:
        await server.workers(2)
        for _ in range(3):
            await calls.enter_async_context(server.call())
        async with websockets.connect(server.url.replace("http", "ws") + "call") as fourth:
            await fourth.send('{"type": "hello"}')
            error, code, reason = await receive_close(fourth)
            assert (error["code"], code) == ("full", 1013)
            assert "3 people talk" in reason
        ready = await server.get("/ready")
        assert (ready["reason"], ready["sessions"]) == ("full", 3)
        await calls.aclose()
        async with server.call():
            pass


async def take_up(socket, ticket: str, received: int = 0) -> dict:
    """Show a ticket; return the first message."""
    hello = {"type": "hello", "ticket": ticket, "received": received}
    await socket.send(json.dumps(hello))
    return await answer(socket)


async def pid_of(socket) -> int:
    await socket.send('{"type": "mute", "muted": false}')
    while "pid" not in (message := await answer(socket)):
        pass
    return message["pid"]


async def test_a_call_goes_on_through_another_worker():
    async with running() as server:
        pids = await server.workers(2)
        address = server.url.replace("http", "ws") + "call"
        async with websockets.connect(address) as first:
            config = await take_up(first, "")
            pid = await pid_of(first)
            for _ in range(3):
                # The emptiest worker gets it, so not the one that has the call.
                socket_ = await websockets.connect(address)
                config = await take_up(socket_, config["ticket"])
                assert config["resumed"] is True
                assert await pid_of(socket_) == pid
                socket_.transport.abort()
                await socket_.wait_closed()
            assert (await receive_close(first))[1] == 4409
        async with websockets.connect(address) as wrong:
            assert (await take_up(wrong, config["ticket"][:-1] + "_"))["code"] == "gone"
        async with websockets.connect(address) as last:
            config = await take_up(last, config["ticket"])
            assert (await server.get("/health"))["sessions"] == 1
            await last.send('{"type": "bye"}')
            assert (await receive_close(last))[1] == 1000
        async with asyncio.timeout(3):
            while (await server.get("/health"))["sessions"]:
                await asyncio.sleep(0.02)
        # The worker that has the call dies, and with it the call.
        async with websockets.connect(address) as first:
            config = await take_up(first, "")
            pid = await pid_of(first)
            async with websockets.connect(address) as second:
                config = await take_up(second, config["ticket"])
                assert await pid_of(second) == pid
                assert pid in pids
                os.kill(pid, signal.SIGKILL)
                error, code, _ = await receive_close(second)
                assert (error["code"], code) == ("lost", 1011)
            async with websockets.connect(address) as third:
                assert (await take_up(third, config["ticket"]))["code"] == "gone"


async def test_a_dead_worker_loses_its_own_calls_and_is_replaced():
    async with running() as server:
        pids = await server.workers(2)
        async with server.call() as (first, one), server.call() as (second, other):
            assert {one, other} == set(pids)
            os.kill(one, signal.SIGKILL)
            assert (await receive_close(first))[1] in (0, 1006)
            await second.send('{"type": "mute", "muted": false}')
            assert (await answer(second))["pid"] == other
            async with asyncio.timeout(20):
                while one in (now := await server.workers(2)):
                    await asyncio.sleep(0.05)
            assert other in now
            assert (await server.get("/health"))["sessions"] == 1
            async with server.call() as (_, third):
                assert third not in (one, other)


async def test_sigterm_drains_all_workers():
    async with running() as server:
        pids = await server.workers(2)
        async with server.call() as (first, one), server.call() as (second, other):
            assert one != other
            # systemd signals all processes of a service.
            for pid in (server.process.pid, *pids):
                os.kill(pid, signal.SIGTERM)
            async with asyncio.timeout(3):
                while True:
                    try:
                        async with server.call():
                            pass
                    except (OSError, websockets.WebSocketException):
                        break
            for socket_ in (first, second):
                await socket_.send('{"type": "mute", "muted": false}')
                await answer(socket_)
            for socket_ in (first, second):
                await socket_.send('{"type": "bye"}')
                assert (await receive_close(socket_))[1] == 1000
        assert await asyncio.wait_for(server.process.wait(), 5) == 0
        for pid in pids:
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)


async def test_a_second_signal_ends_all_workers_at_once():
    async with running() as server:
        pids = await server.workers(2)
        async with server.call() as (first, _), server.call() as (second, _):
            server.process.terminate()
            await asyncio.sleep(0.3)
            server.process.terminate()
            for socket_ in (first, second):
                assert (await receive_close(socket_))[1] == 1012
        assert await asyncio.wait_for(server.process.wait(), 8) == -signal.SIGTERM
        for pid in pids:
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)


async def test_workers_of_a_dead_supervisor_go_on_with_their_calls():
    async with running() as server:
        pids = await server.workers(2)
        async with server.call() as (first, one):
            server.process.kill()
            await until(lambda: server.process.returncode is not None)
            await first.send('{"type": "mute", "muted": false}')
            assert (await answer(first))["pid"] == one
            await first.send('{"type": "bye"}')
            assert (await receive_close(first))[1] == 1000
        async with asyncio.timeout(5):
            while any(map(is_alive, pids)):
                await asyncio.sleep(0.05)


def is_alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_calls_avoid_a_worker_that_is_stuck():
    async with running(max_tick_delay_ms=20.0) as server, AsyncExitStack() as calls:
        stuck, other = await server.workers(2)
        os.kill(stuck, signal.SIGSTOP)
        try:
            async with asyncio.timeout(10):
                # Whichever connection the stuck one got before it was noticed waits in it.
                while True:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(0.5), server.call() as (_, pid):
                            if pid == other:
                                break
            await asyncio.sleep(SILENT_S)
            for _ in range(3):
                assert (await calls.enter_async_context(server.call()))[1] == other
        finally:
            os.kill(stuck, signal.SIGCONT)


def check_names(text: str) -> None:
    """Let promtool check the names of metrics, where it is installed."""
    if shutil.which("promtool") is not None:
        check = subprocess.run(
            ["promtool", "check", "metrics"], input=text.encode(), capture_output=True, check=False
        )
        assert (check.returncode, check.stdout + check.stderr) == (0, b"")


async def scrape(server: Server) -> str:
    async with httpx.AsyncClient(base_url=server.url) as client:
        return (await client.get("/metrics", headers={"connection": "close"})).text


async def test_a_program_that_can_not_start_is_one_error():
    fails = "sys.exit('no model' if worker_number() else 0)"
    async with running(before=f"if worker_number(): {fails}") as server:
        _, err = await asyncio.wait_for(server.process.communicate(), 20)
        text = err.decode()
        assert text.count("no model") == 1
        assert "no worker could start (exit code 1): see above" in text
        assert server.process.returncode == 1


async def test_the_command_serves_with_workers_one_scrape_and_one_store_for_all(tmp_path):
    pytest.importorskip("prometheus_client", reason="needs the extra prometheus")
    (tmp_path / "app.py").write_text(
        "from duologue import Agent\n"
        "from duologue.testing import ScriptedRealtime\n"
        "def make_agent(edge):\n"
        "    return Agent(edge=edge, llm=ScriptedRealtime(['Yes.']))\n"
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "duologue", "serve", "app.py:make_agent"),
        *("--port", "0", "--workers", "2", "--log-format", "json", "--metrics"),
        *("--store", "sqlite:calls.db", "--max-tick-delay", "0"),
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    line = (await asyncio.wait_for(process.stdout.readline(), 30)).decode()
    server = Server(process, line.split()[2])
    try:
        await server.workers(2)
        async with server.admitted(ticket="") as (socket_, config):
            for _ in range(3):  # whichever worker answers
                text = await scrape(server)
                assert 'duologue_draining{worker="1"} 0.0' in text
                assert 'duologue_draining{worker="2"} 0.0' in text
                assert text.count("# TYPE duologue_sessions_active gauge") == 1
                assert "duologue_workers 2" in text
                found = re.findall(r'duologue_worker_calls\{worker="\d"\} (\d)', text)
                assert sorted(found) == ["0", "1"]
            check_names(text)
            # A call of a worker that dies goes on in another, which finds its ticket in the store.
            (call,) = (await server.get("/calls"))["calls"]
            os.kill(call["pid"], signal.SIGKILL)
            await receive_close(socket_)
        taken_up = await server.take_up(config["ticket"])
        assert taken_up["resumed"] is True
        assert taken_up["ticket"].split(".")[1] == config["ticket"].split(".")[1]
        async with asyncio.timeout(10):
            while call["pid"] in await server.workers(2):
                await asyncio.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = await asyncio.wait_for(process.communicate(), 10)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
    assert process.returncode == 0
    assert out.strip() == b""
    records = [json.loads(line) for line in err.splitlines()]
    (logged,) = [record for record in records if record["level"] == "error"]
    assert re.match(r"worker \d ended \(signal 9\) and lost 1 calls", logged["message"])
    assert (logged["level"], logged["pid"]) == ("error", process.pid)


@pytest.mark.parametrize("workers", ["0", "-1", "many"])
async def test_the_command_refuses_a_number_of_workers_that_can_not_work(workers):
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "duologue", "serve", f"--workers={workers}"),
        stderr=asyncio.subprocess.PIPE,
    )
    _, err = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 2
    assert b"neither auto nor a number above 0" in err


def test_a_number_of_workers_that_can_not_work_is_refused():
    for workers in (0, -1, 1.5, "many"):
        with pytest.raises(ConfigError, match="workers must be"):
            ServerConfig(workers=workers)  # type: ignore[arg-type]
    assert ServerConfig(workers="auto").worker_count >= 1


async def linked(on_ask=None, told=None) -> tuple[WorkerLink, WorkerLink, list[asyncio.Task]]:
    async def nothing(question):
        return {}

    ends = socket.socketpair()
    links = [
        WorkerLink(told.append if told is not None else lambda message: None, nothing),
        WorkerLink(lambda message: None, on_ask or nothing),
    ]
    for link, end in zip(links, ends, strict=True):
        end.setblocking(False)
        await link.open(end)
    return links[0], links[1], [asyncio.create_task(link.run()) for link in links]


async def test_a_question_is_answered_or_fails_when_the_other_process_ends():
    async def slow(question):
        if question == {"wait": True}:
            await asyncio.sleep(60)
        if question == {"fail": True}:
            raise LinkClosedError("the owner has ended")
        return {"of": question}

    one, other, running_ = await linked(slow)
    assert await one.ask({"a": 1}) == {"of": {"a": 1}}
    assert await one.ask({"fail": True}) == {"error": "the owner has ended"}
    waiting = asyncio.create_task(one.ask({"wait": True}))
    await asyncio.sleep(0.05)
    running_[1].cancel()
    with pytest.raises(LinkClosedError, match="has ended"):
        await waiting
    await asyncio.wait(running_)
    with pytest.raises(LinkClosedError, match="has ended"):
        await one.ask({})
    one.tell({"dropped": True})
    del other


async def test_messages_arrive_in_order_and_nonsense_ends_the_channel():
    told: list = []
    one, other, running_ = await linked(told=told)
    for number in range(5):
        other.tell({"n": number})
    assert other._writer is not None
    other._writer.write(json.dumps("x").encode()[:-1] + b"\n")
    await asyncio.wait({running_[0]}, timeout=3)
    assert told == [{"n": number} for number in range(5)]
    running_[1].cancel()
    await asyncio.wait(running_)
    del one


def test_a_closed_channel_of_connections_is_noticed():
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours:
        assert receive_connections(ours) == []
        with socket.socket() as connection:
            socket.send_fds(theirs, [b"c"], [connection.fileno()])
        ((kind, received),) = receive_connections(ours) or []
        assert kind == b"c"
        assert not received.getblocking()
        assert not received.get_inheritable()
        received.close()
        theirs.send(b"c")  # what arrives if this process can open no more files
        assert receive_connections(ours) == []
        theirs.close()
        assert receive_connections(ours) is None
