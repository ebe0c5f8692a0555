"""Other people's servers: what they send, and want, that the services of the providers do not."""

import asyncio
import json

import pytest

pytest.importorskip("websockets", reason="the openai extra is not installed")
pytest.importorskip("google.genai", reason="google-genai is not installed")

from codec_harness import ITEM, Line
from gemini_codec_harness import Harness as GeminiHarness
from qwen_codec_harness import QwenLine
from websockets.asyncio.server import serve

from duologue.events import USAGE_PARTS, AgentTurnStartedEvent, UsageEvent
from duologue.items import AgentItem, ToolCallItem, ToolResultItem, UserItem
from duologue.providers import openai
from duologue.providers._openai_protocol.errors import http_error as openai_error
from duologue.providers._openai_protocol.event_socket import CONFIRM_TIMEOUT_S
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


# A session that nobody confirms


def test_a_session_that_is_not_confirmed_begins_as_it_was_asked_for():
    line = Line(live=False, now=lambda: 1000.0)
    created = {"id": "s", "expires_at": 2000, "turn_detection": None}
    assert line.get("session.created", session=created) == []
    (started,) = line.get("duologue.session.unconfirmed")
    assert (started.expires_in, started.confirms_updates) == (1000.0, False)
    assert started.config["id"] == "s"
    # It answers turns, as the session that was asked for says.
    (ended,) = line.get("input_audio_buffer.committed", item_id="u")
    assert ended.reply_follows
    assert line.get("duologue.session.unconfirmed") == []
    assert line.get("session.updated", session={}) == [Alive()]


def test_a_server_that_confirms_no_session_is_joined_after_a_grace():
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
                # The one response that comes is the one that was asked for, though it has no name.
                assert model.pending
                assert not events_of(agent, AgentTurnStartedEvent)

    run_virtual(main(), grace=0.0)


def test_a_request_is_known_by_its_order_where_names_do_not_come_back():
    line = Line()
    line.send(RequestReply("x"))
    assert line.get("response.created", response={"id": "r"}) == [ReplyStarted("r", "x")]
    line.done(reply="r")
    line.get("input_audio_buffer.committed", item_id="u")
    assert line.get("response.created", response={"id": "s"}) == [ReplyStarted("s")]
    line.done(reply="s")
    line.send(RequestReply("y"))
    named = {"id": "t", "metadata": {"request_id": "y"}}
    assert line.get("response.created", response=named) == [ReplyStarted("t", "y")]
    line.done(reply="t")
    # It gives names back, so one without a name is nobody's.
    line.send(RequestReply("z"))
    assert line.get("response.created", response={"id": "u"}) == [ReplyStarted("u")]


# Events


def test_events_of_one_id_are_all_taken_and_one_that_comes_twice_is_taken_once():
    line = Line()
    line.began(item=None)
    delta = {"response_id": "resp", "item_id": ITEM, "event_id": "event_1"}
    name = "response.output_audio_transcript.delta"
    assert line.get(name, delta="Hel", **delta) == [ReplyText("resp", ITEM, "Hel")]
    assert line.get(name, delta="Hel", **delta) == []
    assert line.get(name, delta="lo", **delta) == [ReplyText("resp", ITEM, "lo")]
    # The ids say nothing: this is no repetition.
    assert line.get(name, delta="lo", **delta) == [ReplyText("resp", ITEM, "lo")]


@pytest.mark.parametrize(
    "event", [{}, {"response": None}, {"response": {}}, {"response_id": "resp"}]
)
def test_the_end_of_a_response_without_the_response_ends_the_one_that_is_made(event):
    line = Line()
    line.began()
    assert line.get("response.done", **event) == [ReplyDone("resp")]
    assert line.get("response.done", **event) == []
    assert line.codec.malformed == 0


def test_of_two_responses_such_an_end_ends_none():
    line = Line()
    line.began("a", item=None)
    line.began("b", item=None)
    assert line.get("response.done") == []
    assert line.get("response.done", response_id="b") == [ReplyDone("b")]
    assert line.get("response.done") == [ReplyDone("a")]


# Calls of tools


def test_long_ids_of_calls_are_replayed_as_shorter_ones():
    history = [
        ToolCallItem("t" * 40, LONG_ID, "look", "{}"),
        ToolResultItem("r" * 40, LONG_ID, "42"),
        ToolCallItem("u", LONG_ID + "2", "wait", "{}"),
    ]
    line = Line(history=history)
    call, result, other = [event["item"] for event in line.opening[1:]]
    assert len(call["call_id"]) <= 32
    assert call["call_id"] == result["call_id"] != other["call_id"]
    (event,) = line.send(SendToolResult(LONG_ID + "2", "wait", "done"))
    assert event["item"]["call_id"] == other["call_id"]
    # Of a call that the server has made itself it knows the id.
    (event,) = line.send(SendToolResult(LONG_ID + "3", "wait", "done"))
    assert event["item"]["call_id"] == LONG_ID + "3"


ORPHANS = [
    UserItem("u", "Hello."),
    ToolResultItem("r", "gone", "lost"),
    AgentItem("a", "Hi."),
]


def test_results_of_unknown_calls_are_replayed_to_nobody():
    line = Line(history=ORPHANS)
    assert [event["item"]["type"] for event in line.opening[1:]] == ["message", "message"]
    assert line.send(AddItem(ORPHANS[1])) == []
    qwen = QwenLine(history=ORPHANS)
    assert "lost" not in json.dumps(qwen.opening)
    gemini = GeminiHarness(history=ORPHANS)
    assert "lost" not in json.dumps(gemini.pending())
    assert "lost" not in json.dumps(chat_messages("", ORPHANS))


def test_a_call_of_gemini_in_its_turn_is_a_call():
    line = GeminiHarness()
    call = {"id": "c", "name": "look", "args": {"at": 1}}
    content = {"modelTurn": {"parts": [{"text": "Let me see."}, {"functionCall": call}]}}
    outputs = line.receive(serverContent=content)
    assert [type(one) for one in outputs] == [ReplyStarted, ToolCall, ReplyDone]
    assert outputs[1] == ToolCall(outputs[0].reply_id, "c", "look", '{"at":1}')
    assert line.receive(toolCall={"functionCalls": [call]}) == []


def test_thoughts_of_gemini_are_neither_words_nor_sound():
    line = GeminiHarness()
    sound = {"mimeType": "audio/pcm;rate=24000", "data": "AAAAAA=="}
    parts = [
        {"text": "**Greeting**", "thought": True},
        {"inlineData": sound, "thought": True},
    ]
    assert line.receive(serverContent={"modelTurn": {"parts": parts}}) == []
    parts.append({"inlineData": sound})
    outputs = line.receive(serverContent={"modelTurn": {"parts": parts}})
    assert [type(one) for one in outputs] == [ReplyStarted, ReplyAudio]


# What it cost


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
def test_all_tokens_of_gemini_are_counted(usage, told):
    assert parse_usage(usage) == (told,)


def test_all_tokens_of_the_protocol_are_counted_and_parts_are_no_more_of_them():
    line = Line()
    line.began(item=None)
    usage = {
        "input_tokens": 50,
        "input_token_details": {"text_tokens": 10, "audio_tokens": 30, "cached_tokens": 20},
        "output_tokens": 33,
        "output_token_details": {"text_tokens": 8, "audio_tokens": 20, "reasoning_tokens": 4},
    }
    (told, _) = line.done(usage=usage)
    assert told == Usage(
        {"text": 10, "audio": 30, "cached": 20, "other": 10},
        {"text": 8, "audio": 20, "reasoning": 4, "other": 5},
    )
    event = UsageEvent(told.input, told.output)
    assert (event.total_input, event.total_output) == (50, 33)
    assert {"cached", "reasoning"} == USAGE_PARTS
    line.began("b", item=None)
    (told, _) = line.done(reply="b", usage={"input_tokens": 5, "output_tokens": 6})
    assert told == Usage({"tokens": 5}, {"tokens": 6})


# JSON that is nested deep


def nested(levels):
    return '{"a":' * levels + "1" + "}" * levels


@pytest.mark.parametrize("levels", [300, 900, 1100, 100_000])
def test_json_that_is_nested_deep_ends_no_codec(levels):
    deep = nested(levels)
    head = '{"toolCall":{"functionCalls":[{"id":"c","name":"look","args":'
    message = f"{head}{deep}}}]}}}}"
    line = GeminiHarness()
    # Arguments that can't be written again are a call all the same: whoever runs it refuses it.
    calls = [one for one in line.codec.decode(message.encode()) if isinstance(one, ToolCall)]
    assert [one.arguments for one in calls] == (["nested too deep"] if levels < 1000 else [])
    line = Line(live=False)
    started = line.codec.decode(b'{"type":"session.updated","session":%b}' % deep.encode())
    assert list(started) == ([SessionStarted()] if levels < 1000 else [])
    call = {"type": "function_call", "id": "i", "name": "look", "call_id": "c", "arguments": deep}
    line = Line()
    line.began(item=None)
    assert line.done(output=[call])[0] == ToolCall("resp", "c", "look", deep)


@pytest.mark.parametrize("levels", [300, 900, 100_000])
def test_results_that_are_nested_deep_are_told_as_text(levels):
    deep = nested(levels)
    line = GeminiHarness()
    (message,) = line.send(SendToolResult("c", "look", deep))
    (told,) = message["toolResponse"]["functionResponses"]
    assert told["response"] == {"output": deep}
    history = [ToolCallItem("t", "c", "look", deep), ToolResultItem("r", "c", deep)]
    line = GeminiHarness(history=history)
    (seed,) = line.pending()
    parts = [part for turn in seed["clientContent"]["turns"] for part in turn["parts"]]
    assert parts[0]["functionCall"]["args"] == {}
    assert parts[1]["functionResponse"]["response"] == {"output": deep}
    # Nova takes text, which an object is already.
    told = as_json(deep, failed=False)
    assert told == (deep if levels < 1000 else json.dumps({"result": deep}))
    body = deep.encode()
    for error in (nova_error(500, "", body), openai_error(500, body), qwen_error(500, body)):
        assert "HTTP 500" in str(error)


def test_an_item_may_be_put_before_the_first_of_others_that_is_known():
    line = Line(history=[UserItem("u", "Hello."), AgentItem("a", "Hi.")])
    question = UserItem("q", "Who are you?")
    (event,) = line.bare(AddItem(question, before=("b", "a")))
    assert event["previous_item_id"] == "u"
    (event,) = line.bare(AddItem(UserItem("first", "Hm."), before=("u",)))
    assert event["previous_item_id"] == "root"
    (event,) = line.bare(AddItem(UserItem("last", "Well."), before=("gone",)))
    assert "previous_item_id" not in event
    (_, event) = line.bare(AddItem(AgentItem("a", "Hi there.")))
    assert event["previous_item_id"] == "q"
