"""The same over the event loop of uvloop, in real time: a turn, an interruption, a lost line."""

import asyncio

import pytest
from conformance_targets import conversation

from duologue.events import InterruptionEvent, RealtimeReconnectedEvent
from fake_edge import agent_items, events_of

uvloop = pytest.importorskip("uvloop", reason="there is no uvloop here")


async def until(happened):
    async with asyncio.timeout(15):
        while not happened():
            await asyncio.sleep(0.02)


# One for each kind of transport.
@pytest.mark.parametrize("subject", ["openai-websocket", "openai-webrtc", "nova"])
def test_it_talks_is_interrupted_and_comes_back(subject):
    async def main():
        replies = ["It is sunny today. " * 30, "I am still here.", "Good bye."]
        async with conversation(subject, replies, ["the weather", "are you there", "bye"]) as (
            agent,
            line,
            far,
        ):
            await line.speak(1.0)
            await until(lambda: len(line.at) > 10)
            await line.speak(1.0)
            await until(lambda: events_of(agent, InterruptionEvent))
            first = agent_items(agent)[0]
            assert first.state == "cut"
            assert 0 < len(first.text) < len(replies[0])
            await until(lambda: len(agent_items(agent)) == 2 and agent_items(agent)[1].text)
            await asyncio.sleep(1)
            await far.lose()
            await until(lambda: events_of(agent, RealtimeReconnectedEvent))
            await line.speak(1.0)
            await until(lambda: len(agent_items(agent)) == 3)
            assert len({id(item) for item in agent_items(agent)}) == 3

    uvloop.run(main())
