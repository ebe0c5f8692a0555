"""Calls over networks with translated addresses, made of network namespaces, and over IPv6."""

# Two sites at an internet, each behind a router that translates addresses:
#
#     server 10.1.0.2 ── cloud 203.0.113.10 ──┐
#                                              ├── internet ── turn 203.0.113.30 (coturn)
#     client 192.168.7.2 ── home 203.0.113.20 ─┘
#
# The cloud translates the server's address one to one, as clouds do; or it forwards TCP only, and
# both routers take another UDP port for every destination, so that only TURN connects the sites.

import json
import shutil
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from namespaces import Network, skip_without_namespaces

PROGRAMS = Path(__file__).parent / "network_programs"
TOKEN = "correct-horse-battery"  # noqa: S105
SECRET = "a-secret-of-coturn"  # noqa: S105


@contextmanager
def serving(network: Network, name: str, *options: str, **env: str):
    """Run ``duologue serve`` in a namespace during the block; callers wait until it listens."""
    program = [sys.executable, "-m", "duologue", "serve", f"{PROGRAMS}/greeting_app.py:make_agent"]
    variables = [f"{key}={value}" for key, value in env.items()]
    command = network.command(name, "env", *variables, *program, "--port", "8000")
    process = subprocess.Popen(
        [*command, "--token", TOKEN, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield
    finally:
        process.kill()
        print(process.communicate()[0])


def call(network: Network, **urls: str) -> list[dict]:
    """Call from namespaces at the same time, and return what each caller prints."""
    callers = [
        subprocess.Popen(
            network.command(name, sys.executable, f"{PROGRAMS}/caller.py", url, TOKEN),
            stdout=subprocess.PIPE,
            text=True,
        )
        for name, url in urls.items()
    ]
    try:
        return [json.loads(caller.communicate(timeout=60)[0]) for caller in callers]
    finally:
        for caller in callers:
            caller.kill()
            caller.communicate()


@contextmanager
def two_sites(*cloud: tuple[str, ...], home: tuple[str, ...]):
    """Build the network; rules of the routers are those of ``iptables -t nat -A``."""
    skip_without_namespaces()
    network = Network()
    with network.namespaces("server", "cloud", "internet", "home", "client", "turn"):
        for name, number in (("cloud", 10), ("home", 20), ("turn", 30)):
            outside = f"203.0.113.{number}/32"
            network.connect(
                (name, "out", outside), ("internet", f"to-{name}", f"198.51.100.{number}/32")
            )
            network.run(name, "ip", "route", "add", f"198.51.100.{number}", "dev", "out")
            network.run("internet", "ip", "route", "add", outside, "dev", f"to-{name}")
            network.route(name, f"198.51.100.{number}")
        network.connect(("cloud", "in", "10.1.0.1/24"), ("server", "net", "10.1.0.2/24"))
        network.connect(("home", "in", "192.168.7.1/24"), ("client", "net", "192.168.7.2/24"))
        network.route("server", "10.1.0.1")
        network.route("client", "192.168.7.1")
        for name in ("cloud", "internet", "home"):
            network.forward(name)
        for rule in cloud:
            network.translate("cloud", *rule)
        network.translate("home", *home)
        yield network


MASQUERADE = ("POSTROUTING", "-o", "out", "-j", "MASQUERADE")


def test_clients_call_through_routers_and_over_ipv6():
    one_to_one = (
        ("PREROUTING", "-d", "203.0.113.10", "-j", "DNAT", "--to-destination", "10.1.0.2"),
        ("POSTROUTING", "-o", "out", "-j", "SNAT", "--to-source", "203.0.113.10"),
    )
    options = ["--udp-ports", "50000-50009", "--public-address", "203.0.113.10"]
    with ExitStack() as stack:
        network = stack.enter_context(two_sites(*one_to_one, home=MASQUERADE))
        stack.enter_context(network.namespaces("neighbour"))
        network.connect(("server", "six", "2001:db8::1/64"), ("neighbour", "six", "2001:db8::2/64"))
        stack.enter_context(serving(network, "server", "--host", "::", *options))
        behind_nat, neighbour = call(
            network,
            client="http://203.0.113.10:8000",
            neighbour="http://[2001:db8::1]:8000",
        )
        assert behind_nat["heard"], behind_nat
        assert behind_nat["local"] == ["host", "192.168.7.2"]
        assert behind_nat["remote"][1] == "203.0.113.10"
        assert neighbour["heard"], neighbour
        assert (neighbour["local"][1], neighbour["remote"][1]) == ("2001:db8::2", "2001:db8::1")


@contextmanager
def coturn(network: Network, folder: Path):
    """Run a TURN server with a shared secret in its namespace."""
    if shutil.which("turnserver") is None:
        pytest.skip("coturn is not installed: apt-get install coturn")
    settings = f"""
        listening-ip=203.0.113.30
        relay-ip=203.0.113.30
        realm=example.org
        use-auth-secret
        static-auth-secret={SECRET}
        no-tls
        no-dtls
        no-cli
        log-file=stdout
        pidfile={folder}/pid
        userdb={folder}/db
    """
    file = folder / "turn.conf"
    file.write_text("\n".join(line.strip() for line in settings.splitlines()))
    process = subprocess.Popen(
        network.command("turn", "turnserver", "-c", str(file)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
    )
    try:
        # Its output waits in a buffer.
        until = time.monotonic() + 10
        while ":0D96 " not in network.run("turn", "cat", "/proc/net/udp"):
            assert time.monotonic() < until
            time.sleep(0.05)
        yield
    finally:
        process.kill()
        process.wait()


def test_a_client_behind_a_symmetric_nat_calls_over_turn(tmp_path):
    web_only = (
        *("PREROUTING", "-d", "203.0.113.10", "-p", "tcp", "--dport", "8000"),
        *("-j", "DNAT", "--to-destination", "10.1.0.2"),
    )
    symmetric = (*MASQUERADE, "--random-fully")
    with ExitStack() as stack:
        network = stack.enter_context(two_sites(web_only, symmetric, home=symmetric))
        stack.enter_context(coturn(network, tmp_path))
        options = ("--host", "10.1.0.2", "--turn", "turn:203.0.113.30:3478")
        stack.enter_context(serving(network, "server", *options, DUOLOGUE_TURN_SECRET=SECRET))
        (called,) = call(network, client="http://203.0.113.10:8000")
        assert called["heard"], called
        assert "203.0.113.30" in (called["local"][1], called["remote"][1])
