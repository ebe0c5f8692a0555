"""Every `Realtime` with a wire: its calls are recorded, and replayed without a difference.

benchmarks/replays.py does so with all conversations of this folder.
"""

import asyncio

import pytest
from conformance_targets import TARGETS, conversation

from duologue.observe import Recorder
from duologue.testing import Reply, ToolUse, replay, run_virtual

WITHOUT_WIRE = ("scripted", "local")


def register(agent):
    @agent.tool
    async def weather(city: str) -> str:
        """The weather."""
        await asyncio.sleep(0.3)
        return f"sunny in {city}"


async def talk(target, recorder):
    """Hold a conversation with turns, words, a barge-in, a tool and a lost connection."""
    replies = [
        "That is a long story, which begins a very long time ago, in a country far away.",
        Reply(tools=[ToolUse("weather", {"city": "Rome"})]),
        "It is sunny in Rome.",
        "It is four.",
    ]
    tools = {} if target.startswith("qwen") else {"prepare": register}
    async with conversation(
        target,
        replies[:1] + replies[3:] if target.startswith("qwen") else replies,
        ["tell me a story", "how late is it"],
        agent={"recorder": recorder, **tools},
    ) as (agent, person, far):
        await person.speak(0.8)
        await asyncio.sleep(1.6)
        agent.interrupt()
        await asyncio.sleep(0.5)
        if not target.startswith("qwen"):
            await agent.simple_response("How is it in Rome?")
        if far.can_lose_connection:
            await far.drop_connection()
            await asyncio.sleep(0.1)
        await person.speak(0.8)
        await asyncio.sleep(3)


@pytest.mark.parametrize("target", [name for name in TARGETS if name not in WITHOUT_WIRE])
def test_replay_of_a_call_sends_the_same(target, tmp_path):
    recorder = Recorder(tmp_path, name="call", wire=True)
    run_virtual(talk(target, recorder), grace=0.0)
    assert recorder.failure is None
    found = replay(recorder.path)
    assert not found.differences, str(found)
    kinds = {str(sent.message)[:400] for sent in found.sent}
    assert found.compared > 200
    assert len(kinds) > 3


def test_pipeline_without_a_wire_is_not_replayed_and_says_so(tmp_path):
    recorder = Recorder(tmp_path, name="call", wire=True)
    run_virtual(talk("local", recorder), grace=0.0)
    found = replay(recorder.path)
    assert (found.compared, len(found.skipped)) == (0, 1)
    assert "pipeline" in found.skipped[0]
