"""What blocks the event loop is named, in real time."""

import asyncio
import threading
import time

from duologue.events import ErrorEvent
from duologue.observe.stalls import Stall, StallWatchdog
from duologue.testing import Reply, ScriptedRealtime
from fake_edge import events_of, join_agent


def blocking_query(seconds):
    time.sleep(seconds)


async def until(condition, seconds=3.0):
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


async def test_the_function_that_blocks_is_named_in_an_event_of_the_call(caplog):
    found = []
    async with join_agent(ScriptedRealtime([Reply("Hi.")])) as agent:
        with StallWatchdog(on_stall=found.append) as watchdog:
            watchdog.watch(agent)
            await asyncio.sleep(0.1)
            blocking_query(0.4)
            await until(lambda: found)
        (stall,) = watchdog.stalls
        (event,) = events_of(agent, ErrorEvent)
    assert stall.function == "blocking_query"
    assert stall.file == "observe/test_stalls.py"
    assert 0.3 < stall.seconds < 2.0
    assert (event.source, event.code, event.message) == ("event loop", "stall", str(stall))
    assert "by blocking_query (observe/test_stalls.py:" in caplog.text


async def test_a_tool_that_blocks_is_named_not_the_library_around_it():
    async with join_agent(ScriptedRealtime()) as agent:

        @agent.events.subscribe
        async def slow_handler(event: ErrorEvent) -> None:
            blocking_query(0.3)

        with StallWatchdog() as watchdog:
            await asyncio.sleep(0.1)
            agent.events.report("test", ValueError("begin"))
            await until(lambda: watchdog.stalls)
    assert watchdog.stalls[0].function == "blocking_query"


async def test_a_loop_that_only_waits_is_not_blocked_and_nothing_is_left():
    with StallWatchdog() as watchdog:
        assert [t for t in threading.enumerate() if t.name == "stall watchdog"]
        await asyncio.sleep(0.5)
    await until(lambda: not [t for t in threading.enumerate() if t.name == "stall watchdog"])
    # Another program may have stopped this process for a moment; that names no function of ours.
    assert not [stall for stall in watchdog.stalls if "test_stalls" in stall.file]


async def test_it_costs_next_to_nothing():
    started = time.process_time()
    await asyncio.sleep(1.0)
    idle = time.process_time() - started
    with StallWatchdog():
        started = time.process_time()
        await asyncio.sleep(1.0)
        watched = time.process_time() - started
    # 0.05 % are 0.5 ms a second; the rest is room for a busy machine and the ticker.
    assert watched - idle < 0.02


def test_a_stall_without_a_place_says_so():
    assert str(Stall(0.2, "", "", 0)) == "the event loop was blocked for 200 ms by a C function"
