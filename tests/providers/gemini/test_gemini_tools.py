"""Calls of tools by a Gemini model, and what becomes of their results."""

import pytest
from gemini_codec_harness import MODEL, OLD, TEXT_ONLY, Line, kinds, texts

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


def line_with_tools(model=MODEL, **options):
    return Line(model, tools=TOOLS, **options)


def call(line, *names, ids=None):
    calls = [
        {"id": one, "name": name, "args": {"n": index}}
        for index, (one, name) in enumerate(zip(ids or names, names, strict=True))
    ]
    return line.get(toolCall={"functionCalls": calls})


def answer(line, name, output="noon", *, call_id=None, failed=False, more=False):
    return line.send(SendToolResult(call_id or name, name, output, failed, more))


def response(messages):
    ((message,),) = [messages]
    (one,) = message["toolResponse"]["functionResponses"]
    return one


def test_parallel_calls_are_one_reply():
    line = line_with_tools()
    started, first, second, done = call(line, "time", "book")
    reply = started.reply_id
    assert first == ToolCall(reply, "time", "time", '{"n":0}')
    assert second == ToolCall(reply, "book", "book", '{"n":1}')
    assert done == ReplyDone(reply)


def test_words_before_a_call_are_of_its_reply_and_words_after_it_of_another():
    line = line_with_tools()
    started, audio = line.began()
    told = call(line, "time")
    assert told == [
        ToolCall(started.reply_id, "time", "time", '{"n":0}'),
        ReplyDone(started.reply_id),
    ]
    # The model waits for the result: words that come meanwhile are late ones.
    assert line.words(" look.") == [ReplyText(started.reply_id, audio.item_id, " look.")]
    answer(line, "time")
    begun, told = line.words("It is")
    assert told.item_id != audio.item_id
    assert begun.reply_id == told.reply_id != started.reply_id


def test_a_model_that_does_not_wait_speaks_on_in_a_reply_of_its_own():
    line = line_with_tools()
    started, audio = line.began()
    call(line, "book")
    begun, told = line.words("Meanwhile")
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
    line = line_with_tools()
    call(line, "time", ids=["c"])
    sent = answer(line, "time", output, call_id="c", failed=failed)
    assert response(sent) == {"id": "c", "name": "time", "response": told}


@pytest.mark.parametrize(
    ("name", "scheduling"),
    [("time", None), ("book", "WHEN_IDLE"), ("note", "SILENT"), ("alarm", "INTERRUPT")],
)
@pytest.mark.parametrize("model", [MODEL, OLD, TEXT_ONLY])
def test_a_result_says_when_it_is_to_be_spoken_of(model, name, scheduling):
    line = line_with_tools(model)
    call(line, name)
    sent = response(answer(line, name))
    assert sent.get("scheduling") == (None if model == TEXT_ONLY else scheduling)


def test_a_result_that_interrupts_is_nobodys_barge_in():
    line = line_with_tools()
    call(line, "alarm")
    line.completed()
    started, _ = line.began()
    answer(line, "alarm")
    assert line.interrupted() == [ReplyDone(started.reply_id, "cancelled")]
    assert line.completed(interactionStatus="IN_PROGRESS") == []
    line.began()
    # And one that does not, does not.
    call(line, "book")
    started, _ = line.began()
    answer(line, "book")
    assert line.interrupted()[0] == ReplyInterrupted(started.reply_id)


@pytest.mark.parametrize("name", ["book", "note", "alarm"])
def test_a_result_that_nobody_waits_for_any_more_is_not_spoken_of(name):
    line = line_with_tools()
    call(line, name)
    started, _ = line.began()
    sent = line.send(SendToolResult(name, name, "noon", quiet=True))
    assert response(sent)["scheduling"] == "SILENT"
    assert line.interrupted()[0] == ReplyInterrupted(started.reply_id)
    # Of a call that an older connection made: it is told, and nothing asked.
    line = line_with_tools(history=[ToolCallItem("t", "c", name, "{}")])
    assert line.send(SendToolResult("c", name, "noon", quiet=True)) == []
    (told,) = line.pending()
    assert told["clientContent"]["turnComplete"] is False


def test_parts_of_a_result_and_its_end():
    line = line_with_tools()
    call(line, "book")
    assert response(answer(line, "book", "asking", more=True)) == {
        "id": "book",
        "name": "book",
        "willContinue": True,
        "scheduling": "WHEN_IDLE",
        "response": {"output": "asking"},
    }
    assert response(answer(line, "book", "booked", more=True))["response"] == {"output": "booked"}
    # The last part comes again as the result: that only ends the call.
    assert response(answer(line, "book", "booked")) == {
        "id": "book",
        "name": "book",
        "willContinue": False,
        "scheduling": "SILENT",
        "response": {},
    }


def test_a_result_that_is_not_its_last_part_is_told():
    line = line_with_tools()
    call(line, "book")
    answer(line, "book", "asking", more=True)
    assert response(answer(line, "book", "no room", failed=True)) == {
        "id": "book",
        "name": "book",
        "willContinue": False,
        "scheduling": "WHEN_IDLE",
        "response": {"error": "no room"},
    }
    call(line, "time")
    assert answer(line, "time", "asking", more=True) == []
    assert "willContinue" not in response(answer(line, "time"))


def test_a_call_that_was_cancelled_has_no_result():
    line = line_with_tools()
    call(line, "time", "book", "alarm")
    cancelled = {"ids": ["time", "unknown", 3, "book"]}
    assert line.get(toolCallCancellation=cancelled) == [
        ToolCallsCancelled(["time", "unknown", "book"])
    ]
    assert answer(line, "time") == answer(line, "book", more=True) == answer(line, "book") == []
    assert response(answer(line, "alarm"))["id"] == "alarm"
    assert line.get(toolCallCancellation={"ids": "time"}) == []


def test_a_call_without_an_id_is_answered_without_one():
    line = line_with_tools()
    _, made, _ = line.get(toolCall={"functionCalls": [{"name": "time"}]})
    assert made.call_id
    assert made.arguments == "{}"
    sent = answer(line, "time", call_id=made.call_id)
    assert response(sent) == {"name": "time", "response": {"output": "noon"}}


def test_a_call_without_a_name_does_not_cost_the_others():
    line = line_with_tools()
    calls = [{"id": "a"}, {"id": "b", "name": "time"}, "c", {"id": "d", "name": 3}]
    told = line.get(toolCall={"functionCalls": calls})
    assert [one.call_id for one in told if isinstance(one, ToolCall)] == ["b"]
    assert line.codec.malformed == 2
    assert line.get(toolCall={"functionCalls": [{"id": "a"}]}) == []
    assert line.completed() == []


def test_calls_are_bounded():
    line = line_with_tools()
    calls = [{"id": str(index), "name": "time"} for index in range(5000)]
    told = line.get(toolCall={"functionCalls": calls})
    assert len(told) == 258
    (cancelled,) = line.get(toolCallCancellation={"ids": [str(index) for index in range(5000)]})
    assert len(cancelled.call_ids) == 256
    for index in range(6000):
        line.get(toolCall={"functionCalls": [{"name": f"t{index}"}]})
    context = line.codec._context
    assert len(context._tool_names) <= 4096
    assert len(context._local_call_ids) <= 4096
    assert len(context._cancelled_calls) <= 4096


def test_tools_that_change_change_how_they_are_answered():
    line = line_with_tools()
    call(line, "time", "book", ids=["1", "2"])
    line.send(
        UpdateSession(
            tools=[ToolSpec("time", "", SCHEMA, "interrupt"), ToolSpec("book", "", SCHEMA)]
        )
    )
    assert response(answer(line, "time", call_id="1"))["scheduling"] == "INTERRUPT"
    assert "scheduling" not in response(answer(line, "book", call_id="2"))


# Calls that an older connection made

CALLED = [
    UserItem("u", "How late is it?"),
    ToolCallItem("t", "c", "time", "{}"),
    ToolCallItem("b", "d", "book", '{"n": 1}'),
]


def test_results_of_an_older_connections_calls_are_told_as_history_and_answered():
    line = line_with_tools(history=CALLED)
    (seed,) = line.pending()
    assert texts(seed) == [("user", "How late is it?")]
    assert answer(line, "time", "x", call_id="c", more=True) == []
    assert answer(line, "time", call_id="c") == []
    (told,) = answer(line, "book", "booked", call_id="d", failed=True)
    content = told["clientContent"]
    assert content["turnComplete"] is True
    assert [turn["role"] for turn in content["turns"]] == ["model", "user"] * 2
    (first,), (second,), (third,), (fourth,) = [turn["parts"] for turn in content["turns"]]
    assert first["functionCall"] == {"id": "c", "name": "time", "args": {}}
    assert second["functionResponse"]["response"] == {"output": "noon"}
    assert third["functionCall"] == {"id": "d", "name": "book", "args": {"n": 1}}
    assert fourth["functionResponse"]["response"] == {"error": "booked"}


def test_a_model_that_takes_no_turns_gets_them_as_text():
    line = line_with_tools(TEXT_ONLY, history=CALLED[:2])
    line.pending()
    assert answer(line, "time", call_id="c") == [
        {"realtimeInput": {"text": '[Result of time: {"output":"noon"}]'}}
    ]


def test_such_a_result_interrupts_what_is_being_said_but_is_no_barge_in():
    line = line_with_tools(history=CALLED[:2])
    line.pending()
    started, _ = line.began()
    answer(line, "time", call_id="c")
    assert line.interrupted() == [ReplyDone(started.reply_id, "cancelled")]


def test_a_silent_result_of_an_older_connection_asks_for_no_reply():
    line = line_with_tools(history=[ToolCallItem("t", "c", "note", "{}")])
    line.pending()
    assert answer(line, "note", call_id="c") == []
    (told,) = line.pending()
    assert told["clientContent"]["turnComplete"] is False


def test_a_call_and_its_result_that_are_put_into_the_history():
    line = Line()
    line.send(AddItem(CALLED[1]))
    assert line.pending() == []
    line.send(AddItem(ToolResultItem("r", "c", "noon")))
    line.send(AddItem(ToolResultItem("x", "unknown", "?")))
    line.send(AddItem(AgentItem("empty", "")))
    line.send(AddItem(SystemItem("s", "")))
    (told,) = line.pending()
    assert [list(turn["parts"][0]) for turn in told["clientContent"]["turns"]] == [
        ["functionCall"], ["functionResponse"],
    ]  # fmt: skip
    assert kinds(line.send(RequestReply("q"))) == ["clientContent"]
