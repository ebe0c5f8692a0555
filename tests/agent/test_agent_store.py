"""A store that fails, and text that no store could write: neither ends a conversation."""

import asyncio

import pytest

from duologue import Conversation, JsonlStore, User
from duologue.events import (
    AgentTranscriptEvent,
    AgentTurnEndedEvent,
    AgentTurnStartedEvent,
    ErrorEvent,
    ToolEndEvent,
    UserTurnEndedEvent,
)
from duologue.items import AgentItem, ToolCallItem, ToolResultItem, UserItem
from duologue.testing import Reply, ScriptedRealtime, ToolUse, run_virtual, virtual_time
from fake_edge import FakeEdge, events_of, join_agent


class Store:
    """Raises ``error`` at the puts and removals that ``fails`` numbers, counted from 1."""

    def __init__(self, *fails, error=None):
        self.fails, self.calls = fails, 0
        self.error = error or OSError(28, "No space left on device")
        self.kept = {}

    def load(self):
        return ()

    def put(self, item):
        self._maybe_fail()
        self.kept[item.id] = item

    def remove(self, item_id):
        self._maybe_fail()
        self.kept.pop(item_id, None)

    def _maybe_fail(self):
        self.calls += 1
        if self.calls in self.fails or not self.fails:
            raise self.error


def everything(model):
    """A spoken turn, a tool, an interrupted reply, and a written turn: every way into the store."""

    async def conversation(store):
        edge = FakeEdge()

        def add(agent):
            @agent.tool
            async def look() -> str:
                return "ten"

        kept = Conversation(store)
        async with join_agent(model, edge, add, conversation=kept) as agent:
            await edge.speak(0.6)
            await edge.be_silent(1.2)
            await asyncio.sleep(3)
            agent.simple_response("Tell me a story.")
            await asyncio.sleep(1)
            agent.interrupt()
            last = await agent.simple_response("Well?")
            assert last.heard_text == "Done."
            assert len(events_of(agent, AgentTurnStartedEvent)) == 3
            assert len(events_of(agent, AgentTurnEndedEvent)) == 3
            assert len([e for e in events_of(agent, AgentTranscriptEvent) if e.final]) == 3
            assert len(events_of(agent, UserTurnEndedEvent)) == 1
            assert [e.status for e in events_of(agent, ToolEndEvent)] == ["done"]
        return agent

    return conversation


def script():
    return ScriptedRealtime(
        [Reply(tools=[ToolUse("look")]), "It is ten.", Reply("A long story.", 9.0), "Done."],
        transcripts=["what time is it"],
    )


@pytest.mark.parametrize("call", range(1, 10))
def test_store_that_fails_once_costs_one_error_event(call):
    agent = run_virtual(everything(script())(Store(call)))
    (error,) = events_of(agent, ErrorEvent)
    assert error.source == "store"
    assert "No space left on device" in error.message
    kinds = [type(item) for item in agent.conversation]
    assert kinds == [
        *(UserItem, ToolCallItem, ToolResultItem, AgentItem),
        *(UserItem, AgentItem, UserItem, AgentItem),
    ]


@pytest.mark.parametrize("error", [ValueError("odd"), SystemExit(3), asyncio.CancelledError()])
def test_store_that_always_fails_is_reported_now_and_then(error):
    agent = run_virtual(everything(script())(Store(error=error)))
    errors = [e for e in events_of(agent, ErrorEvent) if e.source == "store"]
    assert 1 <= len(errors) <= 3


@virtual_time
async def test_failing_store_raises_outside_of_a_conversation():
    conversation = Conversation(Store(1, 3))
    with pytest.raises(OSError, match="No space"):
        conversation.put(UserItem("a", "hello"))
    async with join_agent(ScriptedRealtime(), conversation=conversation) as agent:
        agent.conversation.put(UserItem("b", "hello"))
        agent.conversation.put(UserItem("c", "hello"))
        assert len(events_of(agent, ErrorEvent)) == 1
    conversation._store.fails = (4,)
    with pytest.raises(OSError, match="No space"):
        conversation.put(UserItem("d", "hello"))


HALF = "\ud83d"


@virtual_time
async def test_lone_surrogates_are_replaced_everywhere(tmp_path):
    store = JsonlStore(tmp_path / "talk.jsonl")
    model = ScriptedRealtime(
        [Reply(tools=[ToolUse("look")]), Reply(f"Hello {HALF}\ude00 and {HALF}.")],
        transcripts=[f"what {HALF}"],
    )
    edge = FakeEdge()

    def add(agent):
        @agent.tool(description=f"Looks {HALF}.")
        async def look() -> str:
            return f"ten {HALF}"

    async with join_agent(
        model,
        edge,
        add,
        conversation=Conversation(store),
        instructions=f"Be kind {HALF}.",
        person=User("Ann", f"ann{HALF}"),
    ) as agent:
        assert agent.instructions == "Be kind ?."
        await edge.speak(0.6)
        await edge.be_silent(1.2)
        await asyncio.sleep(4)
        await agent.say(f"Bye {HALF}\ude00 {HALF}.")
        assert not events_of(agent, ErrorEvent)
        texts = [
            item.output if isinstance(item, ToolResultItem) else getattr(item, "text", None)
            for item in agent.conversation
        ]
        assert texts == ["what ?", None, "ten ?", "Hello \U0001f600 and ?.", "Bye \U0001f600 ?."]
        kept = agent.conversation.items
    assert Conversation(store).items == kept
    assert kept[0].participant == "ann?"
    for command in model.commands:
        repr(command).encode()


def test_surrogates_of_loaded_items_are_replaced():
    class Old(Store):
        def load(self):
            return [UserItem("a", f"hello {HALF}")]

    assert [item.text for item in Conversation(Old(1))] == ["hello ?"]
