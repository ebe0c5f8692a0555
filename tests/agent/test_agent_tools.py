import asyncio

import pytest

from duologue.errors import ReplyRefusedError
from duologue.events import ErrorEvent, ToolEndEvent, ToolStartEvent
from duologue.items import ToolCallItem, ToolResultItem
from duologue.realtime.commands import RequestReply, SendToolResult
from duologue.realtime.outputs import ToolCall, ToolCallsCancelled
from duologue.testing import At, Reply, ScriptedRealtime, ToolUse, virtual_time
from fake_edge import FakeEdge, events_of, join_agent


def asks(*uses, **options):
    return Reply("", 0.0, tools=uses, **options)


def results(model):
    return [c for c in model.commands if isinstance(c, SendToolResult)]


def requests(model):
    return [c for c in model.commands if isinstance(c, RequestReply)]


def check_one_result_each(agent, model):
    """C6: every call has exactly one start, one end, one item pair and one result."""
    calls = [i.call_id for i in agent.conversation if isinstance(i, ToolCallItem)]
    answers = [i.call_id for i in agent.conversation if isinstance(i, ToolResultItem)]
    assert sorted(calls) == sorted(answers)
    assert len(set(calls)) == len(calls)
    assert sorted(r.call_id for r in results(model)) == sorted(set(answers))
    starts = [e.call_id for e in events_of(agent, ToolStartEvent)]
    ends = [e.call_id for e in events_of(agent, ToolEndEvent)]
    assert sorted(starts) == sorted(ends)
    assert not agent.llm.pending


@virtual_time
async def test_tools_run_and_the_model_speaks_once_after_all_results():
    model = ScriptedRealtime(
        [
            asks(
                ToolUse("plain", {"x": 2}),
                ToolUse("slow", {"x": 3}),
                ToolUse("broken"),
                ToolUse("late"),
                ToolUse("nowhere"),
                ToolUse("plain", {"x": "no number"}),
            ),
            Reply("Done."),
        ]
    )
    async with talking_with_tools(model) as agent:
        speech = agent.simple_response("do it")
        assert (await speech).heard_text == "Done."
        outcome = {(e.name, e.status) for e in events_of(agent, ToolEndEvent)}
        assert outcome == {
            ("plain", "done"),
            ("slow", "done"),
            ("broken", "failed"),
            ("late", "timeout"),
            ("nowhere", "failed"),
            ("plain", "failed"),
        }
        assert {r.output for r in results(model) if not r.failed} == {"4", "9"}
        assert len(requests(model)) == 2
        slow = next(e for e in events_of(agent, ToolEndEvent) if e.name == "slow")
        assert slow.seconds == pytest.approx(0.5)
        check_one_result_each(agent, model)


def talking_with_tools(model, edge=None):
    def add(agent):
        @agent.tool
        def plain(x: int) -> int:
            return 2 * x

        @agent.tool
        async def slow(x: int) -> int:
            await asyncio.sleep(0.5)
            return x * x

        @agent.tool
        def broken() -> None:
            raise ValueError("no luck")

        @agent.tool(timeout=1.0)
        async def late() -> None:
            await asyncio.sleep(60)

        @agent.tool(cancel_on_interrupt=True)
        async def stoppable() -> str:
            await asyncio.sleep(60)
            return "never"

        @agent.tool
        async def stubborn() -> str:
            while True:
                try:
                    await asyncio.sleep(0.8)
                except asyncio.CancelledError:
                    continue
                return "at last"

    return join_agent(model, edge, prepare=add)


@virtual_time
async def test_tool_runs_in_parallel_with_the_audio():
    edge = FakeEdge()
    model = ScriptedRealtime(
        [Reply("One moment.", seconds=2.0, tools=[ToolUse("slow", {"x": 2})]), Reply("Four.")]
    )
    async with talking_with_tools(model, edge) as agent:
        first = agent.simple_response("what is it")
        await asyncio.sleep(1.0)
        assert events_of(agent, ToolEndEvent)
        assert len(edge.played_audio)
        assert (await first).heard_text == "One moment."
        await asyncio.sleep(1.0)
        check_one_result_each(agent, model)
        assert [e.name for e in events_of(agent, ToolStartEvent)] == ["slow"]


@virtual_time
async def test_interruption_cancels_registered_tools_and_requests_no_reply():
    model = ScriptedRealtime([asks(ToolUse("stoppable"), ToolUse("slow", {"x": 1}))])
    async with talking_with_tools(model) as agent:
        speech = agent.simple_response("do it")
        await asyncio.sleep(0.3)
        agent.interrupt()
        assert (await speech).interrupted
        await asyncio.sleep(2.0)
        ends = {e.name: e.status for e in events_of(agent, ToolEndEvent)}
        assert ends == {"stoppable": "cancelled", "slow": "done"}
        assert len(requests(model)) == 1
        check_one_result_each(agent, model)


@virtual_time
async def test_call_and_its_cancellation_at_the_same_moment():
    model = ScriptedRealtime()
    async with talking_with_tools(model) as agent:
        model._session.receive(ToolCall("r", "c1", "slow", '{"x": 1}'))
        model._session.receive(ToolCallsCancelled(["c1", "unknown"]))
        await asyncio.sleep(0.1)
        assert [e.status for e in events_of(agent, ToolEndEvent)] == ["cancelled"]
        check_one_result_each(agent, model)


@virtual_time
async def test_call_that_arrives_twice_runs_once():
    model = ScriptedRealtime()
    async with talking_with_tools(model) as agent:
        for _ in range(2):
            model._session.receive(ToolCall("r", "c1", "plain", '{"x": 1}'))
            await asyncio.sleep(0.1)
        assert len(events_of(agent, ToolStartEvent)) == 1
        check_one_result_each(agent, model)


@virtual_time
async def test_call_of_an_interrupted_reply_gets_a_result_and_is_not_run():
    model = ScriptedRealtime([asks(ToolUse("plain", {"x": 1}), after_s=0.5)])
    async with talking_with_tools(model) as agent:
        agent.simple_response("do it")
        await asyncio.sleep(0.1)
        connection = model._session.connections.current.connection
        connection_transmit = connection.transmit
        # A model that learns of the cancellation too late, and calls the tool anyway.
        connection.transmit = lambda c: None if "Cancel" in repr(c) else connection_transmit(c)
        agent.interrupt()
        await asyncio.sleep(1.0)
        assert not events_of(agent, ToolStartEvent)
        (result,) = results(model)
        assert result.failed
        assert "interrupted" in result.output
        assert len(requests(model)) == 1
        await asyncio.sleep(6.0)
        check_one_result_each(agent, model)


@virtual_time
async def test_tool_that_ignores_cancellation_does_not_delay_the_end():
    model = ScriptedRealtime([asks(ToolUse("stubborn"))])
    loop = asyncio.get_running_loop()
    async with talking_with_tools(model) as agent:
        agent.simple_response("do it")
        await asyncio.sleep(0.5)
        started = loop.time()
    assert loop.time() - started <= 1.0
    assert [e.status for e in events_of(agent, ToolEndEvent)] == ["cancelled"]
    await asyncio.sleep(2.0)


@virtual_time
async def test_reply_after_a_tool_may_call_again_and_is_one_speech():
    model = ScriptedRealtime(
        [asks(ToolUse("plain", {"x": 1})), asks(ToolUse("plain", {"x": 2})), Reply("Both done.")]
    )
    async with talking_with_tools(model) as agent:
        speech = await agent.simple_response("do it")
        assert speech.heard_text == "Both done."
        assert agent.edge.person.is_idle
        check_one_result_each(agent, model)


@pytest.mark.parametrize("end", ["refused", "fails", "nothing"])
def test_missing_reply_after_a_tool_ends_the_speech(end):
    @virtual_time
    async def run():
        last = {"refused": Reply("", refused="quota"), "fails": Reply("", 0.0, fails="overloaded")}
        replies = [asks(ToolUse("plain", {"x": 1})), last.get(end, Reply("", 0.0))]
        model = ScriptedRealtime(replies)
        async with talking_with_tools(model) as agent:
            speech = agent.simple_response("do it")
            if end == "nothing":
                assert (await speech).played_ms == 0
            else:
                with pytest.raises(Exception, match=r"refuses|overloaded") as caught:
                    await speech
                assert (end == "refused") == isinstance(caught.value, ReplyRefusedError)
                assert events_of(agent, ErrorEvent)
            assert agent.edge.person.is_idle
            check_one_result_each(agent, model)

    run()


@virtual_time
async def test_call_at_the_wrong_moment_still_gets_a_result():
    call = ToolCall("unknown reply", "c9", "plain", '{"x": 5}')
    model = ScriptedRealtime(at=[At(0.5, call)])
    async with talking_with_tools(model) as agent:
        await asyncio.sleep(1.0)
        assert [r.output for r in results(model)] == ["10"]
        check_one_result_each(agent, model)
