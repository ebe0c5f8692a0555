"""Metrics of whole conversations, read as a scrape reads them."""

import asyncio
import json
import re
import shutil
import socket
import subprocess
from contextlib import closing, suppress
from pathlib import Path

import httpx
import pytest
import uvicorn
from prometheus_client.parser import text_string_to_metric_families

from duologue import ReconnectPolicy
from duologue.errors import ErrorKind, SessionError
from duologue.events import ErrorEvent
from duologue.hosting import create_app
from duologue.observe import Metrics
from duologue.observe.stalls import Stall
from duologue.realtime.outputs import Usage
from duologue.server import ServerConfig
from duologue.testing import At, Reply, ScriptedRealtime, ToolUse, virtual_time
from fake_edge import FakeEdge, join_agent

TOKEN = "correct-horse-battery"  # noqa: S105


def values(metrics):
    """Return all samples of a scrape by name and labels."""
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
    }


def watched(metrics, *tools):
    def prepare(agent):
        metrics.watch(agent, transport="webrtc")
        for tool in tools:
            agent.tool(tool)

    return prepare


@virtual_time
async def test_a_conversation_is_counted():
    metrics = Metrics()
    edge = FakeEdge()

    async def look_up() -> str:
        """Look it up."""
        await asyncio.sleep(0.4)
        return "4"

    model = ScriptedRealtime(
        [
            Reply(tools=[ToolUse("look_up")]),
            Reply("It is four and more than that", seconds=5.0),
            Reply("Sorry."),
        ],
        transcripts=["how much", "stop that now"],
        at=[At(2.0, Usage({"audio": 30, "cached": 4}, {"text": 9}))],
    )
    async with join_agent(model, edge, watched(metrics, look_up)):
        assert values(metrics)[("duologue_sessions_active", ("transport", "webrtc"))] == 1
        await edge.be_silent(0.5)
        await edge.speak(1.0)
        await edge.be_silent(3.0)
        await edge.speak(1.5)
        await edge.be_silent(3.0)
    found = values(metrics)
    scripted = ("provider", "scripted")
    assert found[("duologue_sessions_active", ("transport", "webrtc"))] == 0
    assert found[("duologue_sessions_total", ("outcome", "ok"), ("transport", "webrtc"))] == 1
    assert found[("duologue_session_duration_seconds_sum", ("transport", "webrtc"))] > 8.9
    assert found[("duologue_response_latency_seconds_count", scripted)] == 2
    assert found[("duologue_response_part_seconds_count", ("part", "endpoint"), scripted)] == 2
    assert found[("duologue_interruptions_total", scripted)] == 1
    assert 0 < found[("duologue_interruption_stop_seconds_sum", scripted)] < 1.5
    assert found[("duologue_tool_calls_total", ("outcome", "done"), ("tool", "look_up"))] == 1
    assert found[("duologue_tool_duration_seconds_sum", ("tool", "look_up"))] == pytest.approx(
        0.4, abs=0.01
    )
    tokens = ("duologue_tokens_total", ("direction", "input"), ("kind", "audio"), scripted)
    assert found[tokens] == 30
    assert not [name for name in found if ("kind", "cached") in name]
    assert found[("duologue_event_loop_lag_seconds_count",)] > 300
    assert found[("duologue_audio_starved_seconds_total",)] >= 0


@virtual_time
async def test_reconnects_and_errors_are_counted():
    metrics = Metrics()
    lost = SessionError("the line is gone", kind=ErrorKind.RETRY)
    model = ScriptedRealtime(at=[At(1.0, lost)], reconnect=ReconnectPolicy(base_s=0.2))
    async with join_agent(model, prepare=watched(metrics)) as agent:
        agent.events.report("tool look_up", ValueError("oh"))
        await asyncio.sleep(1.9)
    found = values(metrics)
    replayed = ("duologue_reconnects_total", ("outcome", "replayed"), ("provider", "scripted"))
    assert found[replayed] == 1
    assert found[("duologue_errors_total", ("source", "tool"))] == 1


@virtual_time
async def test_a_failed_session_is_told():
    metrics = Metrics()
    dead = SessionError("wrong key", kind=ErrorKind.FATAL)
    model = ScriptedRealtime(at=[At(1.0, dead)], reconnect=ReconnectPolicy())
    with pytest.raises(SessionError, match="wrong key"):
        async with join_agent(model, prepare=watched(metrics)) as agent:
            await agent.finish()
    found = values(metrics)
    assert found[("duologue_sessions_total", ("outcome", "failed"), ("transport", "webrtc"))] == 1
    assert found[("duologue_sessions_active", ("transport", "webrtc"))] == 0


@virtual_time
async def test_a_call_whose_person_was_lost_is_told_from_one_that_ended():
    metrics = Metrics()
    with pytest.raises(OSError, match="broken"):
        async with join_agent(
            ScriptedRealtime(), FakeEdge(fails_at=1.0), watched(metrics)
        ) as agent:
            await agent.finish()
    found = values(metrics)
    assert found[("duologue_sessions_total", ("outcome", "lost"), ("transport", "webrtc"))] == 1


async def test_refused_calls_are_counted_by_their_reason():
    metrics = Metrics()
    config = ServerConfig(max_sessions=3)
    app = create_app(lambda edge: None, config, metrics=metrics)
    app.calls.refused, app.calls.refused_late = 5, 2
    assert app.api.metrics is not None
    app.api.metrics()
    found = values(metrics)
    assert found[("duologue_sessions_limit",)] == 3
    assert found[("duologue_refused_calls_total", ("reason", "full"))] == 3
    assert found[("duologue_refused_calls_total", ("reason", "late"))] == 2


@virtual_time
async def test_what_blocked_the_event_loop_is_counted_once_by_its_name():
    metrics = Metrics()
    async with join_agent(ScriptedRealtime(), prepare=watched(metrics)) as agent:
        agent.events.emit(ErrorEvent("event loop", "blocked", "stall"))
        metrics.count_stall(Stall(0.2, "blocking_query", "app.py", 7))
    for number in range(100):
        metrics.count_stall(Stall(0.2, f"function {number}", "app.py", 7))
    metrics.count_stall(Stall(0.2, "", "", 0))
    found = values(metrics)
    stalls = "duologue_event_loop_stalls_total"
    assert found[(stalls, ("function", "blocking_query"))] == 1
    assert found[(stalls, ("function", "other"))] == 52
    assert len([name for name in found if name[0] == stalls]) == 51
    assert not [name for name in found if name[0] == "duologue_errors_total"]


def test_two_instances_do_not_share_and_draining_is_told():
    one, other = Metrics(), Metrics()
    one.set_draining(True)
    assert values(one)[("duologue_draining",)] == 1
    assert values(other)[("duologue_draining",)] == 0


def test_the_dashboard_asks_for_metrics_that_exist():
    dashboard = json.loads((Path(__file__).parents[2] / "docs/observe/grafana.json").read_text())
    known = set()
    for line in Metrics().render().decode().splitlines():
        if line.startswith("# TYPE"):
            name, kind = line.split()[2:]
            known |= {name, f"{name}_bucket"} if kind == "histogram" else {name}
    asked = {
        name
        for panel in dashboard["panels"]
        for target in panel["targets"]
        for name in re.findall(r"duologue_\w+", target["expr"])
    }
    assert len(asked) >= 12
    assert asked <= known


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs Debian's prometheus")
@virtual_time
async def test_promtool_accepts_the_names():
    metrics = Metrics()
    async with join_agent(ScriptedRealtime([Reply("Hello.")]), prepare=watched(metrics)) as agent:
        await agent.simple_response("hi")
    check = subprocess.run(
        ["promtool", "check", "metrics"], input=metrics.render(), capture_output=True, check=False
    )
    assert (check.returncode, check.stdout + check.stderr) == (0, b"")


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="needs Debian's prometheus")
async def test_a_real_prometheus_scrapes_a_server(tmp_path):
    metrics = Metrics()
    app = create_app(lambda edge: None, ServerConfig(token=TOKEN), metrics=metrics)
    with socket.create_server(("127.0.0.1", 0)) as listener, closing(free_port()) as free:
        port, own = listener.getsockname()[1], free.getsockname()[1]
        (tmp_path / "p.yml").write_text(
            "global: {scrape_interval: 1s}\nscrape_configs:\n- job_name: duologue\n"
            f"  authorization: {{credentials: {TOKEN}}}\n"
            f"  static_configs: [{{targets: ['localhost:{port}']}}]\n"
        )
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        free.close()
        process = await asyncio.create_subprocess_exec(
            "prometheus",
            f"--config.file={tmp_path}/p.yml",
            f"--storage.tsdb.path={tmp_path}/db",
            f"--web.listen-address=127.0.0.1:{own}",
            "--log.level=error",
        )
        try:
            async with asyncio.timeout(30), httpx.AsyncClient() as client:
                found: list = []
                while not found:
                    await asyncio.sleep(0.3)
                    with suppress(httpx.TransportError):
                        answer = await client.get(
                            f"http://127.0.0.1:{own}/api/v1/query?query=duologue_draining"
                        )
                        found = answer.json().get("data", {}).get("result", [])
        finally:
            process.terminate()
            await process.wait()
            server.should_exit = True
            await serving
    assert found[0]["value"][1] == "0"


def free_port():
    return socket.create_server(("127.0.0.1", 0))
