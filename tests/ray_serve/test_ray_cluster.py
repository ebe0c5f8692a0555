"""Calls on a local cluster of two nodes: spread, scaled, killed and deployed over."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import websockets
from click.testing import CliRunner
from server_fixture import until

pytest.importorskip("ray.serve", reason="needs duologue[ray]")

from duologue.cli import main
from duologue.ray import DeployError, connect, deploy
from duologue.rtc.config import PeerError
from duologue.testing.caller import Caller

pytestmark = pytest.mark.ray

ROOT = Path(__file__).parents[2]
SCALING = {
    "max_sessions": 6,
    "spare_sessions": 1,
    "min_replicas": 2,
    "max_replicas": 3,
    "look_back_s": 1,
    "upscale_delay_s": 0,
    "downscale_delay_s": 1,
}
ARGS = {
    "make_agent": "ray_agents:make_agent",
    "config": {"max_tick_delay_ms": None},
    "scaling": SCALING,
}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@dataclass
class Served:
    """A cluster with Serve, and the version that runs."""

    dashboard: str
    api: Any
    port: int

    def replicas(self, state: str = "RUNNING") -> int:
        return sum(
            replica["state"] == state
            for app in self.api.get_serve_details()["applications"].values()
            for deployment in app["deployments"].values()
            for replica in deployment["replicas"]
        )


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> Iterator[Served]:
    import ray
    from ray import serve
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as environment:
        paths = [str(ROOT / "src"), str(Path(__file__).parent)]
        environment.setenv("PYTHONPATH", os.pathsep.join(paths))
        environment.setenv("RAY_USAGE_STATS_ENABLED", "0")
        folder = tmp_path_factory.mktemp("store")
        environment.setenv("RAY_TEST_STORE", str(folder))
        environment.setenv("DUOLOGUE_STORE", f"sqlite:{folder / 'calls.db'}")
        node = {"num_cpus": 4, "object_store_memory": 80 * 2**20}
        port = free_port()
        head = {**node, "include_dashboard": True, "dashboard_port": port}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        try:
            cluster.add_node(**node)
            ray.init(cluster.address, log_to_driver=False)
            dashboard = f"http://127.0.0.1:{port}"
            running = Served(dashboard, connect(dashboard), free_port())
            deploy(running.api, ARGS, port=running.port)
            yield running
        finally:
            serve.shutdown()
            ray.shutdown()
            cluster.shutdown()


class Page:
    """The signalling of a page over a real WebSocket, with the ticket of its call."""

    def __init__(self, socket: websockets.ClientConnection) -> None:
        self._socket = socket
        self.ticket = ""
        self.resumed = False

    async def receive(self):
        try:
            message = json.loads(await self._socket.recv())
        except websockets.ConnectionClosed:
            return None
        if message["type"] == "config":
            self.ticket, self.resumed = message["ticket"], message["resumed"]
            await self.send({"type": "ticket"})
        return message

    async def send(self, message) -> None:
        with suppress(websockets.ConnectionClosed):
            await self._socket.send(json.dumps(message))


@dataclass(frozen=True)
class Place:
    process: int
    node: str
    application: str
    questions: int


@dataclass
class Call:
    page: Page
    caller: Caller

    async def ask(self) -> Place:
        """Ask the agent where it is."""
        self.caller.events.clear()
        await self.caller.send_text("Where are you?")
        wanted = r"PROCESS (\d+) NODE (\w+) OF ([\w-]+) AFTER (\d+) QUESTIONS"
        with suppress(TimeoutError):
            async with asyncio.timeout(10):
                while not self.caller.ended.is_set():
                    for event in self.caller.events:
                        found = re.search(wanted, str(event.get("text")))
                        if found is not None:
                            return Place(int(found[1]), found[2], found[3], int(found[4]))
                    await asyncio.sleep(0.02)
        raise AssertionError(f"no answer: {self.caller.errors}, {self.caller.events}")

    async def hang_up(self) -> None:
        """End the call, and wait until the server has ended it."""
        await self.caller.hang_up()
        async with asyncio.timeout(5):
            while await self.page.receive() is not None:
                pass


@asynccontextmanager
async def begin(port: int, ticket: str = "") -> AsyncIterator[Call]:
    async with websockets.connect(f"ws://127.0.0.1:{port}/call") as socket:
        await socket.send(json.dumps({"type": "hello", "ticket": ticket}))
        page = Page(socket)
        async with Caller(page, on_audio=lambda frame: None) as caller:
            # A text that comes before the model listens would be lost.
            await until(lambda: any(map(_is_connected, caller.events)), 10)
            yield Call(page, caller)


def _is_connected(event) -> bool:
    return event["type"] == "RealtimeConnectedEvent"


async def ask_all(calls: list[Call]) -> list[Place]:
    return list(await asyncio.gather(*(call.ask() for call in calls)))


async def begin_again(stack: AsyncExitStack, port: int, ticket: str = "") -> Call:
    """Call as a page does: again after each refusal."""
    async with asyncio.timeout(20):
        while True:
            with suppress(PeerError, OSError, websockets.InvalidHandshake):
                return await stack.enter_async_context(begin(port, ticket))
            await asyncio.sleep(0.1)


async def test_calls_spread_scale_up_and_down_and_a_full_cluster_says_so(served):
    async with AsyncExitStack() as stack:
        calls = [await stack.enter_async_context(begin(served.port)) for _ in range(12)]
        places = await ask_all(calls)
        assert len({place.node for place in places}) == 2
        assert min(Counter(place.process for place in places).values()) >= 3

        await until(lambda: served.replicas() == 3, 20)
        calls += [await stack.enter_async_context(begin(served.port)) for _ in range(6)]
        places = await ask_all(calls)
        processes = Counter(place.process for place in places)
        assert sorted(processes.values()) == [6, 6, 6]

        with pytest.raises(PeerError, match=r"All places are taken .*: try again in a minute"):
            async with begin(served.port):
                pass

        staying = []
        for process in processes:
            own = [c for c, place in zip(calls, places, strict=True) if place.process == process]
            staying += own[:2]
        for call in calls:
            if call not in staying:
                await call.hang_up()
        await until(lambda: served.replicas("STOPPING") == 1, 20)
        after = Counter(place.process for place in await ask_all(staying))
        assert after == dict.fromkeys(processes, 2)
    await until(lambda: served.replicas("STOPPING") == 0, 20)


async def test_a_call_goes_on_in_another_replica_when_its_own_is_killed(served):
    async with AsyncExitStack() as stack:
        calls = [await stack.enter_async_context(begin(served.port)) for _ in range(6)]
        places = await ask_all(calls)
        by_process: dict[int, list[Call]] = {}
        for call, place in zip(calls, places, strict=True):
            by_process.setdefault(place.process, []).append(call)
        (killed, [moving, *lost]), (other, [kept, *leaving]) = by_process.items()
        assert len(lost) == len(leaving) == 2

        # Its page calls again though the call is there, and reaches the emptier replica.
        for call in leaving:
            await call.hang_up()
        moved = await stack.enter_async_context(begin(served.port, moving.page.ticket))
        assert moved.page.resumed
        assert (await moved.ask()).process == other
        await asyncio.wait_for(moving.caller.ended.wait(), 5)

        await lost[0].ask()
        os.kill(killed, signal.SIGKILL)
        for call in lost:
            await asyncio.wait_for(call.caller.ended.wait(), 10)
        assert {place.process for place in await ask_all([kept, moved])} == {other}
        again = [await begin_again(stack, served.port, call.page.ticket) for call in lost]
        assert all(call.page.resumed for call in again)
        after = await ask_all(again)
        assert [place.questions for place in after] == [2, 1]
        assert killed not in {place.process for place in after}


async def test_a_deploy_under_calls_cuts_none(served):
    async with AsyncExitStack() as stack:
        calls = [await stack.enter_async_context(begin(served.port)) for _ in range(6)]
        before = await ask_all(calls)
        old = before[0].application

        # One that can't start changes nothing.
        with pytest.raises(DeployError, match=r"did not start: .*ray_agents:missing"):
            await asyncio.to_thread(
                deploy, served.api, {**ARGS, "make_agent": "ray_agents:missing"}, port=served.port
            )
        assert await ask_all(calls) == before

        command = ["ray", "deploy", "ray_agents:make_agent", "--address", served.dashboard]
        command += ["--max-tick-delay", "0", "--max-replicas", "1"]
        deploying = asyncio.create_task(asyncio.to_thread(CliRunner().invoke, main, command))
        new = await begin_again(stack, served.port)
        while (await new.ask()).application == old:
            await new.hang_up()
            new = await begin_again(stack, served.port)
        assert await ask_all(calls) == before
        for call in calls:
            await call.hang_up()
        result = await asyncio.wait_for(deploying, 30)
        assert result.exit_code == 0, result.output
        name = (await new.ask()).application
        assert result.output.splitlines()[:2] == [f"{name} starts", f"{name} takes the calls at /"]
        assert list(served.api.get_serve_details()["applications"]) == [name]
