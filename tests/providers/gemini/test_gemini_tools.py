"""Tool calls of a Gemini model and their results."""

import pytest
from gemini_codec_harness import MODEL, OLD, TEXT_ONLY, Harness, kinds, texts

from duologue.items import AgentItem, SystemItem, ToolCallItem, ToolResultItem, UserItem
from duologue.realtime.commands import (
    AddItem,
    RequestReply,
    SendToolResult,
    ToolSpec,
    UpdateSession,
)
from duologue.realtime.outputs import (
    ReplyDone,
    ReplyInterrupted,
    ReplyText,
    ToolCall,
    ToolCallsCancelled,
)

SCHEMA = {"type": "object", "properties": {}}
TOOLS = [
    ToolSpec("time", "Tells the time", SCHEMA),
    ToolSpec("book", "Books", SCHEMA, "when_idle"),
    ToolSpec("note", "Notes", SCHEMA, "silent"),
    ToolSpec("alarm", "Rings", SCHEMA, "interrupt"),
]


def harness_with_tools(model=MODEL, **options):
    return Harness(model, tools=TOOLS, **options)


def call(harness, *names, ids=None):
    calls = [
        {"id": one, "name": name, "args": {"n": index}}
        for index, (one, name) in enumerate(zip(ids or names, names, strict=True))
    ]
    return harness.receive(toolCall={"functionCalls": calls})


def answer(harness, name, output="noon", *, call_id=None, failed=False, more=False):
    return harness.send(SendToolResult(call_id or name, name, output, failed, more))


def response(messages):
    ((message,),) = [messages]
    (one,) = message["toolResponse"]["functionResponses"]
    return one


def test_parallel_calls_are_one_reply():
    harness = harness_with_tools()
    started, first, second, done = call(harness, "time", "book")
    reply = started.reply_id
    assert first == ToolCall(reply, "time", "time", '{"n":0}')
    assert second == ToolCall(reply, "book", "book", '{"n":1}')
    assert done == ReplyDone(reply)


def test_text_before_a_call_belongs_to_its_reply_and_later_text_to_the_next():
    harness = harness_with_tools()
    started, audio = harness.begin_reply()
    told = call(harness, "time")
    assert told == [
        ToolCall(started.reply_id, "time", "time", '{"n":0}'),
        ReplyDone(started.reply_id),
    ]
    # The model waits for the result, so text in the meantime is late.
    assert harness.text(" look.") == [ReplyText(started.reply_id, audio.item_id, " look.")]
    answer(harness, "time")
    begun, told = harness.text("It is")
    assert told.item_id != audio.item_id
    assert begun.reply_id == told.reply_id != started.reply_id


def test_a_model_that_does_not_wait_continues_in_a_new_reply():
    harness = harness_with_tools()
    started, audio = harness.begin_reply()
    call(harness, "book")
    begun, told = harness.text("Meanwhile")
    assert begun.reply_id == told.reply_id != started.reply_id
    assert told.item_id != audio.item_id


@pytest.mark.parametrize(
    ("output", "failed", "told"),
    [
        ("noon", False, {"output": "noon"}),
        ('{"at": 12}', False, {"at": 12}),
        ("[1]", False, {"output": "[1]"}),
        ("{}", False, {"output": "{}"}),
        ("", False, {"output": ""}),
        ('{"at": 12}', True, {"error": '{"at": 12}'}),
    ],
)
def test_a_result_is_an_object(output, failed, told):
    harness = harness_with_tools()
    call(harness, "time", ids=["c"])
    sent = answer(harness, "time", output, call_id="c", failed=failed)
    assert response(sent) == {"id": "c", "name": "time", "response": told}


@pytest.mark.parametrize(
    ("name", "scheduling"),
    [("time", None), ("book", "WHEN_IDLE"), ("note", "SILENT"), ("alarm", "INTERRUPT")],
)
@pytest.mark.parametrize("model", [MODEL, OLD, TEXT_ONLY])
def test_a_result_has_the_scheduling_of_its_tool(model, name, scheduling):
    harness = harness_with_tools(model)
    call(harness, name)
    sent = response(answer(harness, name))
    assert sent.get("scheduling") == (None if model == TEXT_ONLY else scheduling)


def test_a_result_that_interrupts_is_no_barge_in():
    harness = harness_with_tools()
    call(harness, "alarm")
    harness.completed()
    started, _ = harness.begin_reply()
    answer(harness, "alarm")
    assert harness.interrupted() == [ReplyDone(started.reply_id, "cancelled")]
    assert harness.completed(interactionStatus="IN_PROGRESS") == []
    harness.begin_reply()
    # A result without INTERRUPT does not count as our interruption.
    call(harness, "book")
    started, _ = harness.begin_reply()
    answer(harness, "book")
    assert harness.interrupted()[0] == ReplyInterrupted(started.reply_id)


@pytest.mark.parametrize("name", ["book", "note", "alarm"])
def test_a_result_no_longer_waited_for_is_silent(name):
    harness = harness_with_tools()
    call(harness, name)
    started, _ = harness.begin_reply()
    sent = harness.send(SendToolResult(name, name, "noon", quiet=True))
    assert response(sent)["scheduling"] == "SILENT"
    assert harness.interrupted()[0] == ReplyInterrupted(started.reply_id)
    # For a call of an earlier connection it is sent without asking for a reply.
    harness = harness_with_tools(history=[ToolCallItem("t", "c", name, "{}")])
    assert harness.send(SendToolResult("c", name, "noon", quiet=True)) == []
    (told,) = harness.pending()
    assert told["clientContent"]["turnComplete"] is False


def test_partial_results_and_their_end():
    harness = harness_with_tools()
    call(harness, "book")
    assert response(answer(harness, "book", "asking", more=True)) == {
        "id": "book",
        "name": "book",
        "willContinue": True,
        "scheduling": "WHEN_IDLE",
        "response": {"output": "asking"},
    }
    assert response(answer(harness, "book", "booked", more=True))["response"] == {
        "output": "booked"
    }
    # The last part comes again as the result, which only ends the call.
    assert response(answer(harness, "book", "booked")) == {
        "id": "book",
        "name": "book",
        "willContinue": False,
        "scheduling": "SILENT",
        "response": {},
    }


def test_a_result_that_differs_from_its_last_part_is_sent():
    harness = harness_with_tools()
    call(harness, "book")
    answer(harness, "book", "asking", more=True)
    assert response(answer(harness, "book", "no room", failed=True)) == {
        "id": "book",
        "name": "book",
        "willContinue": False,
        "scheduling": "WHEN_IDLE",
        "response": {"error": "no room"},
    }
    call(harness, "time")
    assert answer(harness, "time", "asking", more=True) == []
    assert "willContinue" not in response(answer(harness, "time"))


def test_a_cancelled_call_gets_no_result():
    harness = harness_with_tools()
    call(harness, "time", "book", "alarm")
    cancelled = {"ids": ["time", "unknown", 3, "book"]}
    assert harness.receive(toolCallCancellation=cancelled) == [
        ToolCallsCancelled(["time", "unknown", "book"])
    ]
    assert (
        answer(harness, "time")
        == answer(harness, "book", more=True)
        == answer(harness, "book")
        == []
    )
    assert response(answer(harness, "alarm"))["id"] == "alarm"
    assert harness.receive(toolCallCancellation={"ids": "time"}) == []


def test_a_call_without_an_id_gets_a_result_without_one():
    harness = harness_with_tools()
    _, made, _ = harness.receive(toolCall={"functionCalls": [{"name": "time"}]})
    assert made.call_id
    assert made.arguments == "{}"
    sent = answer(harness, "time", call_id=made.call_id)
    assert response(sent) == {"name": "time", "response": {"output": "noon"}}


def test_a_call_without_a_name_does_not_cost_the_others():
    harness = harness_with_tools()
    calls = [{"id": "a"}, {"id": "b", "name": "time"}, "c", {"id": "d", "name": 3}]
    told = harness.receive(toolCall={"functionCalls": calls})
    assert [one.call_id for one in told if isinstance(one, ToolCall)] == ["b"]
    assert harness.codec.malformed == 2
    assert harness.receive(toolCall={"functionCalls": [{"id": "a"}]}) == []
    assert harness.completed() == []


def test_calls_are_bounded():
    harness = harness_with_tools()
    calls = [{"id": str(index), "name": "time"} for index in range(5000)]
    told = harness.receive(toolCall={"functionCalls": calls})
    assert len(told) == 258
    (cancelled,) = harness.receive(
        toolCallCancellation={"ids": [str(index) for index in range(5000)]}
    )
    assert len(cancelled.call_ids) == 256
    for index in range(6000):
        harness.receive(toolCall={"functionCalls": [{"name": f"t{index}"}]})
    context = harness.codec._context
    assert len(context._tool_names) <= 4096
    assert len(context._local_call_ids) <= 4096
    assert len(context._cancelled_calls) <= 4096


def test_new_tools_change_the_scheduling_of_results():
    harness = harness_with_tools()
    call(harness, "time", "book", ids=["1", "2"])
    harness.send(
        UpdateSession(
            tools=[ToolSpec("time", "", SCHEMA, "interrupt"), ToolSpec("book", "", SCHEMA)]
        )
    )
    assert response(answer(harness, "time", call_id="1"))["scheduling"] == "INTERRUPT"
    assert "scheduling" not in response(answer(harness, "book", call_id="2"))


# Calls of an earlier connection

CALLED = [
    UserItem("u", "How late is it?"),
    ToolCallItem("t", "c", "time", "{}"),
    ToolCallItem("b", "d", "book", '{"n": 1}'),
]


def test_results_for_an_earlier_connections_calls_are_sent_as_history():
    harness = harness_with_tools(history=CALLED)
    (seed,) = harness.pending()
    assert texts(seed) == [("user", "How late is it?")]
    assert answer(harness, "time", "x", call_id="c", more=True) == []
    assert answer(harness, "time", call_id="c") == []
    (told,) = answer(harness, "book", "booked", call_id="d", failed=True)
    content = told["clientContent"]
    assert content["turnComplete"] is True
    assert [turn["role"] for turn in content["turns"]] == ["model", "user"] * 2
    (first,), (second,), (third,), (fourth,) = [turn["parts"] for turn in content["turns"]]
    assert first["functionCall"] == {"id": "c", "name": "time", "args": {}}
    assert second["functionResponse"]["response"] == {"output": "noon"}
    assert third["functionCall"] == {"id": "d", "name": "book", "args": {"n": 1}}
    assert fourth["functionResponse"]["response"] == {"error": "booked"}


def test_a_model_without_turns_gets_them_as_text():
    harness = harness_with_tools(TEXT_ONLY, history=CALLED[:2])
    harness.pending()
    assert answer(harness, "time", call_id="c") == [
        {"realtimeInput": {"text": '[Result of time: {"output":"noon"}]'}}
    ]


def test_such_a_result_interrupts_the_reply_but_is_no_barge_in():
    harness = harness_with_tools(history=CALLED[:2])
    harness.pending()
    started, _ = harness.begin_reply()
    answer(harness, "time", call_id="c")
    assert harness.interrupted() == [ReplyDone(started.reply_id, "cancelled")]


def test_a_silent_result_for_an_earlier_connection_requests_no_reply():
    harness = harness_with_tools(history=[ToolCallItem("t", "c", "note", "{}")])
    harness.pending()
    assert answer(harness, "note", call_id="c") == []
    (told,) = harness.pending()
    assert told["clientContent"]["turnComplete"] is False


def test_a_call_and_its_result_added_to_the_history():
    harness = Harness()
    harness.send(AddItem(CALLED[1]))
    assert harness.pending() == []
    harness.send(AddItem(ToolResultItem("r", "c", "noon")))
    harness.send(AddItem(ToolResultItem("x", "unknown", "?")))
    harness.send(AddItem(AgentItem("empty", "")))
    harness.send(AddItem(SystemItem("s", "")))
    (told,) = harness.pending()
    assert [list(turn["parts"][0]) for turn in told["clientContent"]["turns"]] == [
        ["functionCall"], ["functionResponse"],
    ]  # fmt: skip
    assert kinds(harness.send(RequestReply("q"))) == ["clientContent"]
