"""The model's turns: audio in bursts, interruptions, and function calls."""

from __future__ import annotations

import asyncio

import pytest

pytest.importorskip("aiohttp", reason="the simulate extra is not installed")
pytest.importorskip("google.genai", reason="google-genai is not installed")

from gemini_client import connected, silence, started, tone
from google.genai import errors, types

from duologue.errors import ErrorKind, SessionError
from duologue.items import ToolResultItem
from duologue.realtime.commands import AddItem, CancelReply
from duologue.testing import At, GeminiSimulator, Reply, ScriptedRealtime, ToolUse, virtual_time

LIVE_25 = "gemini-2.5-flash-native-audio-preview-12-2025"
CHAT = "gemini-live-2.5-flash-preview"


def now() -> float:
    return asyncio.get_running_loop().time()


def answering(*replies, **options):
    options.setdefault("tls", True)
    return GeminiSimulator(replies=replies or [Reply("Yes.", seconds=0.2)] * 5, **options)


def functions(**behaviors):
    return [
        {
            "function_declarations": [
                {"name": name, **({"behavior": one} if one else {})}
                for name, one in behaviors.items()
            ]
        }
    ]


def calling(*names):
    return Reply("", 0.0, tools=[ToolUse(name, {"x": 1}) for name in names])


async def respond(client, *calls, **fields):
    """Return the results of calls."""
    await client.session.send_tool_response(
        function_responses=[
            types.FunctionResponse(
                id=call.id, name=call.name, response={"output": call.name}, **fields
            )
            for call in calls
        ]
    )


@virtual_time
async def test_audio_comes_in_bursts_and_the_turn_lasts_as_long_as_its_audio():
    async with (
        answering(Reply("A long story.", seconds=4.0), audio_pace=4.0) as sim,
        connected(sim) as client,
    ):
        await client.session.send_realtime_input(text="Tell me.")
        await client.until("serverContent.modelTurn")
        began = now()
        # The first available 100 ms are sent at once; then a burst of 400 ms.
        assert len(client.audio) == 2400
        await client.receive_for(0.05)
        assert len(client.audio) == 12000
        await client.until("serverContent.generationComplete")
        assert now() - began == pytest.approx(0.9, abs=0.05)
        assert len(client.audio) == 4 * 24000
        await client.until("serverContent.turnComplete")
        assert now() - began == pytest.approx(4.0, abs=0.05)
        assert sim.sessions[0].messages_out.count("serverContent.modelTurn") == 40


@virtual_time
async def test_audio_may_be_sent_as_fast_as_it_is_generated():
    async with answering(Reply("x", seconds=4.0), audio_pace=0) as sim, connected(sim) as client:
        await client.session.send_realtime_input(text="Tell me.")
        await client.until("serverContent.modelTurn")
        began = now()
        await client.until("serverContent.generationComplete")
        assert now() - began < 0.1


@virtual_time
async def test_transcript_comes_along_with_the_audio():
    text = "one two three four five six seven eight nine ten eleven twelve thirteen"
    async with answering(Reply(text, seconds=4.6)) as sim, connected(sim) as client:
        await client.session.send_realtime_input(text="Count.")
        await client.until("serverContent.turnComplete")
        kinds = [one for one in client.kinds if "Transcription" in one or "modelTurn" in one]
        firsts = [kinds.index(one) for one in sorted(set(kinds))]
        lasts = [len(kinds) - kinds[::-1].index(one) for one in sorted(set(kinds))]
        assert min(lasts) > max(firsts)
        assert client.transcript == text


@virtual_time
async def test_no_words_are_lost_however_short_their_audio_is():
    text = "one two three four five six seven eight nine ten eleven twelve thirteen"
    async with answering(Reply(text, seconds=0.2)) as sim, connected(sim) as client:
        await client.session.send_realtime_input(text="Count.")
        await client.until("serverContent.generationComplete")
        assert client.transcript == text


@virtual_time
async def test_speech_interrupts_and_what_was_sent_stays():
    text = "one two three four five six seven eight nine ten eleven twelve thirteen"
    async with (
        answering(Reply(text, seconds=5.0), Reply("Go on.", 0.2)) as sim,
        connected(sim) as client,
    ):
        await client.send_turn()
        await client.until("serverContent.modelTurn")
        await client.send_audio(tone(0.1))
        seen = len(client.kinds)
        done = await client.until("serverContent.turnComplete")
        received = [one for one in client.kinds[seen:] if one.startswith("serverContent.")]
        assert received[-3:] == [
            "serverContent.interrupted",
            "serverContent.turnComplete",
            "serverContent.interactionStatus",
        ]
        assert "serverContent.generationComplete" not in client.kinds
        assert done.usage_metadata.response_token_count > 0
        transcript = client.transcript
        assert transcript == text[: len(transcript)]
        assert transcript != text
        await client.receive_for(3.0)
        assert len(client.audio) < 24000
        # The turn that interrupted it gets a reply.
        await client.send_audio(silence(0.5))
        await client.until("serverContent.generationComplete")
        assert sim.sessions[0].conversation[1] == {"role": "model", "parts": [{"text": transcript}]}


@virtual_time
async def test_speech_interrupts_the_backend():
    async with (
        answering(Reply("A long story.", seconds=5.0, pace=1.0)) as sim,
        connected(sim) as client,
    ):
        await client.send_turn()
        await client.until("serverContent.modelTurn")
        await client.send_audio(tone(0.1))
        await client.until("serverContent.interrupted")
        commands = sim.sessions[0].backend.commands
        assert any(isinstance(one, CancelReply) for one in commands)


@virtual_time
async def test_speech_interrupts_audio_that_is_sent_and_still_playing():
    async with answering(Reply("Yes.", seconds=3.0), audio_pace=0) as sim, connected(sim) as client:
        await client.send_turn()
        await client.until("serverContent.generationComplete")
        await client.send_audio(tone(0.1))
        began = now()
        await client.until("serverContent.interrupted")
        await client.until("serverContent.turnComplete")
        assert now() - began < 0.5
        # It is over: more speech does not interrupt it again.
        await client.send_audio(tone(0.5))
        await client.receive_for()
        assert client.count("serverContent.interrupted") == 1


@virtual_time
async def test_speech_interrupts_a_reply_that_has_not_begun():
    async with (
        answering(Reply("Yes.", seconds=3.0, after_s=5.0), Reply("No.", 0.1)) as sim,
        connected(sim) as client,
    ):
        await client.send_turn()
        await asyncio.sleep(1.0)
        await client.send_turn()
        await client.until("serverContent.turnComplete")
        assert client.count("serverContent.interrupted") == 1
        await client.until("serverContent.turnComplete")
        assert client.transcript == "No."


@virtual_time
async def test_without_interruption_the_model_finishes_and_then_replies():
    config = {
        "automatic_activity_detection": {"silence_duration_ms": 200},
        "activity_handling": "NO_INTERRUPTION",
    }
    async with (
        answering(Reply("First.", seconds=3.0), Reply("Second.", seconds=0.2)) as sim,
        connected(sim, realtime_input_config=config) as client,
    ):
        await client.send_turn()
        await client.until("serverContent.modelTurn")
        await client.send_turn()
        done = await client.until("serverContent.turnComplete")
        assert done.server_content.interaction_status == types.InteractionStatus.IN_PROGRESS
        assert client.transcript == "First."
        done = await client.until("serverContent.turnComplete")
        assert done.server_content.interaction_status == types.InteractionStatus.IDLE
        assert client.transcript == "First.Second."
        assert "serverContent.interrupted" not in client.kinds


@virtual_time
async def test_client_activity_interrupts():
    config = {"automatic_activity_detection": {"disabled": True}}
    async with (
        answering(Reply("First.", seconds=3.0)) as sim,
        connected(sim, realtime_input_config=config) as client,
    ):
        await client.session.send_realtime_input(text="Hello.")
        await client.until("serverContent.modelTurn")
        await client.session.send_realtime_input(activity_start=types.ActivityStart())
        await client.until("serverContent.interrupted")
        await client.until("serverContent.turnComplete")


@virtual_time
async def test_client_content_is_replied_to_when_the_client_completes_the_turn():
    async with (
        answering(Reply("First.", seconds=3.0), Reply("Second.", 0.1)) as sim,
        connected(sim) as client,
    ):
        one = types.Content(role="user", parts=[types.Part(text="My name is Eve.")])
        two = types.Content(role="model", parts=[types.Part(text="Hello, Eve.")])
        await client.session.send_client_content(turns=[one, two], turn_complete=False)
        await client.receive_for()
        assert client.kinds == []
        await client.session.send_client_content(turns=one)
        await client.until("serverContent.modelTurn")
        # Without `turnComplete` it interrupts nothing; with it, it does.
        await client.session.send_client_content(turns=one, turn_complete=False)
        await client.receive_for(0.1)
        assert "serverContent.interrupted" not in client.kinds
        await client.session.send_client_content(turns=one)
        await client.until("serverContent.interrupted")
        await client.until("serverContent.generationComplete")
        assert client.transcript == "First.Second."
        backend = sim.sessions[0].backend
        items = [one.item for one in backend.commands if isinstance(one, AddItem)]
        assert [item.text for item in items[:3]] == [
            "My name is Eve.",
            "Hello, Eve.",
            "My name is Eve.",
        ]


@virtual_time
async def test_before_gemini_3_every_client_content_interrupts():
    async with (
        answering(Reply("First.", seconds=3.0)) as sim,
        connected(sim, model=LIVE_25) as client,
    ):
        one = types.Content(role="user", parts=[types.Part(text="Hello.")])
        await client.session.send_client_content(turns=one)
        await client.until("serverContent.modelTurn")
        await client.session.send_client_content(turns=one, turn_complete=False)
        await client.until("serverContent.interrupted")


@virtual_time
async def test_chat_model_replies_in_text():
    async with (
        answering("It is sunny.") as sim,
        connected(sim, model=CHAT, response_modalities=["TEXT"]) as client,
    ):
        one = types.Content(role="user", parts=[types.Part(text="How is it?")])
        await client.session.send_client_content(turns=one)
        done = await client.until("serverContent.turnComplete")
        assert "".join(one.text or "" for one in client.messages) == "It is sunny."
        assert client.transcript == ""
        assert len(client.audio) == 0
        assert done.usage_metadata.response_tokens_details[0].modality == "TEXT"
        assert sim.sessions[0].conversation[1]["parts"] == [{"text": "It is sunny."}]


@virtual_time
async def test_turn_with_several_function_calls_continues_with_their_results():
    first = Reply("One moment.", 0.4, tools=[ToolUse("f", {"x": 1}), ToolUse("g")])
    async with (
        answering(first, Reply("All done.", 0.2)) as sim,
        connected(sim, tools=functions(f="BLOCKING", g="BLOCKING")) as client,
    ):
        await client.send_turn()
        called = await client.until("toolCall")
        f, g = called.tool_call.function_calls
        assert (f.name, f.args, g.name, g.args) == ("f", {"x": 1}, "g", {})
        assert client.transcript == "One moment."
        await client.receive_for(2.0)
        assert "serverContent.generationComplete" not in client.kinds
        await respond(client, g)
        await client.receive_for(2.0)
        assert client.kinds[-1] == "toolCall"
        await respond(client, f)
        await client.until("serverContent.turnComplete")
        assert client.count("serverContent.generationComplete") == 1
        assert client.count("serverContent.turnComplete") == 1
        assert client.transcript == "One moment.All done."
        session = sim.sessions[0]
        assert [one["role"] for one in session.conversation] == [
            *("user", "model", "user", "user", "model")
        ]
        assert session.conversation[1]["parts"] == [
            {"text": "One moment."},
            {"functionCall": {"id": f.id, "name": "f", "args": {"x": 1}}},
            {"functionCall": {"id": g.id, "name": "g", "args": {}}},
        ]
        assert session.conversation[2]["parts"][0]["functionResponse"]["id"] == g.id
        added = [one.item for one in session.backend.commands if isinstance(one, AddItem)]
        results = [item for item in added if isinstance(item, ToolResultItem)]
        assert [item.output for item in results] == ['{"output":"g"}', '{"output":"f"}']


@virtual_time
async def test_speech_cancels_the_functions_that_the_turn_waits_for():
    async with (
        answering(calling("f", "g"), Reply("Well.", 0.2)) as sim,
        connected(sim, tools=functions(f="BLOCKING", g="NON_BLOCKING")) as client,
    ):
        await client.send_turn()
        f, g = (await client.until("toolCall")).tool_call.function_calls
        await client.send_audio(tone(0.2))
        cancelled = await client.until("toolCallCancellation")
        # The model does not wait for g, so speech does not cancel it.
        assert cancelled.tool_call_cancellation.ids == [f.id]
        await client.until("serverContent.turnComplete")
        assert client.count("serverContent.interrupted") == 1
        # A late result is ignored; the other is not.
        await respond(client, f)
        await client.send_audio(silence(0.5))
        await client.until("serverContent.turnComplete")
        assert client.transcript == "Well."
        parts = [one["parts"] for one in sim.sessions[0].conversation]
        assert not any("functionResponse" in part for one in parts for part in one)
        await respond(client, g, scheduling="SILENT")
        await client.receive_for()
        assert any(
            part.get("functionResponse", {}).get("id") == g.id
            for one in sim.sessions[0].conversation
            for part in one["parts"]
        )


@virtual_time
async def test_gemini_3_8_does_not_wait_for_functions_and_3_1_does():
    for model, waits in (("gemini-3.8-live", False), ("gemini-3.1-flash-live-preview", True)):
        async with (
            answering(calling("f"), Reply("Well.", 0.2)) as sim,
            connected(sim, model=model, tools=functions(f=None)) as client,
        ):
            await client.send_turn()
            (call,) = (await client.until("toolCall")).tool_call.function_calls
            await client.receive_for()
            assert client.count("serverContent.turnComplete") == (0 if waits else 1)
            await respond(client, call)
            await client.until("serverContent.turnComplete")
            assert client.transcript == "Well."


@pytest.mark.parametrize("thinks", [False, True])
def test_extended_thinking_continues_while_functions_run(thinks):
    @virtual_time
    async def run():
        model = "gemini-3.8-live-extended-thinking" if thinks else "gemini-3.8-live"
        first = Reply("One moment.", 0.2, tools=[ToolUse("f")])
        async with (
            answering(first, Reply("Well.", 0.2)) as sim,
            connected(sim, model=model, tools=functions(f=None)) as client,
        ):
            await client.send_turn()
            (call,) = (await client.until("toolCall")).tool_call.function_calls
            states = []
            for _ in range(2):
                done = await client.until("serverContent.turnComplete")
                states.append(done.server_content.interaction_status.value)
                if len(states) == 1:
                    await respond(client, call)
            return states

    assert run() == ["IN_PROGRESS" if thinks else "IDLE", "IDLE"]


@virtual_time
async def test_test_can_send_arbitrary_messages():
    async with answering() as sim, connected(sim) as client:
        sim.send({"serverContent": {"interrupted": True}})
        await client.until("serverContent.interrupted")
        assert sim.sessions[0].messages_out[-1] == "serverContent"


@pytest.mark.parametrize(
    ("scheduling", "seconds"), [(None, 2.9), ("WHEN_IDLE", 2.9), ("INTERRUPT", 0.0)]
)
def test_scheduling_determines_the_effect_of_a_result(scheduling, seconds):
    @virtual_time
    async def run():
        replies = [calling("f"), Reply("A long story.", 3.0), Reply("Well.", 0.2)]
        async with answering(*replies) as sim, connected(sim, tools=functions(f=None)) as client:
            await client.send_turn()
            (call,) = (await client.until("toolCall")).tool_call.function_calls
            await client.until("serverContent.turnComplete")
            await client.session.send_realtime_input(text="Tell me a story.")
            await client.until("serverContent.modelTurn")
            began = now()
            fields = {} if scheduling is None else {"scheduling": scheduling}
            await respond(client, call, **fields)
            await client.until("serverContent.turnComplete")
            took = now() - began
            await client.until("serverContent.turnComplete")
            assert client.transcript.endswith("Well.")
            assert client.count("serverContent.interrupted") == (scheduling == "INTERRUPT")
            return took

    assert run() == pytest.approx(seconds, abs=0.3)


@virtual_time
async def test_speech_comes_before_a_reply_that_waits_for_the_model():
    replies = [calling("f"), Reply("A long story.", 3.0), Reply("Well.", 0.2), Reply("Twice.", 0.2)]
    async with answering(*replies) as sim, connected(sim, tools=functions(f=None)) as client:
        await client.send_turn()
        (call,) = (await client.until("toolCall")).tool_call.function_calls
        await client.until("serverContent.turnComplete")
        await client.session.send_realtime_input(text="Tell me a story.")
        await client.until("serverContent.modelTurn")
        await respond(client, call)
        await client.receive_for(0.1)
        await client.send_audio(tone(0.5))
        await client.until("serverContent.interrupted")
        await client.receive_for()
        # While the person speaks there is no reply; then there is one.
        assert client.kinds[-1] == "usageMetadata"
        await client.send_audio(silence(0.5))
        await client.receive_for(5.0)
        assert client.transcript.endswith("Well.")
        assert "Twice." not in client.transcript


@virtual_time
async def test_silent_result_only_becomes_part_of_the_conversation():
    async with (
        answering(calling("f"), Reply("Well.", 0.2)) as sim,
        connected(sim, tools=functions(f=None)) as client,
    ):
        await client.send_turn()
        (call,) = (await client.until("toolCall")).tool_call.function_calls
        await client.until("serverContent.turnComplete")
        await respond(client, call, scheduling="SILENT")
        await client.receive_for()
        assert client.transcript == ""
        assert sim.sessions[0].conversation[-1]["parts"][0]["functionResponse"]["id"] == call.id


@virtual_time
async def test_function_may_return_results_in_parts():
    # The SDK accepts `willContinue` on Vertex AI only, the API from everybody.
    async with (
        answering(calling("f"), *[Reply("Part.", 0.1)] * 3, tls=False) as sim,
        started(sim, tools=functions(f=None)) as client,
    ):
        await client.send({"realtimeInput": {"text": "Begin."}})
        (call,) = (await client.until("toolCall"))["toolCall"]["functionCalls"]
        await client.until("serverContent.turnComplete")
        for more in (True, True, False):
            result = {"id": call["id"], "name": "f", "response": {}, "willContinue": more}
            await client.send({"toolResponse": {"functionResponses": [result]}})
            await client.until("serverContent.turnComplete")
        # It has its result, so another one is ignored.
        await client.send({"toolResponse": {"functionResponses": [result]}})
        with pytest.raises(TimeoutError):
            await client.until("serverContent.turnComplete", seconds=2.0)


@pytest.mark.parametrize(
    ("result", "code"),
    [
        ({"id": "unknown", "name": "f"}, 1008),
        ({"name": "f"}, 1007),
        ({"id": "x", "scheduling": "SOON"}, 1007),
    ],
)
def test_results_of_unknown_calls_end_the_session(result, code):
    @virtual_time
    async def run():
        async with (
            answering(calling("f"), tls=False) as sim,
            started(sim, tools=functions(f=None)) as client,
        ):
            await client.send({"realtimeInput": {"text": "Begin."}})
            await client.until("toolCall")
            await client.send({"toolResponse": {"functionResponses": [result]}})
            return (await client.receive_close())[0]

    assert run() == code


@virtual_time
async def test_failed_or_refused_reply_gives_its_reason():
    replies = [
        Reply("Half", 0.2, fails="GENERATED_AUDIO_SAFETY"),
        Reply("", fails="the script says so"),
        Reply("", refused="prohibited_input_content"),
        Reply("Whole.", 0.1),
    ]
    async with answering(*replies) as sim, connected(sim) as client:
        reasons = []
        for _ in replies:
            await client.session.send_realtime_input(text="Go on.")
            done = await client.until("serverContent.turnComplete")
            reason = done.server_content.turn_complete_reason
            reasons.append(reason and reason.value)
        assert reasons == [
            "GENERATED_AUDIO_SAFETY",
            "RESPONSE_REJECTED",
            "PROHIBITED_INPUT_CONTENT",
            None,
        ]
        assert client.count("serverContent.generationComplete") == 1


@virtual_time
async def test_backend_that_ends_ends_the_session():
    def make():
        died = SessionError("it broke", kind=ErrorKind.FATAL)
        return ScriptedRealtime(at=[At(1.0, died)], manual=True)

    async with GeminiSimulator(make, tls=True) as sim, connected(sim) as client:
        with pytest.raises(errors.APIError) as closed:
            await client.until("never")
        assert closed.value.code == 1011
        assert "it broke" in closed.value.details
        assert sim.sessions[0].closed


@virtual_time
async def test_reply_waits_for_the_transcript_of_the_turn():
    async with answering(Reply("Yes.", 0.1)) as sim, connected(sim) as client:
        await client.send_turn()
        await client.until("serverContent.turnComplete")
        kinds = client.kinds
        assert kinds.index("serverContent.inputTranscription") < kinds.index(
            "serverContent.modelTurn"
        )
        assert sim.sessions[0].tokens > 0
