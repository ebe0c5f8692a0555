"""Which reply follows the results of tools."""

import asyncio

import pytest
from fake_connection import FakeModel, audio_frame, live_session, wait_reconnected

from duologue.realtime.commands import CancelReply, RequestReply, SendToolResult, ToolSpec
from duologue.realtime.outputs import (
    ReplyDone,
    ReplyStarted,
    SpeechStarted,
    ToolCall,
    ToolCallsCancelled,
    UserTranscript,
    UserTurnEnded,
)
from duologue.testing import virtual_time


def emit_all(model, *outputs):
    for output in outputs:
        model.latest.emit(output)


def call_tool(model, *call_ids):
    """Let the model make a reply that only calls the tool ``look``."""
    calls = [ToolCall("r", call_id, "look", "{}") for call_id in call_ids or ("c",)]
    emit_all(model, ReplyStarted("r"), *calls, ReplyDone("r"))


def answer(model, call_id="c", **options):
    model.send_tool_result(call_id, "look", "42", failed=False, **options)


def requests(model):
    return len(model.latest.sent(RequestReply))


@virtual_time
async def test_a_call_that_is_sent_twice_is_reported_once():
    model = FakeModel()
    async with live_session(model) as observer:
        call_tool(model, "c", "c")
        assert len(observer.of(ToolCall)) == 1
        answer(model)
        assert requests(model) == 1


@virtual_time
async def test_a_result_that_is_not_waited_for_is_sent_and_no_reply_follows():
    model = FakeModel()
    async with live_session(model):
        answer(model, "unknown")
        assert model.latest.commands == [SendToolResult("unknown", "look", "42")]


@virtual_time
async def test_a_part_of_a_result_does_not_complete_the_call():
    model = FakeModel(async_tools=True, tool_updates=True)
    async with live_session(model):
        call_tool(model)
        answer(model, more=True)
        assert model.latest.commands == [SendToolResult("c", "look", "42", more=True)]
        assert model.replying
        answer(model)
        assert requests(model) == 1


@virtual_time
async def test_nothing_follows_calls_that_the_provider_cancels():
    model = FakeModel()
    async with live_session(model) as observer:
        call_tool(model, "c", "d")
        emit_all(model, ToolCallsCancelled(("c",)))
        assert model.pending
        assert ("nothing follows", 0) not in observer.reported
        emit_all(model, ToolCallsCancelled(("d",)))
        assert not model.pending
        assert observer.reported[-2:] == [("nothing follows", 0), ToolCallsCancelled(("d",))]
        assert not requests(model)


@virtual_time
async def test_the_result_of_a_tool_that_runs_on_after_an_interruption_gets_a_reply():
    model = FakeModel()
    async with live_session(model):
        call_tool(model)
        model.interrupt(keep_results=True)
        answer(model)
        assert model.latest.sent(SendToolResult) == [SendToolResult("c", "look", "42")]
        assert requests(model) == 1


@virtual_time
async def test_a_result_that_must_not_be_spoken_about_after_an_interruption_gets_no_reply():
    model = FakeModel()
    async with live_session(model):
        call_tool(model)
        model.interrupt(keep_results=True)
        answer(model, quiet=True)
        assert model.latest.commands == [SendToolResult("c", "look", "42", quiet=True)]
        assert not model.pending


@virtual_time
async def test_a_result_waits_until_the_person_has_finished():
    model = FakeModel()
    async with live_session(model):
        call_tool(model)
        emit_all(model, SpeechStarted("u", position=0))
        answer(model)
        await asyncio.sleep(2)
        assert not requests(model)
        emit_all(model, UserTurnEnded("u", reply_follows=False))
        assert requests(model) == 1


@virtual_time
async def test_a_result_does_not_wait_for_ever_in_noise():
    model = FakeModel()
    async with live_session(model):
        call_tool(model)
        emit_all(model, SpeechStarted("u", position=0))
        answer(model)
        for second in range(1, 10):
            await asyncio.sleep(1)
            model.send_audio(audio_frame([1000] * 10))
            assert requests(model) == (second >= 8)


@virtual_time
async def test_a_reply_that_begins_after_the_result_includes_it():
    model = FakeModel()
    async with live_session(model):
        call_tool(model)
        emit_all(model, SpeechStarted("u", position=0))
        answer(model)
        emit_all(model, UserTurnEnded("u"), ReplyStarted("s"), ReplyDone("s"))
        await asyncio.sleep(60)
        assert not requests(model)


@virtual_time
async def test_a_reply_that_was_due_before_the_result_does_not_include_it():
    model = FakeModel()
    async with live_session(model):
        call_tool(model)
        model.interrupt(keep_results=True)
        emit_all(model, SpeechStarted("u", position=0), UserTurnEnded("u"))
        answer(model)
        emit_all(model, ReplyStarted("s"))
        assert not requests(model)
        emit_all(model, ReplyDone("s"))
        assert requests(model) == 1


@virtual_time
async def test_a_program_that_interrupts_drops_a_result_that_waits():
    model = FakeModel()
    async with live_session(model):
        call_tool(model)
        emit_all(model, SpeechStarted("u", position=0))
        answer(model)
        model.interrupt()
        emit_all(model, UserTurnEnded("u", reply_follows=False))
        await asyncio.sleep(60)
        assert not requests(model)


@virtual_time
async def test_a_model_that_replies_by_itself_is_not_asked_and_its_reply_is_expected():
    model = FakeModel(tool_reply="automatic")
    async with live_session(model) as observer:
        call_tool(model)
        answer(model)
        assert model.replying
        assert not requests(model)
        emit_all(model, ReplyStarted("s"))
        assert observer.reported[-1] == ReplyStarted("s")
        assert not model.latest.sent(CancelReply)


@virtual_time
async def test_an_automatic_reply_about_results_that_an_interruption_dropped_is_cancelled():
    model = FakeModel(tool_reply="automatic")
    async with live_session(model) as observer:
        call_tool(model)
        model.interrupt()
        answer(model)
        emit_all(model, ReplyStarted("s"))
        assert model.latest.sent(CancelReply) == [CancelReply("s")]
        assert observer.of(ReplyStarted) == [ReplyStarted("r")]


@pytest.mark.parametrize(
    ("scheduling", "tool_reply", "epoch", "requested"),
    [
        ("silent", "requested", 0, 0),
        ("when_idle", "requested", 0, 1),
        ("interrupt", "requested", 1, 1),
        ("silent", "automatic", 0, 0),
        ("interrupt", "automatic", 1, 0),
    ],
)
@virtual_time
async def test_a_tool_that_the_model_does_not_wait_for_follows_its_scheduling(
    scheduling, tool_reply, epoch, requested
):
    model = FakeModel(async_tools=True, tool_reply=tool_reply)
    async with live_session(model) as observer:
        model.update_tools([ToolSpec("look", "Look.", {}, scheduling)])
        call_tool(model)
        answer(model)
        assert model.epoch == epoch
        assert requests(model) == requested
        silent = scheduling == "silent"
        assert (("nothing follows", 0) in observer.reported) == silent
        assert model.replying != silent
        emit_all(model, ReplyStarted("s"))
        assert not model.latest.sent(CancelReply)


@virtual_time
async def test_results_that_were_complete_when_the_connection_was_lost_get_one_reply():
    model = FakeModel()
    async with live_session(model) as observer:
        emit_all(model, ReplyStarted("r"), ToolCall("r", "c", "look", "{}"))
        answer(model)
        assert not requests(model)
        model.latest.lose()
        await wait_reconnected(model)
        assert observer.lost == [("r", None)]
        assert requests(model) == 1


@virtual_time
async def test_a_call_without_a_reply_belongs_to_the_current_epoch():
    model = FakeModel()
    async with live_session(model) as observer:
        model.interrupt()
        emit_all(model, ToolCall("r", "c", "look", "{}"))
        assert len(observer.of(ToolCall)) == 1
        assert model.replying
        emit_all(model, UserTranscript("u", "hello", final=True))
        answer(model)
        assert model.latest.commands == [SendToolResult("c", "look", "42")]


@virtual_time
async def test_a_program_that_interrupts_between_two_results_gets_no_reply_about_them():
    model = FakeModel()
    async with live_session(model):
        call_tool(model, "c", "d")
        model.interrupt(keep_results=True)
        answer(model, "c")
        model.interrupt()
        answer(model, "d")
        await asyncio.sleep(60)
        assert model.latest.sent(SendToolResult) == [
            SendToolResult("c", "look", "42"),
            SendToolResult("d", "look", "42", quiet=True),
        ]
        assert not requests(model)


@virtual_time
async def test_a_result_that_waits_for_the_end_of_a_turn_gets_its_reply_on_the_next_connection():
    model = FakeModel()
    async with live_session(model):
        call_tool(model)
        emit_all(model, SpeechStarted("u", position=0))
        answer(model)
        model.latest.lose()
        await wait_reconnected(model)
        assert requests(model) == 1
