"""Responses over a WebSocket: tools, text, cancelled, interrupted, out of band."""

from __future__ import annotations

import pytest

pytest.importorskip("aiohttp", reason="the simulate extra is not installed")
pytest.importorskip("openai", reason="the openai extra is not installed")

from openai_client import QUICK, open_session, tone

from duologue.realtime.commands import RequestReply, Say, Truncate, UpdateSession
from duologue.simulators._backends import SCRIPTED
from duologue.testing import OpenAISimulator, Reply, ScriptedRealtime, ToolUse, virtual_time

LONG = Reply("One two three four five six.", seconds=3.0, pace=1.0)
WEATHER = {
    "type": "function",
    "name": "weather",
    "description": "The weather.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}


def make_simulator(*replies, **options):
    return OpenAISimulator(replies=replies, **options)


@virtual_time
async def test_several_tools_may_be_called_and_their_results_are_answered():
    uses = [ToolUse("weather", {"city": "Paris"}), ToolUse("weather", {"city": "Rome"})]
    async with (
        make_simulator(Reply("Let me see.", seconds=0.1, tools=uses), Reply("Sunny.", 0.1)) as sim,
        open_session(sim) as client,
    ):
        await client.update(tools=[WEATHER])
        await client.send("response.create")
        done = await client.until("response.done")
        message, *calls = done.response.output
        assert message.content[0].transcript == "Let me see."
        assert [call.arguments for call in calls] == ['{"city": "Paris"}', '{"city": "Rome"}']
        assert [call.status for call in calls] == ["completed"] * 2
        first = client.types.index("response.function_call_arguments.delta")
        assert client.types[first - 2 : first] == [
            "response.output_item.added",
            "conversation.item.added",
        ]
        assert [e.output_index for e in client.events_of("response.output_item.added")] == [0, 1, 2]
        for call in calls:
            item = {"type": "function_call_output", "call_id": call.call_id, "output": "20"}
            await client.send("conversation.item.create", item=item)
            await client.until("conversation.item.done")
        await client.receive_for()
        assert client.types.count("response.created") == 1
        await client.send("response.create")
        done = await client.until("response.done")
        assert done.response.output[0].content[0].transcript == "Sunny."
        update = next(c for c in sim.sessions[0].backend.commands if isinstance(c, UpdateSession))
        assert update.tools[0].parameters == WEATHER["parameters"]


@virtual_time
async def test_a_response_may_be_text():
    async with (
        make_simulator(Reply("Just text."), Reply("Sound.", 0.1)) as sim,
        open_session(sim) as client,
    ):
        wanted = {"output_modalities": ["text"], "metadata": {"topic": "x"}}
        await client.send("response.create", response=wanted)
        done = await client.until("response.done")
        assert client.events_of("response.created")[0].response.metadata == {"topic": "x"}
        assert done.response.metadata == {"topic": "x"}
        assert done.response.output[0].content[0].text == "Just text."
        assert client.events_of("response.output_text.done")[0].text == "Just text."
        assert "response.output_audio.delta" not in client.types
        assert done.response.usage.output_token_details.audio_tokens == 0
        await client.update(output_modalities=["text"])
        await client.send("response.create")
        assert (await client.until("response.done")).response.output_modalities == ["text"]


@virtual_time
async def test_speech_interrupts_the_response():
    async with make_simulator(LONG, Reply("Yes.", 0.1)) as sim, open_session(sim) as client:
        await client.update(audio={"input": {"turn_detection": QUICK}})
        await client.send("response.create")
        await client.until("response.output_audio.delta")
        await client.until("response.output_audio.delta")
        await client.append(tone(0.3))
        started = await client.until("input_audio_buffer.speech_started")
        behind = len(client.events)
        done = await client.until("response.done")
        assert done.response.status == "cancelled"
        assert done.response.status_details.reason == "turn_detected"
        item = done.response.output[0]
        assert (item.status, started.type) == ("incomplete", "input_audio_buffer.speech_started")
        assert client.types[behind:] == [
            "response.output_audio.done",
            "response.output_audio_transcript.done",
            "response.content_part.done",
            "conversation.item.done",
            "response.output_item.done",
            "response.done",
        ]
        # The client reports how much was heard of it.
        made = len(client.events_of("response.output_audio.delta")) * 100
        await client.send(
            "conversation.item.truncate", item_id=item.id, content_index=0, audio_end_ms=made
        )
        assert (await client.until("conversation.item.truncated")).audio_end_ms == made
        error = await client.error(
            "conversation.item.truncate", item_id=item.id, content_index=0, audio_end_ms=made + 1
        )
        expected = f"Audio content of {made}ms is already shorter than {made + 1}ms"
        assert error.message == expected
        assert sim.sessions[0].conversation[0]["content"][0]["transcript"] is None
        cut = next(c for c in sim.sessions[0].backend.commands if isinstance(c, Truncate))
        assert cut.played_ms == made
        await client.send_turn()
        assert (await client.until("response.done")).response.status == "completed"


@virtual_time
async def test_response_continues_without_interrupt_response():
    detection = {**QUICK, "interrupt_response": False}
    async with make_simulator(LONG) as sim, open_session(sim, turn_detection=detection) as client:
        await client.send("response.create")
        await client.until("response.output_audio.delta")
        await client.send_turn()
        # The turn cannot be answered while the response is in progress.
        error = (await client.until("error")).error
        assert error.code == "conversation_already_has_active_response"
        assert error.event_id is None
        assert (await client.until("response.done")).response.status == "completed"


@virtual_time
async def test_response_can_be_cancelled():
    async with make_simulator(LONG, LONG) as sim, open_session(sim) as client:
        error = await client.error("response.cancel")
        assert error.code == "response_cancel_not_active"
        await client.send("response.create")
        await client.until("response.output_audio.delta")
        error = await client.error("response.create")
        assert error.code == "conversation_already_has_active_response"
        await client.send("response.cancel")
        done = await client.until("response.done")
        assert done.response.status_details.reason == "client_cancelled"
        # A response that was created and has no audio yet.
        await client.send("response.create")
        await client.send("response.cancel")
        done = await client.until("response.done")
        assert (done.response.status, done.response.output) == ("cancelled", [])
        error = await client.error("response.cancel", response_id="resp_unknown")
        assert error.code == "response_cancel_not_active"


@virtual_time
async def test_out_of_band_responses_run_beside_the_conversation():
    async with (
        make_simulator(LONG, Reply("Aside."), Reply("Next.", 0.1)) as sim,
        open_session(sim) as client,
    ):
        await client.send("response.create")
        first = await client.until("response.created")
        text = {"type": "input_text", "text": "Classify this."}
        item = {"type": "message", "role": "user", "content": [text]}
        wanted = {
            "conversation": "none",
            "output_modalities": ["text"],
            "instructions": "One word.",
            "input": [item],
            "metadata": {"aside": "1"},
        }
        await client.send("response.create", response=wanted)
        aside = await client.until("response.created")
        assert aside.response.conversation_id is None
        await client.until("response.output_audio.delta")
        # Cancelling the response of the conversation leaves the other one in progress.
        await client.send("response.cancel")
        done = await client.until("response.done")
        assert (done.response.id, done.response.status) == (first.response.id, "cancelled")
        done = await client.until("response.done")
        assert (done.response.id, done.response.metadata) == (aside.response.id, {"aside": "1"})
        assert done.response.output[0].content[0].text == "Aside."
        assert len(sim.sessions[0].conversation) == 1
        asked = [c for c in sim.sessions[0].backend.commands if isinstance(c, RequestReply)]
        assert asked[1].instructions == "One word.\nuser: Classify this."


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
            return done.response.output[0].content[0].transcript, Say in kinds

    assert talk() == (("Well, hello.", False) if paraphrase else ("Good morning.", True))


@virtual_time
async def test_failed_refused_or_too_long_reply_gives_a_reason():
    replies = (
        Reply("Oh.", 0.1, fails="overloaded"),
        Reply(refused="rate_limit_exceeded"),
        Reply("Long.", seconds=5.0),
    )
    async with make_simulator(*replies) as sim, open_session(sim) as client:
        details = []
        for limit in ("inf", "inf", 20):
            await client.send("response.create", response={"max_output_tokens": limit})
            response = (await client.until("response.done")).response
            details.append((response.status, response.status_details))
        assert [status for status, _ in details] == ["failed", "failed", "incomplete"]
        assert details[0][1].error.code == "server_error"
        assert details[1][1].error.code == "rate_limit_exceeded"
        assert details[2][1].reason == "max_output_tokens"


@virtual_time
async def test_reply_waits_for_the_transcript_of_the_turn():
    order = []

    class Slow(ScriptedRealtime):
        def end_turn(self, *, reply=True):
            order.append("turn")
            self.clock.call_at(
                self.clock.now() + 2.0, lambda: ScriptedRealtime.end_turn(self, reply=reply)
            )

        def request_reply(self, request_id, instructions=None):
            order.append(("asked", self.clock.now()))
            super().request_reply(request_id, instructions)

    def make():
        return Slow([Reply("Yes.", 0.1)], manual=True, capabilities=SCRIPTED)

    async with OpenAISimulator(make) as sim, open_session(sim, turn_detection=QUICK) as client:
        await client.send_turn()
        await client.until("response.created")
        created = sim._clock.now()
        await client.until("response.done")
        assert order[0] == "turn"
        assert order[1][1] - created == pytest.approx(2.0, abs=0.1)


@virtual_time
async def test_failed_backend_ends_the_session():
    from duologue.errors import SessionError
    from duologue.testing import At

    def make():
        return ScriptedRealtime(
            at=[At(1.0, SessionError("out of memory"))], manual=True, capabilities=SCRIPTED
        )

    async with OpenAISimulator(make) as sim, open_session(sim) as client:
        error = (await client.until("error")).error
        assert "out of memory" in error.message
        with pytest.raises(Exception, match="1011"):
            await client.until("never")
