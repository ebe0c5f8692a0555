import hypothesis.strategies as st
from hypothesis import given

from duologue.realtime._session.tool_calls import ToolCalls, scheduling_of
from duologue.realtime.capabilities import Capabilities
from duologue.realtime.commands import ToolSpec


def test_a_group_is_complete_when_the_reply_and_every_call_are():
    calls = ToolCalls()
    assert calls.add("r", "a", 3)
    assert calls.add("r", "b", 3)
    assert calls.pending
    assert calls.is_pending(3)
    assert not calls.is_pending(4)
    assert calls.mark_answered("a") is None
    assert calls.reply_done("r") is None
    assert calls.mark_answered("b") == 3
    assert not calls.pending
    assert not calls.is_pending(3)


def test_a_result_before_the_end_of_the_reply():
    calls = ToolCalls()
    calls.add("r", "a", 0)
    assert calls.mark_answered("a") is None
    assert calls.reply_done("r") == 0
    assert calls.reply_done("r") is None


def test_unknown_and_repeated_calls():
    calls = ToolCalls()
    assert calls.mark_answered("x") is None
    assert calls.reply_done("x") is None
    assert calls.add("r", "a", 0)
    assert not calls.add("r", "a", 0)
    calls.mark_answered("a")
    assert not calls.add("r", "a", 0)
    assert not calls.pending


def test_clear_forgets_open_calls():
    calls = ToolCalls()
    calls.add("r", "a", 0)
    calls.clear()
    assert not calls.pending
    assert calls.mark_answered("a") is None


@given(st.permutations(["r1", "r2", "a1", "b1", "a2"]))
def test_every_reply_is_complete_exactly_once_in_any_order(order):
    calls = ToolCalls()
    for reply, call in (("r1", "a1"), ("r1", "b1"), ("r2", "a2")):
        calls.add(reply, call, int(reply[1]))
    over = []
    for step in order:
        epoch = calls.reply_done(step) if step[0] == "r" else calls.mark_answered(step)
        if epoch is not None:
            over.append(epoch)
            left = order[order.index(step) + 1 :]
            assert not [s for s in left if s.endswith(str(epoch))]
    assert sorted(over) == [1, 2]
    assert not calls.pending


def test_cancelled_calls_end_their_reply():
    calls = ToolCalls()
    calls.add("r", "a", 1)
    calls.add("r", "b", 1)
    calls.add("s", "c", 2)
    assert calls.has_calls("r")
    assert calls.epoch_of("a") == 1
    assert calls.epoch_of("x") is None
    assert calls.cancel(["a", "unknown"]) == []
    assert calls.reply_done("r") is None
    assert calls.cancel(["b"]) == [1]
    assert not calls.has_calls("r")


def test_a_lost_connection_ends_every_reply():
    calls = ToolCalls()
    calls.add("r", "a", 1)
    calls.add("s", "b", 2)
    assert calls.mark_answered("a") is None
    assert calls.connection_lost() == [1]
    assert calls.mark_answered("b") == 2


def test_a_scheduling_counts_only_for_a_model_that_continues_to_talk():
    tools = [ToolSpec("look", "Look.", {}, "silent"), ToolSpec("buy", "Buy.", {})]
    able = Capabilities("p", "m", async_tools=True)
    assert scheduling_of("look", tools, able) == "silent"
    assert scheduling_of("buy", tools, able) is None
    assert scheduling_of("other", tools, able) is None
    assert scheduling_of("look", tools, Capabilities("p", "m")) is None
