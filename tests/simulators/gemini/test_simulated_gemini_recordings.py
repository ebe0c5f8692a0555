"""Fields and order of the simulated Gemini's messages, compared with recordings of the service.

The expectations are written here in words of our own. Where the recordings are available, the real
service is checked against the same expectations.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from itertools import groupby
from pathlib import Path

import pytest

pytest.importorskip("aiohttp", reason="the simulate extra is not installed")
pytest.importorskip("google.genai", reason="the gemini extra is not installed")

from gemini_client import PlainClient, raw, setup, silence, tone
from test_simulated_gemini_routes import VERTEX
from test_simulated_gemini_turns import audio_message

from duologue.testing import GeminiSimulator, Reply, ToolUse, virtual_time

RECORDINGS = Path(__file__).parents[4] / "shared" / "recordings"
LIVE_25 = "gemini-2.5-flash-native-audio-preview-09-2025"
LIVE_31 = "gemini-3.1-flash-live-preview"

TRANSCRIBED: dict[str, object] = {"inputAudioTranscription": {}, "outputAudioTranscription": {}}

THOUGHT, TRANSCRIPT, AUDIO = "thought", "transcript", "audio"
ENDED = ["generationComplete", "turnComplete"]
SPOKEN = [TRANSCRIPT, AUDIO, *ENDED]
THINKING = [THOUGHT, *SPOKEN]
USAGE = {
    "promptTokenCount",
    "responseTokenCount",
    "totalTokenCount",
    "promptTokensDetails",
    "responseTokensDetails",
}

EXPECTED = {
    "text_in_audio_out_turn": ["setupComplete", *THINKING],
    "message_history_seeding": ["setupComplete", *THINKING],
    "audio_in_server_vad_turn": ["setupComplete", "user transcript", *THINKING],
    "tool_call_round": ["setupComplete", "toolCall", *SPOKEN],
    "asap_enqueue_waits_for_response_boundary": ["setupComplete", "toolCall", *SPOKEN, *SPOKEN],
}


def name_of(message):
    """Check that a message has exactly the fields that the service sends; return its kind."""
    known = set(message) - {"usageMetadata"}
    if "toolCall" in message:
        assert known == {"toolCall"}
        for call in message["toolCall"]["functionCalls"]:
            assert set(call) == {"name", "args", "id"}
            assert call["id"].startswith("function-call-")
            assert len(call["id"]) in (33, 34)
        return "toolCall"
    if "setupComplete" in message:
        assert message == {"setupComplete": {}}
        return "setupComplete"
    assert known == {"serverContent"}
    ((name, value),) = message["serverContent"].items()
    if name == "modelTurn":
        assert set(value) == {"parts"}
        (part,) = value["parts"]
        if set(part) == {"text", "thought"}:
            return THOUGHT
        assert set(part) == {"inlineData"}
        assert set(part["inlineData"]) == {"mimeType", "data"}
        assert part["inlineData"]["mimeType"] == "audio/pcm;rate=24000"
        return AUDIO
    if name == "turnComplete":
        usage = message["usageMetadata"]
        assert set(usage) - {"thoughtsTokenCount"} == USAGE
        assert usage["totalTokenCount"] == usage["promptTokenCount"] + usage["responseTokenCount"]
        for side in ("prompt", "response"):
            parts = usage[f"{side}TokensDetails"]
            assert sum(part["tokenCount"] for part in parts) == usage[f"{side}TokenCount"]
    if name in ("inputTranscription", "outputTranscription"):
        assert set(value) == {"text"}
        return "user transcript" if name == "inputTranscription" else TRANSCRIPT
    assert value is True
    return name


def steps(messages):
    """Return the kinds received, in order, without transcripts that come between audio."""
    found = []
    for message in messages:
        name = name_of(message)
        if name == TRANSCRIPT and found and found[-1] == AUDIO:
            continue
        found.append(name)
    return [name for name, _ in groupby(found)]


def recorded(name):
    file = RECORDINGS / f"google.{name}.jsonl"
    if not file.is_file():
        pytest.skip("the recordings of the real services are not here")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    return [line["s"] for line in lines if "s" in line], [
        line["c"] for line in lines if "c" in line
    ]


@pytest.mark.parametrize("name", EXPECTED)
def test_recordings_match_the_expectations(name):
    assert steps(recorded(name)[0]) == EXPECTED[name]


@asynccontextmanager
async def begun(sim, model=LIVE_25, *, path="", **fields):
    headers = {"Authorization": f"Bearer {sim.key}"} if path else None
    async with raw(sim, path, headers) as client:
        client.messages = []
        receive = PlainClient.receive

        async def receive_and_keep():
            client.messages.append(await receive(client))
            return client.messages[-1]

        client.receive = receive_and_keep
        await client.send(setup(model, **{**TRANSCRIBED, **fields}))
        await client.until("setupComplete")
        yield client


def written(text, **more):
    turns = [{"role": "user", "parts": [{"text": text}]}]
    return {"clientContent": {"turns": turns, "turnComplete": True, **more}}


WEATHER = [{"functionDeclarations": [{"name": "weather"}]}]
CALLING = Reply(tools=(ToolUse("weather", {"city": "Paris"}),))


def result(call):
    response = {"id": call["id"], "name": call["name"], "response": {"output": "20"}}
    return {"toolResponse": {"functionResponses": [response]}}


@virtual_time
async def test_written_turn_is_replied_to_as_recorded():
    async with GeminiSimulator(replies=[Reply("Hello there.", 1.5)] * 2) as sim:
        async with begun(sim) as client:
            await client.send(written("Say a greeting."))
            done = await client.until("serverContent.turnComplete")
            assert steps(client.messages) == EXPECTED["text_in_audio_out_turn"]
            assert done["usageMetadata"]["thoughtsTokenCount"] > 0
        without = {"generationConfig": {"thinkingConfig": {"includeThoughts": False}}}
        async with begun(sim, **without) as client:
            await client.send(written("Say a greeting."))
            done = await client.until("serverContent.turnComplete")
            assert steps(client.messages) == ["setupComplete", *SPOKEN]
            assert "thoughtsTokenCount" not in done["usageMetadata"]


@virtual_time
async def test_spoken_turn_is_replied_to_as_recorded():
    question = "Hello, my name is Marcelo."
    replies = [Reply("Hello, Marcelo.", 0.5)]
    async with (
        GeminiSimulator(replies=replies, transcripts=[question]) as sim,
        begun(sim) as client,
    ):
        for samples in (tone(0.5), silence(0.8)):
            await client.send(audio_message(samples))
        await client.until("serverContent.turnComplete")
        assert steps(client.messages) == EXPECTED["audio_in_server_vad_turn"]
        pieces = [
            message["serverContent"]["inputTranscription"]["text"]
            for message in client.messages
            if "inputTranscription" in message.get("serverContent", {})
        ]
        # As recorded, every piece begins with a space, including the first.
        assert "".join(pieces) == f" {question}"


@virtual_time
async def test_function_result_at_once_continues_the_turn_as_recorded():
    async with (
        GeminiSimulator(replies=[CALLING, Reply("It is 20 degrees.", 0.5)]) as sim,
        begun(sim, tools=WEATHER) as client,
    ):
        await client.send(written("How warm is it?"))
        (call,) = (await client.until("toolCall"))["toolCall"]["functionCalls"]
        await client.send(result(call))
        done = await client.until("serverContent.turnComplete")
        assert steps(client.messages) == EXPECTED["tool_call_round"]
        made = {one["modality"] for one in done["usageMetadata"]["responseTokensDetails"]}
        assert made == {"TEXT", "AUDIO"}


@virtual_time
async def test_turn_with_calls_ends_for_a_client_that_waits_for_its_end():
    replies = [CALLING, Reply("It is 20 degrees.", 0.5), Reply("Well.", 0.5)]
    async with GeminiSimulator(replies=replies) as sim, begun(sim, tools=WEATHER) as client:
        await client.send(written("How warm is it?"))
        (call,) = (await client.until("toolCall"))["toolCall"]["functionCalls"]
        await client.until("serverContent.turnComplete")
        await client.send(result(call))
        await client.until("serverContent.turnComplete")
        assert steps(client.messages) == ["setupComplete", "toolCall", *ENDED, *THINKING]
        await client.send(written("Thank you."))
        await client.until("serverContent.turnComplete")


@virtual_time
async def test_speech_cancels_a_function_whose_turn_is_complete():
    replies = [CALLING, Reply("Yes?", 0.5)]
    async with GeminiSimulator(replies=replies) as sim, begun(sim, tools=WEATHER) as client:
        await client.send(written("How warm is it?"))
        (call,) = (await client.until("toolCall"))["toolCall"]["functionCalls"]
        await client.until("serverContent.turnComplete")
        for samples in (tone(0.5), silence(0.8)):
            await client.send(audio_message(samples))
        cancelled = await client.until("toolCallCancellation")
        assert cancelled == {"toolCallCancellation": {"ids": [call["id"]]}}
        await client.until("serverContent.turnComplete")
        assert client.messages[-1]["serverContent"]["turnComplete"] is True


@virtual_time
async def test_messages_of_vertex_are_as_recorded():
    replies = [CALLING, Reply("It is 20 degrees now.", 3.0)]
    model = "gemini-live-2.5-flash-native-audio"
    async with (
        GeminiSimulator(replies=replies) as sim,
        begun(sim, model, path=VERTEX, tools=WEATHER) as client,
    ):
        await client.send(written("How warm is it?"))
        (call,) = (await client.until("toolCall"))["toolCall"]["functionCalls"]
        # The turn completes at once.
        began = asyncio.get_running_loop().time()
        first = await client.until("serverContent.turnComplete")
        assert asyncio.get_running_loop().time() - began < 0.1
        await client.send(result(call))
        second = await client.until("serverContent.turnComplete")
        for done in (first, second):
            assert done["serverContent"] == {"turnComplete": True, "groundingMetadata": {}}
            assert set(done["usageMetadata"]) - {"thoughtsTokenCount"} == {
                "promptTokenCount",
                "candidatesTokenCount",
                "totalTokenCount",
                "promptTokensDetails",
                "candidatesTokensDetails",
            }
        contents = [message.get("serverContent", {}) for message in client.messages]
        transcripts = [
            one["outputTranscription"] for one in contents if "outputTranscription" in one
        ]
        assert (transcripts[0], transcripts[-1]) == ({}, {"finished": True})
        assert "".join(one.get("text", "") for one in transcripts) == "It is 20 degrees now."
        kinds = [next(iter(one), "") for one in contents]
        spoken = [
            n for n, one in enumerate(contents) if "inlineData" in str(one.get("modelTurn", ""))
        ]
        # The whole transcript comes before the audio.
        assert kinds.index("outputTranscription") < spoken[0]
        with_text = [n for n, one in enumerate(contents) if '"text"' in json.dumps(one)]
        assert max(with_text) < spoken[0]
        mimes = {contents[n]["modelTurn"]["parts"][0]["inlineData"]["mimeType"] for n in spoken}
        assert mimes == {"audio/pcm"}


@virtual_time
async def test_gemini_3_1_replies_to_client_content():
    replies = [Reply("Hello there.", 0.4)] * 2
    async with GeminiSimulator(replies=replies) as sim, begun(sim, LIVE_31) as client:
        await client.send(written("Say a greeting."))
        done = await client.until("serverContent.turnComplete")
        usage = done["usageMetadata"]
        # Its totals are larger than the sums by modality.
        for side in ("prompt", "response"):
            parts = sum(part["tokenCount"] for part in usage[f"{side}TokensDetails"])
            assert usage[f"{side}TokenCount"] > parts
        # LiveKit does so in mid-session: notes that are not a turn, then one that is.
        note = {"turns": [{"role": "model", "parts": [{"text": "Be kind."}]}]}
        await client.send({"clientContent": {**note, "turnComplete": False}})
        await client.send(written("And another."))
        await client.until("serverContent.turnComplete")


@pytest.mark.parametrize("name", EXPECTED)
def test_simulator_accepts_what_the_recorded_client_sent(name):
    messages = recorded(name)[1]

    @virtual_time
    async def run():
        async with (
            GeminiSimulator(replies=[Reply("Yes.", 0.2)] * 3) as sim,
            raw(sim) as client,
        ):
            for message in messages:
                if "tool_response" in message or "realtime_input" in message:
                    continue  # Nothing was called, and the recording has truncated audio.
                await client.send(message)
                if "setup" in message:
                    await client.until("setupComplete")
                elif message.get("client_content", {}).get("turnComplete"):
                    await client.until("serverContent.turnComplete")
            assert not sim.sessions[0].closed

    run()
