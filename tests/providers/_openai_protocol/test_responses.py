"""Responses of an OpenAI server, from their beginning to their end."""

import pytest

from duologue.errors import ErrorKind
from duologue.providers._openai_protocol.responses import Responses
from duologue.realtime.commands import Say
from duologue.realtime.outputs import (
    ProviderError,
    ReplyDone,
    ReplyStarted,
    ReplyText,
    SayMismatch,
    ToolCall,
    Usage,
)

CALL = {"id": "i", "type": "function_call", "name": "time", "call_id": "c", "arguments": "{}"}


def responses(*reply_ids, **options):
    found = Responses(**options)
    for reply_id in reply_ids:
        assert found.response_created(reply_id, None) == [ReplyStarted(reply_id)]
    return found


def scripted(text="Good morning."):
    found = Responses()
    found.expect_verbatim(Say("q", text))
    assert found.response_created("r", "q") == [ReplyStarted("r", "q")]
    return found


def add_item(found, item_id="i", reply_id="r", **fields):
    found.item_added({"response_id": reply_id, "item": {"id": item_id, **fields}})


def say(found, text, item_id="i", reply_id="r"):
    return found.transcript_delta({"response_id": reply_id, "item_id": item_id, "delta": text})


def end(found, status="completed", reply_id="r", **fields):
    return found.response_done({"response": {"id": reply_id, "status": status, **fields}})


# In progress


def test_the_newest_response_that_is_not_cancelled_is_active():
    found = responses("a", "b")
    assert found.active_reply == "b"
    found.mark_cancelled("b")
    found.mark_cancelled("unknown")
    assert found.active_reply == "a"
    end(found, reply_id="a")
    assert found.active_reply is None
    assert "b" in found
    assert found.get("a") is None


def test_text_is_reported_as_it_comes_and_what_was_missing_at_its_end():
    found = responses("r")
    assert say(found, "How") == [ReplyText("r", "i", "How")]

    def done(text, reply_id="r"):
        event = {"response_id": reply_id, "item_id": "i", "text": text}
        return found.transcript_done(event, "text")

    assert done("How late?") == [ReplyText("r", "i", " late?")]
    assert done("How late?") == []
    assert done("Something else") == []
    assert done("How late?", "unknown") == []


def test_events_of_unknown_responses_change_nothing():
    found = responses()
    add_item(found)
    assert say(found, "Hm") == [ReplyText("r", "i", "Hm")]
    assert found.item_done({"response_id": "r", "item": CALL}) == []
    assert found.arguments_done({"response_id": "r", "item_id": "i", "arguments": "{}"}) == []
    assert end(found) is None
    assert found.response_done({"response": {}}) is None


# Tool calls


def test_a_call_is_reported_once_when_its_item_is_done():
    found = responses("r")
    add_item(found, type="function_call", name="time", call_id="c")
    arguments = {"response_id": "r", "item_id": "i", "arguments": '{"zone": "x"}'}
    assert found.arguments_done(arguments) == []
    bare = {"id": "i", "type": "function_call"}
    assert found.item_done({"response_id": "r", "item": bare}) == [
        ToolCall("r", "c", "time", '{"zone": "x"}')
    ]
    ended = end(found, output=[{**CALL, "arguments": '{"zone": "x"}'}])
    assert (ended.before, ended.done) == ([], ReplyDone("r"))


@pytest.mark.parametrize("status", ["incomplete", "cancelled"])
def test_an_incomplete_call_is_dropped(status):
    found = responses("r")
    assert found.item_done({"response_id": "r", "item": {**CALL, "status": status}}) == []


def test_a_call_that_only_has_its_arguments_is_reported_at_the_end():
    found = responses("r")
    event = {"response_id": "r", "item_id": "i", "name": "time", "call_id": "c"}
    found.arguments_done({**event, "arguments": "{}"})
    add_item(found, "j", type="function_call", name="late", call_id="d")  # Without arguments.
    assert end(found).before == [ToolCall("r", "c", "time", "{}")]


def test_calls_of_a_response_that_was_cancelled_are_not_made():
    found = responses("r")
    found.arguments_done({"response_id": "r", "item_id": "i", "name": "time", "arguments": "{}"})
    assert end(found, "cancelled", output=[CALL]).before == []


# Ends


@pytest.mark.parametrize(
    ("kind", "after"),
    [(ErrorKind.RETRY, 0), (ErrorKind.BENIGN, 0), (ErrorKind.FATAL, 1), (ErrorKind.RECYCLE, 1)],
)
def test_a_failed_response_says_why_and_may_end_the_connection(kind, after):
    found = responses("r", kind_of=lambda *_: kind)
    error = {"type": "server_error", "message": "too much to do"}
    ended = end(found, "failed", status_details={"error": error})
    assert ended.done == ReplyDone("r", "failed", "too much to do")
    assert ended.after == [ProviderError(kind, "server_error", "too much to do")] * after


@pytest.mark.parametrize(
    ("details", "message"),
    [({"error": {"code": "c"}}, "c"), ({}, "the model failed to reply")],
)
def test_a_failed_response_without_a_message_has_one(details, message):
    found = responses("r", kind_of=lambda *_: ErrorKind.RETRY)
    assert end(found, "failed", status_details=details).done.message == message


@pytest.mark.parametrize(
    ("details", "reason"),
    [({"reason": "max_output_tokens"}, "max_output_tokens"), ({}, "no reason given")],
)
def test_a_reply_that_was_too_long_is_complete_and_says_so(details, reason):
    found = responses("r")
    found.arguments_done({"response_id": "r", "item_id": "i", "name": "time", "arguments": "{}"})
    ended = end(found, "incomplete", status_details=details)
    assert ended.done == ReplyDone("r", "completed", f"the reply was cut short: {reason}")
    assert ended.before == []


@pytest.mark.parametrize(("reason", "detected"), [("turn_detected", True), ("other", False)])
def test_a_response_that_the_persons_voice_ended_is_marked(reason, detected):
    ended = end(responses("r"), "cancelled", status_details={"reason": reason})
    assert ended.turn_detected is detected
    assert ended.done == ReplyDone("r", "cancelled")


def test_the_only_response_may_end_without_its_id():
    assert responses("r").response_done({"response": {}}).done == ReplyDone("r")
    named = responses("r", "s").response_done({"response": {}, "response_id": "s"})
    assert named.done == ReplyDone("s")
    assert responses("r", "s").response_done({"response": {}}) is None


def test_a_cancelled_response_may_end_without_a_confirmation():
    found = responses("r", confirms_cancel=False)
    add_item(found, "i")
    add_item(found, "j")
    found.mark_cancelled("r")
    assert found.item_done({"response_id": "r", "item": {"id": "i"}}) == []
    assert found.item_done({"response_id": "r", "item": {"id": "j"}}) == [
        ReplyDone("r", "cancelled")
    ]
    # Its end may still come, with what it has cost.
    late = {"response": {"id": "r", "usage": {"input_tokens": 3}}}
    assert found.late_response_done(late) == [Usage({"tokens": 3}, {})]
    assert found.late_response_done(late) == []
    assert found.late_response_done({"response": {}}) == []


def test_all_cancelled_responses_end_where_the_server_has_none():
    found = responses("a", "b")
    found.mark_cancelled("a")
    assert found.end_cancelled() == [ReplyDone("a", "cancelled")]
    assert "b" in found


# Scripted text


def test_scripted_text_is_put_into_the_conversation_as_it_was_said():
    found = scripted()
    assert found.is_verbatim("r")
    say(found, "Good morning")
    ended = end(found)
    assert ended.before == []
    assert ended.verbatim_items == [("i", "Good morning")]
    assert found.is_verbatim("r")


def test_other_words_than_the_scripted_ones_are_reported():
    found = scripted()
    say(found, "Hello.")
    assert end(found).before == [SayMismatch("r", "Good morning.", "Hello.")]


def test_scripted_text_that_was_truncated_is_not_put_there_again():
    found = scripted()
    found.response_created("other", None)
    say(found, "Good morning.")
    found.mark_truncated("i")
    assert end(found).verbatim_items == []


def test_scripted_text_that_was_cancelled_is_no_mismatch():
    found = scripted()
    say(found, "Good")
    ended = end(found, "cancelled")
    assert (ended.before, ended.verbatim_items) == ([], [])


# Usage


@pytest.mark.parametrize("details", ["token_details", "tokens_details"])
def test_tokens_are_counted_by_kind(details):
    usage = {
        "input_tokens": 10,
        f"input_{details}": {"audio_tokens": 6, "text_tokens": 3, "cached_tokens_details": {}},
        "output_tokens": 4,
        f"output_{details}": {"audio_tokens": 4, "text_tokens": None},
    }
    assert end(responses("r"), usage=usage).before == [
        Usage({"audio": 6, "text": 3, "other": 1}, {"audio": 4})
    ]
    assert end(responses("r"), usage={}).before == []
