import asyncio

import pytest

from duologue import Agent, Conversation
from duologue.events import ErrorEvent
from duologue.items import (
    AgentItem,
    SystemItem,
    ToolCallItem,
    ToolResultItem,
    UserItem,
)
from duologue.testing import ScriptedRealtime, virtual_time
from fake_edge import FakeEdge, events_of, join_agent, other_tasks


def test_changed_item_keeps_its_place():
    conversation = Conversation()
    conversation.put(UserItem("u", None))
    conversation.put(AgentItem("a", "hi"))
    conversation.put(UserItem("u", "hello"))
    assert [item.text for item in conversation] == ["hello", "hi"]
    assert conversation.get("u").text == "hello"
    assert conversation.get("x") is None
    conversation.remove("x")
    conversation.remove("u")
    assert len(conversation) == 1


def test_history_has_only_complete_items():
    conversation = Conversation()
    whole = [
        SystemItem("s", ""),
        UserItem("u", "hello"),
        ToolCallItem("c", "call", "look", "{}"),
        ToolResultItem("r", "call", "blue"),
        AgentItem("a", "it is blue"),
    ]
    broken = [
        UserItem("u2", None),
        AgentItem("a2", "", "speaking"),
        ToolCallItem("c2", "call 2", "look", "{}"),
    ]
    for item in (*whole, *broken):
        conversation.put(item)
    assert conversation.history == tuple(whole)


def test_reply_about_to_be_played_is_in_the_history():
    conversation = Conversation()
    conversation.put(UserItem("u", "hello"))
    conversation.put(AgentItem("a", "", "speaking", 0, "s"))
    history = conversation.history_with({"a": "Good", "b": "And more."}, ())
    assert [(item.id, item.text) for item in history] == [
        ("u", "hello"),
        ("a", "Good"),
        ("b", "And more."),
    ]
    assert [item.id for item in conversation] == ["u", "a"]


class Database:
    """An `AsyncStore`: each change takes ``takes_s``."""

    def __init__(self, *known, takes_s=0.05):
        self.known, self.takes_s = known, takes_s
        self.calls, self.error, self.under_way = [], None, 0

    async def load(self):
        await asyncio.sleep(self.takes_s)
        return self.known

    async def put(self, item):
        await self._change(("put", item.id, getattr(item, "text", None)))

    async def remove(self, item_id):
        await self._change(("remove", item_id))

    async def _change(self, change):
        self.under_way += 1
        assert self.under_way == 1, "one after the other"
        await asyncio.sleep(self.takes_s)
        self.under_way -= 1
        if self.error is not None:
            raise self.error
        self.calls.append(change)


class Remembers(ScriptedRealtime):
    def open(self, setup):
        self.setup = setup
        return super().open(setup)


@virtual_time
async def test_async_store_is_loaded_at_join_and_kept_in_order():
    store = Database(UserItem("1", "I am Robin."), AgentItem("2", "Hello Robin."))
    conversation = Conversation(store)
    assert len(conversation) == 0
    conversation.put(SystemItem("0", "Be kind."))
    model = Remembers(["You are Robin."])
    async with join_agent(model, conversation=conversation) as agent:
        assert [item.id for item in conversation] == ["1", "2", "0"]
        await agent.simple_response("Who am I?")
        await asyncio.sleep(1)
        texts = [call[2] for call in store.calls]
        assert texts[:2] == ["Be kind.", "Who am I?"]
        assert texts[-1] == "You are Robin."
        agent.say("Never mind.")
    assert [item.id for item in model.setup.history] == ["1", "2", "0"]
    assert len(other_tasks()) == 0


@virtual_time
async def test_slow_store_delays_nothing_and_gets_the_last_state_of_each_item():
    store = Database(takes_s=0.0)
    conversation = Conversation(store)
    async with join_agent(ScriptedRealtime(), conversation=conversation):
        store.takes_s = 1.0
        for number in range(100):
            conversation.put(UserItem("u", str(number)))
            conversation.put(UserItem("v", str(number)))
        conversation.put(UserItem("w", "gone"))
        conversation.remove("w")
        await asyncio.sleep(5)
        assert store.calls[-2:] == [("put", "v", "99"), ("remove", "w")]
        assert len(store.calls) <= 4


@virtual_time
async def test_item_that_was_removed_and_put_again_comes_last_in_the_store_too():
    store = Database(takes_s=0.0)
    conversation = Conversation(store)
    for name in "ab":
        conversation.put(UserItem(name, "hi"))
    conversation.remove("a")
    conversation.put(UserItem("a", "again"))
    conversation.put(UserItem("a", "and again"))
    await conversation.flush()
    assert store.calls == [("put", "b", "hi"), ("remove", "a"), ("put", "a", "and again")]


@virtual_time
async def test_failing_async_store_is_reported_and_ends_nothing():
    store = Database()
    async with join_agent(ScriptedRealtime(), conversation=Conversation(store)) as agent:
        store.error = OSError("no database")
        await agent.say("One.")
        await asyncio.sleep(1)
        store.error = None
        await agent.say("Two.")
        await asyncio.sleep(1)
        (error,) = events_of(agent, ErrorEvent)
        assert (error.source, error.message) == ("store", "OSError: no database")
        assert store.calls[-1][2] == "Two."


@virtual_time
async def test_hanging_store_ends_with_the_conversation_and_can_be_flushed_later():
    store = Database(takes_s=0.0)
    conversation = Conversation(store)
    async with join_agent(ScriptedRealtime(), conversation=conversation) as agent:
        store.takes_s = 3600.0
        await agent.say("One.")
        started = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - started <= 1.0
    (error,) = events_of(agent, ErrorEvent)
    assert "changes were not stored within 0.3 s" in error.message
    assert len(other_tasks()) == 0
    store.takes_s, store.under_way = 0.0, 0
    await conversation.flush()
    assert store.calls[-1][2] == "One."


@virtual_time
async def test_join_raises_the_load_error_of_an_async_store():
    class Lost(Database):
        async def load(self):
            raise OSError("no database")

    agent = Agent(edge=FakeEdge(), llm=ScriptedRealtime(), conversation=Conversation(Lost()))
    with pytest.raises(OSError, match="no database"):
        async with agent.join():
            pytest.fail("it started")


@pytest.mark.parametrize("error", [OSError(28, "full"), SystemExit(1)], ids=repr)
def test_async_store_that_always_fails_is_reported_now_and_then(error):
    class Full:
        def load(self):
            return ()

        def put(self, item):
            raise error

        remove = put

    @virtual_time
    async def run():
        conversation = Conversation(Full())
        async with join_agent(ScriptedRealtime(["Yes."] * 5), conversation=conversation) as agent:
            for _ in range(5):
                await agent.simple_response("Hello.")
            assert len(conversation) == 10
            assert events_of(agent, ErrorEvent)[0].source == "store"
            assert len(events_of(agent, ErrorEvent)) <= 2
        with pytest.raises(type(error)):
            conversation.put(UserItem("u", "nobody else is told"))

    run()
