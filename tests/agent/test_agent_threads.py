"""An agent called from threads: by plain tools, plain handlers and other threads."""

import asyncio
import threading

import pytest

from duologue import SessionClosedError
from duologue.events import AgentTurnEndedEvent, UserTranscriptEvent
from duologue.testing import Reply, ScriptedRealtime, ToolUse, virtual_time
from fake_edge import agent_items, join_agent


@virtual_time
async def test_plain_tool_and_plain_handler_may_call_say():
    threads = set()

    def add(agent):
        @agent.tool
        def book() -> str:
            threads.add(threading.current_thread())
            agent.say("One moment.")
            return "booked"

        @agent.events.subscribe
        def ended(event: AgentTurnEndedEvent) -> None:
            threads.add(threading.current_thread())
            if len(agent_items(agent)) == 2:
                agent.say("Anything else?")

    model = ScriptedRealtime([Reply("", tools=[ToolUse("book")]), "It is booked."])
    async with join_agent(model, prepare=add) as agent:
        await agent.simple_response("Book it.")
        await asyncio.sleep(5)
        texts = [item.text for item in agent_items(agent)]
        assert sorted(texts) == ["Anything else?", "It is booked.", "One moment."]
    assert threading.main_thread() not in threads


async def test_every_plain_method_works_from_another_thread():
    async with join_agent(ScriptedRealtime()) as agent:
        epoch = await asyncio.to_thread(agent.interrupt)
        assert epoch == agent.llm.epoch == 1
        await asyncio.to_thread(agent.update_instructions, "Be brief.")
        await asyncio.to_thread(agent.update_tools)
        speech = await asyncio.to_thread(agent.simple_response, "Hello?")
        assert (await speech).state == "heard"
        with pytest.raises(Exception, match="say needs some text"):
            await asyncio.to_thread(agent.say, " ")
        called = asyncio.Event()
        await asyncio.to_thread(agent.call_soon_threadsafe, called.set)
        await asyncio.wait_for(called.wait(), 5)
    with pytest.raises(SessionClosedError):
        await asyncio.to_thread(agent.say, "Too late.")
    with pytest.raises(SessionClosedError):
        agent.call_soon_threadsafe(called.set)


async def test_blocked_event_loop_raises_in_the_calling_thread(monkeypatch):
    monkeypatch.setattr("duologue.agent.agent.THREAD_TIMEOUT_S", 0.05)
    async with join_agent(ScriptedRealtime()) as agent:
        errors = []

        def say():
            try:
                agent.say("Hello.")
            except RuntimeError as error:
                errors.append(str(error))

        thread = threading.Thread(target=say)
        thread.start()
        thread.join()  # Like a program that blocks its event loop.
        assert "call it by agent.call_soon_threadsafe(agent.say, ...)" in errors[0]
        await asyncio.sleep(0.05)
        assert agent_items(agent) == []


def test_plain_handler_may_reply_to_an_event():
    @virtual_time
    async def run():
        model = ScriptedRealtime()

        def add(agent):
            @agent.events.subscribe
            def heard(event: UserTranscriptEvent) -> None:
                agent.interrupt()

        async with join_agent(model, prepare=add) as agent:
            agent.events.emit(UserTranscriptEvent("stop", True, "person"))
            await asyncio.sleep(1)
            assert agent.llm.epoch == 1

    run()
