"""Codecs with servers that deviate from the services of the providers."""

import asyncio
import json

import pytest

pytest.importorskip("websockets", reason="the openai extra is not installed")
pytest.importorskip("google.genai", reason="google-genai is not installed")

from codec_harness import ITEM, CodecHarness
from gemini_codec_harness import Harness as GeminiHarness
from qwen_codec_harness import QwenCodecHarness
from websockets.asyncio.server import serve

from duologue.events import USAGE_PARTS, AgentTurnStartedEvent, UsageEvent
from duologue.items import AgentItem, ToolCallItem, ToolResultItem, UserItem
from duologue.providers import openai
from duologue.providers._openai_protocol.errors import http_error as openai_error
from duologue.providers._openai_protocol.websocket import CONFIRM_TIMEOUT_S
from duologue.providers.aws._codec import _result_json as as_json
from duologue.providers.aws._errors import http_error as nova_error
from duologue.providers.gemini._usage import parse_usage
from duologue.providers.openai._chat_messages import chat_messages
from duologue.providers.qwen._errors import http_error as qwen_error
from duologue.realtime.commands import AddItem, RequestReply, SendToolResult
from duologue.realtime.outputs import (
    Alive,
    ReplyAudio,
    ReplyDone,
    ReplyStarted,
    ReplyText,
    SessionStarted,
    ToolCall,
    Usage,
)
from duologue.testing import run_virtual
from fake_edge import FakeEdge, events_of, join_agent

LONG_ID = "call_3f1c0a52-8f7e-4a7c-9a3e-0d5a6b7c8d9e"


# Unconfirmed sessions


def test_unconfirmed_session_starts_as_configured():
    harness = CodecHarness(confirmed=False, now=lambda: 1000.0)
    created = {"id": "s", "expires_at": 2000, "turn_detection": None}
    assert harness.receive("session.created", session=created) == []
    (started,) = harness.receive("duologue.session.unconfirmed")
    assert (started.expires_in, started.confirms_updates) == (1000.0, False)
    assert started.config["id"] == "s"
    # The server replies to turns, as configured.
    (ended,) = harness.receive("input_audio_buffer.committed", item_id="u")
    assert ended.reply_follows
    assert harness.receive("duologue.session.unconfirmed") == []
    assert harness.receive("session.updated", session={}) == [Alive()]


def test_server_that_never_confirms_the_session_is_joined_after_a_timeout():
    async def answer(connection):
        created = {"type": "session.created", "session": {"id": "s"}}
        await connection.send(json.dumps(created))
        async for message in connection:
            event = json.loads(message)
            if event["type"] == "response.create":
                made = {"id": "r", "metadata": None}
                await connection.send(json.dumps({"type": "response.created", "response": made}))

    async def main():
        async with serve(answer, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            url = f"http://127.0.0.1:{port}/v1"
            model = openai.Realtime(transport="websocket", base_url=url, api_key="k")
            loop = asyncio.get_running_loop()
            began = loop.time()
            async with join_agent(model, FakeEdge()) as agent:
                assert loop.time() - began == pytest.approx(CONFIRM_TIMEOUT_S, abs=0.1)
                agent.simple_response("Hello.")
                await asyncio.sleep(0.5)
                # The only response belongs to the request, although it does not name it.
                assert model.pending
                assert not events_of(agent, AgentTurnStartedEvent)

    run_virtual(main(), grace=0.0)


def test_request_is_matched_by_order_when_ids_are_not_echoed():
    harness = CodecHarness()
    harness.send(RequestReply("x"))
    assert harness.receive("response.created", response={"id": "r"}) == [ReplyStarted("r", "x")]
    harness.finish_reply(reply="r")
    harness.receive("input_audio_buffer.committed", item_id="u")
    assert harness.receive("response.created", response={"id": "s"}) == [ReplyStarted("s")]
    harness.finish_reply(reply="s")
    harness.send(RequestReply("y"))
    named = {"id": "t", "metadata": {"request_id": "y"}}
    assert harness.receive("response.created", response=named) == [ReplyStarted("t", "y")]
    harness.finish_reply(reply="t")
    # The server echoes ids, so a response without one answers no request.
    harness.send(RequestReply("z"))
    assert harness.receive("response.created", response={"id": "u"}) == [ReplyStarted("u")]


# Events


def test_events_sharing_an_id_are_all_decoded_but_duplicates_once():
    harness = CodecHarness()
    harness.start_reply(item=None)
    delta = {"response_id": "resp", "item_id": ITEM, "event_id": "event_1"}
    name = "response.output_audio_transcript.delta"
    assert harness.receive(name, delta="Hel", **delta) == [ReplyText("resp", ITEM, "Hel")]
    assert harness.receive(name, delta="Hel", **delta) == []
    assert harness.receive(name, delta="lo", **delta) == [ReplyText("resp", ITEM, "lo")]
    # The ids are not unique, so this is no duplicate.
    assert harness.receive(name, delta="lo", **delta) == [ReplyText("resp", ITEM, "lo")]


@pytest.mark.parametrize(
    "event", [{}, {"response": None}, {"response": {}}, {"response_id": "resp"}]
)
def test_response_done_without_a_response_ends_the_only_active_one(event):
    harness = CodecHarness()
    harness.start_reply()
    assert harness.receive("response.done", **event) == [ReplyDone("resp")]
    assert harness.receive("response.done", **event) == []
    assert harness.codec.malformed == 0


def test_response_done_without_a_response_ends_neither_of_two():
    harness = CodecHarness()
    harness.start_reply("a", item=None)
    harness.start_reply("b", item=None)
    assert harness.receive("response.done") == []
    assert harness.receive("response.done", response_id="b") == [ReplyDone("b")]
    assert harness.receive("response.done") == [ReplyDone("a")]


# Tool calls


def test_long_call_ids_are_shortened_in_replayed_history():
    history = [
        ToolCallItem("t" * 40, LONG_ID, "look", "{}"),
        ToolResultItem("r" * 40, LONG_ID, "42"),
        ToolCallItem("u", LONG_ID + "2", "wait", "{}"),
    ]
    harness = CodecHarness(history=history)
    call, result, other = [event["item"] for event in harness.opening[1:]]
    assert len(call["call_id"]) <= 32
    assert call["call_id"] == result["call_id"] != other["call_id"]
    (event,) = harness.send(SendToolResult(LONG_ID + "2", "wait", "done"))
    assert event["item"]["call_id"] == other["call_id"]
    # The server knows the id of a call that it made itself.
    (event,) = harness.send(SendToolResult(LONG_ID + "3", "wait", "done"))
    assert event["item"]["call_id"] == LONG_ID + "3"


ORPHANS = [
    UserItem("u", "Hello."),
    ToolResultItem("r", "gone", "lost"),
    AgentItem("a", "Hi."),
]


def test_results_of_unknown_calls_are_not_replayed():
    harness = CodecHarness(history=ORPHANS)
    assert [event["item"]["type"] for event in harness.opening[1:]] == ["message", "message"]
    assert harness.send(AddItem(ORPHANS[1])) == []
    qwen = QwenCodecHarness(history=ORPHANS)
    assert "lost" not in json.dumps(qwen.opening)
    gemini = GeminiHarness(history=ORPHANS)
    assert "lost" not in json.dumps(gemini.pending())
    assert "lost" not in json.dumps(chat_messages("", ORPHANS))


def test_gemini_tool_call_within_its_turn_is_reported():
    harness = GeminiHarness()
    call = {"id": "c", "name": "look", "args": {"at": 1}}
    content = {"modelTurn": {"parts": [{"text": "Let me see."}, {"functionCall": call}]}}
    outputs = harness.receive(serverContent=content)
    assert [type(one) for one in outputs] == [ReplyStarted, ToolCall, ReplyDone]
    assert outputs[1] == ToolCall(outputs[0].reply_id, "c", "look", '{"at":1}')
    assert harness.receive(toolCall={"functionCalls": [call]}) == []


def test_gemini_thoughts_are_neither_text_nor_audio():
    harness = GeminiHarness()
    audio = {"mimeType": "audio/pcm;rate=24000", "data": "AAAAAA=="}
    parts = [
        {"text": "**Greeting**", "thought": True},
        {"inlineData": audio, "thought": True},
    ]
    assert harness.receive(serverContent={"modelTurn": {"parts": parts}}) == []
    parts.append({"inlineData": audio})
    outputs = harness.receive(serverContent={"modelTurn": {"parts": parts}})
    assert [type(one) for one in outputs] == [ReplyStarted, ReplyAudio]


# Usage


@pytest.mark.parametrize(
    ("usage", "told"),
    [
        (
            {
                "promptTokenCount": 100,
                "candidatesTokenCount": 50,
                "totalTokenCount": 150,
                "promptTokensDetails": [{"modality": "AUDIO", "tokenCount": 100}],
                "candidatesTokensDetails": [{"modality": "AUDIO", "tokenCount": 50}],
            },
            Usage({"audio": 100}, {"audio": 50}),
        ),
        (
            {"promptTokenCount": 100, "candidatesTokenCount": 50},
            Usage({"tokens": 100}, {"tokens": 50}),
        ),
        (
            {
                "promptTokenCount": 125,
                "responseTokenCount": 60,
                "promptTokensDetails": [{"modality": "AUDIO", "tokenCount": 100}],
                "responseTokensDetails": [{"modality": "AUDIO", "tokenCount": 50}],
                "cachedContentTokenCount": 80,
                "thoughtsTokenCount": 7,
                "toolUsePromptTokenCount": 5,
            },
            Usage(
                {"audio": 100, "other": 25, "tool_use": 5, "cached": 80},
                {"audio": 50, "other": 10, "thoughts": 7},
            ),
        ),
        ({"promptTokenCount": 100, "totalTokenCount": 130}, Usage({"tokens": 100}, {"tokens": 30})),
    ],
)
def test_all_gemini_tokens_are_counted(usage, told):
    assert parse_usage(usage) == (told,)


def test_all_openai_protocol_tokens_are_counted_once():
    harness = CodecHarness()
    harness.start_reply(item=None)
    usage = {
        "input_tokens": 50,
        "input_token_details": {"text_tokens": 10, "audio_tokens": 30, "cached_tokens": 20},
        "output_tokens": 33,
        "output_token_details": {"text_tokens": 8, "audio_tokens": 20, "reasoning_tokens": 4},
    }
    (told, _) = harness.finish_reply(usage=usage)
    assert told == Usage(
        {"text": 10, "audio": 30, "cached": 20, "other": 10},
        {"text": 8, "audio": 20, "reasoning": 4, "other": 5},
    )
    event = UsageEvent(told.input, told.output)
    assert (event.total_input, event.total_output) == (50, 33)
    assert {"cached", "reasoning"} == USAGE_PARTS
    harness.start_reply("b", item=None)
    (told, _) = harness.finish_reply(reply="b", usage={"input_tokens": 5, "output_tokens": 6})
    assert told == Usage({"tokens": 5}, {"tokens": 6})


# Deeply nested JSON


def nested(levels):
    return '{"a":' * levels + "1" + "}" * levels


@pytest.mark.parametrize("levels", [300, 900, 1100, 100_000])
def test_deeply_nested_json_does_not_break_a_codec(levels):
    deep = nested(levels)
    head = '{"toolCall":{"functionCalls":[{"id":"c","name":"look","args":'
    message = f"{head}{deep}}}]}}}}"
    harness = GeminiHarness()
    # Arguments that can't be encoded again are still a call, which the tool runner refuses.
    calls = [one for one in harness.codec.decode(message.encode()) if isinstance(one, ToolCall)]
    assert [one.arguments for one in calls] == (["nested too deep"] if levels < 1000 else [])
    harness = CodecHarness(confirmed=False)
    started = harness.codec.decode(b'{"type":"session.updated","session":%b}' % deep.encode())
    assert list(started) == ([SessionStarted()] if levels < 1000 else [])
    call = {"type": "function_call", "id": "i", "name": "look", "call_id": "c", "arguments": deep}
    harness = CodecHarness()
    harness.start_reply(item=None)
    assert harness.finish_reply(output=[call])[0] == ToolCall("resp", "c", "look", deep)


@pytest.mark.parametrize("levels", [300, 900, 100_000])
def test_deeply_nested_results_are_sent_as_text(levels):
    deep = nested(levels)
    harness = GeminiHarness()
    (message,) = harness.send(SendToolResult("c", "look", deep))
    (told,) = message["toolResponse"]["functionResponses"]
    assert told["response"] == {"output": deep}
    history = [ToolCallItem("t", "c", "look", deep), ToolResultItem("r", "c", deep)]
    harness = GeminiHarness(history=history)
    (seed,) = harness.pending()
    parts = [part for turn in seed["clientContent"]["turns"] for part in turn["parts"]]
    assert parts[0]["functionCall"]["args"] == {}
    assert parts[1]["functionResponse"]["response"] == {"output": deep}
    # Nova expects text, and an object is encoded as text already.
    told = as_json(deep, failed=False)
    assert told == (deep if levels < 1000 else json.dumps({"result": deep}))
    body = deep.encode()
    for error in (nova_error(500, "", body), openai_error(500, body), qwen_error(500, body)):
        assert "HTTP 500" in str(error)


def test_item_can_be_inserted_before_the_first_known_item():
    harness = CodecHarness(history=[UserItem("u", "Hello."), AgentItem("a", "Hi.")])
    question = UserItem("q", "Who are you?")
    (event,) = harness.send_without_ids(AddItem(question, before=("b", "a")))
    assert event["previous_item_id"] == "u"
    (event,) = harness.send_without_ids(AddItem(UserItem("first", "Hm."), before=("u",)))
    assert event["previous_item_id"] == "root"
    (event,) = harness.send_without_ids(AddItem(UserItem("last", "Well."), before=("gone",)))
    assert "previous_item_id" not in event
    (_, event) = harness.send_without_ids(AddItem(AgentItem("a", "Hi there.")))
    assert event["previous_item_id"] == "q"
