"""The provider of the examples against its server: it converses, reconnects, and gives up."""

import asyncio
import importlib.util
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from duologue.errors import SessionError, UnsupportedError
from duologue.events import RealtimeReconnectedEvent
from duologue.realtime import ReconnectPolicy
from fake_edge import FakeEdge, events_of, join_agent

pytest.importorskip("websockets", reason="needs duologue[websocket]")

EXAMPLES = Path(__file__).parents[2] / "examples"
QUICK = ReconnectPolicy(base_s=0.01, cap_s=0.02)


def load(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


toy_provider, toy_server = load("toy_provider"), load("toy_server")


@asynccontextmanager
async def service():
    """The toy service on a free port; yields its address and its open sessions."""
    sessions = []

    async def handle(connection):
        sessions.append(toy_server.Session(connection))
        await sessions[-1].run()

    async with toy_server.serve(handle, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        yield f"ws://127.0.0.1:{port}", sessions


def model_of(url, **options):
    return toy_provider.Toy(url, **{"api_key": "toy", "reconnect": QUICK, **options})


def test_the_provider_takes_under_80_lines():
    source = (EXAMPLES / "toy_provider.py").read_text("utf-8")
    provider = source[source.index("import base64") : source.index("async def main")]
    assert len([line for line in provider.splitlines() if line.strip()]) < 80
    assert "assert_never(command)" in provider
    assert "_session" not in provider


async def test_it_replies_to_requests_and_to_turns():
    async with service() as (url, _), join_agent(model_of(url), edge := FakeEdge()) as agent:
        speech = await agent.simple_response("Is anybody there?")
        assert speech.heard_text == "Yes, I am here."
        await edge.speak(0.4)
        await edge.be_silent(0.8)
        async with asyncio.timeout(10):
            while "You spoke for" not in getattr(agent.conversation.history[-1], "text", ""):
                await edge.be_silent(0.1)
        texts = [item.text for item in agent.conversation.history]
        assert texts[-2] == "(0.4 s)"


async def test_it_reconnects_with_the_history():
    async with service() as (url, sessions), join_agent(model_of(url), FakeEdge()) as agent:
        await agent.simple_response("Is anybody there?")
        sessions[0].connection.transport.abort()
        async with asyncio.timeout(10):
            while not events_of(agent, RealtimeReconnectedEvent):
                await asyncio.sleep(0.02)
        assert events_of(agent, RealtimeReconnectedEvent)[0].outcome == "replayed"
        speech = await agent.simple_response("And now?")
        assert speech.heard_text == "Yes, I am here."
        assert len(sessions) == 2


async def test_a_wrong_key_ends_the_session_at_once():
    async with service() as (url, sessions):
        with pytest.raises(SessionError, match="the key is wrong"):
            async with join_agent(model_of(url, api_key="other"), FakeEdge()):
                pass
        assert len(sessions) == 1


async def test_what_it_does_not_claim_is_refused():
    async with service() as (url, _), join_agent(model_of(url), FakeEdge()) as agent:
        with pytest.raises(UnsupportedError, match="give Agent a tts"):
            agent.say("Hello")
        with pytest.raises(UnsupportedError, match="can't change instructions"):
            agent.llm.update_instructions("Be brief.")
        with pytest.raises(UnsupportedError, match="detects the end of a turn by itself"):
            agent.llm.end_turn()


def test_the_documentation_shows_this_provider():
    source = (EXAMPLES / "toy_provider.py").read_text("utf-8")
    page = (EXAMPLES.parent / "docs" / "realtime.md").read_text("utf-8")
    assert source[source.index("RATE = ") : source.index("\n\n\nasync def main")] in page
