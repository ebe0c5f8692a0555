"""Responses of the simulated Qwen service: tools, text, cancelled, interrupted, and their end."""

from __future__ import annotations

import pytest

pytest.importorskip("aiohttp", reason="the simulate extra is not installed")

import websockets.exceptions
from qwen_client import QUICK, open_session, tone

from duologue.realtime.commands import RequestReply, Say, UpdateSession
from duologue.simulators._backends import SCRIPTED
from duologue.testing import QwenSimulator, Reply, ScriptedRealtime, ToolUse, virtual_time

LONG = Reply("One two three four five six.", seconds=3.0, pace=1.0)
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


def make_simulator(*replies, **options):
    return QwenSimulator(replies=replies, **options)


@virtual_time
async def test_several_tools_may_be_called_and_their_results_are_answered():
    uses = [ToolUse("weather", {"city": "Paris"}), ToolUse("weather", {"city": "Rome"})]
    async with (
        make_simulator(Reply("", 0.0, tools=uses), Reply("Sunny.", 0.1)) as sim,
        open_session(sim, tools=[WEATHER]) as client,
    ):
        await client.send("response.create")
        calls = (await client.until("response.done"))["response"]["output"]
        assert [call["arguments"] for call in calls] == ['{"city": "Paris"}', '{"city": "Rome"}']
        assert "response.audio.delta" not in client.types
        first = client.types.index("response.function_call_arguments.delta")
        assert client.types[first - 2 : first] == [
            "response.output_item.added",
            "conversation.item.created",
        ]
        told = client.events_of("response.function_call_arguments.done")
        assert [event["call_id"] for event in told] == [call["call_id"] for call in calls]
        assert [event["output_index"] for event in told] == [0, 1]
        for call in calls:
            item = {"type": "function_call_output", "call_id": call["call_id"], "output": "20"}
            await client.send("conversation.item.create", item=item)
            await client.until("conversation.item.created")
        await client.receive_for()
        assert client.types.count("response.created") == 1
        await client.send("response.create")
        done = await client.until("response.done")
        assert done["response"]["output"][0]["content"][0]["transcript"] == "Sunny."
        update = next(c for c in sim.sessions[0].backend.commands if isinstance(c, UpdateSession))
        assert update.tools[0].parameters == WEATHER["function"]["parameters"]


@virtual_time
async def test_result_without_a_tool_call_is_refused():
    async with make_simulator() as sim, open_session(sim) as client:
        item = {"type": "function_call_output", "call_id": "nobody", "output": ""}
        error = await client.error("conversation.item.create", item=item)
        assert error["param"] == "item.call_id"


@virtual_time
async def test_a_response_may_be_text():
    async with (
        make_simulator(Reply("Just text."), Reply("More."), Reply("Sound.", 0.1)) as sim,
        open_session(sim, modalities=["text"]) as client,
    ):
        await client.send("response.create")
        response = (await client.until("response.done"))["response"]
        assert response["modalities"] == ["text"]
        assert response["output"][0]["content"] == [{"type": "text", "text": "Just text."}]
        assert client.events_of("response.content_part.added")[0]["part"] == {
            "type": "text",
            "text": "",
        }
        assert [event["delta"] for event in client.events_of("response.text.delta")] == [
            "Just",
            " text.",
        ]
        assert client.events_of("response.text.done")[0]["text"] == "Just text."
        assert response["usage"]["output_tokens_details"]["audio_tokens"] == 0
        await client.update(modalities=["audio", "text"])
        await client.send("response.create", response={"modalities": ["text"]})
        assert (await client.until("response.done"))["response"]["modalities"] == ["text"]
        assert "response.audio.delta" not in client.types
        await client.send("response.create", response={"instructions": None})
        await client.until("response.audio.delta")


@virtual_time
async def test_speech_interrupts_the_response():
    async with (
        make_simulator(LONG, Reply("Yes.", 0.1)) as sim,
        open_session(sim, turn_detection=QUICK) as client,
    ):
        await client.send("response.create")
        await client.until("response.audio.delta")
        await client.append(tone(0.3))
        await client.until("input_audio_buffer.speech_started")
        behind = len(client.events)
        response = (await client.until("response.done"))["response"]
        assert response["status"] == "cancelled"
        assert response["status_details"]["reason"] == "turn_detected"
        assert response["output"][0]["status"] == "incomplete"
        assert client.types[behind:] == [
            "response.audio_transcript.done",
            "response.audio.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.done",
        ]
        await client.send_turn()
        assert (await client.until("response.done"))["response"]["status"] == "completed"


@virtual_time
async def test_response_continues_without_interrupt_response():
    detection = {**QUICK, "interrupt_response": False}
    async with make_simulator(LONG) as sim, open_session(sim, turn_detection=detection) as client:
        await client.send("response.create")
        await client.until("response.audio.delta")
        await client.send_turn()
        # The turn cannot be answered while the response is in progress.
        error = (await client.until("error"))["error"]
        assert error == {
            "type": "invalid_request_error",
            "message": "Conversation already has an active response",
        }
        assert (await client.until("response.done"))["response"]["status"] == "completed"


@pytest.mark.parametrize("told", [True, False])
def test_response_can_be_cancelled(told):
    @virtual_time
    async def talk():
        simulator = make_simulator(LONG, LONG, Reply("Yes.", 0.1), done_after_cancel=told)
        async with simulator as sim, open_session(sim, turn_detection=QUICK) as client:
            error = await client.error("response.cancel")
            assert error == {
                "type": "invalid_request_error",
                "message": "Conversation has none active response",
            }
            await client.send("response.create")
            await client.until("response.audio.delta")
            error = await client.error("response.create")
            assert error["message"] == "Conversation already has an active response"
            behind = len(client.events)
            await client.send("response.cancel")
            await client.receive_for()
            assert client.types[behind:] == [
                "response.audio_transcript.done",
                "response.audio.done",
                "response.content_part.done",
                "response.output_item.done",
                *(["response.done"] if told else []),
            ]
            item = client.events_of("response.output_item.done")[-1]["item"]
            assert item["status"] == "incomplete"
            # It has ended, whether that was reported or not.
            await client.error("response.cancel")
            await client.send("response.create")
            await client.until("response.audio.delta")
            await client.append(tone(0.3))
            response = (await client.until("response.done"))["response"]
            assert response["status_details"]["reason"] == "turn_detected"
            await client.send_turn()
            assert (await client.until("response.done"))["response"]["status"] == "completed"

    talk()


@pytest.mark.parametrize("paraphrase", [False, True])
def test_verbatim_text_is_said_word_for_word_unless_paraphrased(paraphrase):
    @virtual_time
    async def talk():
        simulator = make_simulator(Reply("Well, hello.", 0.1), paraphrase=paraphrase)
        async with simulator as sim, open_session(sim) as client:
            instructions = 'Say exactly the following text:\n"""\nGood morning.\n"""'
            await client.send("response.create", response={"instructions": instructions})
            done = await client.until("response.done")
            kinds = [type(c) for c in sim.sessions[0].backend.commands]
            return done["response"]["output"][0]["content"][0]["transcript"], Say in kinds

    assert talk() == (("Well, hello.", False) if paraphrase else ("Good morning.", True))


@pytest.mark.parametrize(
    ("wanted", "param"),
    [
        ({"modalities": ["audio"]}, "response.modalities"),
        ({"temperature": 2}, "response.temperature"),
        ({"max_tokens": "inf"}, "response.max_tokens"),
        ({"conversation": "none"}, "response.conversation"),
    ],
)
def test_wrong_response_request_is_refused(wanted, param):
    @virtual_time
    async def talk():
        async with make_simulator(Reply("Hi.", 0.1)) as sim, open_session(sim) as client:
            error = await client.error("response.create", response=wanted)
            await client.receive_for()
            assert "response.created" not in client.types
            return error["param"]

    assert talk() == param


@virtual_time
async def test_instructions_reach_the_backend():
    async with make_simulator(Reply("Hi.", 0.1)) as sim, open_session(sim) as client:
        await client.update(instructions="Be kind.")
        await client.send("response.create", response={"instructions": "Greet."})
        await client.until("response.done")
        commands = sim.sessions[0].backend.commands
        updates = [c.instructions for c in commands if isinstance(c, UpdateSession)]
        asked = [c.instructions for c in commands if isinstance(c, RequestReply)]
        assert (updates, asked) == (["Be kind."], ["Greet."])


@virtual_time
async def test_failed_refused_or_too_long_reply_gives_a_reason():
    replies = (
        Reply("Oh.", 0.1, fails="overloaded"),
        Reply(refused="rate_limit_exceeded"),
        Reply("Long.", seconds=5.0),
    )
    async with make_simulator(*replies) as sim, open_session(sim) as client:
        details = []
        for limit in ({}, {}, {"max_tokens": 20}):
            await client.send("response.create", response=limit)
            response = (await client.until("response.done"))["response"]
            details.append((response["status"], response["status_details"]))
        assert [status for status, _ in details] == ["failed", "failed", "incomplete"]
        assert details[0][1]["error"]["message"] == "overloaded"
        assert details[1][1]["error"]["code"] == "rate_limit_exceeded"


@virtual_time
async def test_search_appears_in_the_usage():
    async with (
        make_simulator(Reply("It won.", 0.1), Reply("It won.", 0.1)) as sim,
        open_session(sim, enable_search=True) as client,
    ):
        assert sim.sessions[0].session_object["enable_search"] is True
        await client.send("response.create")
        usage = (await client.until("response.done"))["response"]["usage"]
        assert usage["plugins"] == {"search": {"count": 1}}
        await client.update(enable_search=False)
        await client.send("response.create")
        usage = (await client.until("response.done"))["response"]["usage"]
        assert "plugins" not in usage


@virtual_time
async def test_failed_backend_ends_the_session():
    from duologue.errors import SessionError
    from duologue.testing import At

    def make():
        return ScriptedRealtime(
            at=[At(1.0, SessionError("out of memory"))], manual=True, capabilities=SCRIPTED
        )

    async with QwenSimulator(make) as sim, open_session(sim) as client:
        assert "out of memory" in (await client.until("error"))["error"]["message"]
        with pytest.raises(websockets.exceptions.ConnectionClosed) as closed:
            await client.until("never")
        assert closed.value.rcvd.code == 1011


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ("qwen3.5-omni-plus-realtime", True),
        ("qwen3-omni-flash-realtime", True),
        ("qwen3.8-omni-flash-realtime", False),
    ],
)
def test_session_is_finished_once_its_response_has_ended(model, told):
    @virtual_time
    async def talk():
        async with make_simulator(LONG) as sim, open_session(sim, model) as client:
            await client.send("response.create")
            await client.until("response.audio.delta")
            await client.send("session.finish")
            with pytest.raises(websockets.exceptions.ConnectionClosed) as closed:
                await client.until("never")
            assert closed.value.rcvd.code == 1000
            assert client.events_of("response.done")[0]["response"]["status"] == "completed"
            return client.types[-1]

    assert talk() == ("session.finished" if told else "response.done")


@virtual_time
async def test_session_is_finished_once_its_last_turn_is_answered():
    async with make_simulator() as sim, open_session(sim, turn_detection=QUICK) as client:
        await client.send_turn()
        await client.send("session.finish")
        await client.until("session.finished")
        [done] = client.events_of("response.done")
        assert done["response"]["status"] == "completed"


@virtual_time
async def test_session_without_a_response_is_finished_at_once():
    async with make_simulator() as sim, open_session(sim) as client:
        began = sim._clock.now()
        await client.send("session.finish")
        await client.until("session.finished")
        with pytest.raises(websockets.exceptions.ConnectionClosedOK):
            await client.until("never")
        assert sim._clock.now() - began < 0.1
