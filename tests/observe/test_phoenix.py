"""Spans read back from a real Phoenix, which takes 825 MB and so is on few machines."""

import asyncio
import os
import shutil
import socket
import subprocess
import time

import httpx
import pytest

from duologue.observe import trace
from duologue.observe.otlp import tracer_provider
from duologue.testing import Reply, ScriptedRealtime, ToolUse, run_virtual
from fake_edge import FakeEdge, join_agent

PHOENIX = shutil.which("phoenix")

pytestmark = pytest.mark.skipif(PHOENIX is None, reason="needs arize-phoenix (825 MB) on the PATH")


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@pytest.fixture
def phoenix(tmp_path):
    assert PHOENIX is not None
    port = free_port()
    own = {
        "PHOENIX_WORKING_DIR": str(tmp_path),
        "PHOENIX_HOST": "127.0.0.1",
        "PHOENIX_PORT": str(port),
        "PHOENIX_GRPC_PORT": str(free_port()),
        "PHOENIX_TELEMETRY_ENABLED": "false",
        "PHOENIX_ALLOW_EXTERNAL_RESOURCES": "false",
    }
    # It has packages of its own.
    others = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [PHOENIX, "serve"], env=others | own, stdout=log, stderr=subprocess.STDOUT
        )
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                if httpx.get(f"{url}/healthz").status_code == 200:
                    break
            except httpx.TransportError:
                assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.3)
        yield url
    finally:
        process.terminate()
        process.wait(20)


async def talk(provider):
    edge = FakeEdge()
    model = ScriptedRealtime(
        [Reply(tools=[ToolUse("look_up", {"x": 2})]), Reply("It is four.", seconds=1.0)],
        transcripts=["how much is it"],
    )

    def prepare(agent):
        trace(agent, provider, agent_name="support", capture_content=True)

        @agent.tool
        async def look_up(x: int) -> int:
            """Look up a number."""
            await asyncio.sleep(0.5)
            return x * 2

    async with join_agent(model, edge, prepare):
        await edge.be_silent(0.5)
        await edge.speak(1.0)
        await edge.be_silent(5.0)


def test_a_turn_is_read_back_with_its_parents_times_and_attributes(phoenix, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", phoenix)
    provider = tracer_provider()
    run_virtual(talk(provider))
    provider.shutdown()
    deadline = time.monotonic() + 30
    while True:
        answer = httpx.get(f"{phoenix}/v1/projects/default/spans", params={"limit": 100})
        spans = {span["name"]: span for span in answer.json().get("data", [])}
        if "invoke_agent support" in spans:
            break
        assert time.monotonic() < deadline
        time.sleep(0.3)
    turn, tool = spans["invoke_agent support"], spans["execute_tool look_up"]
    reply = spans["realtime_inference script"]
    assert (turn["span_kind"], tool["span_kind"], reply["span_kind"]) == ("AGENT", "TOOL", "LLM")
    for span in (tool, reply, spans["user_speech"]):
        assert span["parent_id"] == turn["context"]["span_id"]
        assert turn["start_time"] <= span["start_time"]
    attributes = turn["attributes"]
    assert attributes["gen_ai.agent.invocation.end_reason"] == "completed"
    assert attributes["duologue.first_played_ms"] > 0
    assert "how much is it" in attributes["gen_ai.input.messages"]
