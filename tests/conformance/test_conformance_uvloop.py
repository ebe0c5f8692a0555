"""The same on uvloop's event loop, in real time: a turn, an interruption, a lost connection."""

import asyncio

import pytest
from conformance_targets import conversation

from duologue.events import InterruptionEvent, RealtimeReconnectedEvent
from fake_edge import agent_items, events_of

uvloop = pytest.importorskip("uvloop", reason="uvloop is not installed")


async def until(happened):
    async with asyncio.timeout(15):
        while not happened():
            await asyncio.sleep(0.02)


# One for each kind of transport.
@pytest.mark.parametrize("target", ["openai-websocket", "openai-webrtc", "nova"])
def test_agent_talks_is_interrupted_and_reconnects(target):
    async def main():
        replies = ["It is sunny today. " * 30, "I am still here.", "Good bye."]
        async with conversation(target, replies, ["the weather", "are you there", "bye"]) as (
            agent,
            person,
            far,
        ):
            await person.speak(1.0)
            await until(lambda: len(person.at) > 10)
            await person.speak(1.0)
            await until(lambda: events_of(agent, InterruptionEvent))
            first = agent_items(agent)[0]
            assert first.state == "cut"
            assert 0 < len(first.text) < len(replies[0])
            await until(lambda: len(agent_items(agent)) == 2 and agent_items(agent)[1].text)
            await asyncio.sleep(1)
            await far.drop_connection()
            await until(lambda: events_of(agent, RealtimeReconnectedEvent))
            await person.speak(1.0)
            await until(lambda: len(agent_items(agent)) == 3)
            assert len({id(item) for item in agent_items(agent)}) == 3

    uvloop.run(main())
