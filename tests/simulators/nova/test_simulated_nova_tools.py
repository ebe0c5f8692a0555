"""Tools of Nova Sonic: calls, results, and the replies that follow."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest

from duologue.testing import SCRIPTED_CAPABILITIES

pytest.importorskip("aws_sdk_bedrock_runtime", reason="the aws extra is not installed")
pytest.importorskip("h2", reason="the simulate extra is not installed")

from nova_client import QUICK, connected, silence, tone, tool

from duologue.items import ToolResultItem
from duologue.realtime.commands import AddItem, RequestReply
from duologue.realtime.outputs import ReplyDone, ReplyStarted, SessionStarted, ToolCall
from duologue.realtime.realtime import Realtime
from duologue.testing import NovaSimulator, Reply, ToolUse, virtual_time

PLANNED = "TEXT ASSISTANT SPECULATIVE"


def calling(*replies, **options):
    return NovaSimulator(replies=replies, endpointing_ms=QUICK, **options)


def planned(client):
    return [text for kind, text, _ in client.blocks if kind == PLANNED]


@virtual_time
async def test_model_replies_after_the_result():
    reply = Reply("Let me look.", 0.5, tools=[ToolUse("weather", {"city": "Rome"})])
    async with calling(reply, "It is warm.") as sim, connected(sim, tools=[tool()]) as client:
        await client.send_turn()
        use = await client.until("toolUse")
        assert use["toolName"] == "weather"
        assert json.loads(use["content"]) == {"city": "Rome"}
        await client.until("contentEnd", stopReason="TOOL_USE")
        await client.send_result(use["toolUseId"], {"degrees": 25})
        await client.receive_reply()
        assert client.blocks == [
            ("TEXT USER FINAL", "...", "PARTIAL_TURN"),
            (PLANNED, "Let me look.", "PARTIAL_TURN"),
            ("AUDIO ASSISTANT", "", "PARTIAL_TURN"),
            ("TOOL TOOL", "weather", "TOOL_USE"),
            (PLANNED, "It is warm.", "PARTIAL_TURN"),
            ("AUDIO ASSISTANT", "", "END_TURN"),
            ("TEXT ASSISTANT FINAL", "Let me look.", "PARTIAL_TURN"),
            ("TEXT ASSISTANT FINAL", "It is warm.", "END_TURN"),
        ]
        session = sim.sessions[0]
        assert session.tools == ["weather"]
        (item,) = [c.item for c in session.backend.commands if isinstance(c, AddItem)]
        assert isinstance(item, ToolResultItem)
        assert (item.call_id, json.loads(item.output)) == (use["toolUseId"], {"degrees": 25})


@virtual_time
async def test_model_waits_for_all_results():
    uses = [ToolUse("weather", {"city": city}) for city in ("Rome", "Oslo", "Paris")]
    async with calling(Reply(tools=uses), "Done.") as sim, connected(sim, tools=[tool()]) as client:
        await client.send_text("Everywhere?", interactive=True)
        found = [await client.until("toolUse") for _ in uses]
        assert [json.loads(use["content"])["city"] for use in found] == ["Rome", "Oslo", "Paris"]
        for use in (found[1], found[0]):
            await client.send_result(use["toolUseId"], "ok")
        await client.receive_for(3.0)
        assert planned(client) == []
        await client.send_result(found[2]["toolUseId"], "ok")
        await client.receive_reply()
        assert planned(client) == ["Done."]


class Calling(Realtime):
    """Calls one tool, and another one a second later."""

    def __init__(self):
        super().__init__(
            replace(
                SCRIPTED_CAPABILITIES,
                provider="calling",
                model="x",
                manual_turns=True,
                turn_reply="requested",
                user_transcripts="final",
            ),
            in_process=True,
        )
        self.requests = 0

    def open(self, setup):
        return Connection(self)


class Connection:
    def __init__(self, model):
        self.model = model

    async def run(self, receive):
        self.receive = receive
        receive(SessionStarted())
        async with asyncio.TaskGroup() as self.tasks:
            await asyncio.Event().wait()

    def transmit(self, command):
        if isinstance(command, RequestReply):
            self.model.requests += 1
            self.tasks.create_task(self.answer(command.request_id, self.model.requests))

    async def answer(self, request_id, number):
        reply_id = f"reply-{number}"
        self.receive(ReplyStarted(reply_id, request_id))
        for call in range(2 if number == 1 else 0):
            self.receive(ToolCall(reply_id, f"call-{call}", "weather", "{}"))
            await asyncio.sleep(1)
        self.receive(ReplyDone(reply_id))


@virtual_time
async def test_model_waits_for_calls_that_it_has_not_made_yet():
    model = Calling()
    async with NovaSimulator(lambda: model) as sim, connected(sim) as client:
        await client.send_text("Everywhere?", interactive=True)
        for _ in range(2):
            use = await client.until("toolUse")
            await client.send_result(use["toolUseId"], "ok")
            await asyncio.sleep(0.5)
            assert model.requests == 1
        await asyncio.sleep(1)
        assert model.requests == 2


@virtual_time
async def test_interruption_cancels_waiting_replies_before_they_are_requested():
    long = Reply("One two three four five.", 5.0, pace=1.0)
    simulator = calling(Reply(tools=[ToolUse("weather")]), long, "Yes?")
    async with simulator as sim, connected(sim) as client:
        await client.send_text("Rome?", interactive=True)
        use = await client.until("toolUse")
        await client.send_text("And?", interactive=True)
        await client.until("audioOutput")
        await client.send_result(use["toolUseId"], "warm")  # Its reply waits for the long one.
        await asyncio.sleep(0.5)
        await client.send_turn()
        await client.receive_reply()
        assert planned(client)[-1] == "Yes?"
        backend = sim.sessions[0].backend
        assert sum(isinstance(c, RequestReply) for c in backend.commands) == 3
        assert backend.epoch == 1


@virtual_time
async def test_arguments_may_be_json_in_json():
    reply = Reply(tools=[ToolUse("weather", {"city": "Rome"})])
    async with calling(reply, double_encoded_tools=True) as sim, connected(sim) as client:
        await client.send_turn()
        use = await client.until("toolUse")
        assert json.loads(json.loads(use["content"])) == {"city": "Rome"}


@virtual_time
async def test_result_of_an_interrupted_call_is_accepted():
    reply = Reply(tools=[ToolUse("weather")])
    async with calling(reply, "What else?", "It is warm.") as sim, connected(sim) as client:
        await client.send_turn()
        use = await client.until("toolUse")
        await client.send_turn()
        await client.receive_reply()
        assert planned(client) == ["What else?"]
        await client.send_result(use["toolUseId"], "warm")
        await client.receive_reply()
        assert planned(client) == ["What else?", "It is warm."]


@pytest.mark.parametrize("transcript", ["and Oslo?", ""])
def test_results_that_come_while_the_person_speaks_go_into_the_next_reply(transcript):
    @virtual_time
    async def run():
        replies = [Reply(tools=[ToolUse("weather")]), "Both warm.", "Too much."]
        simulator = calling(*replies, transcripts=["Rome?", transcript, ""])
        async with simulator as sim, connected(sim) as client:
            await client.send_turn()
            use = await client.until("toolUse")
            await client.send_audio(tone(0.5))
            await client.send_result(use["toolUseId"], "warm")
            await client.receive_for(2.0)
            assert planned(client) == []
            await client.send_audio(silence(0.5))
            await client.receive_reply()
            await client.send_turn()
            await client.receive_for(3.0)
            return planned(client)

    assert run() == ["Both warm."]


@virtual_time
async def test_unexpected_result_is_refused():
    async with calling(Reply(tools=[ToolUse("weather")]), "Ok.") as sim:
        async with connected(sim) as client:
            await client.send_result("unknown", "x")
            assert "No tool use unknown" in (await client.error()).message
        async with connected(sim) as client:
            await client.send_turn()
            use = await client.until("toolUse")
            await client.send_result(use["toolUseId"], "x")
            await client.send_result(use["toolUseId"], "x")
            assert use["toolUseId"] in (await client.error()).message


@virtual_time
async def test_tool_may_be_slow():
    async with calling(Reply(tools=[ToolUse("weather")]), "Warm.") as sim, connected(sim) as client:
        await client.send_turn()
        use = await client.until("toolUse")
        for _ in range(4):
            await asyncio.sleep(30)
            await client.send_audio(silence(0.1))  # Input audio keeps coming.
        await client.send_result(use["toolUseId"], "warm")
        await client.receive_reply()
        assert planned(client) == ["Warm."]
