"""Networks of network namespaces: hosts, and routers that translate addresses."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

PREFIX = f"duo{os.getpid()}"


def skip_without_namespaces() -> None:
    """Skip the test where networks can't be made."""
    for program, package in (("ip", "iproute2"), ("iptables", "iptables")):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed: apt-get install {package}")
    if os.geteuid() != 0:
        pytest.skip("only root makes network namespaces")
    probe = f"{PREFIX}-probe"
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"no network namespaces here: {made.stderr.strip()}")
    subprocess.run(["ip", "netns", "del", probe], check=True)


def run(*command: str) -> str:
    """Run a command, whose error fails the test, and return its output."""
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout


class Network:
    """Namespaces by short names, joined by cables."""

    def __init__(self) -> None:
        self._cables = 0

    def command(self, name: str, *command: str) -> list[str]:
        """Return a command that runs in a namespace."""
        return ["ip", "netns", "exec", f"{PREFIX}-{name}", *command]

    def run(self, name: str, *command: str) -> str:
        """Run a command in a namespace, and return its output."""
        return run(*self.command(name, *command))

    @contextmanager
    def namespaces(self, *names: str) -> Iterator[None]:
        """Make namespaces, and remove them with all that is in them."""
        with ExitStack() as stack:
            for name in names:
                run("ip", "netns", "add", f"{PREFIX}-{name}")
                stack.callback(run, "ip", "netns", "del", f"{PREFIX}-{name}")
                self.run(name, "ip", "link", "set", "lo", "up")
            yield

    def connect(self, one: tuple[str, str, str], two: tuple[str, str, str]) -> None:
        """Join two namespaces by a cable: name, interface and address of each end."""
        self._cables += 1
        ends = [f"d{os.getpid() % 100000}.{self._cables}{side}" for side in "ab"]
        run("ip", "link", "add", ends[0], "type", "veth", "peer", "name", ends[1])
        for (name, interface, address), end in zip((one, two), ends, strict=True):
            run("ip", "link", "set", end, "netns", f"{PREFIX}-{name}", "name", interface)
            nodad = ["nodad"] if ":" in address else []
            self.run(name, "ip", "address", "add", address, "dev", interface, *nodad)
            self.run(name, "ip", "link", "set", interface, "up")

    def route(self, name: str, via: str, to: str = "default") -> None:
        """Send what is for ``to`` by a router."""
        self.run(name, "ip", "route", "add", to, "via", via)

    def forward(self, name: str) -> None:
        """Make a namespace a router."""
        self.run(name, "sysctl", "-q", "-w", "net.ipv4.ip_forward=1")

    def translate(self, name: str, chain: str, *rule: str) -> None:
        """Add a rule for translated addresses."""
        self.run(name, "iptables", "-w", "-t", "nat", "-A", chain, *rule)
