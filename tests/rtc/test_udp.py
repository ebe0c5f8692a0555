"""UDP for the real world: ports, public addresses, and a real TURN server."""

import asyncio
import re
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress

import pytest

from duologue.errors import ConfigError
from duologue.rtc.config import IceServer, PeerConfig
from duologue.rtc.peer import Peer
from duologue.rtc.turn import turn_server
from duologue.rtc.udp_ports import bind_in_range, candidate_ports

TURNSERVER = shutil.which("turnserver")


def free_range(count: int) -> tuple[int, int]:
    """Return a range of UDP ports that are free now."""
    for first in range(42000, 60000, count):
        with ExitStack() as sockets, suppress(OSError):
            for port in range(first, first + count):
                one = sockets.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
                one.bind(("127.0.0.1", port))
            return first, first + count - 1
    raise AssertionError("no free ports")


def candidates(sdp: str) -> list[tuple[str, int, str]]:
    """Return address, port and type of each candidate."""
    found = re.findall(r"a=candidate:\S+ 1 udp \d+ (\S+) (\d+) typ (\w+)", sdp)
    return [(host, int(port), kind) for host, port, kind in found]


@asynccontextmanager
async def offering(**settings) -> AsyncIterator[str]:
    peer = Peer(PeerConfig(**settings), on_audio=lambda frame: None)
    try:
        yield await peer.offer()
    finally:
        await peer.close()


async def test_a_call_takes_its_ports_from_the_range():
    ports = free_range(40)
    async with (
        offering(loopback=True, udp_ports=ports) as one,
        offering(loopback=True, udp_ports=ports) as other,
    ):
        first, second = set(candidates(one)), set(candidates(other))
        assert first
        assert second
        assert not first & second
        assert all(ports[0] <= port <= ports[1] for _, port, _ in first | second)


async def test_calls_connect_within_the_range():
    ports = free_range(60)
    states: list[str] = []
    config = PeerConfig(loopback=True, udp_ports=ports)
    one = Peer(config, on_audio=lambda frame: None, on_state=lambda state, _: states.append(state))
    other = Peer(config, on_audio=lambda frame: None)
    try:
        await one.answer(await other.accept(await one.offer()))
        async with asyncio.timeout(10):
            while "connected" not in states:
                await asyncio.sleep(0.02)
    finally:
        await one.close()
        await other.close()


async def test_a_full_range_is_an_error_of_the_address_only(caplog):
    first, _ = free_range(1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", first))
        with pytest.raises(OSError, match="no UDP port from"):
            await bind_in_range(asyncio.DatagramProtocol, "127.0.0.1", (first, first))
        async with offering(loopback=True, udp_ports=(first, first)) as sdp:
            assert ("127.0.0.1", first, "host") not in candidates(sdp)
    assert "a call does without the address 127.0.0.1" in caplog.text


def test_every_port_of_a_range_is_tried_once():
    assert sorted(candidate_ports((5000, 5009))) == list(range(5000, 5010))


async def test_a_public_address_is_offered_with_the_port_of_each_local_one():
    async with offering(public_addresses=("203.0.113.7",)) as sdp:
        found = candidates(sdp)
        local = {port for host, port, kind in found if kind == "host" and ":" not in host}
        public = {port for host, port, kind in found if (host, kind) == ("203.0.113.7", "srflx")}
        loopback_only = all(host == "127.0.0.1" for host, _, kind in found if kind == "host")
        assert public == (set() if loopback_only else local)


@pytest.mark.parametrize("ports", [(0, 5), (6, 5), (1, 70000)])
def test_ports_that_can_not_work_are_refused(ports):
    with pytest.raises(ConfigError, match="udp_ports must be"):
        PeerConfig(udp_ports=ports)


def test_a_public_address_must_be_one():
    with pytest.raises(ConfigError, match="public_addresses must be IP addresses, not 'me'"):
        PeerConfig(public_addresses=("me",))


def test_credentials_have_the_form_that_coturn_checks():
    server = turn_server("turn:localhost", "north", user="ada", ttl_s=60, now=1000.5)
    assert server == IceServer("turn:localhost", "1060:ada", "Eh1mG9mm9amXuMHMOfsZIqX+Y7g=")
    assert "Eh1m" not in repr(server)
    with pytest.raises(ConfigError, match="must not be empty"):
        turn_server("turn:localhost", "")


@asynccontextmanager
async def coturn(directory, secret: str) -> AsyncIterator[int]:
    if TURNSERVER is None:
        pytest.skip("coturn is not installed: apt-get install coturn")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = int(listener.getsockname()[1])
    process = await asyncio.create_subprocess_exec(
        *(TURNSERVER, "-n", "--no-cli", "--no-tls", "--no-dtls", "--allow-loopback-peers"),
        *("--listening-ip", "127.0.0.1", "--relay-ip", "127.0.0.1"),
        *("--listening-port", str(port), "--realm", "example.org", "--log-file", "stdout"),
        *("--use-auth-secret", "--static-auth-secret", secret, "--pidfile", f"{directory}/pid"),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        cwd=directory,
    )
    try:
        async with asyncio.timeout(10):
            while True:
                with suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                    break
                await asyncio.sleep(0.05)
        yield port
    finally:
        process.kill()
        await process.wait()


async def test_coturn_accepts_the_credentials_and_relays(tmp_path):
    async with coturn(tmp_path, "correct-horse") as port:
        url = f"turn:127.0.0.1:{port}?transport=udp"
        good = turn_server(url, "correct-horse")
        async with offering(loopback=True, ice_servers=(good,)) as sdp:
            assert "relay" in {kind for _, _, kind in candidates(sdp)}
        expired = turn_server(url, "correct-horse", ttl_s=-10)
        for bad in (turn_server(url, "wrong-horse"), expired):
            async with offering(loopback=True, ice_servers=(bad,)) as sdp:
                assert "relay" not in {kind for _, _, kind in candidates(sdp)}
